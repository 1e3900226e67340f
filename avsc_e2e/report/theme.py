"""The colours of a page, light and dark: series, shaded cells and the contrast between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    for step in range(SHADES):
        share = step / (SHADES - 1)
        back = "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(*ends, strict=True))
        steps.append((back, max(("#000000", "#ffffff"), key=lambda text: contrast(text, back))))
    return steps


def variables(theme: Mapping[str, str]) -> dict[str, str]:
    """CSS variables of a theme by name: its colours, and background and letters of the shaded cells, blue for what is
    right (r), red for what is wrong (w)."""
    found = dict(theme)
    for letter, colour in (("r", "c0"), ("w", "bad")):
        for step, (back, text) in enumerate(shades(theme, colour)):
            found |= {f"{letter}{step}": back, f"{letter}{step}t": text}
    return found


def colours_of(names: Sequence[str], rivals: Sequence[str]) -> dict[str, int]:
    """Name -> number of a colour and mark. The first of `names` is the system; audio and video always have their own
    colours. More names than colours share them."""
    colours: dict[str, int] = {}
    free = [3, 4, 5, 6, 7]
    for i, name in enumerate(names):
        word = name.lower()
        audio, video = "audio" in word or "sound" in word, "video" in word or "visual" in word
        wish = 1 if audio and not video else 2 if video and not audio else None if i else 0
        if wish is None or wish in colours.values():
            wish = free[0]
            free = [*free[1:], wish]
        colours[name] = wish
    return colours | dict.fromkeys(rivals, free[0])
