"""From rows to clips: the windows of a recording, their frames and audio, and replacements for those that cannot be
read."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from avsc_e2e.arguments import checked, checked_fields
from avsc_e2e.clip import MODALITIES, UNKNOWN, Clip, Row, Segment
from avsc_e2e.data.badmedia import BadMedia, OnBad
from avsc_e2e.data.media import Decoder, mix_channels, read_audio, read_frames
from avsc_e2e.data.store.reader import Store
from avsc_e2e.errors import AvscError, MediaError, within
from avsc_e2e.randomness import keyed

REDRAWS = 10
"""Number of clips that are tried in place of an unreadable one."""


@dataclass(frozen=True)
class Sampling:
    """The window, audio and frames of a clip that a model takes."""

    window: float = 1.0
    """Seconds."""
    audio: bool = True
    sample_rate: int = 48_000
    """Hz."""
    channels: int = 2
    """1 or 2."""
    video: bool = True
    frames: int = 1
    """Frames of a window, evenly spaced."""
    short_side: int = 256
    """Shorter side of a decoded frame, pixels."""

    def __post_init__(self):
        checked_fields(self)
        if not 0 < self.window < math.inf:
            raise AvscError(f"window {self.window}: give a number of seconds above 0")
        within("channels", self.channels, 1, 2)
        for name, least in (("sample_rate", 1), ("frames", 1), ("short_side", 0)):
            within(name, getattr(self, name), least)


class Key(NamedTuple):
    """The key of a clip in a ClipDataset. It contains the epoch, so workers need no state."""

    epoch: int
    index: int  # type: ignore[assignment]  # a tuple's method of this name is not needed
    repeat: int = 0
    """Number of the draw, if an index is drawn several times in one epoch."""


class Attempt(NamedTuple):
    """The result of reading a clip."""

    clip: Clip | None
    """None if it could not be read."""
    bad: tuple[BadMedia, ...]
    """Everything that could not be read."""


class ClipDataset(Dataset):
    """Clips of `rows`, from media files or a store. In training (`windows` > 0), each row gives `windows` clips in an
    epoch, or, if `by_length`, `windows` for each of its fixed windows; each starts at random within its own part of the
    recording. In evaluation, a row gives its fixed windows, one after the other. A Key gives the same clip in every
    process. Raises MediaError, and AvscError for a store without the rows."""

    @checked
    def __init__(
        self,
        rows: Sequence[Row],
        classes: Sequence[str],
        sampling: Sampling,
        transform: Callable[[Clip], Clip] | None = None,
        windows: int = 0,
        seed: int = 0,
        *,
        store: Store | None = None,
        on_bad: OnBad = "raise",
        bad_media: str | os.PathLike[str] | None = None,
        by_length: bool = False,
        decoder: Decoder = "auto",
    ):
        """`bad_media`: CSV to which a loader adds media that cannot be read."""
        self.rows, self.classes, self.sampling = tuple(rows), tuple(classes), sampling
        self.transform, self.seed, self.decoder = transform, seed, decoder
        self.store, self.on_bad, self.bad_media = store, on_bad, bad_media
        if store:
            store.check(self.rows, [m for m in MODALITIES if getattr(sampling, m)], sampling.short_side)
        self._target = {name: index for index, name in enumerate(self.classes)}
        for row in self.rows:
            if row.scene and row.scene not in self._target:
                raise AvscError(
                    f"{row.file}: unknown class {row.scene!r}; the model's classes are {', '.join(classes)}"
                )
        self.segments = None if windows else [s for row in self.rows for s in fixed_segments(row, sampling.window)]
        counts = [windows * len(fixed_segments(row, sampling.window)) if by_length else windows for row in self.rows]
        # Index of the end of each recording's windows in an epoch; eight bytes for each, because there may be millions.
        self._ends = np.cumsum(counts, dtype=np.int64)

    def __len__(self) -> int:
        if self.segments is None:
            return int(self._ends[-1]) if len(self._ends) else 0
        return len(self.segments)

    def __getitem__(self, key: Key | int) -> Clip:
        clip, bad = self.attempt(key)
        if clip is None:
            raise MediaError(bad[-1].path, bad[-1].reason)
        return clip

    def attempt(self, key: Key | int) -> Attempt:
        """The clip of a key, or its replacement under `on_bad`, and what could not be read. The replacement also
        depends only on the key."""
        epoch, index, repeat = key if isinstance(key, tuple) else Key(0, key)
        bad: list[BadMedia] = []
        for redraw in range(1 if self.on_bad == "raise" or self.segments is not None else REDRAWS):
            with keyed(self.seed, epoch, index, *((redraw, repeat) if repeat else [redraw] * (redraw > 0))) as draw:
                if self.segments is None:
                    place = int(draw.integers(len(self))) if redraw else index
                    segment, jitter = self._random_segment(place, draw), draw.random(self.sampling.frames)
                else:
                    segment, jitter = self.segments[index], np.full(self.sampling.frames, 0.5)
                clip = self._attempt_segment(segment, jitter, bad)
                if clip is not None:
                    return Attempt(self.transform(clip) if self.transform else clip, tuple(bad))
        return Attempt(None, tuple(bad))

    @property
    def total(self) -> int:
        """Number of fixed segments of all recordings."""
        return sum(segment_count(row, self.sampling.window) for row in self.rows)

    def shards(self) -> np.ndarray:
        """(length,) number of the shard of the store that each index is a clip of; without a store 0."""
        rows = np.searchsorted(self._ends, np.arange(len(self)), side="right")
        if not self.store:
            return np.zeros(len(rows), int)
        return self.store.recordings.shards_of([row.file for row in self.rows])[rows].astype(int)

    def row(self, index: int) -> Row:
        """The recording of an index."""
        return self._window(index)[0] if self.segments is None else self.segments[index].row

    def _window(self, index: int) -> tuple[Row, int, int]:
        """The recording of a random window, the number of the window in it, and how many windows it has."""
        place = int(np.searchsorted(self._ends, index, side="right"))
        begin = int(self._ends[place - 1]) if place else 0
        return self.rows[place], index - begin, int(self._ends[place]) - begin

    def _random_segment(self, index: int, draw: np.random.Generator) -> Segment:
        row, part, of = self._window(index)
        room = max(row.duration - self.sampling.window, 0.0) / of
        return Segment(row, room * (part + draw.random()), self.sampling.window)

    def read(self, segment: Segment, jitter: np.ndarray) -> Clip:
        """The clip of a segment. Frame t is taken at the share `jitter[t]` of the t-th part of the window. Raises
        MediaError."""
        row, want = segment.row, self.sampling
        return self._clip(
            segment,
            self._read_audio(segment) if want.audio and row.audio else None,
            self._read_frames(segment, jitter) if want.video and row.video else None,
        )

    def _attempt_segment(self, segment: Segment, jitter: np.ndarray, bad: list[BadMedia]) -> Clip | None:
        row, want = segment.row, self.sampling
        audio = video = None
        before = len(bad)
        try:
            audio = self._read_audio(segment) if want.audio and row.audio else None
        except MediaError as error:
            bad.append(BadMedia(row.file, error.path, segment.start, error.reason))
        try:
            if len(bad) == before or self.on_bad == "mask":
                video = self._read_frames(segment, jitter) if want.video and row.video else None
        except MediaError as error:
            bad.append(BadMedia(row.file, error.path, segment.start, error.reason))
        if len(bad) > before and (self.on_bad != "mask" or (audio is None and video is None)):
            return None
        return self._clip(segment, audio, video)

    def _read_audio(self, segment: Segment) -> np.ndarray:
        row, want = segment.row, self.sampling
        if self.store:
            audio = self.store.read_audio(row, segment.start, segment.duration, want.sample_rate)
        else:
            audio = read_audio(row.audio, segment.start, segment.duration, want.sample_rate)
        return np.ascontiguousarray(mix_channels(audio, want.channels))

    def _read_frames(self, segment: Segment, jitter: np.ndarray) -> np.ndarray:
        row, want = segment.row, self.sampling
        times = segment.start + (np.arange(want.frames) + jitter) * segment.duration / want.frames
        # The recording may end within the last window: its last frame is repeated.
        times = np.minimum(times, max(row.duration, segment.start))
        if self.store:
            return self.store.read_frames(row, times, want.short_side)
        return read_frames(row.video, times, want.short_side, self.decoder)

    def _clip(self, segment: Segment, samples: np.ndarray | None, frames: np.ndarray | None) -> Clip:
        want, row = self.sampling, segment.row
        if samples is not None:
            audio = torch.from_numpy(samples if samples.flags.writeable else samples.copy())
        else:
            audio = torch.zeros(want.channels, round(segment.duration * want.sample_rate) if want.audio else 0)
        if frames is not None:
            video = torch.from_numpy(frames).permute(0, 3, 1, 2)
        else:
            side = want.short_side if want.video else 0
            video = torch.zeros(want.frames, 3, side, side, dtype=torch.uint8)
        target = torch.tensor(self._target[row.scene] if row.scene else UNKNOWN)
        present = torch.tensor([samples is not None, frames is not None])
        return Clip(audio, video, target, present, row.file, segment.start)


def segment_count(row: Row, window: float = 1.0) -> int:
    """Number of whole windows of a recording, at least one. A last window that lacks only a few samples counts."""
    return max(int(row.duration / window + 0.01), 1)


def fixed_segments(row: Row, window: float = 1.0) -> list[Segment]:
    """The whole windows of a recording, one after the other (ten of a ten-second clip)."""
    return [Segment(row, index * window, window) for index in range(segment_count(row, window))]
