"""The page of a report: what `Report` knows, as one HTML text that needs no other file.

No script, no network: images and audio are inside it, and its switches are plain CSS. Every chart has its numbers
beside it or in a table that unfolds.
"""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from avsc_e2e.report import charts, clips, pairs, places, sections, training
from avsc_e2e.report.report import Report
from avsc_e2e.report.template import environment, render
from avsc_e2e.report.trials import Robustness
from avsc_e2e.report.verdict import verdict


def write_report(report: Report, path: str | Path) -> Path:
    """Write the page of a report to an HTML file. Raises OSError."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(report), encoding="utf-8")
    return path


def page(report: Report) -> str:
    """The page as one HTML text."""
    said = verdict(report)
    parts = [
        ("candidates", "Candidates", _ladder(report)),
        ("systems", "Systems", sections.systems(report)),
        ("pairs", "Pairs of systems", pairs.pairs(report)),
        ("classes", "Classes", sections.class_bars(report)),
        ("confusions", "Confusions", sections.confusion(report)),
        ("errors", "Errors", clips.error_cards(report)),
        ("calibration", "Calibration", sections.calibration(report)),
        ("robustness", "Robustness", _robustness(report)),
        ("places", "Places", places.places(report)),
        ("training", "Training", training.training(report)),
        ("configuration", "Configuration", training.configuration(report)),
    ]
    whole = "locations, since clips of one location resemble each other" if report.has_places else "recordings"
    return render(
        "report.html",
        title=said.title,
        verdict=said,
        note=report.note,
        warning=report.warning,
        command=report.command,
        figures=Markup(sections.figures(report)),
        sections=[(anchor, name, Markup(body)) for anchor, name, body in parts if body],
        footer="Macro averages over classes; log loss in nats, with the probability of the true class clipped at 1e-15 "
        f"and rows not renormalised. 95 % intervals by bootstrap over {whole}.",
    )


def _ladder(report: Report) -> str:
    return environment().get_template("trials.html").module.ladder(report.ladder) if report.ladder else ""


def _robustness(report: Report) -> str:
    draw = environment().get_template("trials.html").module.robustness
    return "".join(draw(one, Markup(_curves(one))) for one in report.robustness)


def _curves(found: Robustness) -> str:
    series = [charts.Series(name, i, values) for i, (name, values) in enumerate(found.log_loss.items())]
    key = charts.key((one.name, one.colour) for one in series)
    if found.is_numeric:
        label = f"Log loss over {found.disturbance}; numbers in the table below."
        drawn = charts.curves(found.levels, series, ".3g", label, axis=found.unit or found.disturbance)
    else:
        high = max((v for s in series for v in s.values if v == v), default=1.0)
        drawn = charts.rows([str(level) for level in found.levels], series, high, ".3f", "nats")
    return f"{key if len(series) > 1 else ''}<figure>{drawn}</figure>"
