"""Disturbances of evaluation clips, to measure the robustness of a model: a missing modality, noise, darkness. Each
takes a batch of the loader. torch is imported when one is called, so that options are read without it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from avsc_e2e.clip import MODALITIES, Clip
from avsc_e2e.errors import AvscError


@dataclass(frozen=True)
class Without:
    """One modality is missing from every clip."""

    modality: Literal["audio", "video"]

    title: ClassVar[str] = "Missing modality"
    unit: ClassVar[str] = ""
    clean: ClassVar[str] = "as recorded"

    @property
    def level(self) -> str:
        return f"without {self.modality}"

    def __call__(self, clip: Clip) -> Clip:
        present = clip.present.clone()
        present[:, MODALITIES.index(self.modality)] = False
        return clip._replace(present=present, **{self.modality: getattr(clip, self.modality) * 0})


@dataclass(frozen=True)
class Noise:
    """White Gaussian noise at a level relative to the mean power of each clip; silence stays silent. The noise of a
    clip depends only on its file and start, and is the same at every level."""

    ratio: float
    """Signal-to-noise ratio, dB."""

    modality: ClassVar[str] = "audio"
    title: ClassVar[str] = "White noise"
    unit: ClassVar[str] = "signal-to-noise ratio"
    clean: ClassVar[str] = "as recorded"

    @property
    def level(self) -> str:
        return f"{self.ratio:g} dB"

    def __call__(self, clip: Clip) -> Clip:
        import torch

        from avsc_e2e.randomness import keyed

        noise = torch.empty_like(clip.audio)
        for row, file, start in zip(noise, list(clip.file), clip.start, strict=True):  # type: ignore[call-overload]  # a batch
            with keyed(zlib.crc32(file.encode()), round(1000 * float(start))):
                row.copy_(torch.randn(row.shape))
        power = clip.audio.square().mean(dim=(1, 2), keepdim=True)
        return clip._replace(audio=clip.audio + noise * (power * 10 ** (-self.ratio / 10)).sqrt())


@dataclass(frozen=True)
class Dark:
    """Reduces every pixel by a share of its value."""

    share: float
    """Share from 0, as recorded, to 1, black."""

    modality: ClassVar[str] = "video"
    title: ClassVar[str] = "Darkness"
    unit: ClassVar[str] = "% darker"
    clean: ClassVar[float] = 0.0

    @property
    def level(self) -> float:
        return 100 * self.share

    def __call__(self, clip: Clip) -> Clip:
        return clip._replace(video=(clip.video * (1 - self.share)).round().to(clip.video.dtype))


Disturbance = Without | Noise | Dark


@dataclass(frozen=True)
class Disturbances:
    """Disturbances under which an evaluation also scores the decision."""

    without: tuple[Literal["audio", "video"], ...] = ()
    """Also score without audio, without video, or each in turn (--without audio video)."""
    noise_db: tuple[float, ...] = ()
    """Also score with white noise that many dB below each clip's audio (--noise-db 30 20 10)."""
    dark: tuple[float, ...] = ()
    """Also score with frames that are darker by this share (--dark 0.25 0.5; 1 is black)."""

    def __post_init__(self):
        for share in self.dark:
            if not 0 < share <= 1:
                raise AvscError(f"--dark {share:g}: give a share above 0 and up to 1, which is black")

    def of(self, modalities: Sequence[str]) -> list[Disturbance]:
        """The disturbances for a model of some modalities, the weakest of each kind first. Raises AvscError if the
        model lacks the modality, or would have none left."""
        found: list[Disturbance] = [
            *map(Without, self.without),
            *map(Noise, sorted(self.noise_db, reverse=True)),
            *map(Dark, sorted(self.dark)),
        ]
        for one in found:
            flag = {Without: "--without", Noise: "--noise-db", Dark: "--dark"}[type(one)]
            if one.modality not in modalities:
                raise AvscError(f"{flag}: the model takes no {one.modality}; leave it out")
            if isinstance(one, Without) and len(modalities) == 1:
                raise AvscError(
                    f"{flag} {one.modality}: {one.modality} is the only modality of the model; leave it out"
                )
        return found


UNDISTURBED = Disturbances()
