"""`avsc data prepare`: writing the shards of a store with processes of this machine or on a Ray cluster."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Container, Sequence
from contextlib import nullcontext, suppress
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from avsc_e2e.apart import PATIENCE, Died, apart
from avsc_e2e.arguments import checked
from avsc_e2e.cluster import Engine, spread
from avsc_e2e.data.sets.table import folder_of
from avsc_e2e.data.store.layout import is_store, parse_index, read_index, shard_file
from avsc_e2e.data.store.place import Place, writable
from avsc_e2e.data.store.plan import copy_lists, note_copies, plan_shards, recordings
from avsc_e2e.data.store.remote import is_url
from avsc_e2e.data.store.shard import DEFAULT, Options, Task, is_whole_at, write_shard
from avsc_e2e.errors import AvscError

SHARD_SIZE = 128 << 20
"""Bytes of media in a shard: about 15 recordings of the real set, and enough shards to keep many cores busy to the
end."""
LISTED = 1000
"""Number of indices fetched at a time."""


class Prepared(NamedTuple):
    """The result of a run of `prepare`."""

    clips: int
    """Recordings in the store, as far as this process has to write them."""
    decoded: int
    """Recordings that this run decoded."""
    size: int
    """Size of the shards, bytes."""
    bad: tuple[tuple[str, str, str], ...]
    """File, modality and reason of everything that could not be decoded."""
    missing: int
    """Number of unfinished shards, which other machines write."""


@checked
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
    engine: Engine = "local",
    patience: float = PATIENCE,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Decode all recordings of a data set into a store, which is a folder or a URL; continues after an interrupted run.
    The data set is in the official development or evaluation layout, class folders, or a table of files; class folders
    and tables may be behind a URL.

    `engine`: "local" uses `workers` processes (0: one for each core); "ray" runs a task for each shard, and folders
    must be shared by all machines. Both write the same bytes. A recording that takes more than `patience` seconds, or
    ends the process that decodes it, counts as bad. With `world` > 1, this is one of that many runs on a shared folder
    and writes its share of the shards. With `files`, only recordings with these names are used; they must include all
    that an earlier run decoded.

    The store lists what could not be decoded, with the reason. Raises AvscError.
    """
    root = str(root).rstrip("/") if is_url(root) else Path(os.path.abspath(root))
    to = Place(store)
    if options.rate <= 0 or options.short_side < 1 or not 1 <= options.quality <= 100:
        raise AvscError(f"{to}: --rate and --short-side must be above 0, --quality from 1 to 100")
    if not patience > 0:
        raise AvscError(f"--patience {patience:g}: give seconds above 0")
    if not 0 <= rank < world:
        raise AvscError(f"RANK {rank} of WORLD_SIZE {world}: ranks count from 0 to one below")
    if world > 1 and engine == "ray":
        raise AvscError(f"--engine ray: one run for the whole cluster, not {world} with RANK and WORLD_SIZE")
    if not is_url(root) and is_store(root):
        raise AvscError(f"{root}: is a store itself: give the folder of the media")
    layout, rows = recordings(root)
    rows = [row for row in rows if files is None or row["file"] in files]
    with to.alone() if world == 1 else nullcontext():  # runs with ranks share the folder
        shards = plan_shards(to, root, layout, rows, options, shard_size, rank)
        if layout == "tau":
            copy_lists(Path(root), to, rank)
        tasks = _tasks(root, to, rows, shards, options)
        mine = tasks[rank::world]
        total = sum(len(task.rows) for task in mine)

        def told(done: int) -> None:
            to.renew()
            if progress:
                progress(done, total)

        with writable(to):
            decoded = _write(to, mine, workers, engine, patience, told)
        indices = _indices(to, tasks)
        if layout == "folder":
            note_copies(to, root, rows, indices, rank)
        return _prepared(to, tasks, mine, indices, decoded)


