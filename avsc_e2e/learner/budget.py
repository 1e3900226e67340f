"""The time that a run may take, and what is known of the machine's rates."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

RESERVE = 0.08
"""Share of the budget that is kept for the last refit, the test part and the report."""


class Clock:
    """Counts down from a number of minutes."""

    def __init__(self, minutes: float):
        self.began, self.seconds = time.monotonic(), 60.0 * minutes

    @property
    def used(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds before the end of the budget, without the reserve; below 0 where none is left."""
        return self.seconds * (1 - RESERVE) - self.used


def in_turn(recordings: Sequence[tuple[str, str, str]]) -> list[int]:
    """Places of recordings (class, source, file) in an order of which each beginning holds as many of each class as it
    can, of as many sources as it can; otherwise by the hash of their names."""
    order = sorted(range(len(recordings)), key=lambda place: blake2b(recordings[place][2].encode()).digest())
    of_source: Counter[tuple[str, str]] = Counter()
    of_class: Counter[str] = Counter()
    turns = {}
    for place in order:
        scene, source, _ = recordings[place]
        turns[place] = of_source[scene, source]
        of_source[scene, source] += 1
    order.sort(key=turns.__getitem__)
    for place in order:
        scene = recordings[place][0]
        turns[place] = of_class[scene]
        of_class[scene] += 1
    return sorted(order, key=turns.__getitem__)
