"""From rows to batches of clips: which windows, their pictures and sound, what is done with those that cannot be
read, and the loaders."""

from __future__ import annotations

import csv
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info

from avsc_e2e.clip import MODALITIES, UNKNOWN, Clip, Row, Segment
from avsc_e2e.data.media import mix_channels, read_audio, read_frames
from avsc_e2e.data.store.layout import Store
from avsc_e2e.errors import AvscError, MediaError
from avsc_e2e.processes import start_worker
from avsc_e2e.randomness import keyed

log = logging.getLogger(__name__)

OnBad = Literal["raise", "skip", "mask"]
"""What is done with a clip that cannot be read. raise: stop. skip: in training draw another in its place, by a key of
its own; in evaluation leave it out of its batch. mask: go on with the modality that can be read, marked in `present`;
skip where there is none."""
MOST_BAD = 0.01
"""Share of the segments that may be bad before a run stops; one recording alone never stops it."""
REDRAWS = 10
"""Clips tried in the place of a bad one."""
PRELOADED = (
    *("avsc_e2e.data.dataset", "avsc_e2e.transforms.frames", "avsc_e2e.transforms.waveform"),
    *("albumentations", "audiomentations", "av", "soundfile", "soxr"),
)
"""What workers need, imported once by the server that they are forked from; the transforms come before the packages,
since they quiet them."""


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
    repeat: int = 0
    """Which of several draws of the same index in one epoch."""


class BadMedia(NamedTuple):
    """A recording, or one modality of it, that could not be read."""

    file: str
    """The row's."""
    path: str
    start: float
    """Seconds at which the segment starts."""
    reason: str


class Attempt(NamedTuple):
    """What came of reading a clip."""

    clip: Clip | None
    """None where it was to be read and could not be."""
    bad: tuple[BadMedia, ...]
    """All that could not be read on the way."""


