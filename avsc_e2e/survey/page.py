"""The page about a data set: figures, frames and spectrograms of each class, and problems of its files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from avsc_e2e.clip import Row
from avsc_e2e.report import charts
from avsc_e2e.report.clips import media_of
from avsc_e2e.report.template import render, write_page
from avsc_e2e.report.words import count
from avsc_e2e.survey.survey import ClassSurvey, Survey

LONGEST = 10.0
"""Seconds of a recording that are shown, around its middle."""
PROBLEMS = 200
"""Problems that are listed; more are counted."""


def write_survey(found: Survey, path: str | Path) -> Path:
    """Write the page of a data set to an HTML file. Raises AvscError and OSError."""
    return write_page(page(found), path)


def page(found: Survey) -> str:
    """The page as one HTML text."""
    classes, problems = found.classes, found.check.problems
    series = charts.Series("hours", 0, [one.hours for one in classes])
    longest = max(series.values, default=0.0) or 1.0
    unit, scale = ("hours", 1) if longest >= 1 else ("minutes", 60)
    series = series._replace(name=unit, values=[scale * value for value in series.values])
    return render(
        "look.html",
        title=f"Data set {Path(found.root).resolve().name}",
        found=found,
        problems=problems[:PROBLEMS],
        kinds=Counter(problem.kind for problem in problems).most_common(),
        recordings=sum(one.recordings for one in classes),
        hours=sum(one.hours for one in classes),
        gigabytes=sum(one.bytes for one in classes) / 1e9,
        shares=charts.bars([one.name for one in classes], [series], scale * longest, ".3g", unit),
        sources=[_few(one) for one in classes],
        common=lambda values: ", ".join(f"{value} ({number})" for value, number in values.most_common(3)) or "–",
        strips=[[_card(row) for row in one.examples] for one in classes],
    )


def _few(one: ClassSurvey) -> str:
    return f"{count(one.recordings, 'recording')} of {count(one.sources, 'source')}"


def _card(row: Row) -> dict[str, object]:
    length = min(row.duration or 1.0, LONGEST)
    start = max((row.duration - length) / 2, 0.0)
    return {"name": row.file, "duration": row.duration, "media": media_of(row, start, length, row.scene)}
