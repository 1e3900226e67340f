"""Writing a shard of a store.

A recording is appended to its shard, then its line, with a checksum, to the shard's index; only then it counts. So a
killed run loses the recordings in hand and no other, and what is cut off, or was lost with the power, is cut away by
the next. A shard gets its name when it is whole and on the disk. Bytes depend on the sources and the options alone,
not on who wrote them, when, or in how many goes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote

import numpy as np

from avsc_e2e.clip import MODALITIES
from avsc_e2e.data.media import Decoder, audio_blocks, decode_frames, probe
from avsc_e2e.data.store.layout import (
    damage,
    index_file,
    read_index,
    verify,
)
from avsc_e2e.durable import flush_folder
from avsc_e2e.errors import MediaError

PARTIAL = ".partial"


class Options(NamedTuple):
    """How recordings are stored."""

    short_side: int = 256
    """Pixels of a frame's shorter side."""
    rate: float = 5.0
    """Frames a second, each from the middle of its span of time."""
    quality: int = 95
    """Of the JPEGs, 1 to 100."""
    decoder: Decoder = "auto"
    """What decodes frames."""


DEFAULT = Options()


class Task(NamedTuple):
    """One shard."""

    shard: Path
    root: Path
    rows: tuple[dict[str, Any], ...]
    options: Options
    dead: tuple[tuple[str, str], ...] = ()
    """Recordings that are not to be decoded again, because it ends the process, with what is told of it."""


def write_shard(task: Task) -> Iterator[bool]:
    """Write a shard; yields for each of its recordings whether it was decoded now. Raises MediaError where its folder
    cannot be written to."""
    if _is_whole(task):
        yield from (False for _ in task.rows)
        return
    with _locked(task.shard) as partial:
        if _is_whole(task):  # by another process, while this one waited
            yield from (False for _ in task.rows)
            return
        if task.shard.exists():
            # A source has changed, or bytes are lost: what is whole before stays. The file that is locked is kept.
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
    """Whether a shard is finished and of the sources as they are now."""
    if not task.shard.exists():
        return False
    records = read_index(task.shard)
    if len(records) != len(task.rows) or damage(task.shard, records, [row["file"] for row in task.rows]):
        return False
    fresh = all(_is_fresh(record, row, task.root) for record, row in zip(records, task.rows, strict=True))
    return fresh and not verify(task.shard)


class Checked:
    """A file that is appended to, with a checksum of what was."""

    def __init__(self, file: BinaryIO):
        self.file, self.begin, self.checksum = file, file.tell(), 0

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.checksum = zlib.crc32(data, self.checksum)

    def restart(self) -> None:
        """Take back what was written."""
        self.file.truncate(self.begin)
        self.file.seek(self.begin)
        self.checksum = 0


def _intact(tar: BinaryIO, records: Sequence[dict[str, Any]]) -> int:
    """How many of the recordings at the begin of a shard are there to the last byte."""
    tar.seek(0)
    for number, record in enumerate(records):
        data = tar.read(record["next"] - tar.tell())
        if tar.tell() != record["next"] or zlib.crc32(data) != record["checksum"]:
            return number
    return len(records)


def _append(tar: Checked, row: dict[str, Any], task: Task) -> dict[str, Any]:
    """Decode a recording, write its frames, audio and description, and return its record."""
    key = _key(row["file"])
    record: dict[str, Any] = {"row": row, "source": {}, "bad": {}, "duration": {}, "audio": None, "video": None}
    for path in {row["audio"], row["video"]} - {""}:
        with contextlib.suppress(OSError):
            record["source"][path] = _stamp(task.root / path)
    record["source"] = dict(sorted(record["source"].items()))
    dead = dict(task.dead).get(row["file"])
    if dead:
        record["bad"] = {name: dead for name in reversed(MODALITIES) if row[name]}
    if row["video"] and not dead:
        path, offsets, sizes, end = task.root / row["video"], [], [], 0.0
        try:
            media = probe(path)
            if media.has_video or row["video"] != row["audio"]:
                record["duration"]["video"] = media.duration
                side, rate, decoder = task.options.short_side, task.options.rate, task.options.decoder
                for image, spans, until in decode_frames(path, rate, side, decoder):
                    end = until
                    data = b"" if isinstance(image, MediaError) else _encode_frame(image, task.options.quality)
                    offset = _add(tar, f"{key}.{len(offsets):04d}.jpg", data) if data else 0
                    offsets += [offset] * spans  # a frame that is held is stored once, one that is lost not at all
                    sizes += [len(data)] * spans
                record["video"] = {"end": end, "offsets": offsets, "sizes": sizes}
        except MediaError as error:
            record["bad"]["video"] = error.reason
            tar.restart()
    if row["audio"] and not dead:
        path = task.root / row["audio"]
        try:
            media = probe(path)
            if media.has_audio or row["video"] != row["audio"]:
                record["duration"]["audio"] = media.duration
                record["audio"] = _add_audio(tar, f"{key}.wav", path, task.shard.parent)
        except MediaError as error:
            record["bad"]["audio"] = error.reason
    about = {name: row[name] for name in ("file", "scene", "location", "city", "part")}
    about |= {"frame_rate": task.options.rate, "duration": record["duration"], "bad": record["bad"]}
    _add(tar, f"{key}.json", json.dumps(about).encode())
    record |= {"next": tar.file.tell(), "checksum": tar.checksum}
    return record


