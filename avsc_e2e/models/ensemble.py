"""A model of several trunks, with heads that are linear in statistics of the trunks' tokens, and one fitted decision.

A member is a front end and a trunk of one modality. A head adds linear maps of the features of its members; a head of
several members is a joint head. The decision is a log-linear pool of the heads, fitted for each set of modalities that
a clip may have. Axes: M heads, F features of a member.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, log_softmax

from avsc_e2e.clip import MODALITIES, Clip
from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.frontend import FrontEnd
from avsc_e2e.models.trunk import Trunk

PATTERNS = ((True, True), (True, False), (False, True))
"""Modalities that a clip may have: both, audio only, video only. Each case has its own weights in the decision."""

FLOOR = 1e-4
"""The decision raises smaller probabilities of a head to this value, as `outputs.loglinear` does."""

STATISTICS = ("mean", "deviation", "maximum")
"""Statistics over time of a member's tokens."""


@dataclass(frozen=True)
class Member:
    """A trunk of an ensemble, and the statistics of its tokens that are its features."""

    name: str
    """Unique in the ensemble."""
    architecture: Architecture
    """Of one modality: its front end, trunk, frame size and normalisation."""
    statistics: tuple[str, ...] = ("mean",)
    """Names from STATISTICS, concatenated in this order."""

    @property
    def modality(self) -> str:
        return self.architecture.modalities[0]


class Tower(nn.Module):
    """The front end and the trunk of a member: clip -> features (B, F)."""

    def __init__(self, member: Member):
        super().__init__()
        self.member, arch = member, member.architecture
        unknown = set(member.statistics) - set(STATISTICS)
        if len(arch.modalities) != 1 or unknown:
            raise AvscError(f"member {member.name}: one modality and statistics of {', '.join(STATISTICS)} are needed")
        if arch.audio:
            self.frontend = FrontEnd(arch)
            self.trunk = Trunk(arch.audio, arch.planes, bands=arch.bands)
        else:
            self.trunk = Trunk(arch.video, 3, size=arch.size)
            self.register_buffer("mean", 255 * torch.tensor(arch.mean).view(3, 1, 1), persistent=False)
            self.register_buffer("std", 255 * torch.tensor(arch.std).view(3, 1, 1), persistent=False)

    @property
    def width(self) -> int:
        """F, the number of features."""
        return self.trunk.token_width * len(self.member.statistics)

    def inputs(self, clip: Clip) -> Tensor:
        """The input of the trunk: planes (B, P, bands, frames), or normalised frames (B, T, 3, H, W)."""
        arch = self.member.architecture
        with torch.no_grad(), torch.autocast(clip.present.device.type, enabled=False):
            if arch.audio:
                audio = clip.audio.float()
                return self.frontend(audio) if arch.standardise else self.frontend.planes(audio)
            video = (clip.video.float() - self.mean) / self.std
            if video.shape[-1] == arch.size:
                return video
            size = (arch.size, arch.size)
            resized = interpolate(video.flatten(0, 1), size, mode="bilinear", antialias=True)
            return resized.unflatten(0, video.shape[:2])

    def forward(self, clip: Clip) -> Tensor:
        return statistics(self.trunk.branch(self.inputs(clip)).tokens, self.member.statistics)


def statistics(tokens: Tensor, names: Sequence[str]) -> Tensor:
    """Statistics over L: (B, L, width) -> (B, width * len(names))."""
    tokens = tokens.float()
    found = {
        "mean": lambda: tokens.mean(dim=1),
        "deviation": lambda: tokens.std(dim=1, correction=0),
        "maximum": lambda: tokens.amax(dim=1),
    }
    return torch.cat([found[name]() for name in names], dim=1)


class LinearHead(nn.Module):
    """Logits (B, K): the sum of linear maps of the features of some members."""

    def __init__(self, widths: Mapping[str, int], classes: int):
        super().__init__()
        self.maps = nn.ParameterDict({name: torch.zeros(width, classes) for name, width in widths.items()})
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return sum(features[name] @ weights for name, weights in self.maps.items()) + self.bias


