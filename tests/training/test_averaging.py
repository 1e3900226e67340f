"""Averages of checkpoints: kept only if they are better, refused where they would mix meanings."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import tiny_recipe

from avsc_e2e.errors import AvscError
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.checkpoint import read_checkpoint, save_model
from avsc_e2e.models.zoo.systems import tiny
from avsc_e2e.training import trainer
from avsc_e2e.training.averaging import average_checkpoints
from avsc_e2e.training.recipe import Averaging
from avsc_e2e.training.trainer import train

MODEL = replace(tiny(), size=32)


def test_checkpoints_of_another_order_of_classes_are_refused(tmp_path):
    """Their tensors have the same names and shapes, and mean other classes."""
    one = save_model(SceneNet(MODEL), tmp_path / "one.safetensors")
    turned = save_model(SceneNet(replace(MODEL, classes=MODEL.classes[::-1])), tmp_path / "turned.safetensors")
    with pytest.raises(AvscError, match="is of another model"):
        average_checkpoints([one, turned])


def test_a_mean_is_kept_only_if_it_is_better(toy_city, tmp_path, monkeypatch):
    plain = train(tiny_recipe(toy_city, tmp_path, "plain", epochs=2))
    with (plain.parent / "metrics.csv").open(newline="") as file:
        best = min(float(row["validation_log_loss"]) for row in csv.DictReader(file))
    tensors, _ = read_checkpoint(plain)

    def averaged(found: dict) -> dict:
        """The checkpoint of a run whose mean of checkpoints has these tensors."""
        monkeypatch.setattr(trainer, "average_checkpoints", lambda paths: (found, read_checkpoint(paths[0])[1]))
        name = f"mean{len(list(tmp_path.iterdir()))}"
        return load_file(train(tiny_recipe(toy_city, tmp_path, name, epochs=2, averaging=Averaging(checkpoints=2))))

    # Heads that are sure of the first class: worse than any model that has learnt.
    worse = {
        name: torch.full_like(value, 0.0) if name.startswith("heads.") and value.is_floating_point() else value
        for name, value in tensors.items()
    }
    last = [name for name, value in worse.items() if name.startswith("heads.") and value.shape == (10,)]
    assert last
    for name in last:
        worse[name][0] = 50.0
    kept = averaged(worse)
    assert all(torch.equal(kept[name], tensors[name]) for name in tensors)
    # The mean of both epochs as it is, judged by its own validation: kept exactly if that is less.
    monkeypatch.undo()
    path = train(tiny_recipe(toy_city, tmp_path, "real", epochs=2, averaging=Averaging(checkpoints=2)))
    mean, _ = average_checkpoints(sorted((path.parent / "epochs").iterdir()))
    is_mean = all(torch.equal(value, mean[name]) for name, value in load_file(path).items())
    is_best = all(torch.equal(value, tensors[name]) for name, value in load_file(path).items())
    assert is_mean != is_best
    validated = read_checkpoint(path)[1]["validation"]
    figure = float(validated.split('"validation_log_loss": ')[1].split(",")[0].rstrip("}"))
    assert figure < best if is_mean else np.isclose(figure, best)
