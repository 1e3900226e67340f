"""From rows to batches of clips: which windows, their pictures and sound, and the loaders."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from avsc_e2e.clip import UNKNOWN, Clip, Row, Segment
from avsc_e2e.data.media import mix_channels, read_audio, read_frames
from avsc_e2e.errors import AvscError
from avsc_e2e.randomness import keyed


@dataclass(frozen=True)
class Sampling:
    """What of a recording a model wants to see and hear."""

    window: float = 1.0
    """Seconds."""
    audio: bool = True
    sample_rate: int = 48_000
    """Hz."""
    channels: int = 2
    """1 or 2."""
    video: bool = True
    frames: int = 1
    """Frames of a window, evenly spread."""
    short_side: int = 256
    """Pixels of the frame's shorter side, as decoded."""


class Key(NamedTuple):
    """What a loader asks a ClipDataset for; the epoch is part of it, so workers need no state."""

    epoch: int
    index: int


class ClipDataset(Dataset):
    """Clips of `rows`. In training (`windows` > 0) each row gives that many windows an epoch, each at a random start
    within its own part of the recording; in evaluation the fixed windows, one after the other. The clip of a Key is
    the same whoever reads it. Raises MediaError."""

    def __init__(
        self,
        rows: Sequence[Row],
        classes: Sequence[str],
        sampling: Sampling,
        transform: Callable[[Clip], Clip] | None = None,
        windows: int = 0,
        seed: int = 0,
    ):
        self.rows, self.classes, self.sampling = tuple(rows), tuple(classes), sampling
        self.transform, self.windows, self.seed = transform, windows, seed
        self._target = {name: index for index, name in enumerate(self.classes)}
        for row in self.rows:
            if row.scene and row.scene not in self._target:
                raise AvscError(f"{row.file}: unknown class {row.scene!r}; the model knows {', '.join(classes)}")
        self.segments = None if windows else [s for row in self.rows for s in fixed_segments(row, sampling.window)]

    def __len__(self) -> int:
        return len(self.rows) * self.windows if self.segments is None else len(self.segments)

    def __getitem__(self, key: Key | int) -> Clip:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        with keyed(self.seed, epoch, index) as draw:
            if self.segments is None:
                segment, jitter = self._random_segment(index, draw), draw.random(self.sampling.frames)
            else:
                segment, jitter = self.segments[index], np.full(self.sampling.frames, 0.5)
            clip = self.read(segment, jitter)
            return self.transform(clip) if self.transform else clip

    def _random_segment(self, index: int, draw: np.random.Generator) -> Segment:
        row = self.rows[index // self.windows]
        room = max(row.duration - self.sampling.window, 0.0) / self.windows
        return Segment(row, room * (index % self.windows + draw.random()), self.sampling.window)

    def read(self, segment: Segment, jitter: np.ndarray) -> Clip:
        """The clip of a segment; frame t is taken `jitter[t]` of the way through the t-th part of the window."""
        want, row = self.sampling, segment.row
        has_audio, has_video = bool(want.audio and row.audio), bool(want.video and row.video)
        if has_audio:
            sound = read_audio(row.audio, segment.start, segment.duration, want.sample_rate)
            audio = torch.from_numpy(np.ascontiguousarray(mix_channels(sound, want.channels)))
        else:
            audio = torch.zeros(want.channels, round(segment.duration * want.sample_rate) if want.audio else 0)
        if has_video:
            times = segment.start + (np.arange(want.frames) + jitter) * segment.duration / want.frames
            # The recording may end within the last window: its last picture is held.
            frames = read_frames(row.video, np.minimum(times, max(row.duration, segment.start)), want.short_side)
            video = torch.from_numpy(frames).permute(0, 3, 1, 2)
        else:
            side = want.short_side if want.video else 0
            video = torch.zeros(want.frames, 3, side, side, dtype=torch.uint8)
        target = torch.tensor(self._target[row.scene] if row.scene else UNKNOWN)
        return Clip(audio, video, target, torch.tensor([has_audio, has_video]), row.file, segment.start)


def fixed_segments(row: Row, window: float = 1.0) -> list[Segment]:
    """The whole windows of a recording, one after the other (ten of a ten-second clip), at least one. A recording a
    few samples short of a whole window still has it."""
    count = max(int(row.duration / window + 0.01), 1)
    return [Segment(row, index * window, window) for index in range(count)]


class KeyedSampler(Sampler[Key]):
    """Keys of an epoch, shuffled by (seed, epoch) in training; each of `replicas` processes gets its own part. In
    training the parts are of equal length (the last few clips of an epoch may be left out), in evaluation every clip
    is in exactly one."""

    def __init__(self, length: int, *, shuffle: bool, seed: int = 0, rank: int = 0, replicas: int = 1):
        self.length, self.shuffle, self.seed, self.rank, self.replicas = length, shuffle, seed, rank, replicas
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Key]:
        order = np.arange(self.length)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
            order = order[: self.length // self.replicas * self.replicas]
        return (Key(self.epoch, int(index)) for index in order[self.rank :: self.replicas])

    def __len__(self) -> int:
        if self.shuffle:
            return self.length // self.replicas
        return len(range(self.rank, self.length, self.replicas))


def collate(clips: list[Clip]) -> Clip:
    """A batch: tensors gain a leading axis B, files and starts become a list and a tensor."""
    files = [clip.file for clip in clips]
    batch = default_collate([clip._replace(file="") for clip in clips])
    return batch._replace(file=files)


def loader(
    dataset: ClipDataset,
    batch_size: int,
    *,
    shuffle: bool,
    workers: int = 0,
    seed: int = 0,
    rank: int = 0,
    replicas: int = 1,
) -> DataLoader:
    """Batches of a dataset as Clips. Worker processes are forked from a server that has imported the library and
    nothing else, so that neither threads nor locks nor GPU contexts are copied into them."""
    sampler = KeyedSampler(len(dataset), shuffle=shuffle, seed=seed, rank=rank, replicas=replicas)
    context = None
    if workers:
        context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
        if os.name == "posix":
            context.set_forkserver_preload(["avsc_e2e.data.dataset", "avsc_e2e.transforms.frames"])
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        drop_last=shuffle and len(sampler) >= batch_size,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        multiprocessing_context=context,
        prefetch_factor=4 if workers else None,
    )
