"""Transforms of a clip or a batch: frozen dataclasses `Clip -> Clip` that are their own configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from avsc_e2e.clip import Clip


@dataclass(frozen=True)
class Compose:
    """Several transforms of a clip, one after the other. Worker processes import this module; it is not part of
    `training`, so that they do not import everything that training needs."""

    steps: tuple[Callable[[Clip], Clip], ...]

    def __call__(self, clip: Clip) -> Clip:
        for step in self.steps:
            clip = step(clip)
        return clip
