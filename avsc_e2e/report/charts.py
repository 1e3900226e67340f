"""Charts as plain HTML and inline SVG: crisp at any size, in light and in dark, and as text for a screen reader.

Widths are percentages wherever a chart stretches, so that its letters keep their size on a phone. Colours are
CSS variables set once a theme; marks differ in shape as well, for readers who do not tell the hues apart.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from avsc_e2e.report.words import number

LIGHT = {
    "page": "#ffffff", "card": "#f5f6f8", "line": "#d9dee4", "ink": "#1a1f26", "muted": "#55606c",
    "c0": "#0b5cad", "c1": "#bf4d08", "c2": "#08785b", "c3": "#7747b3", "c4": "#5d6773", "c5": "#a82f72",
    "c6": "#7a6000", "c7": "#1b7689", "bad": "#b3261e", "note": "#fff4d6", "note-line": "#b98300",
}  # fmt: skip
DARK = {
    "page": "#13161a", "card": "#1c2025", "line": "#343b44", "ink": "#e8ebef", "muted": "#a3adb8",
    "c0": "#63aff5", "c1": "#f4995c", "c2": "#48cba3", "c3": "#bb9ff2", "c4": "#aab4bf", "c5": "#f092c2",
    "c6": "#d8bb50", "c7": "#6ccbdd", "bad": "#ff9a90", "note": "#342a10", "note-line": "#d8a838",
}  # fmt: skip
SERIES = 8
"""Colours of series: c0 the system, c1 audio, c2 video, the rest in order of need."""
SHADES = 11
"""Steps of a shaded cell, from nothing to all."""
MARKS = (
    '<circle r="4.5"/>',
    '<path d="M0-5.2 4.8 3.8H-4.8z"/>',
    '<path d="M-4-4H4V4H-4z"/>',
    '<path d="M0-5.6 5.6 0 0 5.6-5.6 0z"/>',
    '<path d="M0 5.2 4.8-3.8H-4.8z"/>',
    '<path d="M-5-1.6H-1.6V-5H1.6V-1.6H5V1.6H1.6V5H-1.6V1.6H-5z"/>',
    '<path d="M-1.8-5.5H1.8V5.5H-1.8z"/>',
    '<path d="M-5.5-1.8H5.5V1.8H-5.5z"/>',
)


class Series(NamedTuple):
    """One line, or one mark a row, of a chart."""

    name: str
    colour: int
    """Index of its colour and its mark, the same in every chart."""
    values: Sequence[float]
    """One a row of the chart; NaN where there is none."""


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours `#rrggbb`, 1 to 21 (WCAG 2.1)."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def shades(theme: Mapping[str, str], colour: str) -> list[tuple[str, str]]:
    """Background and letters of each step from the page's colour to `colour`, letters by the better contrast."""
    ends = [[int(theme[name][i : i + 2], 16) for i in (1, 3, 5)] for name in ("page", colour)]
    steps = []
    for share in np.linspace(0, 1, SHADES):
        back = "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(*ends, strict=True))
        steps.append((back, max(("#000000", "#ffffff"), key=lambda text: contrast(text, back))))
    return steps


def palette() -> str:
    """The colours of both themes as CSS variables, and the classes of shaded cells and of series."""

    def colours(theme: Mapping[str, str]) -> str:
        plain = ";".join(f"--{name}:{value}" for name, value in theme.items())
        for letter, colour in (("r", "c0"), ("w", "bad")):
            for step, (back, text) in enumerate(shades(theme, colour)):
                plain += f";--{letter}{step}:{back};--{letter}{step}t:{text}"
        return plain

    cells = "".join(
        f"td.{letter}{step}{{background:var(--{letter}{step});color:var(--{letter}{step}t)}}"
        for letter in "rw"
        for step in range(SHADES)
    )
    series = "".join(f".s{i}{{--s:var(--c{i})}}" for i in range(SERIES)) + ".bad{--s:var(--bad)}.rest{--s:var(--muted)}"
    return (
        f":root{{color-scheme:light dark;{colours(LIGHT)}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{colours(DARK)}}}}}"
        f"{cells}{series}"
    )