class ClipDataset(Dataset):
    """Clips of `rows`, from media files or a store. In training (`windows` > 0) each row gives that many windows an
    epoch, or where `by_length` that many for each fixed one that it has, each at a random start within its own part of
    the recording; in evaluation the fixed windows, one after the other. The clip of a Key is the same whoever reads it.
    Raises MediaError, and AvscError for a store without the rows."""

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
    ):
        """`bad_media`: CSV to which a loader adds what could not be read."""
        self.rows, self.classes, self.sampling = tuple(rows), tuple(classes), sampling
        self.transform, self.seed = transform, seed
        self.store, self.on_bad, self.bad_media = store, on_bad, bad_media
        if store:
            store.check(self.rows, [m for m in MODALITIES if getattr(sampling, m)], sampling.short_side)
        self._target = {name: index for index, name in enumerate(self.classes)}
        for row in self.rows:
            if row.scene and row.scene not in self._target:
                raise AvscError(f"{row.file}: unknown class {row.scene!r}; the model knows {', '.join(classes)}")
        self.segments = None if windows else [s for row in self.rows for s in fixed_segments(row, sampling.window)]
        counts = [windows * len(fixed_segments(row, sampling.window)) if by_length else windows for row in self.rows]
        # Where each recording's windows end in an epoch: eight bytes a recording, for there may be millions.
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
        """The clip of a key, or what stands in for it under `on_bad`, with what could not be read. A clip drawn in
        the place of a bad one depends on the key alone too."""
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
        """Fixed segments of all recordings."""
        return sum(segment_count(row, self.sampling.window) for row in self.rows)

    def row(self, index: int) -> Row:
        """The recording that an index is a clip of."""
        return self._window(index)[0] if self.segments is None else self.segments[index].row

    def _window(self, index: int) -> tuple[Row, int, int]:
        """The recording of a random window, which of its windows it is, and how many it has."""
        place = int(np.searchsorted(self._ends, index, side="right"))
        begin = int(self._ends[place - 1]) if place else 0
        return self.rows[place], index - begin, int(self._ends[place]) - begin

    def _random_segment(self, index: int, draw: np.random.Generator) -> Segment:
        row, part, of = self._window(index)
        room = max(row.duration - self.sampling.window, 0.0) / of
        return Segment(row, room * (part + draw.random()), self.sampling.window)

    def read(self, segment: Segment, jitter: np.ndarray) -> Clip:
        """The clip of a segment; frame t is taken `jitter[t]` of the way through the t-th part of the window. Raises
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
            sound = self.store.read_audio(row, segment.start, segment.duration, want.sample_rate)
        else:
            sound = read_audio(row.audio, segment.start, segment.duration, want.sample_rate)
        return np.ascontiguousarray(mix_channels(sound, want.channels))

    def _read_frames(self, segment: Segment, jitter: np.ndarray) -> np.ndarray:
        row, want = segment.row, self.sampling
        times = segment.start + (np.arange(want.frames) + jitter) * segment.duration / want.frames
        # The recording may end within the last window: its last picture is held.
        times = np.minimum(times, max(row.duration, segment.start))
        if self.store:
            return self.store.read_frames(row, times, want.short_side)
        return read_frames(row.video, times, want.short_side)

    def _clip(self, segment: Segment, sound: np.ndarray | None, frames: np.ndarray | None) -> Clip:
        want, row = self.sampling, segment.row
        if sound is not None:
            audio = torch.from_numpy(sound if sound.flags.writeable else sound.copy())
        else:
            audio = torch.zeros(want.channels, round(segment.duration * want.sample_rate) if want.audio else 0)
        if frames is not None:
            video = torch.from_numpy(frames).permute(0, 3, 1, 2)
        else:
            side = want.short_side if want.video else 0
            video = torch.zeros(want.frames, 3, side, side, dtype=torch.uint8)
        target = torch.tensor(self._target[row.scene] if row.scene else UNKNOWN)
        present = torch.tensor([sound is not None, frames is not None])
        return Clip(audio, video, target, present, row.file, segment.start)


def segment_count(row: Row, window: float = 1.0) -> int:
    """Whole windows of a recording, at least one. A recording a few samples short of a whole window still has it."""
    return max(int(row.duration / window + 0.01), 1)


def fixed_segments(row: Row, window: float = 1.0) -> list[Segment]:
    """The whole windows of a recording, one after the other (ten of a ten-second clip)."""
    return [Segment(row, index * window, window) for index in range(segment_count(row, window))]


class KeyedSampler(Sampler[Key]):
    """Keys of an epoch, shuffled by (seed, epoch) in training; each of `replicas` processes gets its own part. In
    training the parts are of equal length (the last few clips of an epoch may be left out), in evaluation every clip
    is in exactly one. With a `balance` above 0, an epoch draws all `classes` (length,) equally often, as far as it
    says."""

    def __init__(
        self,
        length: int,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        replicas: int = 1,
        classes: Sequence[str] = (),
        balance: float = 0.0,
    ):
        self.length, self.shuffle, self.seed, self.rank, self.replicas = length, shuffle, seed, rank, replicas
        self.balance, self.epoch = balance, 0
        _, self.classes, counts = np.unique(np.array(classes), return_inverse=True, return_counts=True)
        self.weights = (1.0 / counts[self.classes]) ** balance if len(counts) else np.ones(length)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Key]:
        order = np.arange(self.length)
        repeats = np.zeros(self.length, int)
        if self.shuffle:
            draw = np.random.default_rng((self.seed, self.epoch))
            order = draw.permutation(self.length)
            if self.balance > 0:
                order, repeats = self._weighted(order, draw)
            order = order[: self.length // self.replicas * self.replicas]
        part = slice(self.rank, None, self.replicas)
        return (
            Key(self.epoch, int(index), int(repeat)) for index, repeat in zip(order[part], repeats[part], strict=False)
        )

    def _weighted(self, order: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """As many indices as there are, each as often as its weight says, rounded up or down by one throw for all
        (systematic sampling), class by class, so that no class gets more than its share by chance; and which repeat of
        its index each one is."""
        order = order[np.argsort(self.classes[order], kind="stable")]
        ends = np.floor(np.cumsum(self.weights[order]) / self.weights.sum() * self.length + draw.random() + 1e-9)
        counts = np.diff(ends.astype(int), prepend=0)
        counts[-1] += self.length - counts.sum()
        indices = np.repeat(order, counts)
        repeats = np.concatenate([np.arange(count) for count in counts])
        shuffled = draw.permutation(self.length)
        return indices[shuffled], repeats[shuffled]

    def __len__(self) -> int:
        if self.shuffle:
            return self.length // self.replicas
        return len(range(self.rank, self.length, self.replicas))


def collate(clips: list[Clip]) -> Clip:
    """A batch: tensors gain a leading axis B, files and starts become a list and a tensor."""
    files = [clip.file for clip in clips]
    batch = default_collate([clip._replace(file="") for clip in clips])
    return batch._replace(file=files)


class BadMediaLog:
    """Counts what could not be read, and writes every occurrence to a CSV."""

    def __init__(self, path: str | os.PathLike[str] | None, total: int):
        """`total`: segments of all recordings."""
        self.path, self.total = Path(path) if path else None, total
        self.segments: set[tuple[str, int]] = set()
        """Those that were bad: recording and number of the second."""
        self.files: dict[str, BadMedia] = {}
        """The first occurrence of each recording."""

    def add(self, bad: BadMedia, tell: bool = True) -> None:
        """Note a bad recording, in a warning too if `tell`."""
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", newline="") as file:  # of lines that are appended whole, by one process or more
                lines = csv.writer(file, lineterminator="\n")
                if not file.tell():
                    lines.writerow(BadMedia._fields)
                lines.writerow(bad._replace(start=f"{bad.start:.3f}"))
        self.segments.add((bad.file, int(bad.start)))
        if bad.file not in self.files:
            self.files[bad.file] = bad
            if tell:
                log.warning("%s: %s (at %.2f s)", bad.path, bad.reason, bad.start)

    def judge(self) -> None:
        """Raises AvscError, a summary, once more than `MOST_BAD` of the segments are bad, of several recordings."""
        if len(self.files) > 1 and len(self.segments) > max(1, MOST_BAD * self.total):
            first = next(iter(self.files.values()))
            told = f"; {self.path} lists them" if self.path else ""
            raise AvscError(
                f"{len(self.segments)} of {self.total} segments cannot be read, of {len(self.files)} recordings, more "
                f"than {100 * MOST_BAD:g} %, such as {first.path} ({first.reason}){told}: mend or remove them"
            )


class ClipLoader(DataLoader):
    """A DataLoader that yields Clips, deals with bad media as the dataset says, and names the file over which a worker
    dies or stands still. Raises MediaError and AvscError."""

    def __init__(self, dataset: ClipDataset, *, patience: float, **options):
        self.clips, self.patience = dataset, patience
        self.bad = BadMediaLog(dataset.bad_media, dataset.total)
        workers = options["num_workers"]
        self.reading = torch.zeros(workers, 2, dtype=torch.float64).share_memory_() if workers else None
        super().__init__(
            _Attempts(dataset, self.reading),
            collate_fn=_collate_attempts,
            timeout=min(patience / 2, 10) if workers else 0,
            worker_init_fn=_start_worker,
            **options,
        )

    def __iter__(self) -> Iterator[Clip]:
        batches = super().__iter__()
        waiting = time.monotonic()
        while True:
            try:
                clip, bad, failure = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:  # the latter two where a worker dies in mid-sentence
                self._judge(error, time.monotonic() - waiting)
                continue  # the batch is still under way
            if failure:
                raise failure
            for one in bad:
                self.bad.add(one, tell=self.clips.on_bad != "raise")  # what is raised speaks for itself
            if bad and self.clips.on_bad == "raise":
                raise MediaError(bad[0].path, bad[0].reason)
            self.bad.judge()
            if clip is not None:
                yield clip
            waiting = time.monotonic()

    def _judge(self, error: Exception, waited: float) -> None:
        """Go on after a timeout of torch's in which every worker was at work; else raise."""
        text = str(error) or type(error).__name__
        workers = self._iterator._workers if self._iterator and self.num_workers else []
        if not isinstance(error, RuntimeError):
            connection.wait([worker.sentinel for worker in workers], timeout=1.0)
        dead = [worker for worker in workers if not worker.is_alive()]
        if not dead and not text.startswith("DataLoader "):
            raise error
        for number, (index, since) in enumerate(self.reading.tolist()):
            row = self.clips.row(int(index) - 1) if index else None
            path = (row.video or row.audio) if row else ""
            if row and workers[number] in dead:
                reason = "the process that read it died (out of memory, or its decoder crashed)"
                raise MediaError(path, reason) from error
            if row and not dead and time.monotonic() - since > self.patience:
                raise MediaError(path, f"reading it takes more than {self.patience:g} s (a stuck disk?)") from error
        if dead or "timed out" not in text:
            raise AvscError(f"a worker process of the loader died ({text}): is there enough memory?") from error
        if waited > self.patience + 300:
            raise AvscError(
                f"the loader's workers have stood still for {waited:.0f} s; use --data.workers 0"
            ) from error


