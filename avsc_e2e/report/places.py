"""Values of the section about places: seen and unseen in training, cities, locations."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

import numpy as np

from avsc_e2e.report import charts
from avsc_e2e.report.report import Report
from avsc_e2e.report.sections import pick
from avsc_e2e.report.words import count, number, percent


class Seen(NamedTuple):
    """Figures of places in the training set, and of those that are not."""

    alike: str
    """One sentence if all recordings are of one kind; the table is then empty."""
    head: list[str]
    rows: list[list[str]]


class Cities(NamedTuple):
    """Figures by city, the lowest accuracy first."""

    series: list[charts.Series]
    accuracy: charts.Bars
    log_loss: charts.Bars
    head: list[str]
    rows: list[list[str]]


class Locations(NamedTuple):
    """Figures by location, the lowest accuracy first."""

    columns: charts.Columns
    rows: list[list[str]]
    """Location, true class, recordings, accuracy, log loss, most frequent wrong decision."""


class Places(NamedTuple):
    """The three tables; each is None if it cannot be known."""

    protocol: str
    seen: Seen | None
    cities: Cities | None
    locations: Locations | None


def places(report: Report) -> Places | None:
    """Values of the section; None if nothing is known of places."""
    parts = _seen(report), _cities(report), _locations(report)
    protocol = report.clips[report.system].scores.protocol
    return Places(protocol[:1].upper() + protocol[1:], *parts) if any(parts) else None


def _seen(report: Report) -> Seen | None:
    seen = {name: report.seen(result) for name, result in report.clips.items()}
    groups = seen[report.system]
    if not groups:
        return None
    total = len(report.clips[report.system].output)
    if all(len(rows) == total for rows in groups.values()):  # nothing to compare
        return Seen(f"All {count(total, 'recording')} are from {', in '.join(groups)}.", [], [])
    rows = []
    for group, own in groups.items():
        cells = [group, f"{len(own):,}"]
        for name, result in report.clips.items():
            loss, accuracy = result.means(seen[name].get(group, np.zeros(0, int)))
            cells.append(f"{number(loss, '.3f')}, {number(accuracy, '.1%')}")
        rows.append(cells)
    return Seen("", ["recordings from", "count", *(f"{name}\nlog loss, accuracy" for name in report.clips)], rows)


def _cities(report: Report) -> Cities | None:
    cities = {name: report.cities(result) for name, result in report.clips.items()}
    names = sorted(name for name in cities[report.system] if name)
    if len(names) < 2:
        return None
    accuracies, losses = [], []
    for name, result in report.clips.items():
        means = [result.means(cities[name].get(city, np.zeros(0, int))) for city in names]
        losses.append(charts.Series(name, report.colours[name], [loss for loss, _ in means]))
        accuracies.append(charts.Series(name, report.colours[name], [accuracy for _, accuracy in means]))
    order = np.argsort(accuracies[0].values, kind="stable")
    names = [names[i] for i in order]
    accuracies, losses = ([pick(one, order) for one in series] for series in (accuracies, losses))
    high = max((v for s in losses for v in s.values if math.isfinite(v)), default=1.0)
    rows = [
        [
            city,
            f"{len(cities[report.system][city]):,}",
            *(number(s.values[i], ".1%") for s in accuracies),
            *(number(s.values[i], ".3f") for s in losses),
        ]
        for i, city in enumerate(names)
    ]
    head = [
        "city",
        "recordings",
        *(f"{s.name}\naccuracy" for s in accuracies),
        *(f"{s.name}\nlog loss" for s in losses),
    ]
    return Cities(
        accuracies,
        charts.bars(names, accuracies, 1.0, ".1%", ""),
        charts.bars(names, losses, high, ".3f", "nats"),
        head,
        rows,
    )


def _locations(report: Report) -> Locations | None:
    own = report.clips[report.system]
    groups = report.locations(own)
    if len(groups) < 2:
        return None
    means = {place: own.means(rows) for place, rows in groups.items()}
    order = sorted(groups, key=lambda place: (means[place][1], -means[place][0]))
    values = [means[place][1] for place in order]
    labels = [f"{place} ({count(len(groups[place]), 'recording')})" for place in order]
    said = (
        f"Share right at each of {len(order)} locations, worst first: the worst {percent(values[0])}, the median "
        f"{percent(float(np.median(values)))}, {sum(value == 1 for value in values)} without an error."
    )
    rows = []
    for place in order:
        members = groups[place]
        wrong = Counter(own.output.decisions[members][~own.hits[members]].tolist()).most_common(1)
        rows.append(
            [
                place,
                ", ".join(sorted({report.classes[target] for target in own.targets[members]})),
                f"{len(members):,}",
                percent(means[place][1]),
                f"{means[place][0]:.3f}",
                report.classes[wrong[0][0]] if wrong else "–",
            ]
        )
    return Locations(charts.columns(values, labels, report.colours[report.system], said), rows)
