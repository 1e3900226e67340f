"""From what a user gives to recordings: files, folders, stores, tables, URLs, bytes or arrays."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from avsc_e2e.arguments import shortly
from avsc_e2e.data.extensions import kind, media_files
from avsc_e2e.data.sets.table import TABLES, folder_of, read_table
from avsc_e2e.data.store.layout import MANIFEST, is_store, located
from avsc_e2e.data.store.remote import RemoteFolder, fetch, is_url
from avsc_e2e.errors import AvscError
from avsc_e2e.prediction.recordings import (
    MediaBytes,
    MediaFile,
    Recording,
    RemoteFile,
    Source,
    StoredRecording,
    opened_store,
)

Given: TypeAlias = str | os.PathLike | bytes | Recording
"""An input: a media file, a folder, a store, a URL, the bytes of a media file, or arrays."""


def recordings(given: Given | Iterable[Given]) -> list[Source]:
    """The recordings of the inputs, including all those in folders and stores. Raises AvscError."""
    several: Iterable = given if isinstance(given, Iterable) and not isinstance(given, (str, bytes)) else [given]
    found: list[Source] = []
    for number, one in enumerate(several, 1):
        if isinstance(one, (Recording, MediaFile, RemoteFile, StoredRecording)):
            found.append(one)
        elif isinstance(one, bytes):
            found.append(MediaBytes(one, f"recording {number}"))
        elif not isinstance(one, (str, os.PathLike)):
            raise AvscError(f"recording {number}, {shortly(one)}: give a path, a URL, bytes or a Recording")
        elif is_url(one) and kind(str(one).split("?")[0]):
            found.append(RemoteFile(str(one)))
        elif os.path.splitext(one)[1].lower() in TABLES:
            found += _listed(str(one))
        elif is_url(one) and (names := _media_at(str(one))):
            found += [RemoteFile(name) for name in names]
        elif is_store(one):
            found += [StoredRecording(str(one), file) for file in sorted(opened_store(str(one)).recordings)]
        else:
            found += [MediaFile(str(file)) for file in media_files([one])]
    return found


def _listed(table: str) -> list[MediaFile | RemoteFile]:
    """The recordings of a table with a column file, a file or a URL. Raises AvscError."""
    with contextlib.ExitStack() as stack:
        path = Path(table)
        if is_url(table):
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="avsc-"))) / PurePosixPath(table).name
            fetch(table, path)
        lines, _ = read_table(path, ("file",))
    found: list[MediaFile | RemoteFile] = []
    for number, cells in lines:
        place = located(folder_of(table) if is_url(table) else folder_of(path.absolute()), cells["file"])
        if not is_url(place) and not os.path.isfile(place):
            raise AvscError(f"{table}: line {number}: {place}: no such file")
        found.append(RemoteFile(str(place)) if is_url(place) else MediaFile(str(place)))
    return found


def _media_at(url: str) -> list[str]:
    """URLs of the media files below a URL; none where it is that of a store, or cannot be listed."""
    folder = RemoteFolder(url.rstrip("/"))
    if folder.read([MANIFEST], optional=True)[0] is not None:
        return []
    names = sorted(name for name in folder.names() if kind(name) and not PurePosixPath(name).name.startswith("."))
    if not names:
        raise AvscError(f"{url}: no media file is listed there, and it is no store: give another URL")
    return [str(located(folder.url, name)) for name in names]
