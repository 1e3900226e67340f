"""A survey of a data set: contents of each class, a few recordings to look at, and the problems of `data check`."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from avsc_e2e.arguments import checked
from avsc_e2e.clip import Row
from avsc_e2e.data.check.check import check
from avsc_e2e.data.check.findings import Check
from avsc_e2e.data.media import Media, probe
from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.data.sets.listing import scan
from avsc_e2e.data.store.layout import is_store
from avsc_e2e.errors import AvscError, MediaError


@dataclass(frozen=True)
class ClassSurvey:
    """A class of a data set."""

    name: str
    recordings: int
    sources: int
    """Locations or source recordings."""
    hours: float
    lengths: tuple[float, float, float]
    """Seconds: the shortest, the median and the longest recording."""
    sizes: Counter[str]
    """Frame sizes and rates, with the number of recordings."""
    audio: Counter[str]
    """Sample rates and channels, with the number of recordings."""
    bytes: int
    """Size of all its files."""
    examples: tuple[Row, ...]
    """Recordings of different sources, evenly spread over the class."""


@dataclass(frozen=True)
class Survey:
    """A data set."""

    root: str
    classes: tuple[ClassSurvey, ...]
    check: Check


@checked
def look(
    root: str | os.PathLike[str],
    *,
    examples: int = 4,
    fast: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Survey class folders, a table of files, or a root in the layout of TAU Urban Audio-Visual Scenes 2021.
    `examples`: recordings of each class to show. `fast`: check names and headers only. Raises AvscError where there is
    no data set."""
    if is_store(root):
        raise AvscError(f"{root}: is a store; look at the folder of media that it was made of")
    if examples < 0:
        raise AvscError(f"--examples {examples}: give 0 or more")
    checked = check(root, fast=fast, progress=progress)
    by_class: dict[str, list[Row]] = defaultdict(list)
    for row in _rows(root):
        by_class[row.scene].append(row)
    return Survey(str(root), tuple(_survey(name, by_class[name], examples) for name in sorted(by_class)), checked)


def _rows(root: str | os.PathLike[str]) -> list[Row]:
    try:
        corpus = read_corpus(root, validation=0.0, test=0.0, lenient=True)
        return [row for part in (corpus.train, corpus.validation, corpus.test) for row in part]
    except AvscError as error:  # what training refuses can still be looked at; the check says why it is refused
        try:
            return [row for part in scan(root).parts.values() for row in part]
        except AvscError:
            raise error from None


def _survey(name: str, rows: Sequence[Row], examples: int) -> ClassSurvey:
    headers: dict[str, Media] = {}
    for path in {path for row in rows for path in (row.audio, row.video) if path}:
        try:
            headers[path] = probe(path)
        except MediaError:
            continue  # it is among the problems of the check
    able = [row for row in rows if row.audio in headers or row.video in headers]
    of = lambda path: headers[path].duration if path in headers else 0.0  # noqa: E731
    lengths = sorted(of(row.video) or of(row.audio) for row in able) or [0.0]
    seen = [headers[row.video] for row in able if row.video in headers and headers[row.video].has_video]
    heard = [headers[row.audio] for row in able if row.audio in headers and headers[row.audio].has_audio]
    return ClassSurvey(
        name,
        len(rows),
        len({row.location or row.file for row in rows}),
        sum(lengths) / 3600,
        (lengths[0], median(lengths), lengths[-1]),
        Counter(f"{one.width} x {one.height}, {one.frame_rate:.4g} /s" for one in seen),
        Counter(f"{one.sample_rate} Hz x {one.channels}" for one in heard),
        sum(header.size for header in headers.values()),
        tuple(spread(able, examples)),
    )


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """`count` recordings of different sources if there are enough, evenly spread over the sources in their order."""
    turns: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.location, row.file)):
        turns[row.location or row.file].append(row)
    first = [of_source[0] for of_source in turns.values()]
    if len(first) >= count:
        return [first[index * len(first) // count] for index in range(count)]
    return [*first, *[row for of_source in turns.values() for row in of_source[1:]]][:count]