def mark(colour: int, size: int = 12) -> str:
    """The small sign that stands for a series in a key and in a table."""
    shape = MARKS[colour % SERIES]
    return (
        f'<svg class="s{colour % SERIES}" width="{size}" height="{size}" viewBox="-6 -6 12 12" aria-hidden="true">'
        f'<g class="mark">{shape}</g></svg>'
    )


def key(series: Iterable[tuple[str, int]]) -> str:
    """What each mark and colour stands for."""
    return f'<ul class="key">{"".join(f"<li>{mark(c)}{escape(name)}</li>" for name, c in series)}</ul>'


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    text: Sequence[int] = (),
    lead: int | None = None,
    style: str = "",
    groups: Sequence[tuple[str, int]] = (),
) -> str:
    """A table of ready HTML cells; the first column names the row. `text` are the columns of words, `lead` is the
    index of the row set in bold, `groups` are titles above so many columns each, from the second on."""
    left = lambda column: ' class="text"' if column in text else ""  # noqa: E731
    body = "".join(
        f"<tr{' class=lead' if i == lead else ''}><th scope=row>{row[0]}</th>"
        + "".join(f"<td{left(j)}>{cell}</td>" for j, cell in enumerate(row[1:], start=1))
        + "</tr>"
        for i, row in enumerate(rows)
    )
    top = "".join(f"<th scope=col{left(j)}>{name}</th>" for j, name in enumerate(head))
    above = "".join(f"<th scope=colgroup colspan={span}>{name}</th>" for name, span in groups)
    above = f"<tr><td></td>{above}</tr>" if groups else ""
    return (
        f'<div class="scroll" tabindex="0"><table class="{style}"><thead>{above}<tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def details(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def switch(name: str, panels: Mapping[str, str]) -> str:
    """Panels of which one is shown, chosen without a script; on paper all of them, each under its title."""
    if len(panels) == 1:
        return next(iter(panels.values()))
    buttons = "".join(
        f'<input type="radio" name="{name}" id="{name}-{i}"{" checked" if i == 0 else ""}>'
        f'<label for="{name}-{i}">{escape(title)}</label>'
        for i, title in enumerate(panels)
    )
    bodies = "".join(f'<div><h3 class="onlyprint">{escape(t)}</h3>{body}</div>' for t, body in panels.items())
    return f'<div class="switch">{buttons}{bodies}</div>'


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


def rows(names: Sequence[str], series: Sequence[Series], high: float, form: str, label: str) -> str:
    """One row a name: the first series as a bar with its value, the others as marks on the same scale from 0."""
    marks = [0.0, 0.25, 0.5, 0.75, 1.0] if form.endswith("%") and high == 1 else ticks(0, high)
    place = lambda value: f"{100 * min(max(value / high, 0), 1):.2f}%"  # noqa: E731
    lines = "".join(f'<line class="grid" x1="{place(t)}" x2="{place(t)}" y1="0" y2="28"/>' for t in marks)
    parts = []
    for i, name in enumerate(names):
        drawn = lines
        heights = _apart([one.values[i] / high for one in series[1:]])
        for rank, one in enumerate(series):
            value = one.values[i]
            if not math.isfinite(value):
                continue
            tip = f"<title>{escape(f'{name}, {one.name}: {number(value, form)}')}</title>"
            hue, x = f"s{one.colour % SERIES}", place(value)
            if rank == 0:
                drawn += f'<rect class="bar {hue}" y="9" width="{x}" height="10" rx="1.5">{tip}</rect>'
            else:
                shape = f'<g class="mark">{MARKS[one.colour % SERIES]}{tip}</g>'
                drawn += f'<svg x="{x}" y="{heights[rank - 1]}" class="{hue}" overflow="visible">{shape}</svg>'
        track = f'<svg width="100%" height="28" aria-hidden="true">{drawn}</svg>'
        shown = number(series[0].values[i], form)
        parts.append(f'<span>{escape(name)}</span><span class="track">{track}</span><span>{shown}</span>')
    axis = "".join(
        f'<text x="{place(t)}" y="13" text-anchor="{"start" if t == 0 else "middle"}">{_short(t, form)}</text>'
        for t in (marks[::2] if form.endswith("%") else marks)  # percent signs need the room on a phone
    )
    parts.append(
        f'<span class="axis small">{escape(label)}</span><span class="track axis"><svg width="100%" height="18" '
        f'aria-hidden="true">{axis}</svg></span><span></span>'
    )
    return f'<div class="rows">{"".join(parts)}</div>'


def _apart(places: Sequence[float], near: float = 0.04, middle: float = 14, step: float = 8) -> list[float]:
    """Heights of the marks of a row: those that would cover each other lie above each other."""
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


def _short(value: float, form: str) -> str:
    return number(value, ".0%") if form.endswith("%") else f"{value:g}"


def whisker(value: float, interval: tuple[float, float] | None, low: float, high: float, colour: int) -> str:
    """A mark with its interval, on the scale of a table's column."""
    span = (high - low) or 1.0
    place = lambda v: f"{100 * min(max((v - low) / span, 0), 1):.2f}%"  # noqa: E731
    line = (
        f'<line class="whisker" x1="{place(interval[0])}" x2="{place(interval[1])}" y1="6" y2="6"/>' if interval else ""
    )
    return (
        f'<span class="strip"><svg class="s{colour % SERIES}" width="100%" height="12" aria-hidden="true">'
        f'<line class="grid" x1="0" x2="100%" y1="6" y2="6"/>{line}'
        f'<svg x="{place(value)}" y="6" overflow="visible"><g class="mark">{MARKS[colour % SERIES]}</g></svg>'
        "</svg></span>"
    )


def columns(values: Sequence[float], names: Sequence[str], colour: int, label: str) -> str:
    """Thin columns of shares (0 to 1) side by side, one a name."""
    width = 100 / max(len(values), 1)
    gap = 0.15 * width if len(values) <= 200 else 0
    bars = "".join(
        f'<rect class="bar" x="{i * width:.3f}%" width="{width - gap:.3f}%" y="{100 * (1 - v):.2f}%" '
        f'height="{max(100 * v, 0.6):.2f}%"><title>{escape(n)}: {number(v, ".1%")}</title></rect>'
        for i, (v, n) in enumerate(zip(values, names, strict=True))
    )
    lines = "".join(
        f'<line class="grid" x1="0" x2="100%" y1="{y}%" y2="{y}%"/><text x="-8" y="{y}%" dy="4" text-anchor="end">'
        f"{100 - y}\u00a0%</text>"
        for y in (0, 50, 100)
    )
    return (
        f'<div style="padding:10px 0 8px 44px"><svg class="s{colour % SERIES}" width="100%" height="120" role="img" '
        f'aria-label="{escape(label)}">{lines}{bars}</svg></div>'
    )


class Bin(NamedTuple):
    """Predictions of about the same confidence."""

    count: int
    confidence: float
    """Mean probability of the class named."""
    accuracy: float
    """Share of them that is right."""


def reliability(series: Sequence[tuple[str, int, Sequence[Bin]]], least: int, label: str) -> str:
    """Accuracy over confidence, with the diagonal of perfect calibration; the first series' counts below as bars."""
    left, top, size, foot = 56, 8, 280, 54
    x = lambda value: left + size * value  # noqa: E731
    y = lambda value: top + size * (1 - value)  # noqa: E731
    out = []
    for t in (0, 0.25, 0.5, 0.75, 1):
        out.append(f'<line class="grid" x1="{x(t)}" x2="{x(t)}" y1="{y(0)}" y2="{y(1)}"/>')
        out.append(f'<line class="grid" x1="{x(0)}" x2="{x(1)}" y1="{y(t)}" y2="{y(t)}"/>')
        out.append(f'<text x="{left - 6}" y="{y(t) + 4}" text-anchor="end">{number(t, ".0%")}</text>')
        out.append(f'<text x="{x(t)}" y="{y(0) + foot + 16}" text-anchor="middle">{number(t, ".0%")}</text>')
    out.append(f'<line x1="{x(0)}" x2="{x(1)}" y1="{y(0)}" y2="{y(1)}" stroke="var(--muted)" stroke-dasharray="4 4"/>')
    bins = series[0][2]
    most = max((b.count for b in bins), default=0) or 1
    base = y(0) + foot
    for i, one in enumerate(bins):
        height = (foot - 8) * one.count / most
        box = f'x="{x(i / len(bins)) + 1:.1f}" y="{base - height:.1f}" width="{size / len(bins) - 2:.1f}"'
        out.append(
            f'<rect class="bar s{series[0][1] % SERIES}" opacity=".45" {box} height="{height:.1f}">'
            f"<title>{one.count}</title></rect>"
        )
    out.append(f'<line class="grid" x1="{x(0)}" x2="{x(1)}" y1="{base}" y2="{base}"/>')
    for _, colour, bins in reversed(series):  # the system on top
        points = [b for b in bins if b.count >= least]
        path = " ".join(f"{x(b.confidence):.1f},{y(b.accuracy):.1f}" for b in points)
        marks = ""
        for b in points:
            tip = f"{number(b.confidence, '.1%')} sure, {number(b.accuracy, '.1%')} right, {b.count} rows"
            at = f"translate({x(b.confidence):.1f} {y(b.accuracy):.1f})"
            marks += f'<g transform="{at}">{MARKS[colour % SERIES]}<title>{tip}</title></g>'
        line = f'<polyline class="curve" points="{path}"/>'
        out.append(f'<g class="s{colour % SERIES}">{line}<g class="mark">{marks}</g></g>')
    return (
        f'<svg viewBox="0 0 {left + size + 20} {top + size + foot + 40}" style="width:100%;max-width:370px" role="img" '
        f'aria-label="{escape(label)}">{"".join(out)}<text x="{x(0.5)}" y="{base + 34}" text-anchor="middle">'
        f'confidence</text><text transform="translate(11 {y(0.5)}) rotate(-90)" text-anchor="middle">share right'
        f"</text></svg>"
    )


def curves(
    steps: Sequence[float],
    series: Sequence[Series],
    form: str,
    label: str,
    best: int | None = None,
    axis: str = "epoch",
) -> str:
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
    out = []
    for t in ticks(low, high):
        out.append(f'<line class="grid" x1="{left}" x2="{left + width}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>')
        out.append(f'<text x="{left - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{_short(t, form)}</text>')
    for t in ticks(first, last, 6) if span >= 1 else [first]:
        if float(t).is_integer():
            out.append(f'<text x="{x(t):.1f}" y="{top + height + 18}" text-anchor="middle">{t:g}</text>')
    if best is not None:
        out.append(
            f'<line x1="{x(steps[best]):.1f}" x2="{x(steps[best]):.1f}" y1="{top}" y2="{top + height}" '
            'stroke="var(--muted)" stroke-dasharray="3 4"/>'
        )
    for one in reversed(series):
        points = [(x(s), y(v)) for s, v in zip(steps, one.values, strict=True) if math.isfinite(v)]
        if not points:
            continue
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        end = points[-1]
        out.append(
            f'<g class="s{one.colour % SERIES}"><polyline class="curve" points="{path}"/><g class="mark" '
            f'transform="translate({end[0]:.1f} {end[1]:.1f})">{MARKS[one.colour % SERIES]}'
            f"<title>{escape(one.name)}</title></g></g>"
        )
    return (
        f'<svg viewBox="0 0 {left + width + 12} {top + height + 40}" style="width:100%;max-width:400px" role="img" '
        f'aria-label="{escape(label)}">{"".join(out)}<text x="{left + width / 2}" y="{top + height + 35}" '
        'text-anchor="middle">' + escape(axis) + "</text></svg>"
    )


def step(share: float) -> int:
    """The shade for a share (0 to 1): anything above nothing is visible."""
    return 0 if not share > 0 else max(1, round(share * (SHADES - 1)))


def matrix(
    classes: Sequence[str], counts: np.ndarray, label: str, links: Mapping[tuple[int, int], str] | None = None
) -> str:
    """Confusions (K, K), rows the truth, as a table of percentages of each row: blue is right, red is not; `links` lead
    from a cell to its clips."""
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    head = "".join(f"<th scope=col><span>{escape(name)}</span></th>" for name in classes)
    body = []
    for i, name in enumerate(classes):
        cells = ""
        for j, share in enumerate(shares[i]):
            # The root tells few errors from none and from more.
            shade = f"r{step(share)}" if i == j else f"w{step(math.sqrt(share))}"
            tip = escape(f"{name} as {classes[j]}: {counts[i, j]:g}")
            shown = f"{100 * share:.0f}" if counts[i, j] else ""
            if links and counts[i, j] and (i, j) in links:
                shown = f'<a href="{links[i, j]}">{shown}</a>'
            cells += f'<td class="{shade}" title="{tip}">{shown}</td>'
        body.append(f"<tr><th scope=row>{escape(name)}</th>{cells}</tr>")
    return (
        f'<div class="scroll" tabindex="0"><table class="matrix" aria-label="{escape(label)}">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def heat(counts: np.ndarray, label: str) -> str:
    """Confusions (K, K) of many classes as a picture: the depth of the colour is the share of the row."""
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    scale = max(1, math.ceil(480 / len(counts)))
    colours = np.zeros((*counts.shape, 4), np.uint8)
    colours[...] = (205, 60, 50, 0)
    np.fill_diagonal(colours[..., 0], 45)
    np.fill_diagonal(colours[..., 1], 125)
    np.fill_diagonal(colours[..., 2], 210)
    colours[..., 3] = np.where(shares > 0, np.clip(40 + 215 * np.sqrt(shares), 0, 255), 0)
    picture = colours.repeat(min(scale, 4), axis=0).repeat(min(scale, 4), axis=1)
    return f'<img class="heat" alt="{escape(label)}" src="{image_uri(picture, "png")}">'


def image_uri(picture: np.ndarray, kind: str) -> str:
    """(H, W, 3 or 4) uint8 as a data URI, kind "png" or "jpeg"."""
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, picture, format=kind, pil_kwargs={"quality": 78} if kind == "jpeg" else {"optimize": True})
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def spectrogram(audio: np.ndarray, sample_rate: int, bands: int = 80, columns: int = 320) -> np.ndarray:
    """Log-mel spectrogram of a waveform (N,) as a picture (bands, columns, 3) uint8, low tones at the bottom, 70 dB
    from its loudest point."""
    from matplotlib import colormaps

    size = 1024 if sample_rate >= 24000 else 512
    hop = max((len(audio) - 1) // columns + 1, 1)
    padded = np.pad(audio.astype(np.float64), size // 2)
    starts = np.arange(0, max(len(audio), 1), hop)
    frames = padded[starts[:, None] + np.arange(size)] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames)) ** 2
    # Triangles spaced evenly in mel, 2595 log10(1 + f / 700).
    to_mel = lambda hertz: 2595 * np.log10(1 + np.asarray(hertz) / 700)  # noqa: E731
    edges = 700 * (10 ** (np.linspace(to_mel(40), to_mel(sample_rate / 2), bands + 2) / 2595) - 1)
    tones = np.fft.rfftfreq(size, 1 / sample_rate)
    rise = (tones - edges[:-2, None]) / np.maximum(edges[1:-1] - edges[:-2], sample_rate / size)[:, None]
    fall = (edges[2:, None] - tones) / np.maximum(edges[2:] - edges[1:-1], sample_rate / size)[:, None]
    filters = np.clip(np.minimum(rise, fall), 0, None)
    # Narrow low bands can fall between two tones of the transform: then take the nearest one.
    empty = filters.sum(axis=1) < 1e-3
    filters[empty, np.abs(tones - edges[1:-1, None]).argmin(axis=1)[empty]] = 1
    level = 10 * np.log10(np.maximum(filters / filters.sum(axis=1, keepdims=True) @ power.T, 1e-12))
    shares = np.clip(1 + (level - level.max()) / 70, 0, 1)
    return (colormaps["magma"](shares[::-1])[..., :3] * 255).astype(np.uint8)
