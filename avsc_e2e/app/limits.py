"""Limits for visitors of the page."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of the page; a request beyond a limit gets a message that names it."""

    size: float = 200.0
    """Largest recording, megabytes."""
    length: float = 600.0
    """Longest recording, seconds."""
    rate: int = 30
    """Recordings a minute from one address."""
    time: float = 120.0
    """Seconds that one model may take for a recording."""
    waiting: int = 16
    """Number of recordings kept at a time, including the one that is being predicted."""


class Rate:
    """Counts the requests of each address over the last minute."""

    def __init__(self, a_minute: int, clock: Callable[[], float] = time.monotonic):
        self._most, self._clock = a_minute, clock
        self._seen: dict[str, deque[float]] = {}

    def allows(self, address: str) -> bool:
        """Whether an address may send another request, which is then counted. Addresses are deleted after a minute."""
        now = self._clock()
        for known in list(self._seen):
            times = self._seen[known]
            while times and times[0] <= now - 60:
                times.popleft()
            if not times:
                del self._seen[known]
        times = self._seen.setdefault(address, deque())
        if len(times) >= self._most:
            return False
        times.append(now)
        return True
