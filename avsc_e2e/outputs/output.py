"""System outputs, tables of class probabilities: reading, writing, aligning.

Axes: N rows (segments, or whole recordings), K classes. Columns and rows are matched by name, never by
position.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from avsc_e2e.durable import replacing
from avsc_e2e.errors import AvscError
from avsc_e2e.outputs.metrics import CLIP
from avsc_e2e.outputs.names import base_of, path_of
from avsc_e2e.outputs.table import read_table

FILE_COLUMNS = ("filename", "file", "aid", "filename_audio", "filename_video", "path", "clip")
START_COLUMNS = ("start", "onset", "segment_start")
DECISION_COLUMNS = ("scene_pred", "predicted", "prediction")
LABEL_COLUMNS = ("scene_label", "scene", "label", "class")
"""Columns of the true scene in a reference or beside a decision column; in other outputs, of the decision."""
OTHER_COLUMNS = ("identifier", "source_label", "city", "location", "end", "duration")

TOLERANCE = 0.01
"""Largest deviation of the sum of a row from one."""


@dataclass(frozen=True, eq=False)
class SystemOutput:
    """The probabilities of one system for a number of recordings or segments."""

    files: tuple[str, ...]
    """(N,) name of the recording, as written in the file."""
    classes: tuple[str, ...]
    """(K,) names of the columns of `probabilities`."""
    probabilities: np.ndarray
    """(N, K) float64, as written in the file: rows are not renormalised."""
    start: np.ndarray | None = None
    """(N,) seconds from the start of the recording; None where the rows are whole recordings."""
    predicted: tuple[str, ...] | None = None
    """(N,) the file's own decisions; None where they are the most probable classes."""

    def __post_init__(self):
        shape, wanted = np.shape(self.probabilities), (len(self.files), len(self.classes))
        if shape != wanted:
            raise AvscError(f"probabilities of shape {shape}: give (files, classes), here {wanted}")

    @cached_property
    def decisions(self) -> np.ndarray:
        """(N,) index of the decided class: the file's own decision, else the most probable class."""
        if self.predicted is None:
            return self.probabilities.argmax(1)
        index = {name: i for i, name in enumerate(self.classes)}
        return np.array([index[name] for name in self.predicted])

    def __len__(self) -> int:
        return len(self.files)


def read_output(path: str | Path, classes: Sequence[str] | None = None) -> SystemOutput:
    """The system output in a file: this library's, the challenge's or a similar table.

    Tab, comma or semicolon; any order of columns and rows; `classes` is the order wanted, by default the
    class columns found, alphabetically. Raises AvscError with the line number for what is not a table of
    probabilities: repeated rows, unknown scenes, NaN, negative values, rows that do not sum to one within 1
    %.
    """
    table = read_table(path)
    file_column = table.column(FILE_COLUMNS, "the file names")
    start_column = table.optional(START_COLUMNS)
    decision_column = table.optional(DECISION_COLUMNS)
    label_column = table.optional(LABEL_COLUMNS)
    known = {file_column, start_column, decision_column, label_column}
    paired = ("filename_audio", "filename_video")
    names = [
        name
        for i, name in enumerate(table.header)
        if i not in known and (name in (classes or ()) or name not in (*OTHER_COLUMNS, *paired))
    ]
    if classes is None:
        classes = sorted(names)
    missing, unknown = sorted(set(classes) - set(names)), sorted(set(names) - set(classes))
    if missing or unknown:
        wrong = f"no column for {', '.join(missing)}" if missing else f"unknown scene {', '.join(unknown)}"
        raise AvscError(f"{path}, line 1: {wrong}; the classes are {', '.join(classes)}")
    if len(classes) < 2:
        raise AvscError(f"{path}, line 1: {len(classes)} class columns; a system output has one for every class")

    probabilities = table.numbers([table.header.index(name) for name in classes])
    table.refuse(np.isnan(probabilities).any(1), "a probability is NaN; the system must give a number for every class")
    table.refuse(~np.isfinite(probabilities).all(1), "a probability is infinite")
    table.refuse((probabilities < 0).any(1), "a probability is negative")
    sums = probabilities.sum(1)
    off: np.ndarray = np.abs(sums - 1) > TOLERANCE
    if off.any():
        table.refuse(off, f"the probabilities sum to {sums[off.argmax()]:.4g}, not to 1")

    files = tuple(row[file_column].strip() for row in table.rows)
    table.refuse(np.array([not name for name in files]), "the file name is empty")
    start = None if start_column is None else table.numbers([start_column])[:, 0]
    if start is not None:
        table.refuse(~(np.isfinite(start) & (start >= 0)), "the start is not a number of seconds from 0 on")
    keys = (
        [path_of(name) for name in files] if start is None else [*zip(map(path_of, files), start.tolist(), strict=True)]
    )
    table.refuse_repeats(keys, files)

    decision_column = label_column if decision_column is None else decision_column
    predicted = None
    if decision_column is not None:
        predicted = tuple(row[decision_column].strip() for row in table.rows)
        odd = ~np.isin(np.array(predicted), classes)
        table.refuse(odd, f"unknown scene {predicted[odd.argmax()]!r}; the classes are {', '.join(classes)}")
        if predicted == tuple(np.array(classes)[probabilities.argmax(1)].tolist()):
            predicted = None
    return SystemOutput(files, tuple(classes), probabilities, start, predicted)


