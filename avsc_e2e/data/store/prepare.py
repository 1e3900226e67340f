"""`avsc data prepare`: decode every recording once into a store (its layout is told in store.py).

A recording is appended to its shard, then its line, with a checksum, to the shard's index; only then it counts. So a
killed run loses the recordings in hand and no other, and what is cut off, or was lost with the power, is cut away by
the next. A shard gets its name when it is whole and on the disk. Bytes depend on the sources and the options alone,
not on who wrote them, when, or in how many goes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import shutil
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote

import numpy as np

from avsc_e2e.clip import MODALITIES, Row
from avsc_e2e.data.media import audio_blocks, decode_frames, probe
from avsc_e2e.data.sets.corpus import is_evaluation
from avsc_e2e.data.sets.duplicates import find_copies
from avsc_e2e.data.sets.folder import read_rows
from avsc_e2e.data.sets.places import is_places
from avsc_e2e.data.sets.rows import measure
from avsc_e2e.data.sets.tau import find_layout, is_tau, locate, read_evaluation, read_meta
from avsc_e2e.data.store.layout import (
    FORMAT,
    MANIFEST,
    damage,
    encode_frame,
    index_file,
    is_store,
    read_index,
    read_manifest,
    shard_file,
    verify,
)
from avsc_e2e.data.store.remote import is_url
from avsc_e2e.errors import AvscError, MediaError
from avsc_e2e.processes import start_worker

log = logging.getLogger(__name__)

SHARD_SIZE = 128 << 20
"""Bytes of media that go into a shard: some 15 recordings of the real set, and enough shards to keep many cores busy
to the end."""
PARTIAL = ".partial"


class Options(NamedTuple):
    """How recordings are stored."""

    short_side: int = 256
    """Pixels of a frame's shorter side."""
    rate: float = 5.0
    """Frames a second, each from the middle of its span of time."""
    quality: int = 95
    """Of the JPEGs, 1 to 100."""


DEFAULT = Options()


class Prepared(NamedTuple):
    """What a run of `prepare` did."""

    clips: int
    """Recordings that are in the store by now, as far as this process is to write them."""
    decoded: int
    """Those that this run decoded."""
    size: int
    """Bytes of the shards."""
    bad: tuple[tuple[str, str, str], ...]
    """File, modality and reason of what could not be decoded."""
    missing: int
    """Shards of the store that are not finished, which other machines write."""


class Task(NamedTuple):
    """One shard."""

    shard: Path
    root: Path
    rows: tuple[dict[str, Any], ...]
    options: Options


