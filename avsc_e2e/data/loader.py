"""Batches of clips: worker processes, media that cannot be read, and files on which a worker dies."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from multiprocessing import connection
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from avsc_e2e.clip import Clip
from avsc_e2e.data.badmedia import BadMedia, BadMediaLog
from avsc_e2e.data.dataset import Attempt, ClipDataset, Key
from avsc_e2e.data.sampler import KeyedSampler, Position, Streaming
from avsc_e2e.errors import AvscError, MediaError
from avsc_e2e.processes import start_worker, without_main

PRELOADED = (
    *("avsc_e2e.data.loader", "avsc_e2e.transforms.frames", "avsc_e2e.transforms.waveform"),
    *("albumentations", "audiomentations", "av", "soundfile", "soxr"),
)
"""Modules that the server imports once before workers are forked from it. The transforms come before the packages,
because they silence them."""


SHARED = "/dev/shm"
"""Folder of the shared memory through which workers pass batches."""


def collate(clips: list[Clip]) -> Clip:
    """A batch: tensors gain a leading axis B, files and starts become a list and a tensor. Frames keep their layout in
    memory, (T, H, W, 3), which is channels last, so neither the loader nor the device has to copy them."""
    files = [clip.file for clip in clips]
    batch = default_collate([clip._replace(file="", video=clip.video.permute(0, 2, 3, 1)) for clip in clips])
    return batch._replace(file=files, video=batch.video.permute(0, 1, 4, 2, 3))


def as_int16(batch: Clip) -> Clip:
    """A batch with audio as int16 if that is lossless, as for 16-bit files without transforms. This halves the bytes
    copied to the device, where `preprocess` restores the same floats."""
    for audio in (batch.audio[:1], batch.audio):  # usually the first clip already shows that it is not
        scaled = audio * 2**15
        exact = scaled.to(torch.int16)
        if not torch.equal(exact.to(scaled.dtype), scaled):
            return batch
    return batch._replace(audio=exact)


class ClipLoader(DataLoader):
    """A DataLoader that yields Clips, handles unreadable media as the dataset's `on_bad` says, and names the file on
    which a worker dies or hangs. Raises MediaError and AvscError."""

    def __init__(self, dataset: ClipDataset, *, patience: float, small: bool = False, **options):
        self.clips, self.patience = dataset, patience
        self.taken = 0
        """Batches that were read in this epoch, those of bad media included."""
        self.bad = BadMediaLog(dataset.bad_media, dataset.total)
        workers = options["num_workers"]
        self.reading = torch.zeros(workers, 2, dtype=torch.float64).share_memory_() if workers else None
        super().__init__(
            _Attempts(dataset, self.reading),
            collate_fn=partial(_collate_attempts, small=small),
            timeout=min(patience / 2, 10) if workers else 0,
            worker_init_fn=_start_worker,
            **options,
        )

    def __iter__(self) -> Iterator[Clip]:  # type: ignore[override]  # of what workers give, the clips
        # Workers need the caller's script only for a transform that is defined in it.
        needed = self.num_workers and b"__main__" in pickle.dumps(self.clips.transform)
        with nullcontext() if needed else without_main():
            batches = super().__iter__()
        waiting = time.monotonic()
        self.taken = 0
        while True:
            try:
                clip, bad, failure = next(batches)
                self.taken += 1
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:  # the latter two if a worker dies while it sends
                self._judge(error, time.monotonic() - waiting)
                continue  # the batch is still on its way
            if failure:
                raise failure
            for one in bad:
                self.bad.add(one, tell=self.clips.on_bad != "raise")  # the error is complete already
            if bad and self.clips.on_bad == "raise":
                raise MediaError(bad[0].path, bad[0].reason)
            self.bad.judge()
            if clip is not None:
                yield clip
            waiting = time.monotonic()

    def _judge(self, error: Exception, waited: float) -> None:
        """Continue after a timeout of torch if every worker was working; else raise."""
        text = str(error) or type(error).__name__
        if _of_shared_memory(text):
            size = shutil.disk_usage(SHARED).total / 2**20
            raise AvscError(
                f"{SHARED}: its {size:.0f} MB are too small for the batches of the loader's workers: give a container "
                "more (`docker run --shm-size 2g`), or read with fewer processes (--data.workers 1, or 0 for none)"
            ) from error
        iterator: Any = self._iterator
        workers = iterator._workers if iterator and self.num_workers else []
        if not isinstance(error, RuntimeError):
            connection.wait([worker.sentinel for worker in workers], timeout=1.0)
        dead = [worker for worker in workers if not worker.is_alive()]
        if not dead and not text.startswith("DataLoader "):
            raise error
        for number, (index, since) in enumerate([] if self.reading is None else self.reading.tolist()):
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


def _of_shared_memory(text: str) -> bool:
    """Whether a failure of torch's loader means too little shared memory. A bus error means it only if little is free,
    because a mapped file that shrinks causes one too."""
    if "allocate shared memory(shm)" in text or "unable to write to file </torch_" in text:
        return True
    return "Bus error" in text and os.path.isdir(SHARED) and shutil.disk_usage(SHARED).total < 2**30


class _Attempts(Dataset):
    """The dataset of the workers: attempts, each noted with its start time. An error that stops all, such as a store
    that cannot be reached, is returned as a value, because torch would raise it with the worker's stack as its text."""

    def __init__(self, clips: ClipDataset, reading: torch.Tensor | None):
        self.clips, self.reading = clips, reading

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: Key) -> Attempt | AvscError:
        worker = get_worker_info()
        if worker is None or self.reading is None:
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


def _collate_attempts(
    attempts: list[Attempt | AvscError], small: bool = False
) -> tuple[Clip | None, list[BadMedia], AvscError | None]:
    made: list[Attempt] = []
    for attempt in attempts:
        if isinstance(attempt, AvscError):
            return None, [], attempt
        made.append(attempt)
    clips = [attempt.clip for attempt in made if attempt.clip is not None]
    batch = collate(clips) if clips else None
    return (as_int16(batch) if small and batch else batch), [bad for attempt in made for bad in attempt.bad], None


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
    small: bool = False,
    streaming: Streaming | None = None,
    position: Position | None = None,
) -> ClipLoader:
    """Batches of a dataset as Clips. Worker processes are forked from a server that has imported the library and
    nothing else, so that neither threads nor locks nor GPU contexts are copied into them. A file that takes a worker
    longer than `patience` seconds to read is an error. `balance` is the class balance, from 0 to 1. `small`: audio is
    int16 if that is lossless, which only `preprocess` accepts."""
    sampler = KeyedSampler(
        len(dataset),
        shuffle=shuffle,
        seed=seed,
        rank=rank,
        replicas=replicas,
        classes=[dataset.row(index).scene for index in range(len(dataset))] if balance else (),
        balance=balance,
        streaming=streaming,
        position=position,
    )
    context = None
    if workers:
        context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
        if os.name == "posix":
            context.set_forkserver_preload(list(PRELOADED))
    return ClipLoader(
        dataset,
        patience=patience,
        small=small,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        drop_last=shuffle and len(sampler) >= batch_size,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        multiprocessing_context=context,
        prefetch_factor=4 if workers else None,
    )
