"""The plan of a store: the recordings of a data set, and the shard of each."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from avsc_e2e.apart import DEATHS
from avsc_e2e.clip import MODALITIES, Row
from avsc_e2e.data.sets.corpus import is_evaluation
from avsc_e2e.data.sets.duplicates import find_copies
from avsc_e2e.data.sets.folder import read_rows
from avsc_e2e.data.sets.places import is_places
from avsc_e2e.data.sets.rows import measure
from avsc_e2e.data.sets.table import folder_of
from avsc_e2e.data.sets.tau import read_evaluation
from avsc_e2e.data.sets.taulayout import find_layout, is_tau, locate, read_meta
from avsc_e2e.data.store.layout import FORMAT, MANIFEST, located, parse_index, parse_manifest
from avsc_e2e.data.store.place import LOCK, Place
from avsc_e2e.data.store.remote import RemoteFolder, is_url
from avsc_e2e.data.store.shard import DEFAULT, Options
from avsc_e2e.errors import AvscError

TYPICAL = 8 << 20
"""Assumed size of a media file whose size is unknown, bytes."""


def recordings(root: Path | str) -> tuple[str, list[dict[str, Any]]]:
    """The layout of a root and all its recordings, paths relative to its folder. Raises AvscError."""
    if is_url(root):
        kind, found = "folder", [(row, part) for part, rows in read_rows(root).items() for row in rows]
    elif is_evaluation(root):
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
            if listed[name] and not is_url(root) and not is_url(listed[name]):
                listed[name] = os.path.relpath(listed[name], folder_of(root))
        rows.append(listed)
    return kind, rows


def plan_shards(
    store: Place,
    root: Path | str,
    layout: str,
    rows: Sequence[dict[str, Any]],
    options: Options,
    shard_size: int,
    rank: int,
) -> list[list[str]]:
    """Assign recordings to shards. The plan of an earlier run stays; new recordings go into new shards."""
    shards: list[list[str]] = []
    copies: list[list[str]] = []
    written = store.read(MANIFEST)
    if written is not None:
        manifest = parse_manifest(written, f"{store}/{MANIFEST}")
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
    elif any(not name.startswith((MANIFEST, LOCK)) for name in store.names()):
        raise AvscError(f"{store}: is a folder with other files in it: give a new or empty one")
    known = {file for files in shards for file in files}
    sizes = _sizes(root, rows)
    # In an order without relation to class or place, so that shards can be streamed one after the other.
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
    store.write(MANIFEST, json.dumps(manifest).encode(), rank)
    return shards


def note_copies(
    store: Place, root: Path | str, rows: Sequence[dict[str, Any]], indices: Sequence[bytes | None], rank: int
) -> None:
    """Write into the manifest which recordings are copies of each other. Recordings that ended a process are left out,
    because comparing them would end this process too, and so are those behind URLs, to avoid fetching them again."""
    dead = {
        record["row"]["file"]
        for index in indices
        for record in parse_index(index or b"")
        if any(reason.startswith(DEATHS) for reason in record["bad"].values())
    }
    manifest = parse_manifest(store.read(MANIFEST) or b"", f"{store}/{MANIFEST}")
    near = [
        row for row in rows if row["file"] not in dead and not any(is_url(located(root, row[n])) for n in MODALITIES)
    ]
    copies = _copies(folder_of(root), near)
    if copies != manifest["copies"]:
        store.write(MANIFEST, json.dumps(manifest | {"copies": copies}).encode(), rank)


def _copies(root: Path | str, rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Pairs of files that are the same recording."""
    audio, video = ([str(Path(root) / row[name]) if row[name] else "" for row in rows] for name in MODALITIES)
    paths = zip(rows, audio, video, strict=True)
    listed = [Row(row["file"], sound, frames, location=row["file"]) for row, sound, frames in paths]
    found = measure(listed, lenient=True, drop=True)
    return [[pair.first.file, pair.second.file] for pair in find_copies(found)]


def copy_lists(root: Path, store: Place, rank: int) -> None:
    layout = find_layout(root)
    for folder in reversed(layout.folders):
        for path in (folder / "meta.csv", *sorted((folder / "evaluation_setup").glob("*.csv"))):
            if path.is_file():
                store.write(path.relative_to(folder).as_posix(), path.read_bytes(), rank)


def _sizes(root: Path | str, rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Sizes of the recordings' media, bytes; 0 for absent files, which decoding reports."""
    listed = RemoteFolder(str(root)).names() if is_url(root) and folder_of(root) == root else {}

    def size(path: str) -> int:
        place = located(root, path)
        if is_url(place):
            return listed.get(path, TYPICAL)
        return os.path.getsize(place) if os.path.isfile(place) else 0

    return {row["file"]: sum(size(path) for path in {row["audio"], row["video"]} - {""}) for row in rows}
