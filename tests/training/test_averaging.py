"""Averages of checkpoints: kept only if they are better, refused where they would mix meanings."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from support import tiny_recipe

from avsc_e2e.errors import AvscError
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.checkpoint import load_model, read_checkpoint, save_model
from avsc_e2e.models.zoo.own import tiny
from avsc_e2e.training import trainer
from avsc_e2e.training.averaging import average_checkpoints
from avsc_e2e.training.recipe import Averaging, Optim
from avsc_e2e.training.trainer import train

MODEL = replace(tiny(), size=32)


def test_checkpoints_of_another_order_of_classes_are_refused(tmp_path):
    """Their tensors have the same names and shapes, and mean other classes."""
    one = save_model(SceneNet(MODEL), tmp_path / "one.safetensors")
    turned = save_model(SceneNet(replace(MODEL, classes=MODEL.classes[::-1])), tmp_path / "turned.safetensors")
    with pytest.raises(AvscError, match="its model is not that of"):
        average_checkpoints([one, turned])


def test_a_mean_is_kept_only_if_it_is_better(toy_city, tmp_path, monkeypatch):
    """Two checkpoints stand in for a mean: one that learnt, and one that is sure of the first class."""
    still = {"epochs": 2, "optim": Optim(lr=1e-9, audio_lr=1e-9, video_lr=1e-9)}  # a run that stays where it begins
    good = train(tiny_recipe(toy_city, tmp_path, "good", **still))
    tensors, notes = read_checkpoint(good)
    sure = {name: torch.zeros_like(value) if name.startswith("heads.") else value for name, value in tensors.items()}
    last = [name for name, value in sure.items() if name.startswith("heads.") and value.shape == (10,)]
    assert last
    for name in last:
        sure[name][0] = 50.0
    bad = save_model(load_model(good), tmp_path / "bad.safetensors", notes, sure)

    def kept(start, mean: dict) -> dict:
        """The tensors that a run keeps that starts there, and whose mean of checkpoints is this one."""
        monkeypatch.setattr(trainer, "average_checkpoints", lambda paths: (mean, read_checkpoint(paths[0])[1]))
        name = f"from_{start.stem}"
        plan = tiny_recipe(toy_city, tmp_path, name, init=(str(start),), averaging=Averaging(checkpoints=2), **still)
        return load_file(train(plan))

    bias = last[0]
    assert kept(good, sure)[bias][0] < 1  # the mean is worse: the best epoch stays
    assert torch.equal(kept(bad, tensors)[bias], tensors[bias])  # the mean is better: it is kept