def write_output(path: str | Path, output: SystemOutput) -> None:
    """Writes the output as a table that `read_output` reads back, whole or not at all.

    Tab separated `filename`, `start` (seconds, only for segments), `scene_label` (the decision) and a column
    a class.
    """
    text = format_output(output)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def format_output(output: SystemOutput) -> str:
    """The text that `write_output` writes; nine significant digits, so that float32 comes back as it was."""
    count, k = output.probabilities.shape
    if count != len(output.files) or k != len(output.classes):
        raise AvscError(
            f"system output: {count} x {k} probabilities, {len(output)} files, {len(output.classes)} classes"
        )
    if not (np.isfinite(output.probabilities).all() and (output.probabilities >= 0).all()):
        raise AvscError("system output: a probability is NaN, infinite or negative; it is not written")
    for name in (*output.files, *output.classes):
        if re.search(r"[\t\r\n]", name):
            raise AvscError(f"system output: the name {name!r} holds a tab or a line end; rename it")
    decided = np.array(output.classes)[output.decisions].tolist()
    head = ["filename"] if output.start is None else ["filename", "start"]
    keys = (
        output.files
        if output.start is None
        else [f"{f}\t{s:.9g}" for f, s in zip(output.files, output.start, strict=True)]
    )
    line = "%s\t%s" + "\t%.9g" * k
    rows = [
        line % (key, scene, *row) for key, scene, row in zip(keys, decided, output.probabilities.tolist(), strict=True)
    ]
    return "\n".join(["\t".join([*head, "scene_label", *output.classes]), *rows, ""])


def protocol_of(output: SystemOutput) -> str:
    """What the rows of an output are, segments or recordings, if it can be told. Figures of the two cannot be
    compared."""
    return "whole clips" if output.start is None else "segments"


def read_outputs(paths: Sequence[str | Path]) -> dict[str, SystemOutput]:
    """Name -> system output. A path may be given as `NAME=PATH`; the others are named by their stems, or, where stems
    repeat, by the parts of their paths that differ. Raises AvscError if two have the same name."""
    named: dict[int, str] = {}
    files: list[str] = []
    for text in map(str, paths):
        name, mark, file = text.partition("=")
        given = bool(mark and name) and not Path(text).exists()
        files.append(file if given else text)
        named |= {len(files) - 1: name} if given else {}
    rest = [i for i in range(len(files)) if i not in named]
    named |= dict(zip(rest, _short_names([files[i] for i in rest]), strict=True))
    names = [named[i] for i in range(len(files))]
    if len(set(names)) < len(names):
        raise AvscError(f"system outputs: {next(n for n in names if names.count(n) > 1)} is given twice")
    return {name: read_output(file) for name, file in zip(names, files, strict=True)}


def _short_names(files: Sequence[str]) -> list[str]:
    stems = [Path(file).stem for file in files]
    if len(set(stems)) == len(stems):
        return stems
    parts = [Path(file).with_suffix("").parts for file in files]
    for end in (0, -1):  # drop the parts that are common to all, at the beginning and at the end
        while len({part[end] for part in parts}) == 1 and min(map(len, parts)) > 1:
            parts = [part[1:] if end == 0 else part[:-1] for part in parts]
    return ["/".join(part) for part in parts]


