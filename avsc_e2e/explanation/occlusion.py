"""What a decision is based on: the model predicts again with parts of the input hidden and with one modality alone."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avsc_e2e.arguments import checked
from avsc_e2e.clip import MODALITIES, Clip
from avsc_e2e.data.media import probe
from avsc_e2e.errors import AvscError
from avsc_e2e.prediction.predictor import Predictor

LOWEST_BAND = 125.0
"""Hz; the first band is everything below it, and each further band is an octave."""
FADE = 0.005
"""Seconds over which hidden audio fades out and in, so that there is no click."""
FLOOR = 1e-6
"""Probabilities are clipped to [FLOOR, 1 - FLOOR] before their log-odds are taken."""
CHUNK = 16
"""Clips predicted at a time."""


@dataclass(frozen=True)
class Explained:
    """A window of a recording."""

    start: float
    """Seconds."""
    end: float
    """Seconds."""
    probabilities: dict[str, np.ndarray]
    """(K,) of each head and of "decision"; where both modalities are there, also "audio alone" and "video alone"."""
    effects: dict[str, np.ndarray]
    """How much the log-odds of the scene fall without a part of the input. "time": (P,), with each of P equal parts
    of the window silent. "bands": (F,), without each frequency band. "frames": (T,), with each of several frames in
    its mean colour. "regions": (G, G), rows from the top, with each region of all frames in the frames' mean colour.
    A positive number means that the part supports the scene. Parts that the window lacks have no entry."""
    audio: np.ndarray
    """(N,) the mean of its channels; empty where there is none."""
    image: np.ndarray
    """(H, W, 3) uint8, the middle one of its frames as the model sees them; empty where there is none."""


@dataclass(frozen=True)
class Explanation:
    """The explanation of one recording."""

    path: str
    classes: tuple[str, ...]
    scene: str
    """The most probable scene of the recording, which is explained."""
    modalities: tuple[str, ...]
    """The modalities that the decision is based on."""
    windows: tuple[Explained, ...]
    duration: float
    """Seconds, of the whole recording."""
    sample_rate: int
    """Hz, of the audio in the windows."""
    edges: tuple[float, ...]
    """Hz, F + 1 edges of the frequency bands."""

    @property
    def index(self) -> int:
        """Index of the scene among the classes."""
        return self.classes.index(self.scene)

    def mean(self, name: str = "decision") -> np.ndarray:
        """(K,) probabilities of a head, of the decision or of a modality alone, averaged over the windows."""
        return np.mean([window.probabilities[name] for window in self.windows], axis=0)

    def effect(self, name: str) -> np.ndarray | None:
        """The mean of an effect over the windows that have it; None if no window has it."""
        found = [window.effects[name] for window in self.windows if name in window.effects]
        return np.mean(found, axis=0) if found else None


@checked
def explain(
    checkpoint: str | os.PathLike | torch.nn.Module | Predictor,
    path: str | os.PathLike,
    *,
    windows: int = 10,
    parts: int = 4,
    grid: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> Explanation:
    """What the decision about a recording rests on, by occlusion (Zeiler and Fergus, 2014). `windows`: most windows to
    look at, evenly spaced. `parts` of a window's audio and `grid` by `grid` regions of its frames are hidden in turn,
    and so is each octave of the audio and each frame. Raises AvscError where nothing of the file can be predicted."""
    for flag, value in (("windows", windows), ("parts", parts), ("grid", grid)):
        if value < 1:
            raise AvscError(f"--{flag} {value}: give 1 or more")
    path = Path(path)
    if not path.is_file():
        raise AvscError(f"{path}: no such file")
    predictor = checkpoint if isinstance(checkpoint, Predictor) else Predictor(checkpoint, on_bad="mask")
    arch, duration = predictor.model.architecture, probe(path).duration
    chosen = list(predictor.clips(path, hop=max(arch.window, duration / windows)))[:windows]
    if not chosen:
        raise AvscError(f"{path}: no window of it can be read")
    there = torch.stack([clip.present for clip, _ in chosen]).any(dim=0).tolist()
    used = tuple(name for name, one in zip(MODALITIES, there, strict=True) if one and name in arch.modalities)
    decided = np.concatenate(
        [predictor.heads([c for c, _ in chosen[i : i + CHUNK]])["decision"] for i in range(0, len(chosen), CHUNK)]
    )
    scene = int(decided.mean(axis=0).argmax())
    edges = band_edges(arch.sample_rate) if "audio" in used else ()
    found = []
    for clip, end in chosen:
        found.append(_explained(predictor, clip, end, scene, used, edges, parts, grid))
        if progress:
            progress(len(found), len(chosen))
    classes = predictor.classes
    return Explanation(str(path), classes, classes[scene], used, tuple(found), duration, arch.sample_rate, edges)


def band_edges(sample_rate: int) -> tuple[float, ...]:
    """Hz: 0, LOWEST_BAND, then octaves up to half the sample rate."""
    edges, top = [0.0, LOWEST_BAND], sample_rate / 2
    while edges[-1] * 2 < top:
        edges.append(edges[-1] * 2)
    return (*edges, top)


def _explained(
    predictor: Predictor,
    clip: Clip,
    end: float,
    scene: int,
    used: Sequence[str],
    edges: Sequence[float],
    parts: int,
    grid: int,
) -> Explained:
    heard, seen = (name in used and bool(there) for name, there in zip(MODALITIES, clip.present, strict=True))
    rate = predictor.model.architecture.sample_rate
    variants: dict[str, list[Clip]] = {"whole": [clip]}
    if heard and seen:
        variants["audio alone"] = [without(clip, "video")]
        variants["video alone"] = [without(clip, "audio")]
    if heard:
        variants["time"] = [clip._replace(audio=audio) for audio in silenced(clip.audio, parts, rate)]
        spans = itertools.pairwise(edges)
        variants["bands"] = [clip._replace(audio=without_band(clip.audio, *span, rate)) for span in spans]
    if seen:
        if len(clip.video) > 1:
            variants["frames"] = [clip._replace(video=without_frame(clip.video, t)) for t in range(len(clip.video))]
        cells = [(row, column) for row in range(grid) for column in range(grid)]
        variants["regions"] = [clip._replace(video=without_region(clip.video, *cell, grid)) for cell in cells]
    every = [one for several in variants.values() for one in several]
    outputs = [predictor.heads(every[i : i + CHUNK]) for i in range(0, len(every), CHUNK)]
    heads = {name: np.concatenate([one[name] for one in outputs]) for name in outputs[0]}
    probabilities = {name: values[0] for name, values in heads.items()}
    odds = log_odds(heads["decision"][:, scene])
    effects, first = {}, 0
    for name, several in variants.items():
        if name.endswith(" alone"):
            probabilities[name] = heads["decision"][first]
        elif name != "whole":
            effects[name] = odds[0] - odds[first : first + len(several)]
        first += len(several)
    if seen:
        effects["regions"] = effects["regions"].reshape(grid, grid)
    middle = clip.video[len(clip.video) // 2].permute(1, 2, 0).numpy() if seen else np.zeros((0, 0, 3), np.uint8)
    audio = clip.audio.mean(dim=0).numpy() if heard else np.zeros(0, np.float32)
    return Explained(clip.start, end, probabilities, effects, audio, middle)


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), p clipped by FLOOR."""
    clipped = np.clip(probabilities, FLOOR, 1 - FLOOR)
    return np.log(clipped) - np.log1p(-clipped)


