"""Values of the section about pairs of systems: paired tests, votes, rows on which decisions differ."""

from __future__ import annotations

from typing import NamedTuple

from avsc_e2e.outputs.comparison import Comparison
from avsc_e2e.report.report import Report
from avsc_e2e.report.words import span


class Pairs(NamedTuple):
    """The comparison of all systems."""

    found: Comparison
    total: int
    """Rows."""
    votes: list[tuple[str, float, str]]
    """Kind of decision, its macro accuracy and the interval."""


def pairs(report: Report) -> Pairs | None:
    """Values of the section; None if the report has no comparison."""
    found = report.comparison
    if found is None:
        return None
    votes = []
    for one in found.combinations:
        which = "all" if len(one.systems) == len(found.systems) else f"the best {len(one.systems)}"
        votes.append((f"majority vote of {which}", one.vote, span(one.vote_intervals[1], ".1%")))
        votes.append((f"oracle of {which}", one.oracle, span(one.oracle_intervals[1], ".1%")))
    return Pairs(found, next(iter(found.scores.values())).count, votes)