def _add(tar: Checked, name: str, data: bytes) -> int:
    """Append a member and return where its data begin."""
    return _add_parts(tar, name, len(data), [data])


def _add_parts(tar: Checked, name: str, size: int, parts: Iterable[bytes]) -> int:
    """Append a member of `size` bytes, part by part, and return where its data begin."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    tar.write(member.tobuf(tarfile.GNU_FORMAT, "ascii"))
    offset = tar.file.tell()
    for part in parts:
        tar.write(part)
    tar.write(bytes(-size % tarfile.BLOCKSIZE))
    return offset


def _add_audio(tar: Checked, name: str, path: Path, scratch: Path) -> list[int]:
    """Append a recording's audio as a WAV file and return where its samples begin, their number, the channels, the rate
    (Hz) and the bits of one. The tar wants the size first, so the samples wait in a file without a name: memory does
    not grow with the recording. Raises MediaError."""
    samples, channels, rate, bits = 0, 1, 0, 16
    with tempfile.TemporaryFile(dir=scratch) as raw:
        for block, rate in audio_blocks(path):  # noqa: B007
            samples, channels = samples + len(block), block.shape[1]
            bits = {"int16": 16, "int32": 24, "float32": 32}[block.dtype.name]
            if bits == 24:
                raw.write(block.astype("<i4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes())
            else:
                raw.write(block.astype("<i2" if bits == 16 else "<f4").tobytes())
        if not rate:
            raise MediaError(str(path), "none of its audio can be decoded (is it cut off?)")
        size = raw.tell()
        raw.seek(0)
        header = _wav_header(size, samples, channels, rate, bits)
        parts = chain([header], iter(partial(raw.read, 1 << 20), b""))
        return [_add_parts(tar, name, len(header) + size, parts) + len(header), samples, channels, rate, bits]


def _wav_header(size: int, samples: int, channels: int, rate: int, bits: int) -> bytes:
    """Of a WAV file with `size` bytes of samples. By hand, for libsndfile writes the time of day into that of floats,
    and a store's bytes depend on its sources alone."""
    width = channels * bits // 8
    kind = struct.pack("<HHIIHH", 3 if bits == 32 else 1, channels, rate, rate * width, width, bits)
    head = b"fmt " + struct.pack("<I", len(kind)) + kind
    if bits == 32:
        head += b"fact" + struct.pack("<II", 4, samples)
    head += b"data" + struct.pack("<I", size & 0xFFFFFFFF)
    return b"RIFF" + struct.pack("<I", (4 + len(head) + size) & 0xFFFFFFFF) + b"WAVE" + head


def _encode_frame(frame: np.ndarray, quality: int) -> bytes:
    """JPEG of an (H, W, 3) uint8 RGB frame."""
    import cv2

    frame = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _key(file: str) -> str:
    """A row's name as the name of tar members: WebDataset ends the key of a sample at the first dot."""
    return quote(file, safe="/").replace(".", "%2E").lstrip("/")


def _is_fresh(record: dict[str, Any], row: dict[str, Any], root: Path) -> bool:
    """Whether a record is of this row, and of the sources as they are now."""
    try:
        return record["row"] == row and all(_stamp(root / path) == stamp for path, stamp in record["source"].items())
    except OSError:
        return False


def _stamp(path: Path) -> list[int]:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


@contextlib.contextmanager
def _locked(shard: Path) -> Iterator[Path]:
    """The unfinished file of a shard, held alone among all processes of this machine; it waits for another."""
    import fcntl

    partial = shard.with_name(shard.name + PARTIAL)
    while True:
        file = open(partial, "ab")  # noqa: SIM115
        fcntl.flock(file, fcntl.LOCK_EX)
        if partial.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(partial)):
            break
        file.close()  # the other finished the shard and renamed what was waited for
    with file:
        yield partial
        if shard.exists() and partial.exists():
            partial.unlink()


def sync(file: BinaryIO) -> None:
    """Returns when all that was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())
