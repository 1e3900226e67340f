"""The time that a run may take, and what is known of the machine's rates."""

from __future__ import annotations

import time

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
