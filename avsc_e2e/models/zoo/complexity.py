"""Cost of a model: its parameters, and multiply-adds for one clip, computed without allocating weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from avsc_e2e.clip import UNKNOWN, Clip
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.nets.audionet import parameter_count
from avsc_e2e.models.scenenet import SceneNet


class Complexity(NamedTuple):
    """Cost of a model before a recipe freezes parts of it."""

    parameters: int
    """All weights, trained or frozen."""
    with_statistics: int
    """Weights and running statistics of batch norm, as some authors count."""
    multiply_adds: int
    """Multiply-adds of trunks and heads for one clip, without the front end."""


def complexity(architecture: Architecture) -> Complexity:
    """Count parameters and multiply-adds of a model of this architecture."""
    with torch.device("meta"):
        model = SceneNet(architecture).eval().requires_grad_(False)
        clip = blank_batch(model)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(clip)
    return Complexity(parameter_count(model), parameter_count(model, statistics=True), counter.get_total_flops() // 2)


def blank_batch(model: SceneNet, clips: int = 1) -> Clip:
    """A preprocessed batch of zeros in the shapes that a model takes, on the default device."""
    arch = model.architecture
    audio = torch.zeros(clips, arch.input_channels, 0)
    if arch.audio:
        audio = torch.zeros(clips, *model.frontend.shape())
    side = arch.size if arch.video else 0
    return Clip(
        audio,
        torch.zeros(clips, arch.frames, 3, side, side),
        torch.full((clips,), UNKNOWN),
        torch.tensor([[bool(arch.audio), bool(arch.video)]]).expand(clips, 2),
        [""] * clips,  # type: ignore[arg-type]  # a batch
        torch.zeros(clips),  # type: ignore[arg-type]
    )
