"""Sections of a report about systems and classes: figures, systems, classes, confusions, calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from avsc_e2e.outputs.metrics import Interval, reliability
from avsc_e2e.report import charts
from avsc_e2e.report.report import Report
from avsc_e2e.report.result import Result, Rival
from avsc_e2e.report.words import count, number, percent

CLASSES_IN_MATRIX = 24
"""Above, the confusion matrix is an image, and the class bars show the hardest classes only."""


def figures(report: Report) -> str:
    cards = []
    for protocol, by_name in report.results.items():
        if report.system not in by_name:
            continue
        result = by_name[report.system]
        scores, (loss, accuracy) = result.scores, result.intervals
        cards.append(
            f'<div class="card"><h3>{escape(protocol)}</h3><small>{_sample(report, result)}</small>'
            '<dl class="figures">'
            f'<div><dt>macro log loss</dt><dd><span class="big">{scores.log_loss:.3f}</span>'
            f'<span class="interval">{_interval(loss, ".3f")}</span></dd></div>'
            f'<div><dt>macro accuracy</dt><dd><span class="big">{percent(scores.accuracy)}</span>'
            f'<span class="interval">{_interval(accuracy, ".1%")}</span></dd></div>'
            f"</dl></div>"
        )
    return f'<div class="cards">{"".join(cards)}</div>'


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


def systems(report: Report) -> str:
    if len(report.outputs) < 2 and not isinstance(report.rival, Rival):
        return ""
    panels = {protocol: _system_table(report, protocol) for protocol in report.results}
    return (
        '<p class="muted small">Macro averages; beneath each the 95 % interval. Each column has a scale of its own, in '
        f"its box; the ends of the scale stand below.</p>{charts.switch('systems-of', panels)}"
    )


def _system_table(report: Report, protocol: str) -> str:
    """All systems under a protocol; the two columns have scales of their own."""
    by_name = report.results[protocol]
    head, foot, bounds = ["system"], ["scale"], {}
    for what, key, form in (("log loss", "log_loss", ".3f"), ("accuracy", "accuracy", ".1%")):
        head.append(f"{what}<br>({'lower' if key == 'log_loss' else 'higher'} is better)")
        spans = [getattr(r.intervals, key) or () for r in by_name.values()]
        ends = [getattr(r.scores, key) for r in by_name.values()] + [end for span in spans for end in span]
        low, high = bounds[key] = min(ends), max(ends)
        foot.append(f'<span class="ends"><span>{number(low, form)}</span> <span>{number(high, form)}</span></span>')
    rows, names = [], [name for name in report.outputs if name in by_name]
    for name in names:
        cells, result = [label(report, name)], by_name[name]
        for key, form in (("log_loss", ".3f"), ("accuracy", ".1%")):
            value, span = getattr(result.scores, key), getattr(result.intervals, key)
            mark = charts.whisker(value, span, *bounds[key], report.colours[name])
            low, high = (number(v, form).removesuffix("\u00a0%") for v in span or (math.nan, math.nan))
            shown = f"{low}–<wbr>{high}" if span else "no interval"
            cells.append(f'{number(value, form)}<span class="interval">{shown}</span>{mark}')
        rows.append(cells)
    if isinstance(report.rival, Rival) and report.rival.protocol == protocol:
        rows.append(
            [
                f"{label(report, report.rival.name)}<span class=interval>published</span>",
                number(report.rival.log_loss, ".3f"),
                number(report.rival.accuracy, ".1%"),
            ]
        )
    lead = names.index(report.system) if report.system in names else None
    return charts.table(head, [*rows, foot], lead=lead, style="wide systems")


def label(report: Report, name: str) -> str:
    return f'<span class="name">{charts.mark(report.colours[name])}{escape(name)}</span>'


def _series(report: Report, protocol: str, what: str) -> list[charts.Series]:
    """Class-wise figures of every system under a protocol, the system first; what is "log_loss" or "accuracy"."""
    series = [
        charts.Series(name, report.colours[name], getattr(result.scores, f"class_{what}"))
        for name, result in report.results[protocol].items()
    ]
    if isinstance(report.rival, Rival) and report.rival.protocol == protocol:
        figures = getattr(report.rival, f"class_{what}")
        if figures:
            values = [figures.get(name, math.nan) for name in report.classes]
            series.append(charts.Series(report.rival.name, report.colours[report.rival.name], values))
    return series


def key(series: Sequence[charts.Series]) -> str:
    """What the marks stand for, where there is more than one."""
    return charts.key((one.name, one.colour) for one in series) if len(series) > 1 else ""


def class_bars(report: Report) -> str:
    panels = {}
    for protocol in report.results:
        losses, accuracies = _series(report, protocol, "log_loss"), _series(report, protocol, "accuracy")
        hardest = np.argsort(-np.nan_to_num(np.asarray(losses[0].values), nan=-1.0), kind="stable")
        shown = hardest[:20] if len(hardest) > CLASSES_IN_MATRIX else hardest
        names = [report.classes[i] for i in shown]
        pick = lambda series, shown=shown: [s._replace(values=[s.values[i] for i in shown]) for s in series]  # noqa: E731
        drawn = pick(losses)
        finite = [v for s in drawn for v in s.values if math.isfinite(v)]
        marks = charts.ticks(0, max(finite, default=1.0) or 1.0)
        high = max(max(finite, default=1.0), marks[-1]) or 1.0
        left = charts.rows(names, drawn, high, ".3f", "nats")
        right = charts.rows(names, pick(accuracies), 1.0, ".1%", "")
        table = _class_table(report, protocol, losses, accuracies)
        said = "Hardest class first."
        if len(shown) < len(hardest):
            said = f"The {len(shown)} hardest of {len(hardest)} classes, hardest first."
        if len(losses) > 1:
            said += f" Bars and figures: {losses[0].name}; marks: the others on the same scale."
        panels[protocol] = (
            f"{key(losses)}"
            f'<div class="pair"><figure><h3>Log loss (lower is better)</h3>{left}</figure>'
            f"<figure><h3>Accuracy</h3>{right}</figure></div>"
            f'<p class="muted small">{escape(said)}</p>{charts.details("All figures as a table", table)}'
        )
    return f"{charts.switch('classes-of', panels)}"


def _class_table(
    report: Report, protocol: str, losses: Sequence[charts.Series], accuracies: Sequence[charts.Series]
) -> str:
    counts = next(iter(report.results[protocol].values())).scores.class_count
    head = ["class", "rows"]
    head += [f"{escape(s.name)}<br>log loss" for s in losses] + [f"{escape(s.name)}<br>accuracy" for s in accuracies]
    rows = [
        [
            escape(name),
            f"{counts[i]:,}",
            *(number(s.values[i], ".3f") for s in losses),
            *(number(s.values[i], ".1%") for s in accuracies),
        ]
        for i, name in enumerate(report.classes)
    ]
    return charts.table(head, rows)


def confusion(report: Report) -> str:
    panels = {}
    links = {pair: f"#errors-{pair[0]}-{pair[1]}" for pair in report.error_groups}
    for protocol, by_name in report.results.items():
        if report.system not in by_name:
            continue
        counts = by_name[report.system].scores.confusion
        said = f"Share of each true class (row) that {report.system} takes for the class of the column, in percent"
        if len(report.classes) <= CLASSES_IN_MATRIX:
            picture = charts.matrix(report.classes, counts, f"{said}.", links)
            picture += f"<figcaption>{escape(said)}. Blue is right, red is not.</figcaption>"
        else:
            picture = charts.heat(counts, f"{said}; the commonest confusions are in the table beside it.")
            picture += f"<figcaption>{escape(said)}, as depth of colour; classes in the order of the "
            picture += "output. Blue is right, red is not.</figcaption>"
        off = counts * (1 - np.eye(len(counts), dtype=int))
        worst = [np.unravel_index(i, off.shape) for i in np.argsort(-off, axis=None, kind="stable")[:8]]
        rows = [
            [
                escape(report.classes[i]),
                escape(report.classes[j]),
                f"{off[i, j]:,}",
                number(off[i, j] / counts[i].sum(), ".1%"),
                f'<a href="{links[i, j]}">clips</a>' if (i, j) in links else "",
            ]
            for i, j in worst
            if off[i, j]
        ]
        table = charts.table(["truth", "taken for", "rows", "of the class", "behind it"], rows, text=[1])
        table = table if rows else "<p>No row is confused.</p>"
        panels[protocol] = (
            f'<div class="pair"><figure>{picture}</figure><div><h3>Commonest confusions</h3>{table}</div></div>'
        )
    return f"{charts.switch('confusion-of', panels)}"


def calibration(report: Report) -> str:
    panels = {}
    for protocol, by_name in report.results.items():
        series, rows = [], []
        for name, result in by_name.items():
            found = reliability(result.output.probabilities, result.targets)
            bins = map(charts.Bin, found.count.tolist(), found.confidence.tolist(), found.accuracy.tolist())
            series.append((name, report.colours[name], list(bins)))
            rows.append(
                [
                    label(report, name),
                    percent(result.scores.calibration_error),
                    f"{result.scores.brier:.3f}",
                    percent(float(result.output.probabilities.max(1).mean())),
                    percent(float((result.output.probabilities.argmax(1) == result.targets).mean())),
                ]
            )
        least = max(3, round(0.004 * max(result.scores.count for result in by_name.values())))
        picture = charts.reliability(
            series,
            least,
            f"Reliability diagram, {protocol}: share right over confidence; numbers in the table beside it.",
        )
        table = charts.table(["system", "calibration error", "Brier score", "mean confidence", "share right"], rows)
        system, _, bins = series[0]
        full = charts.table(
            ["confidence from", "rows", "mean confidence", "share right"],
            [
                [
                    percent(i / len(bins)),
                    f"{b.count:,}",
                    number(b.confidence, ".1%"),
                    number(b.accuracy, ".1%"),
                ]
                for i, b in enumerate(bins)
                if b.count
            ],
        )
        panels[protocol] = (
            f'<div class="pair"><figure>{charts.key((n, c) for n, c, _ in series)}{picture}</figure><div>'
            f'{table}<p class="muted small" style="margin-top:12px">Above the dashed line a system is too modest, '
            f"below it too sure. Points stand for at least {least} rows; the bars count the rows of "
            f"{escape(system)}.</p>{charts.details(f'The bins of {system} as a table', full)}</div></div>"
        )
    return f"{charts.switch('reliability-of', panels)}"
