"""Averages of weights: a moving average over the steps of a run, and the mean of checkpoints."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.checkpoint import read_checkpoint, save_model


def shadow(model: SceneNet) -> SceneNet:
    """A copy of a model that holds its moving average, in evaluation mode and without gradients."""
    return copy.deepcopy(model).requires_grad_(False).eval()


class Pairs(NamedTuple):
    """The tensors of a moving average and the tensors of its model, in pairs."""

    average: list[Tensor]
    model: list[Tensor]
    counters: list[Tensor]
    """Integer tensors of the average, which are copied."""
    counted: list[Tensor]
    """The same tensors of the model."""


def pairs(average: SceneNet, model: SceneNet) -> Pairs:
    """Pair the tensors. Call it when both models are on their final device, because moving a model replaces its
    buffers."""
    mine, theirs = _local(average), _local(model)
    moving = [name for name, value in mine.items() if value.is_floating_point()]
    counters = [name for name in mine if name not in set(moving)]
    return Pairs(*([values[n] for n in names] for names in (moving, counters) for values in (mine, theirs)))


@torch.no_grad()
def follow(tensors: Pairs, decay: float, step: int) -> None:
    """Move the average towards the model after its `step`-th step (from 1): decay times the average and the rest of the
    model (Polyak and Juditsky, 1992), with less decay in the first steps, when the average is still close to the
    initial weights. Running statistics are averaged too; counters are copied. It takes one kernel for each dtype and
    never waits for a GPU.

    timm.utils.ModelEmaV3 builds both state dicts in each step, copies counters one by one, and does not support sharded
    models. Lightning's callback averages in its own hook and so would not update the average that is validated and
    saved here."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(tensors.average, tensors.model, 1 - decay)
    if tensors.counters:
        torch._foreach_copy_(tensors.counters, tensors.counted)


def _local(model: SceneNet) -> dict[str, Tensor]:
    """The tensors of a model; for a sharded model, this process's parts of them."""
    return {name: v.to_local() if hasattr(v, "to_local") else v for name, v in model.state_dict().items()}


def average_checkpoints(paths: Sequence[str | Path]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The mean of the tensors of checkpoints of one architecture (Izmailov et al., 2018; Wortsman et al., 2022), and
    the metadata of the first. Raises AvscError if their tensors differ in name or shape."""
    if not paths:
        raise AvscError("averaging: no checkpoint given; name two or more")
    total: dict[str, Tensor] = {}
    first_tensors, first = read_checkpoint(paths[0])
    for path in paths:
        tensors, metadata = read_checkpoint(path)
        same = {name: value.shape for name, value in tensors.items()} == {
            name: value.shape for name, value in first_tensors.items()
        }
        if not same or metadata["architecture"] != first["architecture"]:
            raise AvscError(f"{path}: its model is not that of {paths[0]}; average checkpoints of one model")
        for name, value in tensors.items():
            total[name] = total.get(name, 0) + value.double()
    mean = {name: (value / len(paths)).to(first_tensors[name].dtype) for name, value in total.items()}
    return mean, first


def between(tensors: Mapping[str, Tensor], start: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Interpolation between tensors of the same names, by a share from 0 to 1; counters are not changed."""
    return {
        name: torch.lerp(value, start[name].to(value), share) if value.is_floating_point() else value
        for name, value in tensors.items()
    }


def save_average(paths: Sequence[str | Path], out: str | Path) -> Path:
    """Write the mean of two or more checkpoints as a checkpoint whose notes name them. Raises AvscError."""
    if len(paths) < 2:
        raise AvscError(f"average: {len(paths)} checkpoint given; it takes two or more")
    tensors, metadata = average_checkpoints(paths)
    model = SceneNet(Architecture.from_json(metadata["architecture"]))
    model.load_state_dict(tensors)
    # Validation figures and calibrations of the first checkpoint do not hold for the mean.
    kept = {name: metadata[name] for name in ("recipe",) if name in metadata}
    return save_model(model, out, {**kept, "averaged": json.dumps([str(path) for path in paths])})
