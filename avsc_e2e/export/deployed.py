"""A trained model as one function: waveform and uint8 frames in, probabilities out, front end and decision included."""

from __future__ import annotations

import copy
import json
from typing import Literal

import torch
from torch import Tensor, nn

from avsc_e2e.clip import MODALITIES, Clip
from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.ensemble import Ensemble
from avsc_e2e.models.trunk import Branch
from avsc_e2e.outputs.calibration import Calibration
from avsc_e2e.outputs.loglinear import FLOOR, LogLinear

Modality = Literal["both", "audio", "video"]
"""Input of the exported model."""


class Deployed(nn.Module):
    """A model that takes decoded media of the exported modalities.

    audio (B, C, N) float32 in [-1, 1], video (B, T, size, size, 3) uint8, present (B, 2) bool where it takes both
    -> probabilities (B, K), of the decision and calibrated; then those of each head, if there are several
    """

    def __init__(self, model: nn.Module, modality: Modality = "both", calibration: Calibration | None = None):
        """Raises AvscError where the model lacks the modality, or the calibration has no graph."""
        super().__init__()
        self.architecture: Architecture = model.architecture
        has = self.architecture.modalities
        if modality != "both" and modality not in has:
            raise AvscError(f"--modality {modality}: the model has only {' and '.join(has)}")
        self.takes = tuple(name for name in has if modality in ("both", name))
        self.model = _without(copy.deepcopy(model).eval(), set(has) - set(self.takes))
        self.heads = self._heads()
        self.calibrated = None if calibration is None else _Calibrated(calibration, self.architecture.classes)

    def _heads(self) -> tuple[str, ...]:
        """Names of the heads that use the exported modalities."""
        if isinstance(self.model, Ensemble):
            return tuple(name for name in self.model.reads if self.model.modalities_of(name) <= set(self.takes))
        missing = set(self.architecture.modalities) - set(self.takes)
        return tuple(name for name in self.architecture.heads if name not in missing)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the arguments, in order."""
        return (*self.takes, "present") if len(self.takes) > 1 else self.takes

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the results, in order."""
        return ("probabilities", *(f"{name}_probabilities" for name in self.heads if len(self.heads) > 1))

    def example(self, batch: int = 2) -> tuple[Tensor, ...]:
        """Arguments of the right shapes, filled with noise."""
        arch, draw = self.architecture, torch.Generator().manual_seed(0)
        samples = round(arch.window * arch.sample_rate)
        made = {
            "audio": torch.randn(batch, arch.input_channels, samples, generator=draw) * 0.1,
            "video": torch.randint(
                0, 256, (batch, arch.frames, arch.size, arch.size, 3), dtype=torch.uint8, generator=draw
            ),
            "present": torch.ones(batch, 2, dtype=torch.bool),
        }
        return tuple(made[name] for name in self.inputs)

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.inputs, arguments, strict=True))
        batch, arch = arguments[0].shape[0], self.architecture
        present = given.get("present")
        if present is None:
            there = torch.tensor([name in self.takes for name in MODALITIES])
            present = there.expand(batch, 2)
        audio = given.get("audio")
        if audio is None:
            audio = torch.zeros(batch, arch.input_channels, 0)
        video = given["video"].permute(0, 1, 4, 2, 3) if "video" in given else torch.zeros(batch, arch.frames, 3, 0, 0)
        clip = Clip(audio, video, torch.zeros(batch), present, "", 0.0)
        logits = self.model(self.model.preprocess(clip))
        decision = self.model.decide(logits, present)
        if self.calibrated is not None:
            decision = self.calibrated(decision)
        singles = [logits[name].softmax(dim=1) for name in self.heads] if len(self.heads) > 1 else []
        return (decision, *singles)

    def metadata(self, short_side: int) -> dict[str, str]:
        """Text values that a runtime needs beside the graph: classes, rates, times and sizes."""
        arch = self.architecture
        values = {
            "classes": list(arch.classes),
            "modalities": list(self.takes),
            "sample_rate": arch.sample_rate,
            "channels": arch.input_channels,
            "window": arch.window,
            "frame_times": [(index + 0.5) * arch.window / arch.frames for index in range(arch.frames)],
            "size": arch.size,
            "crop": arch.crop,
            "short_side": short_side,
            "heads": list(self.heads),
        }
        return {name: json.dumps(value) for name, value in values.items()}


class _Calibrated(nn.Module):
    """A calibration as a graph: probabilities (B, K) -> (B, K)."""

    def __init__(self, calibration: Calibration, classes: tuple[str, ...]):
        super().__init__()
        rule = calibration.rule
        if not isinstance(rule, LogLinear):
            raise AvscError(
                f"export: the checkpoint's calibration is {calibration.method}, which has no graph; calibrate it with "
                "--method temperature, classwise or vector"
            )
        order = [calibration.classes.index(name) for name in classes]
        weights = torch.from_numpy(rule.weights).float()[0]
        self.register_buffer("weights", weights[order] if weights.dim() else weights.expand(len(order)).clone())
        self.register_buffer("bias", torch.from_numpy(rule.bias).float()[order])

    def forward(self, probabilities: Tensor) -> Tensor:
        return (probabilities.clamp(min=FLOOR).log() * self.weights + self.bias).softmax(dim=1)


class _Absent(nn.Module):
    """Replaces a trunk whose modality is not exported: embeddings of zeros, which `present` masks."""

    def __init__(self, trunk: nn.Module):
        super().__init__()
        self.width, self.token_width, self.name = trunk.width, trunk.token_width, trunk.name

    def branch(self, x: Tensor) -> Branch:
        batch = x.shape[0]
        return Branch(torch.zeros(batch, 1, self.token_width), torch.zeros(batch, self.width))


class _AbsentTower(nn.Module):
    """Replaces a member whose modality is not exported: features of zeros, which have no weight in the decision."""

    def __init__(self, tower: nn.Module):
        super().__init__()
        self.member, self.width = tower.member, tower.width

    def forward(self, clip: Clip) -> Tensor:
        return torch.zeros(clip.present.shape[0], self.width)


class _NoFrontEnd(nn.Module):
    """Replaces the front end if audio is not exported."""

    def forward(self, audio: Tensor) -> Tensor:
        return audio

    def undo(self, planes: Tensor) -> Tensor:
        return planes


def _without(model: nn.Module, modalities: set[str]) -> nn.Module:
    """The model with stand-ins for the trunks of these modalities, so that the graph does not hold them."""
    if isinstance(model, Ensemble):
        for name, tower in model.towers.items():
            if tower.member.modality in modalities:
                model.towers[name] = _AbsentTower(tower)
        return model
    for name in modalities:
        setattr(model, name, _Absent(getattr(model, name)))
        if name == "audio":
            model.frontend = _NoFrontEnd()
    return model
