"""Values of the sections about systems and classes: figures, systems, classes, confusions, calibration."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from avsc_e2e.outputs.intervals import Interval
from avsc_e2e.outputs.metrics import reliability
from avsc_e2e.report import charts, images, plots
from avsc_e2e.report.report import Report
from avsc_e2e.report.result import Result, Rival
from avsc_e2e.report.words import count, number, percent

CLASSES_IN_MATRIX = 24
"""With more classes, the confusion matrix is an image, and the class bars show only the hardest classes."""


class Card(NamedTuple):
    """The figures of the system under a protocol."""

    protocol: str
    sample: str
    figures: list[tuple[str, str, str]]
    """Name, value and interval."""


def figures(report: Report) -> list[Card]:
    """A card for each protocol."""
    cards = []
    for protocol, by_name in report.results.items():
        if report.system not in by_name:
            continue
        result = by_name[report.system]
        scores, (loss, accuracy) = result.scores, result.intervals
        shown = [
            ("macro log loss", f"{scores.log_loss:.3f}", _interval(loss, ".3f")),
            ("macro accuracy", percent(scores.accuracy), _interval(accuracy, ".1%")),
        ]
        cards.append(Card(protocol, _sample(report, result), shown))
    return cards


def _interval(span: Interval | None, form: str) -> str:
    if span is None:
        return "no interval: a class has one location"
    low, high = (number(value, form) for value in span)
    return f"95 %: {low.removesuffix(chr(160) + '%')} to {high}"


def _sample(report: Report, result: Result) -> str:
    recordings = len(set(result.output.files))
    parts = [count(recordings, "recording")]
    if result.output.start is not None:
        parts.insert(0, count(result.scores.count, "segment"))
    sample = " of ".join(parts)
    return f"{sample}, {count(len(set(result.places)), 'location')}" if report.has_places else sample


class Value(NamedTuple):
    """A figure in the table of systems."""

    shown: str
    interval: tuple[str, str] | None = None
    whisker: charts.Whisker | None = None
    """Mark and interval; None for published figures."""


class Systems(NamedTuple):
    """The table of systems under a protocol; each of its two columns has its own scale."""

    rows: list[tuple[str, int, bool, list[Value]]]
    """Name, colour, whether it is the system, and log loss and accuracy."""
    scales: list[tuple[str, str]]
    """Ends of the scale of each column."""


def systems(report: Report) -> dict[str, Systems] | None:
    """Protocol -> all systems; None if there is only one."""
    if len(report.outputs) < 2 and not isinstance(report.rival, Rival):
        return None
    return {protocol: _systems(report, protocol) for protocol in report.results}


def _systems(report: Report, protocol: str) -> Systems:
    by_name = report.results[protocol]
    columns = (("log_loss", ".3f"), ("accuracy", ".1%"))
    bounds = {}
    for key, _ in columns:
        spans = [getattr(result.intervals, key) or () for result in by_name.values()]
        ends = [getattr(result.scores, key) for result in by_name.values()] + [end for span in spans for end in span]
        bounds[key] = min(ends), max(ends)
    rows = []
    for name in (name for name in report.outputs if name in by_name):
        values = []
        for key, form in columns:
            value, span = getattr(by_name[name].scores, key), getattr(by_name[name].intervals, key)
            low, high = (number(v, form).removesuffix("\u00a0%") for v in span or (math.nan, math.nan))
            mark = charts.whisker(value, span, *bounds[key], report.colours[name])
            values.append(Value(number(value, form), (low, high) if span else None, mark))
        rows.append((name, report.colours[name], name == report.system, values))
    rival = report.rival
    if isinstance(rival, Rival) and rival.protocol == protocol:
        values = [Value(number(getattr(rival, key), form)) for key, form in columns]
        rows.append((rival.name, report.colours[rival.name], False, values))
    ends_of = [(number(bounds[key][0], form), number(bounds[key][1], form)) for key, form in columns]
    return Systems(rows, ends_of)


def _series(report: Report, protocol: str, what: str) -> list[charts.Series]:
    """Class-wise figures of every system under a protocol, the report's system first; `what` is "log_loss" or
    "accuracy"."""
    series = [
        charts.Series(name, report.colours[name], getattr(result.scores, f"class_{what}"))
        for name, result in report.results[protocol].items()
    ]
    if isinstance(report.rival, Rival) and report.rival.protocol == protocol:
        known = getattr(report.rival, f"class_{what}")
        if known:
            values = [known.get(name, math.nan) for name in report.classes]
            series.append(charts.Series(report.rival.name, report.colours[report.rival.name], values))
    return series


class Classes(NamedTuple):
    """Class-wise figures under a protocol."""

    series: list[charts.Series]
    log_loss: charts.Bars
    accuracy: charts.Bars
    said: str
    head: list[str]
    rows: list[list[str]]


def classes(report: Report) -> dict[str, Classes]:
    """Protocol -> bars of the classes, hardest first, and the table of all."""
    panels = {}
    for protocol in report.results:
        losses, accuracies = _series(report, protocol, "log_loss"), _series(report, protocol, "accuracy")
        hardest = np.argsort(-np.nan_to_num(np.asarray(losses[0].values), nan=-1.0), kind="stable")
        shown = hardest[:20] if len(hardest) > CLASSES_IN_MATRIX else hardest
        names = [report.classes[i] for i in shown]
        drawn = [pick(one, shown) for one in losses]
        finite = [v for one in drawn for v in one.values if math.isfinite(v)]
        marks = charts.ticks(0, max(finite, default=1.0) or 1.0)
        high = max(max(finite, default=1.0), marks[-1]) or 1.0
        said = "Hardest class first."
        if len(shown) < len(hardest):
            said = f"The {len(shown)} hardest of {len(hardest)} classes, hardest first."
        if len(losses) > 1:
            said += f" Bars and figures: {losses[0].name}; marks: the others on the same scale."
        panels[protocol] = Classes(
            losses,
            charts.bars(names, drawn, high, ".3f", "nats"),
            charts.bars(names, [pick(one, shown) for one in accuracies], 1.0, ".1%", ""),
            said,
            *_class_table(report, protocol, losses, accuracies),
        )
    return panels


def pick(series: charts.Series, rows: Iterable[int]) -> charts.Series:
    """Some rows of a series, in their order."""
    return series._replace(values=[series.values[i] for i in rows])


def _class_table(
    report: Report, protocol: str, losses: Sequence[charts.Series], accuracies: Sequence[charts.Series]
) -> tuple[list[str], list[list[str]]]:
    counts = next(iter(report.results[protocol].values())).scores.class_count
    head = ["class", "rows", *(f"{s.name}\nlog loss" for s in losses), *(f"{s.name}\naccuracy" for s in accuracies)]
    rows = [
        [
            name,
            f"{counts[i]:,}",
            *(number(s.values[i], ".3f") for s in losses),
            *(number(s.values[i], ".1%") for s in accuracies),
        ]
        for i, name in enumerate(report.classes)
    ]
    return head, rows


class Confusions(NamedTuple):
    """Confusions of the system under a protocol: a table of cells, or an image of many classes."""

    said: str
    matrix: list[tuple[str, list[charts.Cell]]]
    image: str
    worst: list[tuple[str, str, str, str, str]]
    """True class, decided class, rows, share of the true class, link to the clips."""


def confusions(report: Report) -> dict[str, Confusions]:
    """Protocol -> confusions."""
    panels = {}
    links = {pair: f"#errors-{pair[0]}-{pair[1]}" for pair in report.error_groups}
    few = len(report.classes) <= CLASSES_IN_MATRIX
    for protocol, by_name in report.results.items():
        if report.system not in by_name:
            continue
        counts = by_name[report.system].scores.confusion
        off = counts * (1 - np.eye(len(counts), dtype=int))
        worst = [np.unravel_index(i, off.shape) for i in np.argsort(-off, axis=None, kind="stable")[:8]]
        panels[protocol] = Confusions(
            f"Share of each true class (row) that {report.system} takes for the class of the column, in percent",
            charts.matrix(report.classes, counts, links) if few else [],
            "" if few else images.image_uri(images.heat(counts), "png"),
            [
                (
                    report.classes[i],
                    report.classes[j],
                    f"{off[i, j]:,}",
                    number(off[i, j] / counts[i].sum(), ".1%"),
                    links.get((i, j), ""),
                )
                for i, j in worst
                if off[i, j]
            ],
        )
    return panels


class Calibration(NamedTuple):
    """Calibration of all systems under a protocol."""

    diagram: plots.Reliability
    rows: list[tuple[str, int, list[str]]]
    """Name, colour, and calibration error, Brier score, mean confidence and accuracy."""
    least: int
    """Smallest number of rows for which a mark is drawn."""
    system: str
    bins: list[list[str]]
    """Bins of the system: lower end of confidence, rows, mean confidence and accuracy."""


def calibration(report: Report) -> dict[str, Calibration]:
    """Protocol -> reliability diagram and figures."""
    panels = {}
    for protocol, by_name in report.results.items():
        series, rows = [], []
        for name, result in by_name.items():
            found = reliability(result.output.probabilities, result.targets)
            bins = list(map(plots.Bin, found.count.tolist(), found.confidence.tolist(), found.accuracy.tolist()))
            series.append((name, report.colours[name], bins))
            figures = [
                percent(result.scores.calibration_error),
                f"{result.scores.brier:.3f}",
                percent(float(result.output.probabilities.max(1).mean())),
                percent(float((result.output.probabilities.argmax(1) == result.targets).mean())),
            ]
            rows.append((name, report.colours[name], figures))
        least = max(3, round(0.004 * max(result.scores.count for result in by_name.values())))
        label = f"Reliability diagram, {protocol}: share right over confidence; numbers in the table beside it."
        system, _, bins = series[0]
        table = [
            [percent(i / len(bins)), f"{b.count:,}", number(b.confidence, ".1%"), number(b.accuracy, ".1%")]
            for i, b in enumerate(bins)
            if b.count
        ]
        panels[protocol] = Calibration(plots.reliability(series, least, label), rows, least, system, table)
    return panels
