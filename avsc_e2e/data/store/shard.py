"""Writing a shard of a store.

A recording is appended to its shard; then its line, with a checksum, is appended to the shard's index. Only then it
counts. So a killed run loses only the recordings it was writing, and the next run removes incomplete data, also after a
power failure. A shard gets its final name when it is complete and on the disk. Its bytes depend only on the sources and
the options, not on the machine, the time, or the number of runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote

import numpy as np

from avsc_e2e.clip import MODALITIES
from avsc_e2e.data.media import Decoder, decode_frames, probe
from avsc_e2e.data.store.layout import (
    damage,
    index_file,
    located,
    parse_index,
    read_index,
    verify,
)
from avsc_e2e.data.store.remote import RemoteFolder, fetch, is_url
from avsc_e2e.data.store.tar import Checked, add, add_audio
from avsc_e2e.durable import flush_folder
from avsc_e2e.errors import MediaError

PARTIAL = ".partial"


class Options(NamedTuple):
    """How recordings are stored."""

    short_side: int = 256
    """Pixels of a frame's shorter side."""
    rate: float = 5.0
    """Frames a second, each from the middle of its time span."""
    quality: int = 95
    """Quality of the JPEGs, 1 to 100."""
    decoder: Decoder = "auto"
    """Decoder of the frames."""


DEFAULT = Options()


class Task(NamedTuple):
    """One shard."""

    shard: Path
    root: Path | str
    """Folder or URL that the paths of rows are relative to."""
    rows: tuple[dict[str, Any], ...]
    options: Options
    dead: tuple[tuple[str, str], ...] = ()
    """Recordings that must not be decoded again, because that ends the process, and the reason to note."""
    url: str = ""
    """URL of the store, to which the finished shard is copied; empty if it stays in its folder."""


def write_shard(task: Task) -> Iterator[bool]:
    """Write a shard, and yield for each of its recordings whether it was decoded now. Raises AvscError if the folder is
    not writable."""
    yield from _write_here(task)
    if task.url:
        store, index = RemoteFolder(task.url), index_file(task.shard)
        store.put(index, index.name)  # first, because a shard that exists counts as finished
        store.put(task.shard, task.shard.name)
        task.shard.unlink()
        index.unlink()


def is_whole_at(task: Task, index: bytes | None, sizes: dict[str, int]) -> bool:
    """Whether a shard at a URL is finished, judged by its index and the sizes of the files there."""
    records = parse_index(index or b"")
    if len(records) != len(task.rows) or task.shard.name not in sizes:
        return False
    if damage(sizes[task.shard.name], records, [row["file"] for row in task.rows]):
        return False
    return all(_is_fresh(record, row, task.root) for record, row in zip(records, task.rows, strict=True))


def _write_here(task: Task) -> Iterator[bool]:
    if _is_whole(task):
        yield from (False for _ in task.rows)
        return
    with _locked(task.shard) as partial:
        if _is_whole(task):  # written by another process while this one waited
            yield from (False for _ in task.rows)
            return
        if task.shard.exists():
            # A source has changed, or bytes are lost: the intact part before stays, and so does the locked file.
            shutil.copyfile(task.shard, partial)
            task.shard.unlink()
        records = read_index(task.shard)
        fresh = [_is_fresh(record, row, task.root) for record, row in zip(records, task.rows, strict=False)]
        good = fresh.index(False) if False in fresh else len(fresh)
        with open(partial, "r+b") as tar, open(index_file(task.shard), "ab") as index:
            tar.seek(0, os.SEEK_END)
            good = _intact(tar, records[:good])
            tar.truncate(records[good - 1]["next"] if good else 0)
            tar.seek(0, os.SEEK_END)
            index.truncate(0)
            index.write(b"".join(_line(record) for record in records[:good]))
            index.flush()
            yield from (False for _ in range(good))
            for row in task.rows[good:]:
                record = _append(Checked(tar), row, task)
                tar.flush()
                index.write(_line(record))
                index.flush()
                yield True
            tar.write(bytes(2 * tarfile.BLOCKSIZE))
            sync(tar)
            sync(index)
        os.rename(partial, task.shard)
        flush_folder(task.shard.parent)


def _is_whole(task: Task) -> bool:
    """Whether a shard is finished and its sources have not changed."""
    if not task.shard.exists():
        return False
    records = read_index(task.shard)
    if len(records) != len(task.rows) or damage(task.shard.stat().st_size, records, [row["file"] for row in task.rows]):
        return False
    fresh = all(_is_fresh(record, row, task.root) for record, row in zip(records, task.rows, strict=True))
    return fresh and not verify(task.shard)


def _intact(tar: BinaryIO, records: Sequence[dict[str, Any]]) -> int:
    """Number of recordings at the beginning of a shard that are complete."""
    tar.seek(0)
    for number, record in enumerate(records):
        data = tar.read(record["next"] - tar.tell())
        if tar.tell() != record["next"] or zlib.crc32(data) != record["checksum"]:
            return number
    return len(records)