def to_clips(output: SystemOutput, by: str = "sum") -> SystemOutput:
    """One row a recording from the rows of its segments, renormalised.

    by="sum" averages the probabilities, as the dataset's paper does. by="log" averages their logarithms (clipped
    at 1e-15): this is the geometric mean, whose confidence does not grow with the number of segments.
    """
    if by not in ("sum", "log"):
        raise AvscError(f"clips: by={by!r} is not known; it is 'sum' or 'log'")
    files = tuple(dict.fromkeys(output.files))
    index = {name: i for i, name in enumerate(files)}
    row = np.array([index[name] for name in output.files])
    values = output.probabilities if by == "sum" else np.log(np.maximum(output.probabilities, CLIP))
    total = np.zeros((len(files), len(output.classes)))
    np.add.at(total, row, values)
    mean = total / np.bincount(row)[:, None]
    if by == "log":
        mean = np.exp(mean - mean.max(1, keepdims=True))
    return SystemOutput(files, output.classes, mean / mean.sum(1, keepdims=True))


def align(outputs: Sequence[SystemOutput]) -> list[SystemOutput]:
    """The outputs with rows and columns in the order of the first, matched by name and start.

    Raises AvscError if rows or classes of one are missing in another.
    """
    first, *others = outputs
    keys, aligned = _keys(first), [first]
    for other in others:
        if set(other.classes) != set(first.classes):
            differ = ", ".join(sorted(set(other.classes) ^ set(first.classes)))
            raise AvscError(f"system outputs: not of the same classes, they differ in {differ}")
        rows = {key: i for i, key in enumerate(_keys(other))}
        odd = sorted(set(keys) ^ set(rows))
        if odd and (first.start is None) != (other.start is None):
            raise AvscError("system outputs: one is of segments, another of whole recordings; give all of one kind")
        if odd:
            name, start = odd[0]
            where = f"{name} at {start:g} s" if other.start is not None or first.start is not None else name
            raise AvscError(f"system outputs: {len(odd)} rows are not in both of two, the first is {where}")
        order = [rows[key] for key in keys]
        columns = [other.classes.index(name) for name in first.classes]
        predicted = None if other.predicted is None else tuple(other.predicted[i] for i in order)
        probabilities = other.probabilities[np.ix_(order, columns)]
        aligned.append(SystemOutput(first.files, first.classes, probabilities, first.start, predicted))
    return aligned


def _keys(output: SystemOutput) -> list[tuple[str, float]]:
    """Base name and start of every row; whole recordings start at -1. The folder is kept where base names repeat."""
    names = [base_of(file) for file in output.files]
    starts = [-1.0] * len(output) if output.start is None else output.start.tolist()
    keys = list(zip(names, starts, strict=True))
    return keys if len(set(keys)) == len(keys) else list(zip(map(path_of, output.files), starts, strict=True))


def join(parts: Iterable[SystemOutput]) -> SystemOutput:
    """One output from the parts that several processes made, in the order of names and starts.

    A distributed sampler repeats rows to fill its last batch. Repeated rows are kept once, so that the scores
    equal those of a single process. Raises AvscError for differing classes and for no part
    at all.
    """
    parts = list(parts)
    if not parts or len({(part.classes, part.start is None) for part in parts}) > 1:
        raise AvscError("system output: parts must be of one kind, segments or recordings, and of the same classes")
    first = parts[0]
    files = [name for part in parts for name in part.files]
    start = None if first.start is None else np.concatenate([part.start for part in parts])
    keys = [(name, 0.0) for name in files] if start is None else list(zip(files, start.tolist(), strict=True))
    chosen = sorted({key: i for i, key in reversed(list(enumerate(keys)))}.items())
    rows = [i for _, i in chosen]
    decided = np.concatenate([np.array(part.classes)[part.decisions] for part in parts])[rows]
    probabilities = np.concatenate([part.probabilities for part in parts])[rows]
    output = SystemOutput(tuple(files[i] for i in rows), first.classes, probabilities)
    own = any(part.predicted is not None for part in parts)
    return replace(
        output,
        start=None if start is None else start[rows],
        predicted=tuple(decided.tolist()) if own else None,
    )
