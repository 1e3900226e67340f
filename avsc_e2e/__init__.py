"""End-to-end fine-tuning for audio-visual scene classification.

The names below are imported when first asked for, so that `import avsc_e2e` costs nothing.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_HOMES = {
    "SCENES": "clip",
    "Clip": "clip",
    "Corpus": "clip",
    "Row": "clip",
    "Segment": "clip",
    "AvscError": "errors",
    "MediaError": "errors",
    "read_corpus": "data.sets.corpus",
    "ClipDataset": "data.dataset",
    "Sampling": "data.dataset",
    "collate": "data.loader",
    "CentreCrop": "transforms.frames",
    "Architecture": "models.architecture",
    "create_model": "models.zoo.catalogue",
    "list_models": "models.zoo.catalogue",
    "load_model": "models.weights.checkpoint",
    "save_model": "models.weights.checkpoint",
    "SystemOutput": "outputs.output",
    "Recipe": "training.recipe",
    "predict": "prediction.predictor",
    "Prediction": "segments",
    "Predictor": "prediction.predictor",
    "Recording": "prediction.recordings",
    "SceneStream": "prediction.stream",
    "timeline": "prediction.predictor",
    "explain": "explanation.occlusion",
    "look": "survey.survey",
    "train": "training.trainer",
    "evaluate": "evaluation",
    "fit": "learner.fit",
    "Checkpoint": "hub.checkpoint",
    "SceneClassifier": "classifier",
    "rows_from": "tables",
    "rows_from_dataset": "tables",
    "to_pandas": "tables",
}
"""The module of each public name."""

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
