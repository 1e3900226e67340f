"""Violations of the rules of a submission."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from avsc_e2e.submission.entry import MOST_SYSTEMS

LABEL = re.compile(r"([^\W_]+(?:-[^\W_]+)*)_([^\W_]+(?:-[^\W_]+)*)_task1b_([1-9]\d*)")


class Violation(NamedTuple):
    """One violation, with its place."""

    file: str
    """Inside the package."""
    line: int
    """From 1; 0 where it concerns the file as a whole."""
    reason: str

    def __str__(self) -> str:
        return f"{self.file}{f', line {self.line}' if self.line else ''}: {self.reason}"


def listing(violations: Sequence[Violation], most: int = 100, separator: str = "\n") -> str:
    """The violations as text, the first `most` of them; empty for none."""
    lines = [str(violation) for violation in violations[:most]]
    if len(violations) > most:
        lines.append(f"and {len(violations) - most} more")
    return separator.join(lines)


def check_label(label: Any, file: str, line: int) -> Iterator[Violation]:
    match = LABEL.fullmatch(label) if isinstance(label, str) else None
    if not match:
        yield Violation(file, line, f"{label!r} is not Lastname_Institute_task1b_N of exactly four parts")
    elif int(match[3]) > MOST_SYSTEMS:
        yield Violation(file, line, f"{label!r}: N is 1 to {MOST_SYSTEMS}")