def without(clip: Clip, modality: str) -> Clip:
    """The clip as one that lacks a modality."""
    place = MODALITIES.index(modality)
    present = clip.present & (torch.arange(2) != place)
    if modality == "audio":
        return clip._replace(audio=torch.zeros_like(clip.audio), present=present)
    return clip._replace(video=torch.zeros_like(clip.video), present=present)


def silenced(audio: Tensor, parts: int, sample_rate: int) -> list[Tensor]:
    """Copies of (C, N), each with one of `parts` equal parts silent, faded at both ends."""
    count, fade = audio.shape[-1], max(round(FADE * sample_rate), 1)
    edges = [round(part * count / parts) for part in range(parts + 1)]
    place = torch.arange(count)
    copies = []
    for first, last in itertools.pairwise(edges):
        outside = torch.maximum(first - place, place - last + 1).clamp(0, fade) / fade
        copies.append(audio * outside)
    return copies


def without_band(audio: Tensor, low: float, high: float, sample_rate: int) -> Tensor:
    """(C, N) without its frequencies from `low` to below `high` (Hz); the last band reaches half the sample rate."""
    spectrum = torch.fft.rfft(audio)
    tones = torch.fft.rfftfreq(audio.shape[-1], 1 / sample_rate)
    inside = (tones >= low) & ((tones < high) | (high >= sample_rate / 2))
    return torch.fft.irfft(spectrum.masked_fill(inside, 0), n=audio.shape[-1])


def without_frame(video: Tensor, frame: int) -> Tensor:
    """(T, 3, H, W) uint8 with one frame of its mean colour."""
    video = video.clone()
    video[frame] = _mean_colour(video)[frame]
    return video


def without_region(video: Tensor, row: int, column: int, grid: int) -> Tensor:
    """(T, 3, H, W) uint8 with one of `grid` by `grid` regions of every frame in the frame's mean colour."""
    height, width = video.shape[-2:]
    rows = slice(row * height // grid, (row + 1) * height // grid)
    columns = slice(column * width // grid, (column + 1) * width // grid)
    colour, video = _mean_colour(video), video.clone()
    video[..., rows, columns] = colour
    return video


def _mean_colour(video: Tensor) -> Tensor:
    """(T, 3, 1, 1) uint8."""
    return video.float().mean(dim=(-2, -1), keepdim=True).round().to(torch.uint8)
