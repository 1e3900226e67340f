"""Reading of clips for a model, in order and in parts, by this process or by worker processes."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, NamedTuple

import numpy as np
import torch

from avsc_e2e.clip import MODALITIES, UNKNOWN, Clip
from avsc_e2e.data.badmedia import OnBad
from avsc_e2e.data.media import MediaWindow, mix_channels
from avsc_e2e.errors import AvscError, MediaError
from avsc_e2e.prediction.recordings import Cut, Source
from avsc_e2e.processes import start_worker, without_main
from avsc_e2e.transforms.frames import CentreCrop, Crops

CHUNK = 8
"""Windows of a part."""
PATIENCE = 300.0
"""Seconds without a result after which a worker is stopped and its file is reported as unreadable."""


@dataclass(frozen=True)
class Reading:
    """How recordings become clips of a model."""

    cut: Cut
    channels: int
    crop: CentreCrop | Crops
    on_bad: OnBad


class Part(NamedTuple):
    """Successive clips of a recording; the last part also says how the reading ended."""

    index: int  # type: ignore[assignment]  # a tuple's method of this name is not needed
    """Index of the recording."""
    clips: list[Clip]
    ends: list[float]
    """End of each window, seconds."""
    share: float
    """Share of the recording that has been read."""
    error: AvscError | None = None
    """The reason why the recording, or a part of it, could not be read."""
    done: bool = False


def parts(index: int, source: Source, reading: Reading) -> Iterator[Part]:
    """The clips of a recording. A window or a file that cannot be read is left out."""
    bad: list[tuple[float, MediaError]] = []
    clips: list[Clip] = []
    ends: list[float] = []
    given, failure = 0, None
    try:
        with source.opened() as found:
            wanted = [name for name in reading.cut.modalities if name in found.has]
            if not wanted:
                have, wants = (" and ".join(names) for names in (found.has, reading.cut.modalities))
                raise AvscError(f"{source.name}: has only {have}, and the model wants {wants}")
            for window in found.windows(reading.cut):
                if clip := clip_of(source.name, window, wanted, reading, bad):
                    clips.append(clip)
                    ends.append(min(window.start + reading.cut.window, found.duration or reading.cut.window))
                if len(clips) == CHUNK:
                    given += CHUNK
                    yield Part(index, clips, ends, min(ends[-1] / (found.duration or 1), 1.0))
                    clips, ends = [], []
    except AvscError as error:
        failure = error
    if bad and failure is None:
        failure = _told(bad)
    if not given and not clips and failure is None:
        failure = AvscError(f"{source.name}: no window of it can be read")
    yield Part(index, clips, ends, 1.0, failure, done=True)


def _told(bad: Sequence[tuple[float, MediaError]]) -> AvscError:
    """The error of the first unreadable window, with the number of them."""
    start, error = bad[0]
    windows = len({start for start, _ in bad})
    more = f"; {windows} windows cannot be read" if windows > 1 else ""
    return AvscError(f"{error} (window at {start:.2f} s{more})")


def clip_of(
    name: str, window: MediaWindow, wanted: Sequence[str], reading: Reading, bad: list[tuple[float, MediaError]]
) -> Clip | None:
    """The clip of a window, or None if it is left out; its errors are added to `bad`. Raises the first error under
    "raise"."""
    cut, values = reading.cut, {}
    for modality, found in zip(MODALITIES, (window.audio, window.frames), strict=True):
        if isinstance(found, MediaError):
            bad.append((window.start, found))
            if reading.on_bad == "raise":
                raise _told(bad)
        elif found is not None:
            values[modality] = found
    missing = [modality for modality in wanted if modality not in values]
    if not values or (missing and reading.on_bad == "skip"):
        return None
    audio, frames = values.get("audio"), values.get("video")
    samples = round(cut.window * cut.sample_rate) if "audio" in cut.modalities else 0
    side = cut.short_side if "video" in cut.modalities else 0
    clip = Clip(
        torch.zeros(reading.channels, samples)
        if audio is None
        else torch.from_numpy(np.require(mix_channels(audio, reading.channels), requirements=["C", "W"])),
        torch.zeros(len(cut.times), 3, side, side, dtype=torch.uint8)
        if frames is None
        else torch.from_numpy(frames).permute(0, 3, 1, 2),
        torch.tensor(UNKNOWN),
        torch.tensor([audio is not None, frames is not None]),
        name,
        window.start,
    )
    return reading.crop(clip)


class Workers:
    """Processes that read recordings, one at a time each. If one dies or hangs, its file has an error, and a new
    process continues."""

    def __init__(self, reading: Reading, count: int, patience: float = PATIENCE):
        self.reading, self.patience = reading, patience
        self.context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
        if os.name == "posix":
            self.context.set_forkserver_preload(["avsc_e2e.prediction.reading", "av", "soundfile", "soxr", "cv2"])
        self.count = count

    def parts(self, sources: Sequence[Source]) -> Iterator[Part]:
        """The parts of all recordings; the parts of one recording are in order, and no recording is far ahead of the
        others."""
        waiting = deque(enumerate(sources))
        busy: dict[connection.Connection, _Worker] = {}
        try:
            for _ in range(min(self.count, len(sources))):
                self._start(busy, waiting)
            while busy:
                ready: Any = connection.wait(busy, timeout=min(self.patience / 2, 10.0))  # pipes, as given
                late = [pipe for pipe, worker in busy.items() if time.monotonic() - worker.since > self.patience]
                for pipe in ready or late:
                    worker = busy[pipe]
                    try:
                        if not ready:
                            raise EOFError
                        part = _unpacked(pipe.recv())
                    except (EOFError, OSError):
                        del busy[pipe]
                        yield self._lost(worker, stuck=not ready)
                        if waiting:
                            self._start(busy, waiting)
                        continue
                    worker.since = time.monotonic()
                    if part.done:
                        if waiting:
                            worker.give(waiting.popleft())
                        else:
                            worker.end()
                            del busy[pipe]
                    yield part
        finally:
            for worker in busy.values():
                worker.process.kill()

    def _start(self, busy: dict, waiting: deque) -> None:
        with without_main():
            worker = _Worker(self.context, self.reading)
        worker.give(waiting.popleft())
        busy[worker.pipe] = worker

    def _lost(self, worker: _Worker, stuck: bool) -> Part:
        worker.process.kill()
        index, source = worker.task
        reason = f"reading it takes more than {self.patience:g} s (a stuck disk?)" if stuck else DIED
        return Part(index, [], [], 1.0, MediaError(source.name, reason), done=True)


DIED = "the process that read it died (out of memory, or its decoder crashed)"


class _Worker:
    """One process, the recording that it reads, and the time of its last result."""

    def __init__(self, context, reading: Reading):
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, reading), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, task: tuple[int, Source]) -> None:
        self.task, self.since = task, time.monotonic()
        self.pipe.send(task)

    def end(self) -> None:
        self.pipe.send(None)
        self.pipe.close()


def _work(pipe: connection.Connection, reading: Reading) -> None:
    start_worker()
    torch.set_num_threads(1)
    while (task := pipe.recv()) is not None:
        index, source = task
        for part in parts(index, source, reading):
            pipe.send(_packed(part))


def _packed(part: Part) -> Part:
    """A part with arrays instead of tensors, which would go through shared memory, with a file descriptor for each."""
    changes: list[dict[str, Any]] = [
        {
            "audio": clip.audio.numpy(),
            "video": np.ascontiguousarray(clip.video.permute(0, 2, 3, 1).numpy()),
            "target": UNKNOWN,
            "present": clip.present.tolist(),
        }
        for clip in part.clips
    ]
    return part._replace(clips=[clip._replace(**own) for clip, own in zip(part.clips, changes, strict=True)])


def _unpacked(part: Part) -> Part:
    clips = [
        clip._replace(
            audio=torch.from_numpy(clip.audio),
            video=torch.from_numpy(clip.video).permute(0, 3, 1, 2),
            target=torch.tensor(clip.target),
            present=torch.tensor(clip.present),
        )
        for clip in part.clips
    ]
    return part._replace(clips=clips)