@contextlib.contextmanager
def _media(row: dict[str, Any], task: Task) -> Iterator[dict[str, Path | MediaError]]:
    """The files of a recording by their paths. Files behind a URL are fetched, and removed afterwards."""
    found: dict[str, Path | MediaError] = {}
    with contextlib.ExitStack() as stack:
        for path in {row["audio"], row["video"]} - {""}:
            place = located(task.root, path)
            if isinstance(place, Path):
                found[path] = place
                continue
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="avsc-", dir=task.shard.parent))
            copy = Path(folder) / f"medium{PurePosixPath(path).suffix}"
            try:
                fetch(place, copy)
                found[path] = copy
            except MediaError as error:
                found[path] = error
        yield found


def _append(tar: Checked, row: dict[str, Any], task: Task) -> dict[str, Any]:
    """Decode a recording, write its frames, audio and description, and return its record."""
    with _media(row, task) as media:
        return _append_files(tar, row, task, media)


def _append_files(tar: Checked, row: dict[str, Any], task: Task, files: dict[str, Path | MediaError]) -> dict[str, Any]:
    key = _key(row["file"])
    record: dict[str, Any] = {"row": row, "source": {}, "bad": {}, "duration": {}, "audio": None, "video": None}
    for path in {row["audio"], row["video"]} - {""}:
        file = files[path]
        if isinstance(file, MediaError):
            continue
        with contextlib.suppress(OSError):
            record["source"][path] = _stamp(file, local=not is_url(located(task.root, path)))
    record["source"] = dict(sorted(record["source"].items()))
    dead = dict(task.dead).get(row["file"])
    if dead:
        record["bad"] = {name: dead for name in reversed(MODALITIES) if row[name]}
    if row["video"] and not dead:
        offsets: list[int] = []
        sizes: list[int] = []
        end = 0.0
        try:
            path = _there(files[row["video"]])
            media = probe(path)
            if media.has_video or row["video"] != row["audio"]:
                record["duration"]["video"] = media.duration
                side, rate, decoder = task.options.short_side, task.options.rate, task.options.decoder
                for image, spans, until in decode_frames(path, rate, side, decoder):
                    end = until
                    data = b"" if isinstance(image, MediaError) else _encode_frame(image, task.options.quality)
                    offset = add(tar, f"{key}.{len(offsets):04d}.jpg", data) if data else 0
                    offsets += [offset] * spans  # a repeated frame is stored once, a lost one not at all
                    sizes += [len(data)] * spans
                record["video"] = {"end": end, "offsets": offsets, "sizes": sizes}
        except MediaError as error:
            record["bad"]["video"] = error.reason
            tar.restart()
    if row["audio"] and not dead:
        try:
            path = _there(files[row["audio"]])
            media = probe(path)
            if media.has_audio or row["video"] != row["audio"]:
                record["duration"]["audio"] = media.duration
                record["audio"] = add_audio(tar, f"{key}.wav", path, task.shard.parent)
        except MediaError as error:
            record["bad"]["audio"] = error.reason
    about = {name: row[name] for name in ("file", "scene", "location", "city", "part")}
    about |= {"frame_rate": task.options.rate, "duration": record["duration"], "bad": record["bad"]}
    add(tar, f"{key}.json", json.dumps(about).encode())
    record |= {"next": tar.file.tell(), "checksum": tar.checksum}
    return record


def _encode_frame(frame: np.ndarray, quality: int) -> bytes:
    """JPEG of an (H, W, 3) uint8 RGB frame."""
    import cv2

    frame = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _key(file: str) -> str:
    """A row's name as a name of tar members, without dots, at the first of which WebDataset ends a key."""
    return quote(file, safe="/").replace(".", "%2E").lstrip("/")


def _there(file: Path | MediaError) -> Path:
    if isinstance(file, MediaError):
        raise file
    return file


def _is_fresh(record: dict[str, Any], row: dict[str, Any], root: Path | str) -> bool:
    """Whether a record belongs to this row and its sources have not changed; sources behind a URL are not checked."""
    if record["row"] != row:
        return False
    sources = [(located(root, path), stamp) for path, stamp in record["source"].items()]
    try:
        return all(_stamp(place) == stamp for place, stamp in sources if isinstance(place, Path))
    except OSError:
        return False


def _stamp(path: Path, local: bool = True) -> list[int]:
    """Size in bytes and modification time in nanoseconds, 0 for a file from a URL."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns if local else 0]


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


@contextlib.contextmanager
def _locked(shard: Path) -> Iterator[Path]:
    """The unfinished file of a shard, locked against the other processes of this machine; waits for the lock."""
    import fcntl

    partial = shard.with_name(shard.name + PARTIAL)
    while True:
        file = open(partial, "ab")  # noqa: SIM115
        fcntl.flock(file, fcntl.LOCK_EX)
        if partial.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(partial)):
            break
        file.close()  # the other process finished the shard and renamed the file
    with file:
        yield partial
        if shard.exists() and partial.exists():
            partial.unlink()


def sync(file: BinaryIO) -> None:
    """Return when everything written is on the disk."""
    file.flush()
    os.fsync(file.fileno())
