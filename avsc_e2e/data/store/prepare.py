"""`avsc data prepare`: plan the shards of a store and have them written, by as many processes as there are cores."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Container, Sequence
from contextlib import nullcontext
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from avsc_e2e.apart import DEATHS, Died, apart
from avsc_e2e.clip import MODALITIES, Row
from avsc_e2e.data.sets.corpus import is_evaluation
from avsc_e2e.data.sets.duplicates import find_copies
from avsc_e2e.data.sets.folder import read_rows
from avsc_e2e.data.sets.places import is_places
from avsc_e2e.data.sets.rows import measure
from avsc_e2e.data.sets.table import folder_of
from avsc_e2e.data.sets.tau import read_evaluation
from avsc_e2e.data.sets.taulayout import find_layout, is_tau, locate, read_meta
from avsc_e2e.data.store.layout import (
    FORMAT,
    MANIFEST,
    is_store,
    read_index,
    read_manifest,
    shard_file,
)
from avsc_e2e.data.store.remote import is_url
from avsc_e2e.data.store.shard import DEFAULT, Options, Task, sync, write_shard
from avsc_e2e.durable import alone
from avsc_e2e.errors import AvscError

SHARD_SIZE = 128 << 20
"""Bytes of media that go into a shard: some 15 recordings of the real set, and enough shards to keep many cores busy
to the end."""


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


def prepare(
    root: str | os.PathLike[str],
    store: str | os.PathLike[str],
    options: Options = DEFAULT,
    *,
    shard_size: int = SHARD_SIZE,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    files: Container[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Decode all recordings of a data set (the official development or evaluation layout, class folders, or a table of
    files) into a store, with `workers` processes (0: one for each core), going on where an earlier run stopped. With
    `world` > 1 this is one of that many runs on a shared folder, and writes its share of the shards. With `files` only
    recordings of these names are looked at; those that an earlier run has decoded must be among them.

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
    rows = [row for row in rows if files is None or row["file"] in files]
    with alone(store) if world == 1 else nullcontext():  # runs with ranks share the folder
        return _prepare(root, store, layout, rows, options, shard_size, workers, rank, world, progress)


def _prepare(
    root: Path,
    store: Path,
    layout: str,
    rows: list[dict[str, Any]],
    options: Options,
    shard_size: int,
    workers: int,
    rank: int,
    world: int,
    progress: Callable[[int, int], None] | None,
) -> Prepared:
    store.mkdir(parents=True, exist_ok=True)
    shards = _plan(store, root, layout, rows, options, shard_size, rank)
    if layout == "tau":
        _copy_lists(root, store, rank)
    by_file, folder = {row["file"]: row for row in rows}, folder_of(root)
    tasks = [
        Task(shard_file(store, number), folder, tuple(by_file[file] for file in files if file in by_file), options)
        for number, files in enumerate(shards)
    ]
    mine = tasks[rank::world]
    total = sum(len(task.rows) for task in mine)
    try:
        decoded = _run(mine, workers, progress, total)
    except OSError as error:
        raise AvscError(
            f"{store}: cannot be written ({error.strerror or error}): mend that and run it again"
        ) from error
    if layout == "folder":
        _note_copies(store, folder, rows, tasks, rank)
    bad, size = [], 0
    for task in mine:
        size += task.shard.stat().st_size
        bad += [(r["row"]["file"], name, reason) for r in read_index(task.shard) for name, reason in r["bad"].items()]
    missing = sum(not task.shard.is_file() for task in tasks)
    return Prepared(total, decoded, size, tuple(sorted(bad)), missing)


def recordings(root: Path) -> tuple[str, list[dict[str, Any]]]:
    """The layout of a root and all its recordings, paths relative to its folder. Raises AvscError."""
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
        raise AvscError(f"{root}: Places365 consists of images, there is nothing to decode once: use it as it is")
    else:
        kind, found = "folder", [(row, part) for part, rows in read_rows(root).items() for row in rows]
    names = ("file", "audio", "video", "scene", "location", "city")
    rows = []
    for row, part in found:
        listed = {name: getattr(row, name) for name in names} | {"part": part}
        for name in MODALITIES:
            listed[name] = os.path.relpath(listed[name], folder_of(root)) if listed[name] else ""
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
    copies: list[list[str]] = []
    if (store / MANIFEST).exists():
        manifest = read_manifest(store)
        earlier = DEFAULT._asdict() | manifest["options"]
        for what, old, new in (
            *((name, earlier[name], value) for name, value in options._asdict().items()),
            ("layout", manifest["layout"], layout),
        ):
            if old != new:
                raise AvscError(
                    f"{store}: was prepared with --{what.replace('_', '-')} {old}, and {new} is asked for: choose "
                    "another folder, or delete this one"
                )
        shards, copies = manifest["shards"], manifest["copies"]
    elif any(not path.name.startswith(MANIFEST) for path in store.iterdir()):
        raise AvscError(f"{store}: is a folder with other files in it: give a new or empty one")
    known = {file for files in shards for file in files}
    folder = folder_of(root)
    sizes = {row["file"]: sum(_size(folder / path) for path in {row["audio"], row["video"]} - {""}) for row in rows}
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
        "copies": copies,
    }
    _write_atomically(store / MANIFEST, json.dumps(manifest).encode(), rank)
    return shards


def _note_copies(store: Path, folder: Path, rows: Sequence[dict[str, Any]], tasks: Sequence[Task], rank: int) -> None:
    """Write into the manifest which recordings are copies of each other. Those over which a process died are left out,
    since comparing them would end this process too."""
    dead = {
        record["row"]["file"]
        for task in tasks
        for record in read_index(task.shard)
        if any(reason.startswith(DEATHS) for reason in record["bad"].values())
    }
    manifest = read_manifest(store)
    copies = _copies(folder, [row for row in rows if row["file"] not in dead])
    if copies != manifest["copies"]:
        _write_atomically(store / MANIFEST, json.dumps(manifest | {"copies": copies}).encode(), rank)


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


def _run(tasks: Sequence[Task], workers: int, progress: Callable[[int, int], None] | None, total: int) -> int:
    """Write shards in processes of their own; how many recordings they decoded. A recording over which a process dies
    is tried once more, and then noted as bad. Raises AvscError where a process dies over none."""
    done, decoded = Counter[Path](), 0
    died: set[str] = set()
    while tasks:
        again: list[Task] = []
        for index, value in apart(write_shard, tasks, workers):
            task = tasks[index]
            if isinstance(value, Died):
                begun = len(read_index(task.shard))
                if begun == len(task.rows):
                    raise AvscError(f"{task.shard}: {value.reason}: run it again, it goes on where it stopped")
                file, done[task.shard] = task.rows[begun]["file"], 0
                again.append(task._replace(dead=(*task.dead, (file, value.reason))) if file in died else task)
                died.add(file)
            else:
                done[task.shard] += 1
                decoded += value
            if progress:
                progress(done.total(), total)
        tasks = again
    return decoded


def _size(path: Path) -> int:
    """Bytes of a file; 0 where there is none, of which decoding tells."""
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _write_atomically(path: Path, data: bytes, rank: int) -> None:
    partial = path.with_name(f"{path.name}.{rank}.partial")  # a rerun overwrites what a kill has left
    with open(partial, "wb") as file:
        file.write(data)
        sync(file)
    os.replace(partial, path)
