"""The section of a report about places: seen and unseen, cities, locations."""

from __future__ import annotations

import math
from collections import Counter
from html import escape

import numpy as np

from avsc_e2e.report import charts
from avsc_e2e.report.report import Report
from avsc_e2e.report.sections import key
from avsc_e2e.report.words import count, number, percent


def places(report: Report) -> str:
    own = report.clips[report.system]
    parts = [_seen_table(report), _city_bars(report), _location_columns(report)]
    if not any(parts):
        return ""
    return (
        f'<p class="muted small">{_cap(own.scores.protocol)}; plain means '
        f"over the recordings of a place, not macro averages.</p>{''.join(parts)}"
    )


def _seen_table(report: Report) -> str:
    seen = {name: report.seen(result) for name, result in report.clips.items()}
    groups = seen[report.system]
    if not groups:
        return ""
    title, total = "<h3>Seen and unseen in training</h3>", len(report.clips[report.system].output)
    if all(len(rows) == total for rows in groups.values()):  # nothing to compare
        return f"{title}<p>All {count(total, 'recording')} are from {', in '.join(groups)}.</p>"
    head = ["recordings from", "count", *(f"{escape(name)}<br>log loss, accuracy" for name in report.clips)]
    rows = []
    for group, own in groups.items():
        cells = [group, f"{len(own):,}"]
        for name, result in report.clips.items():
            loss, accuracy = result.means(seen[name].get(group, np.zeros(0, int)))
            cells.append(f"{number(loss, '.3f')}, {number(accuracy, '.1%')}")
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
                *(number(s.values[i], ".1%") for s in series),
                *(number(s.values[i], ".3f") for s in losses),
            ]
            for i, city in enumerate(ordered)
        ],
    )
    return (
        f"<h3>By city</h3>{key(series)}"
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
    labels = [f"{place} ({count(len(groups[place]), 'recording')})" for place in order]
    perfect = sum(v == 1 for v in values)
    said = (
        f"Share right at each of {len(order)} locations, worst first: the worst {percent(values[0])}, the median "
        f"{percent(float(np.median(values)))}, {perfect} without an error."
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
                percent(means[place][1]),
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


def _cap(text: str) -> str:
    return text[:1].upper() + text[1:]
