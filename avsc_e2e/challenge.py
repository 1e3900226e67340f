"""A trained and evaluated run as a system of the challenge: its output for the evaluation set, and its description."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from avsc_e2e import processes
from avsc_e2e.clip import MODALITIES
from avsc_e2e.data.sets.corpus import read_evaluation_set
from avsc_e2e.data.store.layout import is_store
from avsc_e2e.data.store.reader import open_store
from avsc_e2e.errors import AvscError
from avsc_e2e.evaluation import REFERENCE, SEGMENTS, predict_part, trained_model
from avsc_e2e.inference import stored_calibration
from avsc_e2e.models.weights.checkpoint import load_model, read_notes
from avsc_e2e.models.weights.sources import chosen
from avsc_e2e.outputs.metrics import score
from avsc_e2e.outputs.output import read_output, to_clips, write_output
from avsc_e2e.outputs.reference import read_reference, targets_of
from avsc_e2e.submission.entry import Complexity, ExternalDataset, System, describe
from avsc_e2e.training.recipe import Recipe
from avsc_e2e.training.run import corpus_of, model_file, run_folder, store_of

PLACES = 365
"""Classes that tell a stage on Places365."""
OF_TIMM = {
    "jft": "JFT-300M", "laion2b": "LAION-2B", "openai": "CLIP's pairs of images and texts", "in21k": "ImageNet-21k",
    "in22k": "ImageNet-21k", "in12k": "ImageNet-12k", "in1k": "ImageNet",
}  # fmt: skip
"""What the tags of timm's weights mean."""


def predict_evaluation_set(recipe: Recipe, *, progress: Callable[[int, int], None] | None = None) -> Path:
    """Predict the evaluation set, or the test set where the recipe names none, and write the challenge's output file
    as submission.output.csv into the run's folder. Raises AvscError."""
    model = trained_model(recipe)
    data = recipe.data
    if data.evaluation:
        rows = read_evaluation_set(data.evaluation, modalities=recipe.model.modalities)
        store = open_store(data.evaluation) if is_store(data.evaluation) else None
    else:
        rows, store = corpus_of(recipe).test, store_of(recipe)
    calibration = stored_calibration(model_file(recipe))
    outputs = predict_part(recipe, model, rows, store, calibration=calibration, progress=progress)
    clips = to_clips(outputs["decision"])
    path = run_folder(recipe) / "submission.output.csv"
    if processes.rank():  # the first process writes for all
        return path
    write_output(path, dataclasses.replace(clips, files=tuple(f"{file}.wav" for file in clips.files)))
    return path


def system_of_run(folder: Path, name: str = "") -> System:
    """A system for the challenge from a run's folder, after `evaluate` and `submit`: its output, facts from its
    checkpoint, and its scores on the test set. Raises AvscError if one of them is missing."""
    for file, verb in ((SEGMENTS, "evaluate"), (REFERENCE, "evaluate"), ("submission.output.csv", "submit")):
        if not (folder / file).is_file():
            raise AvscError(f"{folder / file}: is not there; run `{verb}` of the stage first")
    model = load_model(folder / "model.safetensors")
    recipe = json.loads(read_notes(folder / "model.safetensors").get("recipe", "{}"))
    architecture, name = model.architecture, name or recipe.get("name", folder.name)
    segments = read_output(folder / SEGMENTS, architecture.classes)
    targets = targets_of(segments, read_reference(folder / REFERENCE))
    parameters = {part: sum(p.numel() for p in module.parameters()) for part, module in model.named_children()}
    learned = external_data(recipe)
    return System(
        name=name,
        abbreviation=architecture.name[:10],
        output=read_output(folder / "submission.output.csv", architecture.classes),
        scores=score(segments.probabilities, targets, segments.classes, "1 s segments"),
        complexity=Complexity(sum(parameters.values()), parameters.get("audio", 0), parameters.get("video", 0)),
        description=describe(architecture, _augmentation(recipe), [data.name for data in learned]),
        external_datasets=learned,
    )


def external_data(recipe: Mapping) -> tuple[ExternalDataset, ...]:
    """The external data on which the trunks of a run, and of the stages before it, were pretrained."""
    found: dict[str, ExternalDataset] = {}
    for name in recipe.get("init", ()):
        file = Path(recipe["runs"]) / name / "model.safetensors"
        file = file if file.is_file() else Path(name)
        if file.is_file():
            before = json.loads(read_notes(file).get("recipe", "{}"))
            found |= {data.name: data for data in external_data(before)}
            if len(before.get("model", {}).get("classes", ())) == PLACES:
                found["Places365"] = ExternalDataset("Places365", "http://places2.csail.mit.edu")
    for modality in MODALITIES:
        trunk, file = recipe.get("model", {}).get(modality), recipe.get(f"{modality}_weights", "")
        source = chosen(trunk, file) if trunk and (file or recipe.get("pretrained")) else None
        if source:
            data = source.data
            if source.name == "timm":
                data = ", ".join(word for tag, word in OF_TIMM.items() if tag in data) or data
            found.setdefault(data, ExternalDataset(data, source.url))
        elif file:
            found.setdefault(file, ExternalDataset(f"those of {Path(file).name}"))
    return tuple(found.values())


def _augmentation(recipe: Mapping) -> list[str]:
    """The augmentation of a recipe, in the challenge's terms."""
    augment = recipe.get("augment", {})
    words = {
        ("crop", "smallest"): "random resized crop",
        ("flip", "probability"): "horizontal flip with channel swap",
        ("colour", "strength"): "color jitter",
        ("waveform", "gain"): "gain",
        ("waveform", "noise"): "noise",
        ("waveform", "shift"): "time shift",
        ("waveform", "pitch"): "pitch shift",
        ("spectrum", "bands"): "SpecAugment",
        ("mixup", "alpha"): "mixup",
        ("drop", "probability"): "modality dropout",
    }
    strengths = {key: augment.get(key[0], {}).get(key[1], 0) for key in words}
    strengths["crop", "smallest"] = 1 - (strengths["crop", "smallest"] or 1)
    modality = {"audio": ("waveform", "spectrum"), "video": ("crop", "flip", "colour")}
    absent = {part for name, parts in modality.items() if not recipe.get("model", {}).get(name) for part in parts}
    return [word for key, word in words.items() if strengths[key] > 0 and key[0] not in absent]
