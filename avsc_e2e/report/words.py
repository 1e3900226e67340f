"""Figures and intervals as text of a page."""

from __future__ import annotations

import math
from collections.abc import Sequence


def number(value: float, form: str) -> str:
    """A figure as text: a dash if it is nan, and a non-breaking space before the percent sign."""
    return format(value, form).replace("%", "\u00a0%") if math.isfinite(value) else "–"


def percent(value: float, digits: int = 1) -> str:
    return number(value, f".{digits}%")


def signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def span(interval: Sequence[float] | None, form: str) -> str:
    """An interval in words; "no interval" for None."""
    return "no interval" if interval is None else " to ".join(format(v, form) for v in interval).replace("-", "−")
