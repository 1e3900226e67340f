"""Media that cannot be read: how a run continues, what it logs, and when it stops."""

from __future__ import annotations

import csv
import logging
import os
from pathlib import Path
from typing import Literal, NamedTuple

from avsc_e2e.errors import AvscError

log = logging.getLogger(__name__)


OnBad = Literal["raise", "skip", "mask"]
"""Handling of a clip that cannot be read. raise: stop. skip: in training draw another clip in its place, with its own
key; in evaluation leave it out of its batch. mask: use the modality that can be read, as `present` then says; skip if
there is none."""


MOST_BAD = 0.01
"""Share of the segments that may be unreadable before a run stops; a single recording never stops it."""


class BadMedia(NamedTuple):
    """A recording, or one modality of it, that could not be read."""

    file: str
    """The file of its row."""
    path: str
    start: float
    """Start of the segment, seconds."""
    reason: str


class BadMediaLog:
    """Counts what could not be read, and writes every occurrence to a CSV."""

    def __init__(self, path: str | os.PathLike[str] | None, total: int):
        """`total`: segments of all recordings."""
        self.path, self.total = Path(path) if path else None, total
        self.segments: set[tuple[str, int]] = set()
        """Unreadable segments: recording and index of the segment."""
        self.files: dict[str, BadMedia] = {}
        """The first occurrence of each recording."""

    def add(self, bad: BadMedia, tell: bool = True) -> None:
        """Record an unreadable recording, and, if `tell`, log a warning."""
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", newline="") as file:  # several processes may append, each whole lines
                lines = csv.writer(file, lineterminator="\n")
                if not file.tell():
                    lines.writerow(BadMedia._fields)
                lines.writerow((bad.file, bad.path, f"{bad.start:.3f}", bad.reason))
        self.segments.add((bad.file, int(bad.start)))
        if bad.file not in self.files:
            self.files[bad.file] = bad
            if tell:
                log.warning("%s: %s (at %.2f s)", bad.path, bad.reason, bad.start)

    def judge(self) -> None:
        """Raises AvscError, with a summary, when more than `MOST_BAD` of the segments are unreadable, in several
        recordings."""
        if len(self.files) > 1 and len(self.segments) > max(1, MOST_BAD * self.total):
            first = next(iter(self.files.values()))
            told = f"; {self.path} lists them" if self.path else ""
            raise AvscError(
                f"{len(self.segments)} of {self.total} segments cannot be read, of {len(self.files)} recordings, more "
                f"than {100 * MOST_BAD:g} %, such as {first.path} ({first.reason}){told}: mend or remove them"
            )
