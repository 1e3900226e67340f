"""Inputs of prediction: media files, their URLs or bytes, arrays, and the recordings of stores. All of them give
windows."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeAlias

import numpy as np

from avsc_e2e.arguments import checked_fields
from avsc_e2e.clip import MODALITIES, Row
from avsc_e2e.data.media import Decoder, LiveWindows, MediaWindow, decode_windows, probe, window_starts
from avsc_e2e.data.store.reader import Store, open_store
from avsc_e2e.data.store.remote import fetch
from avsc_e2e.errors import AvscError, MediaError

LONG = 60.0
"""Length of a recording, seconds, from which all cores decode it if there are no worker processes."""
SECOND = 100_000
"""Bytes that the progress counts for each second of a recording that is not a file."""


@dataclass(frozen=True)
class Cut:
    """The windows of recordings, and the audio and frames that a model takes of them."""

    window: float
    """Seconds."""
    hop: float
    """Seconds between the starts of two windows."""
    times: tuple[float, ...]
    """Times of the frames within a window, seconds."""
    short_side: int
    """Pixels."""
    smallest: int
    """Pixels that the frames of a store have at least."""
    sample_rate: int
    """Hz."""
    modalities: tuple[str, ...]
    """The modalities that the model takes."""
    decoder: Decoder = "auto"
    threads: int = 1
    """Threads that decode a long video; 0: one for each core."""


class Opened(NamedTuple):
    """A recording whose header has been read."""

    duration: float
    """Duration, seconds; 0 if there is none, as for an image."""
    has: tuple[str, ...]
    """The modalities that it has."""
    windows: Callable[[Cut], Iterator[MediaWindow]]


@dataclass(frozen=True)
class MediaFile:
    """A media file."""

    path: str

    @property
    def name(self) -> str:
        return self.path

    @property
    def weight(self) -> float:
        """Bytes."""
        return os.path.getsize(self.path) if os.path.isfile(self.path) else 0

    @contextlib.contextmanager
    def opened(self) -> Iterator[Opened]:
        """Raises MediaError."""
        media = probe(self.path)
        has = (media.has_audio, media.has_video)
        yield Opened(
            media.duration,
            tuple(name for name, there in zip(MODALITIES, has, strict=True) if there),
            partial(self._windows, media.duration),
        )

    def _windows(self, duration: float, cut: Cut) -> Iterator[MediaWindow]:
        return decode_windows(
            self.path,
            window=cut.window,
            hop=cut.hop,
            frames=cut.times,
            short_side=cut.short_side,
            sample_rate=cut.sample_rate,
            audio="audio" in cut.modalities,
            video="video" in cut.modalities,
            decoder=cut.decoder,
            threads=cut.threads if duration > LONG else 1,
        )


@dataclass(frozen=True)
class RemoteFile:
    """A media file behind a URL that fsspec knows. It is downloaded once, to a temporary file."""

    url: str

    @property
    def name(self) -> str:
        return self.url

    @property
    def weight(self) -> float:
        return 10 * SECOND

    @contextlib.contextmanager
    def opened(self) -> Iterator[Opened]:
        """Raises AvscError."""
        with tempfile.TemporaryDirectory(prefix="avsc-") as folder:
            path = Path(folder) / PurePosixPath(self.url.split("?")[0]).name
            fetch(self.url, path)
            with _named(path, self.url), MediaFile(str(path)).opened() as found:
                yield found


@dataclass(frozen=True)
class MediaBytes:
    """The bytes of a media file."""

    data: bytes = field(repr=False)
    name: str

    @property
    def weight(self) -> float:
        return len(self.data)

    @contextlib.contextmanager
    def opened(self) -> Iterator[Opened]:
        """Raises MediaError."""
        with tempfile.TemporaryDirectory(prefix="avsc-") as folder:
            path = Path(folder) / "recording"
            path.write_bytes(self.data)
            with _named(path, self.name), MediaFile(str(path)).opened() as found:
                yield found


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording in memory."""

    frames: np.ndarray | None = field(default=None, repr=False)
    """(T, H, W, 3) uint8 RGB; None where there is no video."""
    frame_rate: float = 25.0
    """Frames a second."""
    audio: np.ndarray | None = field(default=None, repr=False)
    """(C, N) float32 in [-1, 1] or int16, C 1 or 2; None where there is no audio."""
    sample_rate: int = 48_000
    """Hz."""
    name: str = "recording"

    def __post_init__(self):
        checked_fields(self)
        for name in ("frame_rate", "sample_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise AvscError(f"{name} {getattr(self, name)}: give a number above 0")

    @property
    def duration(self) -> float:
        """Seconds that both streams cover."""
        lengths = [] if self.frames is None else [len(self.frames) / self.frame_rate]
        lengths += [] if self.audio is None else [self.audio.shape[-1] / self.sample_rate]
        return min(lengths, default=0.0)

    @property
    def weight(self) -> float:
        return SECOND * self.duration

    @contextlib.contextmanager
    def opened(self) -> Iterator[Opened]:
        """Raises MediaError."""
        has = tuple(n for n, values in zip(MODALITIES, (self.audio, self.frames), strict=True) if values is not None)
        if not self.duration > 0:
            raise MediaError(self.name, "holds neither frames nor samples")
        yield Opened(self.duration, has, self._windows)

    def _windows(self, cut: Cut) -> Iterator[MediaWindow]:
        audio = "audio" in cut.modalities and self.audio is not None
        video = "video" in cut.modalities and self.frames is not None
        live = live_windows(cut, self.sample_rate if audio else 0, video, self.name)
        if audio and self.audio is not None:
            live.hear(self.audio)
        for number, frame in enumerate(self.frames if video and self.frames is not None else ()):
            live.see(frame, number / self.frame_rate)
            yield from live.windows()
        yield from live.windows(self.duration)


@dataclass(frozen=True)
class StoredRecording:
    """A recording of a store."""

    store: str
    """Folder or URL."""
    name: str
    """The row's file."""

    @property
    def weight(self) -> float:
        return SECOND * opened_store(self.store).measured(Row(self.name)).duration

    @contextlib.contextmanager
    def opened(self) -> Iterator[Opened]:
        """Raises AvscError."""
        store = opened_store(self.store)
        has = tuple(name for name in MODALITIES if store.recordings[self.name].has(name))
        yield Opened(store.measured(Row(self.name)).duration, has, partial(self._windows, store))

    def _windows(self, store: Store, cut: Cut) -> Iterator[MediaWindow]:
        row = store.measured(Row(self.name), cut.modalities)
        if row.video and store.short_side < cut.smallest:
            raise AvscError(
                f"{self.store}: its frames have {store.short_side} pixels, the model sees {cut.smallest}: prepare a "
                f"store with --short-side {cut.short_side}"
            )
        store.check([row], cut.modalities, 0)
        for start in window_starts(row.duration, cut.window, cut.hop):
            times = [min(start + time, max(row.duration, start)) for time in cut.times]
            yield MediaWindow(
                start,
                _or_error(store.read_audio, row, start, cut.window, cut.sample_rate) if row.audio else None,
                _or_error(store.read_frames, row, times, cut.short_side) if row.video else None,
            )


Source: TypeAlias = MediaFile | RemoteFile | MediaBytes | Recording | StoredRecording


def live_windows(cut: Cut, heard_rate: int, seen: bool, name: str) -> LiveWindows:
    """The windows of frames and samples to come: `heard_rate` in Hz, 0 where there is no audio."""
    return LiveWindows(
        window=cut.window,
        hop=cut.hop,
        frames=cut.times,
        short_side=cut.short_side,
        sample_rate=cut.sample_rate,
        heard_rate=heard_rate,
        seen=seen,
        name=name,
    )


@lru_cache(maxsize=2)
def opened_store(path: str) -> Store:
    """Opened once a process, with its maps."""
    return open_store(path)


def _or_error(read: Callable[..., np.ndarray], *arguments) -> np.ndarray | MediaError:
    try:
        return read(*arguments)
    except MediaError as error:
        return error


@contextlib.contextmanager
def _named(path: Path, name: str) -> Iterator[None]:
    """Errors name what the caller knows, not a file that will be gone."""
    try:
        yield
    except MediaError as error:
        raise MediaError(name if error.path == str(path) else error.path, error.reason) from error
    except AvscError as error:
        raise AvscError(f"{error}".replace(str(path), name)) from error
