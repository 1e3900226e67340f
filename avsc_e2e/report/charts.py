"""The geometry of charts that stretch: positions of bars, marks, ticks and cells. templates/charts.html draws them as
HTML and inline SVG: sharp at any size, in light and dark, and as text for a screen reader. Widths are percentages, so
letters keep their size on a phone. A series has one colour and one mark in every chart; marks also differ in shape, for
readers who cannot distinguish the colours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from avsc_e2e.report.theme import SHADES
from avsc_e2e.report.words import number


class Series(NamedTuple):
    """A series of a chart: one line, or one mark in each row."""

    name: str
    colour: int
    """Index of its colour and its mark, the same in every chart."""
    values: Sequence[float]
    """One value for each row of the chart; nan if there is none."""


class Mark(NamedTuple):
    """One value in a chart."""

    colour: int
    x: str
    """Distance from the left, or the width of a bar, as a percentage."""
    y: float
    """Pixels from the top."""
    tip: str = ""


class Row(NamedTuple):
    """A row of a bar chart."""

    name: str
    shown: str
    """The value of its bar, as text."""
    bar: Mark | None
    marks: list[Mark]


class Bars(NamedTuple):
    """Rows of bars with the marks of other series, over one scale."""

    label: str
    grid: list[str]
    ticks: list[tuple[str, str, str]]
    """Position, anchor and text of each tick."""
    rows: list[Row]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    raw = span / count
    power = 10 ** math.floor(math.log10(raw))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda size: abs(size - raw))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def bars(names: Sequence[str], series: Sequence[Series], high: float, form: str, label: str) -> Bars:
    """One row for each name: the first series is a bar with its value, the others are marks on the same scale from
    0."""
    shares = form.endswith("%")
    at = [0.0, 0.25, 0.5, 0.75, 1.0] if shares and high == 1 else ticks(0, high)
    rows = []
    for i, name in enumerate(names):
        found: list[Mark | None] = []
        heights = [9, *_apart([one.values[i] / high for one in series[1:]])]
        for one, height in zip(series, heights, strict=True):
            value = one.values[i]
            tip = f"{name}, {one.name}: {number(value, form)}"
            found.append(Mark(one.colour, _place(value, 0, high), height, tip) if math.isfinite(value) else None)
        rows.append(Row(name, number(series[0].values[i], form), found[0], [mark for mark in found[1:] if mark]))
    shown = at[::2] if shares else at  # percent signs need the room on a phone
    texts = [(_place(t, 0, high), "start" if t == 0 else "middle", short(t, form)) for t in shown]
    return Bars(label, [_place(t, 0, high) for t in at], texts, rows)


def _place(value: float, low: float, high: float) -> str:
    return f"{100 * min(max((value - low) / ((high - low) or 1.0), 0), 1):.2f}%"


def _apart(places: Sequence[float], near: float = 0.04, middle: float = 14, step: float = 8) -> list[float]:
    """Heights of the marks of a row: marks that would overlap are put above each other."""
    heights = [middle] * len(places)
    order = sorted((i for i, place in enumerate(places) if math.isfinite(place)), key=lambda i: places[i])
    cluster: list[int] = []
    for i in [*order, None]:
        if i is not None and (not cluster or places[i] - places[cluster[-1]] < near):
            cluster.append(i)
            continue
        gap = min(step, 2 * step / max(len(cluster) - 1, 1))
        for rank, member in enumerate(cluster):
            heights[member] = round(middle + gap * (rank - (len(cluster) - 1) / 2), 1)
        cluster = [] if i is None else [i]
    return heights


def short(value: float, form: str) -> str:
    return number(value, ".0%") if form.endswith("%") else f"{value:g}"


class Whisker(NamedTuple):
    """A mark with its interval, on the scale of a table's column."""

    colour: int
    x: str
    ends: tuple[str, str] | None
    """Ends of the interval; None if there is none."""


def whisker(value: float, interval: tuple[float, float] | None, low: float, high: float, colour: int) -> Whisker:
    """A mark and its interval on a scale from `low` to `high`."""
    ends = (_place(interval[0], low, high), _place(interval[1], low, high)) if interval else None
    return Whisker(colour, _place(value, low, high), ends)


class Column(NamedTuple):
    """A column of a chart of shares, as percentages of its width and height."""

    x: str
    width: str
    y: str
    height: str
    tip: str


class Columns(NamedTuple):
    """Thin columns of shares side by side."""

    label: str
    colour: int
    columns: list[Column]


def columns(values: Sequence[float], names: Sequence[str], colour: int, label: str) -> Columns:
    """Columns of shares (0 to 1), one for each name."""
    width = 100 / max(len(values), 1)
    gap = 0.15 * width if len(values) <= 200 else 0
    return Columns(
        label,
        colour,
        [
            Column(
                f"{i * width:.3f}%",
                f"{width - gap:.3f}%",
                f"{100 * (1 - value):.2f}%",
                f"{max(100 * value, 0.6):.2f}%",
                f"{name}: {number(value, '.1%')}",
            )
            for i, (value, name) in enumerate(zip(values, names, strict=True))
        ],
    )


class Cell(NamedTuple):
    """A cell of a confusion matrix."""

    shade: str
    tip: str
    shown: str
    link: str


def matrix(
    classes: Sequence[str], counts: np.ndarray, links: Mapping[tuple[int, int], str]
) -> list[tuple[str, list[Cell]]]:
    """Rows of confusions (K, K), each a true class with its cells, as percentages of the row: blue is right, red is
    not; `links` are the addresses of each cell's clips."""
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    rows = []
    for i, name in enumerate(classes):
        cells = []
        for j, share in enumerate(shares[i]):
            # The square root makes few errors visible.
            shade = f"r{_step(share)}" if i == j else f"w{_step(math.sqrt(share))}"
            shown = f"{100 * share:.0f}" if counts[i, j] else ""
            link = links.get((i, j), "") if counts[i, j] else ""
            cells.append(Cell(shade, f"{name} as {classes[j]}: {counts[i, j]:g}", shown, link))
        rows.append((name, cells))
    return rows


def _step(share: float) -> int:
    """The shade for a share (0 to 1): any share above zero is visible."""
    return 0 if not share > 0 else max(1, round(share * (SHADES - 1)))
