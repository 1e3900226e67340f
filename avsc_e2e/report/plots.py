"""The geometry of plots over two axes, in pixels: reliability diagrams and curves. templates/charts.html draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from avsc_e2e.report.charts import Series, short, ticks
from avsc_e2e.report.words import number


class Point(NamedTuple):
    """A mark at pixels from the left and the top."""

    x: str
    y: str
    tip: str


class Line(NamedTuple):
    """A curve with its marks."""

    colour: int
    path: str
    """Points of a polyline."""
    points: list[Point]


def _line(colour: int, points: Sequence[tuple[float, float]], tips: Sequence[str], last: bool = False) -> Line:
    """A line through points; with `last`, only its end has a mark."""
    marks = [Point(f"{x:.1f}", f"{y:.1f}", tip) for (x, y), tip in zip(points, tips, strict=True)]
    return Line(colour, " ".join(f"{x:.1f},{y:.1f}" for x, y in points), marks[-1:] if last else marks)


class Bin(NamedTuple):
    """Predictions of about the same confidence."""

    count: int  # type: ignore[assignment]  # a tuple's method of this name is not needed
    confidence: float
    """Mean probability of the decided class."""
    accuracy: float
    """Share of right decisions."""


class Reliability(NamedTuple):
    """A reliability diagram; the square of both axes has `size` pixels, from (`left`, `top`)."""

    label: str
    left: int
    top: int
    size: int
    foot: int
    """Height of the counts below."""
    ticks: list[tuple[float, float, str]]
    """Distance from the left, distance from the top, and text of a share."""
    colour: int
    counts: list[tuple[str, str, str, str, int]]
    """Left, top, width and height of the bar of a bin, and its count."""
    lines: list[Line]


def reliability(series: Sequence[tuple[str, int, Sequence[Bin]]], least: int, label: str) -> Reliability:
    """Accuracy over confidence, with the diagonal of perfect calibration; the first series' counts below as bars. Bins
    with fewer rows than `least` have no mark."""
    left, top, size, foot = 56, 8, 280, 54
    x = lambda value: left + size * value  # noqa: E731
    y = lambda value: top + size * (1 - value)  # noqa: E731
    _, own, bins = series[0]
    most = max((one.count for one in bins), default=0) or 1
    base = y(0) + foot
    counts = []
    for i, one in enumerate(bins):
        height = (foot - 8) * one.count / most
        bar = f"{x(i / len(bins)) + 1:.1f}", f"{base - height:.1f}", f"{size / len(bins) - 2:.1f}", f"{height:.1f}"
        counts.append((*bar, one.count))
    lines = []
    for _, colour, bins in reversed(series):  # the system on top
        shown = [one for one in bins if one.count >= least]
        tips = [
            f"{number(one.confidence, '.1%')} sure, {number(one.accuracy, '.1%')} right, {one.count} rows"
            for one in shown
        ]
        lines.append(_line(colour, [(x(one.confidence), y(one.accuracy)) for one in shown], tips))
    at = [(x(share), y(share), number(share, ".0%")) for share in (0, 0.25, 0.5, 0.75, 1)]
    return Reliability(label, left, top, size, foot, at, own, counts, lines)


class Curves(NamedTuple):
    """Lines over steps; the plot has `width` by `height` pixels, from (`left`, `top`)."""

    label: str
    axis: str
    left: int
    top: int
    width: int
    height: int
    values: list[tuple[str, str]]
    """Distance from the top and text of each tick."""
    steps: list[tuple[str, str]]
    """Distance from the left and text of each tick."""
    best: str
    """Position of the step that was kept; empty if there is none."""
    lines: list[Line]


def curves(
    steps: Sequence[float],
    series: Sequence[Series],
    form: str,
    label: str,
    best: int | None = None,
    axis: str = "epoch",
) -> Curves:
    """Lines over the epochs; `best` is the index of the epoch that was kept."""
    left, top, width, height = 50, 8, 300, 150
    values = np.array([v for one in series for v in one.values if math.isfinite(v)])
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if high - low < 1e-12:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    low = 0.0 if 0 < low < 0.4 * high else low
    first, last = min(steps), max(steps)
    span = (last - first) or 1
    x = lambda step: left + width * (step - first) / span  # noqa: E731
    y = lambda value: top + height * (1 - (value - low) / (high - low))  # noqa: E731
    lines = []
    for one in reversed(series):
        points = [(x(s), y(v)) for s, v in zip(steps, one.values, strict=True) if math.isfinite(v)]
        if points:
            lines.append(_line(one.colour, points, [one.name] * len(points), last=True))
    whole = [t for t in (ticks(first, last, 6) if span >= 1 else [first]) if float(t).is_integer()]
    return Curves(
        label,
        axis,
        left,
        top,
        width,
        height,
        [(f"{y(t):.1f}", short(t, form)) for t in ticks(low, high)],
        [(f"{x(t):.1f}", f"{t:g}") for t in whole],
        "" if best is None else f"{x(steps[best]):.1f}",
        lines,
    )
