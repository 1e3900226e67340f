"""The files of a store: recordings that `avsc data prepare` decoded once, so that a clip is read in a millisecond.

    STORE/store.json           its source and options, and which recordings are in which shard
    STORE/shard-000000.tar     <key>.0000.jpg ... <key>.wav <key>.json of each recording: plain tar, also for WebDataset
    STORE/shard-000000.jsonl   offsets of the frames and the audio in the tar, one line a recording
    STORE/meta.csv ...         the lists of the official layout, where the source has it

Frame k is the one shown in the middle of the k-th span of 1 / rate seconds; a requested time gets the frame of its
span. With an odd whole rate, the centre of a one-second segment is the middle of a span. So an evaluation with one
frame a segment (with rate 5 also five) gets exactly the frames that it would get from the media.
"""

from __future__ import annotations

import json
import os
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from avsc_e2e.data.store.remote import is_url
from avsc_e2e.errors import AvscError

MANIFEST = "store.json"
FORMAT = 1
FIELDS = frozenset({"row", "source", "bad", "duration", "audio", "video", "next", "checksum"})
"""Fields of a line of an index."""
ROW = ("file", "audio", "video", "scene", "location", "city", "part")
"""Text fields of a recording in it."""


class Stored:
    """One recording and the places of its parts. It is small, because a set has many."""

    __slots__ = ("audio", "bad", "duration", "end", "frames", "row", "shard", "sizes", "source")

    def __init__(self, record: dict[str, Any], shard: Path | str):
        self.shard = shard
        self.row: dict[str, str] = record["row"]
        """file, audio and video (relative to the source's root), scene, location, city, part."""
        self.source: dict[str, list[int]] = record["source"]
        """Path relative to the source's root -> size in bytes and modification time in nanoseconds."""
        self.bad: dict[str, str] = record["bad"]
        """Modality -> reason why it could not be decoded."""
        self.audio: list[int] | None = record["audio"]
        """Offset in the shard, samples, channels, rate (Hz), bits; None without audio."""
        video = record["video"]
        self.frames = np.array(video["offsets"], np.int64) if video else None
        """Offset of each frame in the shard; None without video."""
        self.sizes = np.array(video["sizes"], np.int32) if video else None
        self.end: float = video["end"] if video else 0.0
        """End of the frames, seconds."""
        self.duration: dict[str, float] = record["duration"]
        """Duration by modality (seconds), from the headers of the source."""

    def has(self, modality: str) -> bool:
        """Whether the source has this modality, readable or not."""
        return modality in self.bad or (self.audio if modality == "audio" else self.frames) is not None


def is_store(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a store. Every URL counts as one, because only stores are read from URLs here."""
    return is_url(path) or (Path(path) / MANIFEST).is_file()


def read_manifest(path: Path) -> dict[str, Any]:
    return parse_manifest((path / MANIFEST).read_bytes(), str(path / MANIFEST))


def parse_manifest(data: bytes, place: str) -> dict[str, Any]:
    """Raises AvscError, in which `place` names the file."""
    try:
        manifest = json.loads(data)
        options = manifest["options"]
        whole = (
            manifest["format"] == FORMAT
            and isinstance(manifest["root"], str)
            and manifest["layout"] in ("tau", "folder", "evaluation")
            and all(isinstance(options[name], (int, float)) for name in ("short_side", "rate", "quality"))
            and all(isinstance(file, str) for shard in manifest["shards"] for file in shard)
        )
        if whole:
            return manifest
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise AvscError(f"{place}: not of a store that this version reads (format {FORMAT}): prepare it again")


def shard_file(path: Path, number: int) -> Path:
    return path / f"shard-{number:06d}.tar"


def index_file(shard: Path) -> Path:
    return shard.with_suffix(".jsonl")


def read_index(shard: Path) -> list[dict[str, Any]]:
    """The records of a shard; for a shard that is being written, those of its finished recordings."""
    try:
        return parse_index(index_file(shard).read_bytes())
    except FileNotFoundError:
        return []


def damage(size: int, records: Sequence[dict[str, Any]], files: Sequence[str]) -> str:
    """What is wrong with a finished shard of `size` bytes, judged by sizes and names; "" if nothing is. `files`: the
    recordings that the manifest lists for it."""
    listed = {record["row"]["file"] for record in records}
    lost = [file for file in files if file not in listed]
    if lost and len(listed) == len(records) and len(records) < len(files):
        return f"its index lacks {len(lost)} of {len(files)} recordings, such as {lost[0]}"
    expected = (records[-1]["next"] if records else 0) + 2 * tarfile.BLOCKSIZE
    return f"{size} bytes, not {expected} as its index says" if size != expected else ""


def located(root: Path | str, path: str) -> Path | str:
    """The place of a media file of a row: a local path or a URL."""
    if is_url(path):
        return path
    return f"{root}/{quote(path) if str(root).startswith('http') else path}" if is_url(root) else Path(root) / path


def verify(shard: Path) -> list[tuple[str, str]]:
    """File and reason of each recording of a finished shard whose bytes differ from the written ones. Reads all
    bytes."""
    found, at = [], 0
    with open(shard, "rb") as tar:
        for record in read_index(shard):
            checksum, left = 0, record["next"] - at
            while left > 0 and (block := tar.read(min(left, 1 << 20))):
                checksum, left = zlib.crc32(block, checksum), left - len(block)
            if left > 0 or checksum != record["checksum"]:
                found.append((record["row"]["file"], "cut off" if left > 0 else "bytes have changed (checksum)"))
            at = record["next"]
    return found


def parse_index(data: bytes) -> list[dict[str, Any]]:
    """The records of an index before the first unfinished line."""
    return [line.record for line in index_lines(data)]


class Line(NamedTuple):
    """A line of an index."""

    record: dict[str, Any]
    offset: int
    """Offset, bytes."""
    size: int
    """Length without the line feed, bytes."""


def index_lines(data: bytes) -> list[Line]:
    """The lines of an index before the first unfinished one."""
    lines, offset = [], 0
    for line in data.split(b"\n")[:-1]:  # a line without a line feed is not finished
        try:
            record = json.loads(line)
            whole = _is_record(record)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            break
        if not whole:
            break
        lines.append(Line(record, offset, len(line)))
        offset += len(line) + 1
    return lines


def _is_record(record: dict[str, Any]) -> bool:
    """Whether a line of an index has all fields and its offsets lie before its end. Values of a wrong type may raise
    any exception."""
    end, audio, video = record["next"], record["audio"], record["video"]
    whole = (
        record.keys() >= FIELDS and isinstance(end, int) and 0 < end < 1 << 62 and isinstance(record["checksum"], int)
    )
    whole &= all(isinstance(record["row"][name], str) for name in ROW)
    whole &= all(isinstance(size, int) and isinstance(time, int) for size, time in record["source"].values())
    whole &= all(isinstance(reason, str) for reason in record["bad"].values())
    whole &= all(isinstance(seconds, (int, float)) and 0 <= seconds < 1e9 for seconds in record["duration"].values())
    if audio is not None:
        offset, samples, channels, rate, bits = audio
        whole &= bits in (16, 24, 32) and channels > 0 and rate > 0 and min(offset, samples) >= 0
        whole &= offset + samples * channels * bits // 8 <= end
    if video is not None:
        offsets, sizes = video["offsets"], video["sizes"]
        whole &= len(offsets) == len(sizes) and 0 <= video["end"] < 1e9
        whole &= all(
            min(offset, size) >= 0 and offset + size <= end for offset, size in zip(offsets, sizes, strict=True)
        )
        whole &= max(sizes, default=0) < 1 << 31
    return bool(whole)
