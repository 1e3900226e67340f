"""Transforms of a clip or a batch: frozen dataclasses `Clip -> Clip` that are their own configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from avsc_e2e.clip import Clip


@dataclass(frozen=True)
class Compose:
    """Transforms of a clip, one after the other. It lies apart from training because worker processes, which have to
    import what they are sent, would otherwise import all that training needs."""

    steps: tuple[Callable[[Clip], Clip], ...]

    def __call__(self, clip: Clip) -> Clip:
        for step in self.steps:
            clip = step(clip)
        return clip