def _tasks(
    root: Path | str, to: Place, rows: Sequence[dict[str, Any]], shards: Sequence[Sequence[str]], options: Options
) -> list[Task]:
    by_file, folder, url = {row["file"]: row for row in rows}, folder_of(root), ""
    local = Path(to.path)
    if to.remote:
        url = to.remote.url
        local = Path(tempfile.gettempdir()) / f"avsc-prepare-{blake2b(url.encode(), digest_size=8).hexdigest()}"
    return [
        Task(shard_file(local, n), folder, tuple(by_file[f] for f in files if f in by_file), options, url=url)
        for n, files in enumerate(shards)
    ]


def _write(
    to: Place, tasks: Sequence[Task], workers: int, engine: Engine, patience: float, told: Callable[[int], None]
) -> int:
    """Write the unfinished shards, and return the number of recordings that were decoded."""
    before = 0
    if to.remote:
        sizes, indices = to.names(), _indices(to, tasks)
        left = [task for task, data in zip(tasks, indices, strict=True) if not is_whole_at(task, data, sizes)]
        before = sum(len(task.rows) for task in tasks) - sum(len(task.rows) for task in left)
        tasks = left
        told(before)
    if engine == "local":
        decoded = _run(tasks, workers, patience, lambda done: told(before + done))
        if to.remote and tasks:
            with suppress(OSError):  # another run to the same URL writes there
                tasks[0].shard.parent.rmdir()
        return decoded
    decoded = 0
    jobs = [(task, patience) for task in tasks]
    for index, count in spread(_shard_task, jobs, waiting=to.renew):
        decoded, before = decoded + count, before + len(tasks[index].rows)
        told(before)
    return decoded


def _shard_task(job: tuple[Task, float]) -> int:
    """Write a shard as a task of a cluster. Its recordings are decoded in a process that stays for the next task."""
    task, patience = job
    task.shard.parent.mkdir(parents=True, exist_ok=True)
    with writable(task.url or task.shard.parent):
        return _run([task], 1, patience, lambda done: None, keep=True)


def _run(tasks: Sequence[Task], workers: int, patience: float, told: Callable[[int], None], keep: bool = False) -> int:
    """Write shards in separate processes, and return the number of recordings that were decoded. A recording that ends
    a process is tried once more and then counts as bad. Raises AvscError if a process dies for another reason."""
    done, decoded = Counter[Path](), 0
    died: set[str] = set()
    for folder in {task.shard.parent for task in tasks}:
        folder.mkdir(parents=True, exist_ok=True)
    while tasks:
        again: list[Task] = []
        for index, value in apart(write_shard, tasks, workers, patience=patience, keep=keep):
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
            told(done.total())
        tasks = again
    return decoded


def _indices(to: Place, tasks: Sequence[Task]) -> list[bytes | None]:
    names = [task.shard.with_suffix(".jsonl").name for task in tasks]
    parts = (to.read_all(names[first : first + LISTED]) for first in range(0, len(names), LISTED))
    return list(chain.from_iterable(parts))


def _prepared(
    to: Place, tasks: Sequence[Task], mine: Sequence[Task], indices: Sequence[bytes | None], decoded: int
) -> Prepared:
    sizes, wanted = to.names(), {task.shard.name for task in mine}
    bad, size = [], 0
    for task, index in zip(tasks, indices, strict=True):
        if task.shard.name not in wanted:
            continue
        if task.shard.name not in sizes:
            raise AvscError(
                f"{to}/{task.shard.name}: was written by a machine that does not share this folder: give a folder "
                "that all machines of the cluster share, or a URL"
            )
        size += sizes[task.shard.name]
        bad += [
            (r["row"]["file"], name, reason) for r in parse_index(index or b"") for name, reason in r["bad"].items()
        ]
    missing = sum(task.shard.name not in sizes for task in tasks)
    return Prepared(sum(len(task.rows) for task in mine), decoded, size, tuple(sorted(bad)), missing)
