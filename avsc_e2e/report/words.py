"""Numbers in words of a page."""

from __future__ import annotations

import math


def number(value: float, form: str) -> str:
    """A figure as text: a dash where there is none, and a space that does not break before the percent sign."""
    return format(value, form).replace("%", "\u00a0%") if math.isfinite(value) else "–"


def percent(value: float, digits: int = 1) -> str:
    return number(value, f".{digits}%")


def signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
