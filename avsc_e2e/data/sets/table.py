"""Tables: CSVs whose first line names the columns, separated by commas, semicolons or tabs; or Parquet."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from avsc_e2e.clip import Row
from avsc_e2e.data.store.remote import is_url
from avsc_e2e.durable import replacing
from avsc_e2e.errors import AvscError
from avsc_e2e.parquet import read_columns

TABLES = frozenset({".csv", ".tsv", ".txt", ".parquet"})
"""Extensions of a file that, in place of a folder, lists recordings."""


def is_table(path: str | os.PathLike[str]) -> bool:
    return os.path.splitext(path)[1].lower() in TABLES and os.path.isfile(path)


def folder_of(root: str | os.PathLike[str]) -> Path | str:
    """The folder or URL that the paths of a set are relative to: its own, or that of its table, even if the table is
    deleted."""
    if is_url(root):
        return str(root).rpartition("/")[0] if os.path.splitext(root)[1].lower() in TABLES else str(root)
    root = Path(root)
    return root.parent if root.suffix.lower() in TABLES and not root.is_dir() else root


def read_table(
    path: str | os.PathLike[str], needed: Sequence[str], optional: Collection[str] = (), flag: str = ""
) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """The number of each line with its cells by column, without surrounding spaces, and the names of ignored columns.
    Missing columns of `optional` are empty. Raises AvscError, naming `flag` and the line."""
    shown = f"{flag} {path}".strip()
    if os.path.splitext(path)[1].lower() == ".parquet":
        table = read_columns(path)
        first = ", ".join(table[0])
    else:
        table, first = _lines(path, shown)
    header = [name.strip().lower() for name in table[0]] if table else []
    if missing := [name for name in needed if name not in header]:
        more = f" (and where you have them {', '.join(optional)})" if optional else ""
        raise AvscError(
            f"{shown}: line 1: give the columns {' and '.join(needed)}{more}, not {first[:80]!r}: "
            f"{missing[0]} is missing"
        )
    known = {*needed, *optional}
    if twice := [name for name in known if header.count(name) > 1]:
        raise AvscError(f"{shown}: line 1: column {twice[0]} occurs twice")
    return list(_cells(table[1:], header, known, shown)), [name for name in header if name and name not in known]


def _lines(path: str | os.PathLike[str], shown: str) -> tuple[list[list[str]], str]:
    """The lines of a CSV as cells, and the first line as it is. Raises AvscError."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise AvscError(f"{shown}: cannot be read ({reason})") from None
    first = lines[0] if lines else ""
    mark = next((mark for mark in "\t;," if mark in first), ",")
    try:
        return list(csv.reader(lines, delimiter=mark)), first
    except csv.Error as error:
        raise AvscError(f"{shown}: not a CSV ({error})") from None


def _cells(
    table: Sequence[Sequence[str]], header: Sequence[str], known: Collection[str], shown: str
) -> Iterator[tuple[int, dict[str, str]]]:
    for number, cells in enumerate(table, 2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise AvscError(f"{shown}: line {number}: {len(cells)} columns, {len(header)} expected")
        found = dict(zip(header, (cell.strip() for cell in cells), strict=True))
        yield number, {name: found.get(name, "") for name in known}


def write_table(path: str | os.PathLike[str], rows: Iterable[Row]) -> Path:
    """Write rows as a table of recordings with absolute paths, including separate audio files and groups. Raises
    AvscError for a row without a class or a file."""
    path = Path(path)
    with replacing(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(("file", "label", "audio", "group"))
        for row in rows:
            first = row.video or row.audio
            if not first or not row.scene:
                raise AvscError(f"{first or row.file}: has no {'label' if first else 'file'}: give one")
            audio = os.path.abspath(row.audio) if row.audio not in ("", first) else ""
            lines.writerow((os.path.abspath(first), row.scene, audio, row.location))
    return path