class _Attempts(Dataset):
    """What workers read: attempts, each noted with the time at which it began; or why none can be made, such as a
    store that cannot be reached, as a value, for torch would raise it with the worker's stack as its text."""

    def __init__(self, clips: ClipDataset, reading: torch.Tensor | None):
        self.clips, self.reading = clips, reading

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: Key) -> Attempt | AvscError:
        worker = get_worker_info()
        if worker is None:
            return self.clips.attempt(key)
        note = self.reading[worker.id]
        note[1] = time.monotonic()
        note[0] = key.index + 1
        try:
            return self.clips.attempt(key)
        except AvscError as error:
            return error
        finally:
            note[0] = 0


def _collate_attempts(attempts: list[Attempt | AvscError]) -> tuple[Clip | None, list[BadMedia], AvscError | None]:
    failure = next((attempt for attempt in attempts if isinstance(attempt, AvscError)), None)
    if failure:
        return None, [], failure
    clips = [attempt.clip for attempt in attempts if attempt.clip is not None]
    return (collate(clips) if clips else None), [bad for attempt in attempts for bad in attempt.bad], None


def _start_worker(_number: int) -> None:
    start_worker()


def loader(
    dataset: ClipDataset,
    batch_size: int,
    *,
    shuffle: bool,
    workers: int = 0,
    seed: int = 0,
    rank: int = 0,
    replicas: int = 1,
    balance: float = 0.0,
    patience: float = 300.0,
) -> ClipLoader:
    """Batches of a dataset as Clips. Worker processes are forked from a server that has imported the library and
    nothing else, so that neither threads nor locks nor GPU contexts are copied into them. A file that takes a worker
    more than `patience` seconds to read is an error. `balance`, from 0 to 1, says how far all classes are drawn equally
    often."""
    sampler = KeyedSampler(
        len(dataset),
        shuffle=shuffle,
        seed=seed,
        rank=rank,
        replicas=replicas,
        classes=[dataset.row(index).scene for index in range(len(dataset))] if balance else (),
        balance=balance,
    )
    context = None
    if workers:
        context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
        if os.name == "posix":
            context.set_forkserver_preload(list(PRELOADED))
    return ClipLoader(
        dataset,
        patience=patience,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        drop_last=shuffle and len(sampler) >= batch_size,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        multiprocessing_context=context,
        prefetch_factor=4 if workers else None,
    )
