"""An open store: frames and audio of its recordings, by row and times.

The shards of a folder are mapped into memory; from a store behind a URL, ranges are fetched (remote.py).
"""

from __future__ import annotations

import atexit
import functools
import mmap
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from avsc_e2e.arguments import checked
from avsc_e2e.clip import MODALITIES, Row
from avsc_e2e.data.media import TOLERANCE, cut_window
from avsc_e2e.data.sets.table import folder_of
from avsc_e2e.data.store.index import Recordings, ShardIndex
from avsc_e2e.data.store.layout import (
    MANIFEST,
    Stored,
    damage,
    index_file,
    index_lines,
    is_store,
    located,
    parse_manifest,
    read_manifest,
    shard_file,
)
from avsc_e2e.data.store.remote import RemoteFolder, is_url
from avsc_e2e.errors import AvscError, MediaError

OPEN = 256
"""Number of shards that a process keeps open; each needs a file descriptor."""


RESIDENT = 16 << 20
"""Bytes that are read from the memory maps of shards before their pages are released, so that processes stay small."""


class Maps:
    """Shards of a folder, as memory maps that processes share."""

    def __init__(self):
        self._maps: dict[Path, mmap.mmap] = {}
        self._touched = 0

    def __reduce__(self):
        return Maps, ()

    def holds(self, shard: Path) -> bool:
        return shard in self._maps

    def parts(self, shard: Path, spans: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """The bytes of each span (offset, size) of a shard, without a copy."""
        self._touched += sum(size for _, size in spans)
        if self._touched > RESIDENT:
            self._touched = 0
            for one in self._maps.values():
                one.madvise(mmap.MADV_DONTNEED)
        if shard not in self._maps:
            self._maps = {path: one for path, one in self._maps.items() if path.exists()}  # frees their disk space
            if len(self._maps) >= OPEN:
                del self._maps[next(iter(self._maps))]
            try:
                with open(shard, "rb") as file:
                    self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise MediaError(str(shard), f"this shard cannot be read ({error}): prepare the store again") from error
        data = self._maps[shard]
        return [np.frombuffer(data, np.uint8, size, offset) for offset, size in spans]


class Shards(Protocol):
    """A source of the bytes of shards."""

    def parts(self, shard: Any, spans: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """The bytes of each span (offset, size) of a shard."""
        ...


@dataclass
class Store:
    """Access to the recordings of a store by the file of a row, with the two functions that `media` has for paths."""

    path: Path | str
    """A folder or a URL."""
    layout: str
    """tau, folder or evaluation."""
    root: Path | str
    """Source when the store was prepared: a folder, a table, or the URL of one."""
    short_side: int
    """Pixels."""
    rate: float
    """Frames a second."""
    recordings: Recordings
    copies: tuple[tuple[str, str], ...] = ()
    """Pairs of rows that are the same recording, if the source was class folders (see duplicates.py)."""
    shards: Shards = field(default_factory=Maps, repr=False)

    def check(self, rows: Iterable[Row], modalities: Sequence[str], short_side: int) -> None:
        """Raises AvscError unless the store contains all `rows` with frames of at least `short_side` pixels, and no
        source has changed since. Sources may be absent; those of a store behind a URL are not checked."""
        rows = list(rows)
        absent = [row.file for row in rows if row.file not in self.recordings]
        if absent:
            raise AvscError(
                f"{self.path}: {len(absent)} of {len(rows)} recordings are not in this store, such as {absent[0]}: "
                f"prepare it again from the data set that you read ({self.root} it was)"
            )
        if "video" in modalities and short_side > self.short_side:
            raise AvscError(
                f"{self.path}: its frames have {self.short_side} pixels, {short_side} are wanted: "
                f"give --data.short-side {self.short_side}, or prepare a store with --short-side {short_side}"
            )
        if is_url(self.path):
            return
        changed = [path for row in rows for path in self._changed(self.recordings[row.file])]
        if changed:
            raise AvscError(
                f"{changed[0]}: has changed since it was prepared ({len(changed)} files have): run `avsc data prepare "
                f"{self.root} {self.path}` again"
            )

    def _changed(self, stored: Stored) -> list[str]:
        found = []
        for path, stamp in stored.source.items():
            path = str(located(folder_of(self.root), path))
            try:
                status = os.stat(path)
            except OSError:
                continue
            if [status.st_size, status.st_mtime_ns] != stamp:
                found.append(path)
        return found

    def rows(self, modalities: Sequence[str] = MODALITIES) -> dict[str, list[Row]]:
        """The rows of each part as listed and measured, with the given `modalities` only."""
        parts: dict[str, list[Row]] = {}
        for stored in sorted(self.recordings.values(), key=lambda stored: PurePosixPath(stored.row["file"])):
            scene, location, city = (stored.row[name] for name in ("scene", "location", "city"))
            row = self.measured(Row(stored.row["file"]), modalities)
            row = row._replace(scene=scene, location=location, city=city)
            parts.setdefault(stored.row["part"], []).append(row)
        return parts

    def measured(self, row: Row, modalities: Sequence[str] = MODALITIES) -> Row:
        """A row with the paths of its source and the duration that its modalities have in common."""
        stored = self.recordings[row.file]
        have = [name for name in modalities if stored.has(name)]
        paths = {
            name: str(located(folder_of(self.root), stored.row[name])) if name in have and stored.row[name] else ""
            for name in MODALITIES
        }
        durations = [stored.duration[name] for name in have if name in stored.duration]
        return row._replace(audio=paths["audio"], video=paths["video"], duration=min(durations, default=0.0))

    def read_frames(self, row: Row, times: Sequence[float], short_side: int) -> np.ndarray:
        """As `media.read_frames` for the row's video, from stored frames. Raises MediaError."""
        import cv2

        stored = self._stored(row, "video")
        if max(times) > stored.end + TOLERANCE:
            raise MediaError(
                row.video, f"no frame at {max(times):.2f} s: its video ends at {stored.end:.2f} s (is it cut off?)"
            )
        assert stored.frames is not None  # _stored has checked it
        assert stored.sizes is not None
        spans = np.floor(np.asarray(times) * self.rate + 1e-6).astype(int).clip(0, len(stored.frames) - 1)
        if (lost := stored.sizes[spans] == 0).any():
            time = np.asarray(times)[lost][0]
            raise MediaError(row.video, f"no frame at {time:.2f} s could be decoded when the store was prepared")
        places = list(zip(stored.frames[spans].tolist(), stored.sizes[spans].tolist(), strict=True))
        frames = []
        for data in self.shards.parts(stored.shard, places):  # type: ignore[arg-type]  # a path, or a URL's folder
            frame = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
            if frame is None:
                raise MediaError(str(stored.shard), f"a frame of {row.file} is damaged: delete this shard and prepare")
            height, width = frame.shape[:2]
            if short_side < min(width, height):
                scale = short_side / min(width, height)
                size = max(round(width * scale), short_side), max(round(height * scale), short_side)
                frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            frames.append(frame)
        return frames[0][None] if len(frames) == 1 else np.stack(frames)

    def read_audio(self, row: Row, start: float, duration: float, sample_rate: int) -> np.ndarray:
        """As `media.read_audio` for the row's audio. Raises MediaError."""
        stored = self._stored(row, "audio")
        assert stored.audio is not None  # _stored has checked it
        offset, samples, channels, rate, bits = stored.audio

        def cut(first: int, last: int) -> tuple[np.ndarray, int]:
            first, last = min(first, samples), min(last, samples)
            width = channels * bits // 8
            before = int(bits == 24)  # _as_float reads the byte before, which exists, because a header comes first
            begin = offset + first * width - before
            span = (begin, (last - first) * width + before)
            [data] = self.shards.parts(stored.shard, [span])  # type: ignore[arg-type]  # a path, or a URL's folder
            return _as_float(data, before, last - first, channels, bits), first

        return cut_window(row.audio, cut, rate, start, duration, sample_rate)

    def _stored(self, row: Row, modality: str) -> Stored:
        stored = self.recordings[row.file]
        if modality in stored.bad:
            raise MediaError(getattr(row, modality), f"{stored.bad[modality]} (found when the store was prepared)")
        if not stored.has(modality):
            raise MediaError(getattr(row, modality), f"{self.path} holds no {modality} of it")
        return stored


def _as_float(data: np.ndarray, offset: int, samples: int, channels: int, bits: int) -> np.ndarray:
    """Little-endian samples at `offset` as (C, N) float32 in [-1, 1], as soundfile scales them."""
    count = samples * channels
    if bits == 32:
        return np.ascontiguousarray(np.frombuffer(data, "<f4", count, offset).reshape(samples, channels).T)
    if bits == 16:
        values = np.frombuffer(data, "<i2", count, offset)
    else:  # four bytes: those of a sample and the one before, which the mask removes
        values = np.ndarray((count,), "<i4", data, offset - 1, (3,)) & np.int32(-256)
    scale = np.float32(2.0 ** (-15 if bits == 16 else -31))
    return np.multiply(values.reshape(samples, channels).T, scale, dtype=np.float32, order="C")


@checked
def open_store(path: str | os.PathLike[str]) -> Store:
    """Open a finished store: a folder, or a URL, whose lists are fetched once in a process. Raises AvscError for
    anything else."""
    if is_url(path):
        return _open_url(str(path).rstrip("/"))
    path = Path(os.path.abspath(path))
    if not is_store(path):
        raise AvscError(f"{path}: is not a store, there is no {MANIFEST} in it: make one with `avsc data prepare`")
    return _store(path, *_read_lists(path, path.stat().st_mtime_ns))


@functools.lru_cache(maxsize=4)
def _read_lists(path: Path, changed: int) -> tuple[dict[str, Any], Recordings]:
    """Manifest and recordings of a folder, cached because training, validation and evaluation open the same store. The
    folder's modification time (nanoseconds) `changed` differs once another shard is finished."""
    manifest = read_manifest(path)
    unfinished: list[Path] = []
    recordings = Recordings(_indices(path, manifest, unfinished))
    if unfinished:
        raise AvscError(
            f"{path}: {len(unfinished)} of its {len(manifest['shards'])} shards are not finished: run `avsc data "
            f"prepare {manifest['root']} {path}` again, it goes on where it stopped"
        )
    del manifest["shards"]  # the names of all recordings, which are in the index too
    return manifest, recordings


def _indices(path: Path, manifest: dict[str, Any], unfinished: list[Path]) -> Iterator[ShardIndex]:
    """The indices of the finished shards. Raises AvscError if one is damaged."""
    for number in range(len(manifest["shards"])):
        shard = shard_file(path, number)
        if not shard.is_file():
            unfinished.append(shard)
            continue
        index = index_file(shard)
        lines = index_lines(index.read_bytes()) if index.is_file() else []
        reason = damage(shard.stat().st_size, [line.record for line in lines], manifest["shards"][number])
        if reason:
            raise AvscError(
                f"{shard}: is damaged ({reason}): run `avsc data prepare {manifest['root']} {path}` again, which mends "
                "it, or copy it anew"
            )
        yield ShardIndex(index, shard, lines)


@functools.lru_cache(maxsize=4)
def _open_url(url: str) -> Store:
    folder = RemoteFolder(url)
    [data] = folder.read([MANIFEST])
    manifest = parse_manifest(data or b"", f"{url}/{MANIFEST}")
    shards = [shard_file(Path(), number) for number in range(len(manifest["shards"]))]
    lists = Path(tempfile.mkdtemp(prefix="avsc-store-"))  # for the worker processes too
    atexit.register(shutil.rmtree, lists, ignore_errors=True)
    indices = []
    for shard, index in zip(shards, folder.read([index_file(shard).name for shard in shards]), strict=True):
        place, lines = f"{url}/{shard.name}", index_lines(index or b"")
        (lists / index_file(shard).name).write_bytes(index or b"")
        indices.append(ShardIndex(lists / index_file(shard).name, place, lines))
        folder.sizes[place] = (lines[-1].record["next"] if lines else 0) + 2 * tarfile.BLOCKSIZE  # as a tar ends
    return _store(url, manifest, Recordings(indices), folder)


def _store(path: Path | str, manifest: dict[str, Any], recordings: Recordings, *shards: RemoteFolder) -> Store:
    options = manifest["options"]
    root = manifest["root"] if is_url(manifest["root"]) else Path(manifest["root"])
    copies = tuple((first, second) for first, second in manifest.get("copies", ()))
    return Store(path, manifest["layout"], root, options["short_side"], options["rate"], recordings, copies, *shards)
