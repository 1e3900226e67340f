"""Confident errors of a system, and the clips behind its confusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avsc_e2e.report.result import Result


@dataclass(frozen=True, eq=False)
class ConfidentError:
    """A wrong decision with high confidence."""

    file: str
    start: float | None
    """Seconds; None for a whole recording."""
    target: int
    """Index of the true class."""
    decided: int
    """Index of the decided class."""
    probabilities: np.ndarray
    """(K,)"""


def surest(result: Result, mask: np.ndarray, most: int) -> list[ConfidentError]:
    """The `most` rows of a mask (N,) with the highest confidence, one for each recording, and one for each location if
    there are enough."""
    output, targets = result.output, result.targets
    sure = output.probabilities[np.arange(len(output)), output.decisions]
    rows = np.flatnonzero(mask)
    order = rows[np.argsort(-sure[rows], kind="stable")]
    first: list[int] = []
    later: list[int] = []
    files: set[str] = set()
    places: set[str] = set()
    for i in order.tolist():
        if output.files[i] in files:
            continue
        files.add(output.files[i])
        (later if result.places[i] in places else first).append(i)
        places.add(result.places[i])
    chosen = sorted((first + later)[:most], key=lambda i: -sure[i])
    return [
        ConfidentError(
            output.files[i],
            None if output.start is None else float(output.start[i]),
            int(targets[i]),
            int(output.decisions[i]),
            output.probabilities[i],
        )
        for i in chosen
    ]


def by_confusion(
    result: Result, errors: Sequence[ConfidentError], most: int = 6
) -> dict[tuple[int, int], list[ConfidentError]]:
    """(true class, decided class) -> clips: two of each of the `most` common confusions, and the `errors`."""
    counts = result.scores.confusion * (1 - np.eye(len(result.output.classes), dtype=int))
    order = np.argsort(-counts, axis=None, kind="stable")[:most]
    pairs = [tuple(map(int, np.unravel_index(i, counts.shape))) for i in order if counts.flat[i]]
    decisions = result.output.decisions
    groups = {
        (target, decided): surest(result, (result.targets == target) & (decisions == decided), 2)
        for target, decided in pairs
    }
    for error in errors:
        group = groups.setdefault((error.target, error.decided), [])
        if all((error.file, error.start) != (other.file, other.start) for other in group):
            group.append(error)
    return groups