class Ensemble(nn.Module):
    """Members, heads and the decision, with the interface of a SceneNet.

    preprocess(clip) -> clip, as it is: each member has a front end of its own
    model(clip) -> {head: logits (B, K)}
    decide(logits, present) -> probabilities (B, K)
    """

    def __init__(
        self,
        classes: Sequence[str],
        members: Sequence[Member],
        heads: Mapping[str, Sequence[str]],
        rule: str = "",
    ):
        """`heads`: head -> names of its members. `rule`: name of the decision rule."""
        super().__init__()
        self.members, self.rule = tuple(members), rule
        self.reads = {name: tuple(read) for name, read in heads.items()}
        self.architecture = inputs_of(tuple(classes), self.members)
        self.towers = nn.ModuleDict({member.name: Tower(member) for member in self.members})
        self.heads = nn.ModuleDict(
            {name: LinearHead({m: self.towers[m].width for m in read}, len(classes)) for name, read in heads.items()}
        )
        m, k = len(self.reads), len(classes)
        self.register_buffer("weights", torch.eye(k).expand(len(PATTERNS), m, k, k).clone() / m)
        self.register_buffer("bias", torch.zeros(len(PATTERNS), k))
        for index, pattern in enumerate(PATTERNS):
            able = [head for head in self.reads if self.modalities_of(head) <= modalities_in(pattern)]
            for place, head in enumerate(self.reads):
                self.weights[index, place] *= (head in able) * m / max(len(able), 1)

    def modalities_of(self, head: str) -> set[str]:
        """The modalities of a head's members."""
        return {self.towers[name].member.modality for name in self.reads[head]}

    @torch.no_grad()
    def preprocess(self, clip: Clip) -> Clip:
        return clip

    def features(self, clip: Clip) -> dict[str, Tensor]:
        """Features (B, F) of each member."""
        return {name: tower(clip) for name, tower in self.towers.items()}

    def forward(self, clip: Clip) -> dict[str, Tensor]:
        features = self.features(clip)
        return {name: head(features) for name, head in self.heads.items()}

    def decide(self, logits: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """Probabilities (B, K), with the weights for the modalities that each clip has."""
        logs = torch.cat([log_softmax(logits[name].float(), dim=1) for name in self.reads], dim=1)
        logs = logs.clamp(min=torch.tensor(FLOOR).log().item())
        index = pattern_of(present)
        weights = self.weights.flatten(1, 2)[index]  # (B, M * K, K)
        return (torch.einsum("bi,bik->bk", logs, weights) + self.bias[index]).softmax(dim=1)

    def to_json(self) -> str:
        """The description that, with the tensors, rebuilds the model."""
        members = [asdict(member) for member in self.members]
        return json.dumps(
            {"classes": self.architecture.classes, "members": members, "heads": self.reads, "rule": self.rule}
        )

    @classmethod
    def from_json(cls, text: str) -> Ensemble:
        """Raises AvscError if another version wrote it that this one does not know."""
        values = json.loads(text)
        members = [
            Member(m["name"], Architecture.from_json(json.dumps(m["architecture"])), tuple(m["statistics"]))
            for m in values["members"]
        ]
        return cls(tuple(values["classes"]), members, values["heads"], values["rule"])


def modalities_in(pattern: Sequence[bool]) -> set[str]:
    return {name for name, there in zip(MODALITIES, pattern, strict=True) if there}


def pattern_of(present: Tensor) -> Tensor:
    """(B, 2) bool -> (B,) index into PATTERNS; a clip without any modality counts as one with both."""
    audio, video = present[:, 0], present[:, 1]
    return torch.where(audio & ~video, 1, torch.where(video & ~audio, 2, 0))


def inputs_of(classes: tuple[str, ...], members: Sequence[Member]) -> Architecture:
    """The input of these members as an Architecture: sample rate, channels, frames and size are the largest among the
    members. Raises AvscError if the members cannot share a clip."""
    audio = [m.architecture for m in members if m.modality == "audio"]
    video = [m.architecture for m in members if m.modality == "video"]
    for field in ("sample_rate", "channels"):
        if len({getattr(arch, field) for arch in audio}) > 1:
            raise AvscError(f"ensemble: its audio members differ in {field}; give all of them one")
    if len({arch.window for arch in (*audio, *video)}) != 1:
        raise AvscError("ensemble: its members need one length of clips")
    whole = replace((audio or video)[0], name="ensemble", classes=classes, fusion="")
    if video:
        largest = max(video, key=lambda arch: arch.size)
        frames = max(arch.frames for arch in video)
        seen = {name: getattr(largest, name) for name in ("video", "size", "crop", "mean", "std")}
        whole = replace(whole, **seen, frames=frames)
    return whole
