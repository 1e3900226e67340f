"""The page of a report: what `Report` knows, as one HTML text that stands alone.

No script, no network: pictures and sound are inside it, and its switches are plain CSS. Every chart has its numbers
beside it or in a table that unfolds.
"""

from __future__ import annotations

import base64
import io
import math
import wave
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from html import escape
from pathlib import Path

import numpy as np

from avsc_e2e.clip import Row
from avsc_e2e.errors import MediaError
from avsc_e2e.outputs.metrics import Interval, bootstrap, can_resample, percentiles, reliability
from avsc_e2e.outputs.output import SystemOutput
from avsc_e2e.report import charts
from avsc_e2e.report.report import ConfidentError, History, Report, Result, Rival, fields_of, read_history, versions

CLASSES_IN_MATRIX = 24
"""Above, the confusion matrix is a picture, and the class bars show the hardest classes only."""
SAMPLE_RATE = 16000
"""Hz, of the sounds and the spectrograms."""


def write_report(report: Report, path: str | Path) -> Path:
    """Write the page of a report to an HTML file. Raises OSError."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(report), encoding="utf-8")
    return path


def page(report: Report) -> str:
    """The page as one HTML text."""
    sections = [
        ("figures", "Figures", _figures(report)),
        ("systems", "Systems", _systems(report)),
        ("classes", "Classes", _class_bars(report)),
        ("confusion", "Confusion", _confusion(report)),
        ("calibration", "Calibration", _calibration(report)),
        ("places", "Places", _places(report)),
        ("training", "Training", _training(report)),
        ("errors", "Errors", _error_cards(report)),
        ("configuration", "Configuration", _configuration(report)),
    ]
    sections = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{anchor}">{name}</a>' for anchor, name, _ in sections)
    bodies = "".join(
        f'<section id="{anchor}" aria-labelledby="{anchor}-title">{body}</section>' for anchor, _, body in sections
    )
    whole = "locations, since clips of one place are not independent" if report.has_places else "recordings"
    note = f'<p class="note" role="note">{escape(report.note)}</p>' if report.note else ""
    count = len(report.clips[report.system].output)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # Nothing is fetched, and a browser holds the page to it.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "media-src data:; style-src 'unsafe-inline'\">"
        f'<meta name="color-scheme" content="light dark"><title>{escape(report.title)}</title>'
        f"<style>{charts.stylesheet()}</style></head><body>"
        f'<header><h1>{escape(report.title)}</h1><div class="muted">{_count(len(report.classes), "class", "classes")}, '
        f"{_count(count, 'recording')}, {date.today().isoformat()}</div>{note}</header>"
        f'<nav aria-label="Sections"><div>{links}</div></nav><main>{bodies}</main>'
        f"<footer>Made by avsc_e2e {escape(versions().get('avsc-e2e', ''))}. Macro averages over classes; log loss "
        "in nats with the true class’s probability clipped at 10<sup>−15</sup>, rows not renormalised. 95 % "
        f"intervals by bootstrap over {whole}.</footer>"
        "</body></html>"
    )


def _figures(report: Report) -> str:
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
            f'<div><dt>macro accuracy</dt><dd><span class="big">{_percent(scores.accuracy)}</span>'
            f'<span class="interval">{_interval(accuracy, ".1%")}</span></dd></div>'
            f"</dl>{_against(report, protocol)}</div>"
        )
    chance = (
        f"<p class='muted small'>For scale: a system that knows nothing reaches {math.log(len(report.classes)):.3f} "
        f"and {_percent(1 / len(report.classes))} with {_count(len(report.classes), 'class', 'classes')}.</p>"
    )
    title = f'<h2 id="figures-title">{escape(report.system)} in figures</h2>'
    return f'{title}<div class="cards">{"".join(cards)}</div>{chance}'


def _against(report: Report, protocol: str) -> str:
    """One sentence: the system beside its rival, or beside the best of the others."""
    by_name = report.results[protocol]
    own = by_name[report.system]
    if isinstance(report.rival, Rival):
        if report.rival.protocol != protocol:
            return ""
        name, loss, accuracy, span = report.rival.name, report.rival.log_loss, report.rival.accuracy, ""
    else:
        others = [report.rival] if report.rival in by_name else [n for n in by_name if n != report.system]
        others = [n for n in others if n != report.system]
        if not others:
            return ""
        name = min(others, key=lambda n: by_name[n].scores.log_loss)
        loss, accuracy = by_name[name].scores.log_loss, by_name[name].scores.accuracy
        span = _paired(own, by_name[name])
    parts = []
    if math.isfinite(loss):
        parts.append(f"log loss {_signed(own.scores.log_loss - loss, 3)}{span}")
    if math.isfinite(accuracy):
        parts.append(f"accuracy {_signed(100 * (own.scores.accuracy - accuracy), 1)} points")
    return f'<p class="small">Against {escape(name)}: {", ".join(parts)}.</p>' if parts else ""


def _interval(span: Interval | None, form: str) -> str:
    if span is None:
        return "no interval: a class has one location"
    low, high = (charts.number(value, form) for value in span)
    return f"95 %: {low.removesuffix(chr(160) + '%')} to {high}"


def _sample(report: Report, result: Result) -> str:
    recordings = len(set(result.output.files))
    parts = [_count(recordings, "recording")]
    if result.output.start is not None:
        parts.insert(0, _count(result.scores.count, "segment"))
    sample = " of ".join(parts)
    return f"{sample}, {_count(len(set(result.places)), 'location')}" if report.has_places else sample


def _paired(own: Result, other: Result) -> str:
    """The interval of the difference of log losses, where both have the same rows."""
    starts = [np.zeros(1) if r.output.start is None else r.output.start for r in (own, other)]
    if own.output.files != other.output.files or not np.array_equal(*starts):
        return ""
    if not can_resample(own.targets, own.places):
        return ""
    samples = [bootstrap(r.losses, r.targets, r.places) for r in (own, other)]
    low, high = percentiles(samples[0] - samples[1])
    return f" (95 %: {_signed(low, 3)} to {_signed(high, 3)})"


def _systems(report: Report) -> str:
    if len(report.outputs) < 2 and not isinstance(report.rival, Rival):
        return ""
    head, bounds = ["system"], {}
    groups = [(escape(protocol), 2) for protocol in report.results]
    for protocol, by_name in report.results.items():
        for what in ("log loss", "accuracy"):
            head.append(what)
            key = what.replace(" ", "_")
            spans = [getattr(r.intervals, key) or () for r in by_name.values()]
            ends = [getattr(r.scores, key) for r in by_name.values()] + [end for span in spans for end in span]
            bounds[protocol, key] = min(ends), max(ends)
    rows = []
    for name in report.outputs:
        cells = [_label(report, name)]
        for protocol, by_name in report.results.items():
            if name not in by_name:
                cells += ["–", "–"]
                continue
            result = by_name[name]
            for key, form in (("log_loss", ".3f"), ("accuracy", ".1%")):
                value, span = getattr(result.scores, key), getattr(result.intervals, key)
                mark = charts.whisker(value, span, *bounds[protocol, key], report.colours[name])
                low, high = (charts.number(v, form).removesuffix("\u00a0%") for v in span or (math.nan, math.nan))
                shown = f"{low}–<wbr>{high}" if span else "no interval"
                cells.append(f'{charts.number(value, form)}<span class="interval">{shown}</span>{mark}')
        rows.append(cells)
    if isinstance(report.rival, Rival):
        cells = [f"{_label(report, report.rival.name)}<span class=interval>published</span>"]
        for protocol in report.results:
            mine = protocol == report.rival.protocol
            cells.append(charts.number(report.rival.log_loss if mine else math.nan, ".3f"))
            cells.append(charts.number(report.rival.accuracy if mine else math.nan, ".1%"))
        rows.append(cells)
    table = charts.table(
        head, rows, lead=list(report.outputs).index(report.system), style="wide systems", groups=groups
    )
    return (
        '<h2 id="systems-title">The system and its rivals</h2><p class="muted small">Macro averages; beneath each '
        f"the 95 % interval, drawn on the scale of its column.</p>{table}"
    )


def _label(report: Report, name: str) -> str:
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


def _key(series: Sequence[charts.Series]) -> str:
    """What the marks stand for, where there is more than one."""
    return charts.key((one.name, one.colour) for one in series) if len(series) > 1 else ""


def _class_bars(report: Report) -> str:
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
            f"{_key(losses)}"
            f'<div class="pair"><figure><h3>Log loss (lower is better)</h3>{left}</figure>'
            f"<figure><h3>Accuracy</h3>{right}</figure></div>"
            f'<p class="muted small">{escape(said)}</p>{charts.details("All figures as a table", table)}'
        )
    return f'<h2 id="classes-title">Class by class</h2>{charts.switch("classes-of", panels)}'


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
            *(charts.number(s.values[i], ".3f") for s in losses),
            *(charts.number(s.values[i], ".1%") for s in accuracies),
        ]
        for i, name in enumerate(report.classes)
    ]
    return charts.table(head, rows)


def _confusion(report: Report) -> str:
    panels = {}
    for protocol, by_name in report.results.items():
        if report.system not in by_name:
            continue
        counts = by_name[report.system].scores.confusion
        said = f"Share of each true class (row) that {report.system} takes for the class of the column, in percent"
        if len(report.classes) <= CLASSES_IN_MATRIX:
            picture = charts.matrix(report.classes, counts, f"{said}.")
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
                charts.number(off[i, j] / counts[i].sum(), ".1%"),
            ]
            for i, j in worst
            if off[i, j]
        ]
        table = charts.table(["truth", "taken for", "rows", "of the class"], rows, text=[1])
        table = table if rows else "<p>No row is confused.</p>"
        panels[protocol] = (
            f'<div class="pair"><figure>{picture}</figure><div><h3>Commonest confusions</h3>{table}</div></div>'
        )
    return f'<h2 id="confusion-title">What is taken for what</h2>{charts.switch("confusion-of", panels)}'


def _calibration(report: Report) -> str:
    panels = {}
    for protocol, by_name in report.results.items():
        series, rows = [], []
        for name, result in by_name.items():
            found = reliability(result.output.probabilities, result.targets)
            bins = map(charts.Bin, found.count.tolist(), found.confidence.tolist(), found.accuracy.tolist())
            series.append((name, report.colours[name], list(bins)))
            rows.append(
                [
                    _label(report, name),
                    _percent(result.scores.calibration_error),
                    f"{result.scores.brier:.3f}",
                    _percent(float(result.output.probabilities.max(1).mean())),
                    _percent(float((result.output.probabilities.argmax(1) == result.targets).mean())),
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
                    _percent(i / len(bins)),
                    f"{b.count:,}",
                    charts.number(b.confidence, ".1%"),
                    charts.number(b.accuracy, ".1%"),
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
    return f'<h2 id="calibration-title">Can its probabilities be trusted?</h2>{charts.switch("reliability-of", panels)}'


def _places(report: Report) -> str:
    own = report.clips[report.system]
    parts = [_seen_table(report), _city_bars(report), _location_columns(report)]
    if not any(parts):
        return ""
    return (
        f'<h2 id="places-title">Where it holds</h2><p class="muted small">{_cap(own.scores.protocol)}; plain means '
        f"over the recordings of a place, not macro averages.</p>{''.join(parts)}"
    )


def _seen_table(report: Report) -> str:
    seen = {name: report.seen(result) for name, result in report.clips.items()}
    groups = seen[report.system]
    if not groups:
        return ""
    title, total = "<h3>Seen and unseen in training</h3>", len(report.clips[report.system].output)
    if all(len(rows) == total for rows in groups.values()):  # nothing to compare
        return f"{title}<p>All {_count(total, 'recording')} are from {', in '.join(groups)}.</p>"
    head = ["recordings from", "count", *(f"{escape(name)}<br>log loss, accuracy" for name in report.clips)]
    rows = []
    for group, own in groups.items():
        cells = [group, f"{len(own):,}"]
        for name, result in report.clips.items():
            loss, accuracy = result.means(seen[name].get(group, np.zeros(0, int)))
            cells.append(f"{charts.number(loss, '.3f')}, {charts.number(accuracy, '.1%')}")
        rows.append(cells)
    return f"{title}{charts.table(head, rows, style='wide')}"


def _city_bars(report: Report) -> str:
    cities = {name: report.cities(result) for name, result in report.clips.items()}
    names = sorted(name for name in cities[report.system] if name)
    if len(names) < 2:
        return ""
    series, losses = [], []
    for name, result in report.clips.items():
        means = [result.means(cities[name].get(city, np.zeros(0, int))) for city in names]
        losses.append(charts.Series(name, report.colours[name], [loss for loss, _ in means]))
        series.append(charts.Series(name, report.colours[name], [accuracy for _, accuracy in means]))
    order = np.argsort(series[0].values, kind="stable")
    pick = lambda group: [s._replace(values=[s.values[i] for i in order]) for s in group]  # noqa: E731
    ordered = [names[i] for i in order]
    series, losses = pick(series), pick(losses)
    high = max((v for s in losses for v in s.values if math.isfinite(v)), default=1.0)
    table = charts.table(
        [
            "city",
            "recordings",
            *(f"{escape(s.name)}<br>accuracy" for s in series),
            *(f"{escape(s.name)}<br>log loss" for s in losses),
        ],
        [
            [
                escape(city),
                f"{len(cities[report.system][city]):,}",
                *(charts.number(s.values[i], ".1%") for s in series),
                *(charts.number(s.values[i], ".3f") for s in losses),
            ]
            for i, city in enumerate(ordered)
        ],
    )
    return (
        f"<h3>By city</h3>{_key(series)}"
        f'<div class="pair"><figure><h3>Accuracy</h3>{charts.rows(ordered, series, 1.0, ".1%", "")}</figure>'
        f"<figure><h3>Log loss</h3>{charts.rows(ordered, losses, high, '.3f', 'nats')}</figure></div>"
        f"{charts.details('Cities as a table', table)}"
    )


def _location_columns(report: Report) -> str:
    own = report.clips[report.system]
    groups = report.locations(own)
    if len(groups) < 2:
        return ""
    means = {place: own.means(rows) for place, rows in groups.items()}
    order = sorted(groups, key=lambda place: (means[place][1], -means[place][0]))
    values = [means[place][1] for place in order]
    labels = [f"{place} ({_count(len(groups[place]), 'recording')})" for place in order]
    perfect = sum(v == 1 for v in values)
    said = (
        f"Share right at each of {len(order)} locations, worst first: the worst {_percent(values[0])}, the median "
        f"{_percent(float(np.median(values)))}, {perfect} without an error."
    )
    rows = []
    for place in order:
        members = groups[place]
        wrong = Counter(own.output.decisions[members][~own.hits[members]].tolist()).most_common(1)
        scenes = ", ".join(sorted({report.classes[t] for t in own.targets[members]}))
        rows.append(
            [
                escape(place),
                escape(scenes),
                f"{len(members):,}",
                _percent(means[place][1]),
                f"{means[place][0]:.3f}",
                escape(report.classes[wrong[0][0]]) if wrong else "–",
            ]
        )
    head = ["location", "truth", "recordings", "accuracy", "log loss", "mostly taken for"]
    worst = charts.table(head, rows[:6], text=[1, 5], style="wide")
    rest = charts.details(f"All {len(rows)} locations", charts.table(head, rows, text=[1, 5])) if len(rows) > 6 else ""
    return (
        f"<h3>By location</h3><figure>{charts.columns(values, labels, report.colours[report.system], said)}"
        f"<figcaption>{escape(said)}</figcaption></figure><h3>The hardest locations</h3>{worst}{rest}"
    )


def _training(report: Report) -> str:
    if not report.history:
        return ""
    stages = report.history if isinstance(report.history, Mapping) else {"": report.history}
    parts = [_stage(report, name, read_history(path)) for name, path in stages.items()]
    return f'<h2 id="training-title">Training</h2>{"".join(parts)}'


def _stage(report: Report, stage: str, history: History) -> str:
    groups: dict[str, list[str]] = {}
    for name in history.columns:
        word = name.lower()
        title = "Learning rate" if word.startswith("lr") else "Accuracy" if "acc" in word else "Other figures"
        if "loss" in word:
            title = "Loss in training" if "train" in word else "Log loss in validation"
        groups.setdefault(title, []).append(name)
    losses = [groups.get(title, []) for title in ("Loss in training", "Log loss in validation")]
    if [len(names) for names in losses] == [1, 1]:  # one curve each: together they show where over-fitting begins
        groups = {"Log loss": losses[0] + losses[1]} | {
            title: names for title, names in groups.items() if not title.startswith(("Loss in", "Log loss in"))
        }
    figures = []
    for title, names in groups.items():
        series = [
            charts.Series(name, colour, history.columns[name])
            for name, colour in zip(names, _curve_colours(report, names), strict=True)
        ]
        form = ".1%" if title == "Accuracy" else ".3g"
        label = f"{title} over the epochs{f' of {stage}' if stage else ''}; numbers in the table below."
        figures.append(
            f"<figure><h3>{title}</h3>{charts.key((s.name, s.colour) for s in series)}"
            f"{charts.curves(history.epochs, series, form, label, history.best)}</figure>"
        )
    head = ["epoch", *(escape(name) for name in history.columns)]
    rows = [
        [f"{epoch:g}", *(charts.number(values[i], ".4g") for values in history.columns.values())]
        for i, epoch in enumerate(history.epochs)
    ]
    title = f"<h3>{escape(stage)}</h3>" if stage else ""
    kept = ""
    if history.best is not None:
        value = history.columns[history.judge][history.best]
        kept = (
            f'<p class="muted small">Dashed: epoch {history.epochs[history.best]:g} has the lowest '
            f"{escape(history.judge)}, {value:.4f}.</p>"
        )
    table = charts.table(head, rows, lead=history.best)
    every = charts.details("Every epoch as a table", table)
    return f'{title}<div class="trio">{"".join(figures)}</div>{kept}{every}'


def _error_cards(report: Report) -> str:
    title = '<h2 id="errors-title">Surest errors</h2>'
    result = next(by_name[report.system] for by_name in report.results.values() if report.system in by_name)
    wrong = int((~result.hits).sum())
    if not wrong:
        return f"{title}<p>None of {_count(result.scores.count, 'row')} is decided wrongly.</p>"
    others = {
        name: {key: i for i, key in enumerate(_keys(other.output))}
        for name, other in report.results[result.scores.protocol].items()
        if name != report.system
    }
    cards = "".join(_error_card(report, error, others, result.scores.protocol) for error in report.surest_errors)
    return (
        f'{title}<p class="muted small">{_count(wrong, "wrong decision")} of {result.scores.count:,} '
        f"({escape(result.scores.protocol)}). Shown are those that {escape(report.system)} was surest of, one a "
        f'recording, and one a location as far as there are enough.</p><ul class="errors">{cards}</ul>'
    )


def _error_card(report: Report, error: ConfidentError, others: Mapping[str, Mapping], protocol: str) -> str:
    truth, said = report.classes[error.target], report.classes[error.decided]
    top = np.argsort(-error.probabilities, kind="stable")[:3].tolist()
    top += [i for i in (error.decided, error.target) if i not in top]
    bars = ""
    for i in top:
        name = f"<b>{escape(report.classes[i])}</b>" if i == error.target else escape(report.classes[i])
        hue = "s0" if i == error.target else "bad" if i == error.decided else "rest"
        bars += (
            f'<span>{name}</span><svg width="100%" height="8" class="{hue}" aria-hidden="true"><rect class="bar" '
            f'width="{100 * min(error.probabilities[i], 1):.1f}%" height="8" rx="1.5"/></svg>'
            f"<span>{_percent(error.probabilities[i], 0)}</span>"
        )
    verdicts = []
    for name, index in others.items():
        i = index.get((error.file, error.start))
        if i is None:
            continue
        output = report.results[protocol][name].output
        guess = int(output.decisions[i])
        right = "right" if guess == error.target else f"says {escape(report.classes[guess])}"
        verdicts.append(
            f"<li>{charts.mark(report.colours[name], 10)}{escape(name)}: {right}, "
            f"{_percent(output.probabilities[i, guess], 0)}</li>"
        )
    row = report.row_of(error.file)
    length = report.segment if error.start is not None else (row.duration if row else 0.0)
    start = error.start or 0.0
    window = f", {start:g} to {round(start + length, 2):g} s" if length else ""
    pictures, sound = _media(row, start, length or report.segment, f"{truth} taken for {said}") if row else ("", "")
    verdict = f'<ul class="key small">{"".join(verdicts)}</ul>' if verdicts else ""
    return (
        f'<li class="error">{pictures}<div class="text"><h3>{escape(truth)}, taken for {escape(said)}</h3>'
        f'<small class="file">{escape(error.file)}{window}</small>{sound}<div class="guess">{bars}</div>{verdict}'
        "</div></li>"
    )


def _media(row: Row, start: float, length: float, what: str) -> tuple[str, str]:
    """Pictures with the spectrogram, and the sound, as HTML; what cannot be read says why."""
    from avsc_e2e.data.media import read_audio, read_frames

    pictures, sound = "", ""
    whole = length > 2
    if row.video:
        times = [start + length * share for share in ((1 / 6, 1 / 2, 5 / 6) if whole else (0.5,))]
        try:
            frames = read_frames(row.video, times, short_side=150 if whole else 240)
        except MediaError as error:
            sound += f'<p class="small">No picture: {escape(error.reason)}.</p>'
        else:
            images = "".join(
                f'<img src="{charts.image_uri(frame, "jpeg")}" alt="{escape(f"{what}, at {time:.1f} s")}">'
                for frame, time in zip(frames, times, strict=True)
            )
            pictures += f'<div class="frames{"" if whole else " one"}">{images}</div>'
    if row.audio:
        try:
            audio = read_audio(row.audio, start, length, SAMPLE_RATE).mean(axis=0)
        except MediaError as error:
            sound += f'<p class="small">No sound: {escape(error.reason)}.</p>'
        else:
            picture = charts.image_uri(charts.spectrogram(audio, SAMPLE_RATE), "jpeg")
            span = f"{start:g} to {round(start + length, 2):g} s, 40 Hz to {SAMPLE_RATE / 2000:g} kHz"
            pictures += f'<img class="spectrogram" src="{picture}" alt="Log-mel spectrogram, {span}">'
            # A second is enough to know a sound by, and keeps the page small.
            begin = max(len(audio) - SAMPLE_RATE, 0) // 2
            label = "its middle second" if whole else "its sound"
            sound = (
                f'<audio controls preload="metadata" aria-label="{escape(f"{what}: {label}")}" '
                f'src="{_wave_uri(audio[begin : begin + SAMPLE_RATE])}"></audio>'
                f"{'<small>The sound is the middle second.</small>' if whole else ''}{sound}"
            )
    return pictures, sound


def _configuration(report: Report) -> str:
    parts = []
    if report.configuration:
        rows = "".join(
            f'<tr class="group"><th scope="rowgroup" colspan="2">{escape(name)}</th></tr>'
            if value is None
            else f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
            for name, value in _settings(report.configuration)
        )
        parts.append(
            f'<div><h3>Recipe</h3><div class="scroll" tabindex="0"><table class="settings"><tbody>{rows}</tbody>'
            "</table></div></div>"
        )
    rows = "".join(f'<tr><th scope="row">{escape(n)}</th><td>{escape(v)}</td></tr>' for n, v in versions().items())
    parts.append(f'<div><h3>Versions</h3><table class="settings"><tbody>{rows}</tbody></table></div>')
    return f'<h2 id="configuration-title">Configuration</h2><div class="pair">{"".join(parts)}</div>'


def _curve_colours(report: Report, names: Sequence[str]) -> list[int]:
    """The colour of the system that a column is named after; the whole model's in the system's, its training in grey
    beside its validation; others as they come."""
    colours, free = [], [3, 5, 6, 7, 1, 2, 4, 0]
    for name in names:
        word = name.lower()
        wish = next((colour for system, colour in report.colours.items() if word.endswith(f"_{system.lower()}")), 0)
        if wish == 0:
            wish = 1 if "audio" in word else 2 if "video" in word else 0
        if wish == 0 and "train" in word and any("train" not in other.lower() for other in names):
            wish = 4
        if wish in colours:
            wish = next((colour for colour in free if colour not in colours), wish)
        colours.append(wish)
    return colours


def _settings(value: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """Rows of a nested configuration: plain values first, then each group under its dotted name (value None)."""
    fields = {key: fields_of(item) for key, item in value.items()}
    for key, item in value.items():
        if fields[key] is None:
            yield str(key), _shown(item)
    for key, group in fields.items():
        if group is not None:
            name = f"{prefix}{key}"
            yield name, None
            yield from _settings(group, f"{name}.")


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return "–" if value is None or value == "" else str(value)


def _keys(output: SystemOutput) -> list[tuple[str, float | None]]:
    starts = [None] * len(output) if output.start is None else output.start.tolist()
    return list(zip(output.files, starts, strict=True))


def _wave_uri(audio: np.ndarray) -> str:
    """(N,) in [-1, 1] as a WAV data URI, 16 bit."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE)
        sound.writeframes((np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes())
    return f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"


def _percent(value: float, digits: int = 1) -> str:
    return charts.number(value, f".{digits}%")


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _cap(text: str) -> str:
    return text[:1].upper() + text[1:]
