"""The section of a report about pairs of systems: paired tests, votes, rows without a common decision."""

from __future__ import annotations

import math

from avsc_e2e.outputs.metrics import Interval
from avsc_e2e.report.report import Report
from avsc_e2e.report.template import environment


def pairs(report: Report) -> str:
    """The comparison of all systems, if the report has one."""
    found = report.comparison
    if found is None:
        return ""
    total = next(iter(found.scores.values())).count
    votes = [
        (f"{kind} of {'all' if len(c.systems) == len(found.systems) else f'the best {len(c.systems)}'}", value, span)
        for c in found.combinations
        for kind, value, span in (
            ("majority vote", c.vote, c.vote_intervals[1]),
            ("oracle", c.oracle, c.oracle_intervals[1]),
        )
    ]
    return (
        environment()
        .get_template("pairs.html")
        .render(found=found, total=total, votes=votes, span=_span, known=lambda p: not math.isnan(p))
    )


def _span(interval: Interval | None, form: str) -> str:
    return "no interval" if interval is None else f"{interval.low:{form}} to {interval.high:{form}}".replace("-", "−")