def prepare(
    root: str | os.PathLike[str],
    store: str | os.PathLike[str],
    options: Options = DEFAULT,
    *,
    shard_size: int = SHARD_SIZE,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Decode all recordings of a data set (the official development or evaluation layout, or class folders) into a
    store, with `workers` processes (0: one for each core), going on where an earlier run stopped. With `world` > 1
    this is one of that many runs on a shared folder, and writes its share of the shards.

    What cannot be decoded is noted in the store with its reason. Raises AvscError.
    """
    for place in (root, store):
        if is_url(place):
            raise AvscError(f"{place}: prepare reads and writes folders; copy the store to the URL when it is finished")
    root, store = Path(os.path.abspath(root)), Path(os.path.abspath(store))
    if options.rate <= 0 or options.short_side < 1 or not 1 <= options.quality <= 100:
        raise AvscError(f"{store}: --rate and --short-side must be above 0, --quality from 1 to 100")
    if not 0 <= rank < world:
        raise AvscError(f"RANK {rank} of WORLD_SIZE {world}: ranks count from 0 to one below")
    if is_store(root):
        raise AvscError(f"{root}: is a store itself: give the folder of the media")
    layout, rows = recordings(root)
    store.mkdir(parents=True, exist_ok=True)
    shards = _plan(store, root, layout, rows, options, shard_size, rank)
    if layout == "tau":
        _copy_lists(root, store, rank)
    by_file = {row["file"]: row for row in rows}
    tasks = [
        Task(shard_file(store, number), root, tuple(by_file[file] for file in files if file in by_file), options)
        for number, files in enumerate(shards)
    ]
    mine = tasks[rank::world]
    total = sum(len(task.rows) for task in mine)
    try:
        decoded = sum(_run(mine, workers or os.cpu_count() or 1, progress, total))
    except OSError as error:
        raise AvscError(
            f"{store}: cannot be written ({error.strerror or error}): mend that and run it again"
        ) from error
    bad, size = [], 0
    for task in mine:
        size += task.shard.stat().st_size
        bad += [(r["row"]["file"], name, reason) for r in read_index(task.shard) for name, reason in r["bad"].items()]
    missing = sum(not task.shard.is_file() for task in tasks)
    return Prepared(total, decoded, size, tuple(sorted(bad)), missing)


def recordings(root: Path) -> tuple[str, list[dict[str, Any]]]:
    """The layout of a root and all its recordings, paths relative to it. Raises AvscError."""
    if is_evaluation(root):
        kind, found = "evaluation", [(row, "") for row in read_evaluation(root)]
    elif is_tau(root):
        kind, layout = "tau", find_layout(root)
        entries = list(read_meta(layout).values())
        paths = locate(layout, entries)
        found = [
            (Row(e.file, paths.get(e.audio, ""), paths.get(e.video, ""), e.scene, e.location,
                 e.location.rpartition("-")[0]), "")
            for e in entries
        ]  # fmt: skip
    elif is_places(root):
        raise AvscError(f"{root}: Places365 is pictures already, there is nothing to decode once: use it as it is")
    else:
        kind, found = "folder", [(row, part) for part, rows in read_rows(root).items() for row in rows]
    names = ("file", "audio", "video", "scene", "location", "city")
    rows = []
    for row, part in found:
        listed = {name: getattr(row, name) for name in names} | {"part": part}
        for name in MODALITIES:
            listed[name] = os.path.relpath(listed[name], root) if listed[name] else ""
        rows.append(listed)
    return kind, rows


def _plan(
    store: Path,
    root: Path,
    layout: str,
    rows: Sequence[dict[str, Any]],
    options: Options,
    shard_size: int,
    rank: int,
) -> list[list[str]]:
    """Which recordings are in which shard. What an earlier run has planned stays, new ones go into new shards."""
    shards: list[list[str]] = []
    if (store / MANIFEST).exists():
        manifest = read_manifest(store)
        for what, old, new in (
            *((name, manifest["options"][name], value) for name, value in options._asdict().items()),
            ("layout", manifest["layout"], layout),
        ):
            if old != new:
                raise AvscError(
                    f"{store}: was prepared with --{what.replace('_', '-')} {old}, and {new} is asked for: choose "
                    "another folder, or delete this one"
                )
        shards = manifest["shards"]
    elif any(not path.name.startswith(MANIFEST) for path in store.iterdir()):
        raise AvscError(f"{store}: is a folder with other files in it: give a new or empty one")
    known = {file for files in shards for file in files}
    sizes = {row["file"]: sum(_size(root / path) for path in {row["audio"], row["video"]} - {""}) for row in rows}
    # In an order that no class or place is told by, so that one shard after the other may be streamed.
    fresh = sorted(
        (row["file"] for row in rows if row["file"] not in known), key=lambda file: blake2b(file.encode()).digest()
    )
    room = 0
    for file in fresh:
        if room <= 0:
            shards.append([])
            room = shard_size
        shards[-1].append(file)
        room -= sizes[file]
    manifest = {
        "format": FORMAT,
        "layout": layout,
        "root": str(root),
        "options": options._asdict(),
        "shards": shards,
        "copies": _copies(root, rows) if layout == "folder" else [],
    }
    _write_atomically(store / MANIFEST, json.dumps(manifest).encode(), rank)
    return shards


def _copies(root: Path, rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Pairs of files that are one recording."""
    paths = [{name: str(root / row[name]) if row[name] else "" for name in MODALITIES} for row in rows]
    found = measure([Row(row["file"], **path, location=row["file"]) for row, path in zip(rows, paths, strict=True)],
                    lenient=True, drop=True)  # fmt: skip
    return [[pair.first.file, pair.second.file] for pair in find_copies(found)]


def _copy_lists(root: Path, store: Path, rank: int) -> None:
    layout = find_layout(root)
    for folder in reversed(layout.folders):
        for path in (folder / "meta.csv", *sorted((folder / "evaluation_setup").glob("*.csv"))):
            if path.is_file():
                to = store / path.relative_to(folder)
                to.parent.mkdir(exist_ok=True)
                _write_atomically(to, path.read_bytes(), rank)


def _run(tasks: Sequence[Task], workers: int, progress: Callable[[int, int], None] | None, total: int) -> Iterator[int]:
    """Write shards, in processes where `workers` are more than one; yields how many recordings each one decoded."""
    show = progress or (lambda done, total: None)
    if workers == 1 or len(tasks) == 1:
        done = 0
        for task in tasks:
            decoded = 0
            for fresh in write_shard(task):
                done, decoded = done + 1, decoded + fresh
                show(done, total)
            yield decoded
        return
    context = multiprocessing.get_context("spawn")
    count = context.Value("q", 0)
    with ProcessPoolExecutor(min(workers, len(tasks)), context, _start_worker, (count,)) as pool:
        pending = {pool.submit(_write_counted, task) for task in tasks}
        try:
            while pending:
                finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                show(count.value, total)
                for future in finished:
                    yield future.result()
        except BaseException as error:
            for process in list(pool._processes.values()):
                process.terminate()  # what is in hand is lost, as at any kill, and done again by the next run
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(error, BrokenProcessPool):
                raise
            begun = [task for task in tasks if task.shard.with_name(task.shard.name + PARTIAL).exists()]
            raise AvscError(
                f"{tasks[0].shard.parent}: a process died (out of memory, or a decoder crashed) at one of "
                + ", ".join(task.rows[len(read_index(task.shard))]["file"] for task in begun)
                + ": run it again, it goes on where it stopped"
            ) from None


def _start_worker(count) -> None:
    global _count
    _count = count
    start_worker()


def _write_counted(task: Task) -> int:
    decoded = 0
    for fresh in write_shard(task):
        decoded += fresh
        with _count.get_lock():
            _count.value += 1
    return decoded


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
            _sync(tar)
            _sync(index)
        os.rename(partial, task.shard)
        _sync_folder(task.shard.parent)


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
    """Decode a recording, write its pictures, sound and description, and return its record."""
    key = _key(row["file"])
    record: dict[str, Any] = {"row": row, "source": {}, "bad": {}, "duration": {}, "audio": None, "video": None}
    for path in {row["audio"], row["video"]} - {""}:
        with contextlib.suppress(OSError):
            record["source"][path] = _stamp(task.root / path)
    record["source"] = dict(sorted(record["source"].items()))
    if row["video"]:
        path, offsets, sizes, end = task.root / row["video"], [], [], 0.0
        try:
            media = probe(path)
            if media.has_video or row["video"] != row["audio"]:
                record["duration"]["video"] = media.duration
                for image, spans, until in decode_frames(path, task.options.rate, task.options.short_side):
                    end = until
                    data = b"" if isinstance(image, MediaError) else encode_frame(image, task.options.quality)
                    offset = _add(tar, f"{key}.{len(offsets):04d}.jpg", data) if data else 0
                    offsets += [offset] * spans  # a frame that is held is stored once, one that is lost not at all
                    sizes += [len(data)] * spans
                record["video"] = {"end": end, "offsets": offsets, "sizes": sizes}
        except MediaError as error:
            record["bad"]["video"] = error.reason
            tar.restart()
    if row["audio"]:
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


def _key(file: str) -> str:
    """A row's name as the name of tar members: WebDataset ends the key of a sample at the first dot."""
    return quote(file, safe="/").replace(".", "%2E").lstrip("/")


def _is_fresh(record: dict[str, Any], row: dict[str, Any], root: Path) -> bool:
    """Whether a record is of this row, and of the sources as they are now."""
    try:
        return record["row"] == row and all(_stamp(root / path) == stamp for path, stamp in record["source"].items())
    except OSError:
        return False


def _size(path: Path) -> int:
    """Bytes of a file; 0 where there is none, of which decoding tells."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


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


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_atomically(path: Path, data: bytes, rank: int) -> None:
    partial = path.with_name(f"{path.name}.{rank}.partial")  # a rerun overwrites what a kill has left
    with open(partial, "wb") as file:
        file.write(data)
        _sync(file)
    os.replace(partial, path)
