"""Checks of an output.csv, the probabilities of a system for the evaluation set."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Collection, Iterator

import numpy as np

from avsc_e2e.clip import SCENES
from avsc_e2e.outputs.output import TOLERANCE
from avsc_e2e.submission.violation import Violation

ROWS = 72_000
"""One-second files of the evaluation set, 0.wav to 71999.wav."""

COLUMNS = ("filename", "scene_label", *SCENES)


def check_output(data: bytes, name: str, files: Collection[str] | None = None) -> Iterator[Violation]:
    """Violations of the content of an output.csv, line by line."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        yield Violation(name, data[: error.start].count(b"\n") + 1, "is not UTF-8 text")
        return
    if text.startswith("\ufeff"):
        yield Violation(name, 1, "begins with a byte order mark, which spoils the first column's name")
        text = text[1:]
    lines = io.StringIO(text, newline=None).read().split("\n")
    if lines[-1] == "":
        lines.pop()
    if not lines:
        yield Violation(name, 0, "is empty")
        return
    header = lines[0].split("\t")
    if header != list(COLUMNS):
        yield from _check_header(header, name)
        return

    rows, numbers = [], []
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        if len(cells) == len(COLUMNS):
            rows.append(cells)
            numbers.append(number)
        elif not line.strip():
            yield Violation(name, number, "is empty")
        else:
            yield Violation(name, number, f"has {len(cells)} values for {len(COLUMNS)} columns")
    found = [*_check_names([row[0] for row in rows], numbers, name, files), *_check_rows(rows, numbers, name)]
    yield from sorted(found, key=lambda violation: (violation.line == 0, violation.line))


def _check_header(header: list[str], name: str) -> Iterator[Violation]:
    if len(header) == 1 and any(mark in header[0] for mark in ",;"):
        yield Violation(name, 1, "columns are not separated by tabs")
        return
    for column, count in Counter(header).items():
        if column not in COLUMNS:
            yield Violation(name, 1, f"unknown column {column!r}")
        elif count > 1:
            yield Violation(name, 1, f"column {column} occurs {count} times")
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        yield Violation(name, 1, f"no column {', '.join(missing)}")
    if sorted(header) == sorted(COLUMNS):
        yield Violation(name, 1, f"the columns must be in the order {' '.join(COLUMNS)}")


def _check_names(
    names: list[str], numbers: list[int], file: str, expected: Collection[str] | None
) -> Iterator[Violation]:
    """Names of the right form, each once, none missing."""
    known = {f"{i}.wav" for i in range(ROWS)} if expected is None else set(expected)
    seen: dict[str, int] = {}
    for name, number in zip(names, numbers, strict=True):
        if name in seen:
            yield Violation(file, number, f"{name} is already in line {seen[name]}")
            continue
        seen[name] = number
        if name not in known:
            yield Violation(file, number, _name_fault(name, known, expected is None))
    missing = known - seen.keys()
    if missing:
        first = sorted(missing, key=lambda n: (len(n), n))[:3]
        listed = ", ".join(first) + (", ..." if len(missing) > 3 else "")
        yield Violation(file, 0, f"{len(missing)} of {len(known)} files have no row: {listed}")


def _name_fault(name: str, known: set[str], challenge: bool) -> str:
    if not name:
        return "the file name is empty"
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    if base != name and base in known:
        return f"{name!r} must be the base name, {base}"
    if name.strip() in known:
        return f"{name!r} has spaces around it"
    if not challenge:
        return f"{name!r} is not a file of the evaluation set"
    stem, dot, extension = name.rpartition(".")
    if extension != "wav" or not dot:
        return f"{name!r} does not end in .wav"
    if not re.fullmatch(r"\d+", stem, re.ASCII):
        return f"{name!r} is not an integer and .wav"
    if stem != "0" and stem.startswith("0"):
        return f"{name!r} has leading zeros"
    return f"{name!r} is out of range; the files are 0.wav to {ROWS - 1}.wav"


def _check_rows(rows: list[list[str]], numbers: list[int], file: str) -> Iterator[Violation]:
    """Labels and probabilities of rows with the right number of cells."""
    values, bad = _numbers(rows)
    for row, text in bad:
        yield Violation(file, numbers[row], f"{text!r} is not a number")
    known = {scene: i for i, scene in enumerate(SCENES)}
    labels = np.array([known.get(row[1], -1) for row in rows], dtype=np.int64)
    for row in np.flatnonzero(labels < 0).tolist():
        yield Violation(file, numbers[row], f"unknown scene {rows[row][1]!r}")
    readable = np.ones(len(rows), dtype=bool)
    readable[[row for row, _ in bad]] = False
    nan = readable & np.isnan(values).any(1)
    infinite = readable & np.isinf(values).any(1)
    negative = readable & (values < 0).any(1)
    large = readable & (values > 1 + TOLERANCE).any(1) & ~infinite
    sums = values.sum(1)
    with np.errstate(invalid="ignore"):
        off = readable & ~nan & ~infinite & ~negative & ~large & (np.abs(sums - 1) > TOLERANCE)
    for rows_at, reason in (
        (nan, "a probability is NaN"),
        (infinite, "a probability is infinite"),
        (negative, "a probability is negative"),
        (large, "a probability is above 1"),
    ):
        for row in np.flatnonzero(rows_at).tolist():
            yield Violation(file, numbers[row], reason)
    for row in np.flatnonzero(off).tolist():
        yield Violation(file, numbers[row], f"the probabilities sum to {sums[row]:.4g}, not to 1")
    complete = readable & ~nan & ~infinite & (labels >= 0)
    chosen = values[np.arange(len(rows)), np.maximum(labels, 0)]
    for row in np.flatnonzero(complete & (chosen < values.max(1, initial=0))).tolist():
        best = SCENES[int(values[row].argmax())]
        yield Violation(file, numbers[row], f"the label {rows[row][1]} is not the most probable scene, {best}")


def _numbers(rows: list[list[str]]) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """(N, K) values and the cells that hold none: row and text. An unreadable row is zeros."""
    try:
        return np.array([list(map(float, row[2:])) for row in rows]).reshape(-1, len(SCENES)), []
    except ValueError:
        values, bad = np.zeros((len(rows), len(SCENES))), []
        for i, row in enumerate(rows):
            try:
                values[i] = list(map(float, row[2:]))
            except ValueError:
                bad.append((i, next(cell for cell in row[2:] if not _is_number(cell))))
        return values, bad


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
