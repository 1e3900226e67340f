"""Runs of a few steps for each option of training, pinned by value: losses, rates and what is saved.

A change that moves a figure changes what users get from a recipe with that option: it has to be meant. `GOLDEN` is then
written anew by `PYTHONPATH=tests python tests/training/test_golden.py`, which prints it."""

import csv
import json
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import tiny_recipe

from avsc_e2e.data import dataset
from avsc_e2e.models.weights.checkpoint import load_model, read_notes
from avsc_e2e.models.zoo.own import tiny
from avsc_e2e.training.recipe import Averaging, Distil, Heads, Optim
from avsc_e2e.training.trainer import train
from avsc_e2e.transforms.augmentation import UNCHANGED
from avsc_e2e.transforms.batch import CutMix, DropModality, Mixup

MODEL = replace(tiny(), size=32, dropout=0.0, hidden=16)
OPTIM = Optim(lr=1e-2, audio_lr=1e-2, video_lr=1e-2)
DEFAULTS = {"model": MODEL, "optim": OPTIM, "augment": UNCHANGED, "heads": Heads(fit_decision=False), "epochs": 2}
BASELINE = {"head": "baseline", "decision": (1.0, 1.0, 1.0)}


def model(**changes) -> dict:
    return {"model": replace(MODEL, **changes)}


def optim(**changes) -> dict:
    return {"optim": replace(OPTIM, **changes)}


FAR = {**optim(lr=0.1, schedule="constant"), "init": ("default",)}
"""Steps so long that a mean of weights is far from the last ones."""

CASES = {
    "default": {},
    "gated": model(fusion="gated"),
    "bilinear": model(fusion="bilinear"),
    "cross_attention": model(fusion="cross_attention"),
    "bottleneck": model(fusion="bottleneck"),
    "product": model(fusion="product"),
    "recurrent": model(fusion="recurrent"),
    "sequence": model(fusion="sequence", audio="mn04"),
    "segments": model(fusion="segments"),
    "early": model(fusion="early", **BASELINE),
    "two_heads": model(fusion="two_heads", **BASELINE),
    "decisions alone": model(fusion=""),
    "adam": optim(optimiser="adam"),
    "sgd": optim(optimiser="sgd"),
    "constant": optim(schedule="constant"),
    "steps": optim(schedule="steps", every=1, factor=0.25),
    "plateau": {**optim(schedule="plateau", warmup=0.0, every=1), "epochs": 3},
    "restarts": optim(restarts=(1,), final=0.1),
    "clipped": optim(optimiser="sgd", clip=0.1),
    "accumulated": optim(accumulate=2),
    "layer decay": optim(layer_decay=0.5),
    "last layers": optim(layers=2),
    "unfreezing": optim(unfreeze=2),
    "frozen audio": optim(audio_lr=0.0),
    "weights of heads": {"heads": Heads(1.0, 0.1, 0.5, fit_decision=False)},
    "moving average": {"averaging": Averaging(decay=0.9), **FAR},
    "mean of checkpoints": {"averaging": Averaging(checkpoints=2), **FAR},
    "mixed with the start": {"averaging": Averaging(start=True), "init": ("default",)},
    "distilled": {"distil": Distil(("default",), 0.5, 3.0)},
    "smoothed": {"smoothing": 0.2},
    "mixup": {"augment": replace(UNCHANGED, mixup=Mixup(0.5))},
    "cutmix": {"augment": replace(UNCHANGED, cutmix=CutMix(1.0, 1.0))},
    "missing modalities": {"augment": replace(UNCHANGED, drop=DropModality(0.8))},
}

