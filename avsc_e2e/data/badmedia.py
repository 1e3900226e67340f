"""Media that cannot be read: what is done with it, what is noted of it, and when a run stops over it."""

from __future__ import annotations

import csv
import logging
import os
from pathlib import Path
from typing import Literal, NamedTuple

from avsc_e2e.errors import AvscError

log = logging.getLogger(__name__)


OnBad = Literal["raise", "skip", "mask"]
"""What is done with a clip that cannot be read. raise: stop. skip: in training draw another in its place, by a key of
its own; in evaluation leave it out of its batch. mask: go on with the modality that can be read, marked in `present`;
skip where there is none."""


MOST_BAD = 0.01
"""Share of the segments that may be bad before a run stops; one recording alone never stops it."""


class BadMedia(NamedTuple):
    """A recording, or one modality of it, that could not be read."""

    file: str
    """The row's."""
    path: str
    start: float
    """Seconds at which the segment starts."""
    reason: str


class BadMediaLog:
    """Counts what could not be read, and writes every occurrence to a CSV."""

    def __init__(self, path: str | os.PathLike[str] | None, total: int):
        """`total`: segments of all recordings."""
        self.path, self.total = Path(path) if path else None, total
        self.segments: set[tuple[str, int]] = set()
        """Those that were bad: recording and number of the second."""
        self.files: dict[str, BadMedia] = {}
        """The first occurrence of each recording."""

    def add(self, bad: BadMedia, tell: bool = True) -> None:
        """Note a bad recording, in a warning too if `tell`."""
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", newline="") as file:  # of lines that are appended whole, by one process or more
                lines = csv.writer(file, lineterminator="\n")
                if not file.tell():
                    lines.writerow(BadMedia._fields)
                lines.writerow(bad._replace(start=f"{bad.start:.3f}"))
        self.segments.add((bad.file, int(bad.start)))
        if bad.file not in self.files:
            self.files[bad.file] = bad
            if tell:
                log.warning("%s: %s (at %.2f s)", bad.path, bad.reason, bad.start)

    def judge(self) -> None:
        """Raises AvscError, a summary, once more than `MOST_BAD` of the segments are bad, of several recordings."""
        if len(self.files) > 1 and len(self.segments) > max(1, MOST_BAD * self.total):
            first = next(iter(self.files.values()))
            told = f"; {self.path} lists them" if self.path else ""
            raise AvscError(
                f"{len(self.segments)} of {self.total} segments cannot be read, of {len(self.files)} recordings, more "
                f"than {100 * MOST_BAD:g} %, such as {first.path} ({first.reason}){told}: mend or remove them"
            )
