"""The page of a report: a `Report` as one HTML text that needs no other file.

The page has no scripts and loads nothing: images and audio are inside it, and its switches are plain CSS. Every chart
has its numbers beside it or in a table that unfolds. The modules of the sections prepare values; templates/ holds the
HTML.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from avsc_e2e.report import charts, clips, pairs, places, plots, sections, training
from avsc_e2e.report.report import Report
from avsc_e2e.report.template import render, write_page
from avsc_e2e.report.trials import Robustness
from avsc_e2e.report.verdict import verdict


def write_report(report: Report, path: str | Path) -> Path:
    """Write the page of a report to an HTML file. Raises AvscError and OSError."""
    return write_page(page(report), path)


class Section(NamedTuple):
    """A section of the page. Its template has the name of its anchor and gets the values as `it`."""

    anchor: str
    title: str
    values: object
    """Values of the template; empty or None if the section is left out."""


def page(report: Report) -> str:
    """The page as one HTML text."""
    said = verdict(report)
    parts = (
        Section("candidates", "Candidates", report.ladder),
        Section("systems", "Systems", sections.systems(report)),
        Section("pairs", "Pairs of systems", pairs.pairs(report)),
        Section("classes", "Classes", sections.classes(report)),
        Section("confusions", "Confusions", sections.confusions(report)),
        Section("errors", "Errors", clips.errors(report)),
        Section("calibration", "Calibration", sections.calibration(report)),
        Section("robustness", "Robustness", [_robustness(one) for one in report.robustness]),
        Section("places", "Places", places.places(report)),
        Section("training", "Training", training.training(report)),
        Section("configuration", "Configuration", training.configuration(report)),
    )
    whole = "locations, since clips of one location resemble each other" if report.has_places else "recordings"
    return render(
        "report.html",
        title=said.title,
        verdict=said,
        note=report.note,
        warning=report.warning,
        command=report.command,
        system=report.system,
        classes=report.classes,
        figures=sections.figures(report),
        sections=[part for part in parts if part.values],
        footer="Macro averages over classes; log loss in nats, with the probability of the true class clipped at 1e-15 "
        f"and rows not renormalised. 95 % intervals by bootstrap over {whole}.",
    )


def _robustness(found: Robustness) -> tuple[Robustness, list[charts.Series], plots.Curves | charts.Bars]:
    """Curves under noise, darkness and missing modalities, each with its chart."""
    series = [charts.Series(name, i, values) for i, (name, values) in enumerate(found.log_loss.items())]
    if found.is_numeric:
        label = f"Log loss over {found.disturbance}; numbers in the table below."
        levels = [float(level) for level in found.levels]
        return found, series, plots.curves(levels, series, ".3g", label, axis=found.unit or found.disturbance)
    high = max((v for one in series for v in one.values if v == v), default=1.0)
    return found, series, charts.bars([str(level) for level in found.levels], series, high, ".3f", "nats")
