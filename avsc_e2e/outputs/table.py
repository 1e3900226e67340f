"""Text tables with named columns; errors name the line."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avsc_e2e.errors import AvscError


@dataclass(frozen=True, eq=False)
class Table:
    path: str
    header: list[str]
    rows: list[list[str]]
    lines: Sequence[int]
    """Line of the file of every row, from 1."""

    def optional(self, names: Sequence[str]) -> int | None:
        for name in names:
            if name in self.header:
                return self.header.index(name)
        return None

    def column(self, names: Sequence[str], what: str) -> int:
        index = self.optional(names)
        if index is None:
            raise AvscError(f"{self.path}, line 1: no column of {what}; it is called {' or '.join(names)}")
        return index

    def numbers(self, columns: Sequence[int]) -> np.ndarray:
        """(N, columns) float64."""
        try:
            return np.array([[float(row[i]) for i in columns] for row in self.rows])
        except ValueError:
            for line, row in zip(self.lines, self.rows, strict=True):
                for i in columns:
                    _number(row[i], f"{self.path}, line {line}: {self.header[i]}")
            raise

    def refuse(self, wrong: np.ndarray | np.bool_, reason: str) -> None:
        """Raises AvscError that names the first row for which `wrong` (N,) is true."""
        if wrong.any():
            raise AvscError(f"{self.path}, line {self.lines[int(wrong.argmax())]}: {reason}")

    def refuse_repeats(self, keys: list, names: Sequence[str]) -> None:
        if len(set(keys)) == len(keys):
            return
        seen: dict = {}
        for line, key, name in zip(self.lines, keys, names, strict=True):
            if key in seen:
                raise AvscError(f"{self.path}, line {line}: {name} is already in line {seen[key]}; keep one of them")
            seen[key] = line


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise AvscError(f"{where} is {text!r}, which is not a number") from None


def read_table(path: str | Path) -> Table:
    """The rows of a text table; tab, comma or semicolon, any line end, with or without a byte order mark."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise AvscError(f"{path}: cannot be read ({error.strerror}); give the path of a CSV file") from None
    except UnicodeDecodeError:
        raise AvscError(f"{path}: not a text table; give a CSV file in UTF-8") from None
    if "\0" in text:
        raise AvscError(
            f"{path}, line {text[: text.index(chr(0))].count(chr(10)) + 1}: a NUL character; not a text table"
        )
    first = text.lstrip("\r\n").splitlines()[0] if text.strip() else ""
    delimiter = next((mark for mark in "\t,;" if mark in first), "\t")
    reader = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter)
    rows, lines = [], []
    try:
        for row in reader:
            if row and any(row):
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise AvscError(f"{path}, line {reader.line_num}: {error}") from None
    if len(rows) < 2:
        raise AvscError(f"{path}: no rows; a table has a header and at least one row")
    header = [name.strip() for name in rows[0]]
    if len(set(header)) < len(header):
        name = next(name for i, name in enumerate(header) if name in header[:i])
        raise AvscError(f"{path}, line {lines[0]}: column {name!r} occurs twice")
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(header):
            raise AvscError(f"{path}, line {line}: {len(row)} values for {len(header)} columns")
    return Table(str(path), header, rows[1:], lines[1:])