GOLDEN = {
    "default": (4.24345, 3.71372, 2.32841, 0.0075, 0, 0.0075, 0),
    "gated": (3.99912, 3.45121, 2.31406, 0.0075, 0, 0.0075, 0),
    "bilinear": (3.8919, 3.68998, 2.301, 0.0075, 0, 0.0075, 0),
    "cross_attention": (4.33545, 3.35828, 2.32281, 0.0075, 0, 0.0075, 0),
    "bottleneck": (4.2203, 3.66167, 2.33135, 0.0075, 0, 0.0075, 0),
    "product": (4.71021, 3.33246, 2.302, 0.0075, 0, 0.0075, 0),
    "recurrent": (3.93636, 3.54059, 2.30439, 0.0075, 0, 0.0075, 0),
    "sequence": (4.18196, 3.79961, 2.31706, 0.0075, 0, 0.0075, 0),
    "segments": (4.05966, 3.40399, 2.30396, 0.0075, 0, 0.0075, 0),
    "early": (3.82026, 3.96488, 2.27425, 0.0075, 0, 0.0075, 0),
    "two_heads": (5.46276, 7.35189, 2.42958, 0.0075, 0, 0.0075, 0),
    "decisions alone": (1.61223, 1.35365, 2.29994, 0.0075, 0, 0.0075, 0),
    "adam": (4.17362, 3.66785, 2.3185, 0.0075, 0, 0.0075, 0),
    "sgd": (4.25802, 3.95934, 2.31132, 0.0075, 0, 0.0075, 0),
    "constant": (4.24345, 3.6871, 2.32841, 0.01, 0.01, 0.01, 0.01),
    "steps": (4.24345, 3.70451, 2.32841, 0.0025, 0.000625, 0.0025, 0.000625),
    "plateau": (3.6871, 3.12069, 2.32841, 0.01, 0.005, 0.01, 0.005),
    "restarts": (4.24345, 3.6871, 2.32841, 0.01, 0.001, 0.01, 0.001),
    "clipped": (4.22911, 4.05615, 2.31349, 0.0075, 0, 0.0075, 0),
    "accumulated": (4.22808, 3.74934, 2.32607, 0.01, 0, 0.01, 0),
    "layer decay": (4.28293, 3.5615, 2.32881, 0.0075, 0, 0.0075, 0),
    "last layers": (4.06207, 3.29708, 2.40132, 0.0075, 0, 0.0075, 0),
    "unfreezing": (3.82755, 3.7039, 2.28893, 0.0075, 0, 0.0075, 0),
    "frozen audio": (4.06973, 3.47504, 2.31598, 0.0075, 0, 0.0075, 0),
    "weights of heads": (4.41766, 3.584, 2.32483, 0.0075, 0, 0.0075, 0),
    "moving average": (5.68607, 5.31625, 2.55554, 0.1, 0.1, 0.01, 0.01),
    "mean of checkpoints": (5.68607, 5.31625, 2.55497, 0.1, 0.1, 0.01, 0.01),
    "mixed with the start": (3.60409, 3.39219, 2.34269, 0.0075, 0, 0.0075, 0),
    "distilled": (18.7447, 18.4094, 2.29398, 0.0075, 0, 0.0075, 0),
    "smoothed": (4.15403, 3.67656, 2.31659, 0.0075, 0, 0.0075, 0),
    "mixup": (4.1589, 3.74189, 2.3893, 0.0075, 0, 0.0075, 0),
    "cutmix": (4.14176, 3.87043, 2.38094, 0.0075, 0, 0.0075, 0),
    "missing modalities": (3.95124, 4.16884, 2.32726, 0.0075, 0, 0.0075, 0),
}
"""Of each case the training loss of the last two epochs, the validation log loss of the model that is saved, and the
rates of the heads and of the video trunk at the end of both."""

DECISION = (0.33730, 0.34469, 0.31801, 0.70643)
"""Of the default: weights of audio, video and fusion, and sharpness."""


def figures(city: Path, runs: Path, name: str, **changes) -> tuple[float, ...]:
    plan = tiny_recipe(city, runs, name, **{**DEFAULTS, **(changes or CASES[name])})
    saved = train(plan)
    with (saved.parent / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[-2:]
    losses = [float(row["train_loss"]) for row in rows]
    rates = [float(row[f"lr_{part}"]) for part in ("heads", "video") for row in rows]
    kept = json.loads(read_notes(saved)["validation"])["validation_log_loss"]
    return (*losses, kept, *rates)


def remembered(read):
    """A reader of media that reads each window once: all runs have the same seed, and so the same windows."""
    known = cache(lambda path, at, *options: read(path, at, *options))
    return lambda path, at, *options: known(str(path), tuple(at) if np.ndim(at) else at, *options).copy()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums are then in one order on every machine
    with pytest.MonkeyPatch.context() as patch:
        for name in ("read_audio", "read_frames"):
            patch.setattr(dataset, name, remembered(getattr(dataset, name)))
        yield tmp_path_factory.mktemp("golden")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def first(toy_city, runs) -> tuple[float, ...]:
    """The default, from which others start or learn."""
    return figures(toy_city, runs, "default")


@pytest.mark.parametrize("name", CASES)
def test_first_losses_and_rates(toy_city, runs, first, name):
    found = first if name == "default" else figures(toy_city, runs, name)
    assert found[:3] == pytest.approx(GOLDEN[name][:3], rel=5e-3)  # other processors round otherwise
    assert found[3:] == pytest.approx(GOLDEN[name][3:], rel=1e-4, abs=1e-9)


def test_bf16_learns_as_fp32_does(toy_city, runs, first):
    found = figures(toy_city, runs, "bf16", precision="bf16")
    assert found[0] == pytest.approx(first[0], rel=1e-2)
    assert found[0] != first[0]  # it rounds
    assert all(
        value.dtype in (torch.float32, torch.int64) for value in load_file(runs / "bf16/model.safetensors").values()
    )


def test_a_fitted_decision(toy_city, runs, first):
    """Weights of the heads and the power of their product; the losses are those without a fit."""
    assert figures(toy_city, runs, "fitted", heads=Heads()) == first
    fitted = load_model(runs / "fitted/model.safetensors").architecture
    assert (*fitted.decision, fitted.sharpness) == pytest.approx(DECISION, rel=2e-2, abs=1e-3)


def test_every_option_makes_a_difference():
    """More of one than rounding does, so that none is pinned without effect."""
    for name, pinned in GOLDEN.items():
        same = pinned == pytest.approx(GOLDEN["default"], rel=1e-2)
        assert same == (name == "default"), name


if __name__ == "__main__":
    from avsc_e2e.toycity.city import ToyCity

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for reader in ("read_audio", "read_frames"):
            patch.setattr(dataset, reader, remembered(getattr(dataset, reader)))
        city = Path(folder, "city")
        ToyCity(train_locations=2, test_locations=1, duration=2.0, height=64, width=80, seed=1).render(city, workers=1)
        for name in CASES:
            print(f'    "{name}": ({", ".join(f"{value:.6g}" for value in figures(city, Path(folder), name))}),')
