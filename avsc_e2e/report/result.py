"""Results of one system on labelled rows, and published figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from avsc_e2e.outputs.intervals import Intervals
from avsc_e2e.outputs.metrics import Scores, log_losses
from avsc_e2e.outputs.output import SystemOutput


@dataclass(frozen=True)
class Rival:
    """Published figures for comparison with the system's own."""

    name: str
    protocol: str
    """What its rows are, in the words of `Scores.protocol`: "1 s segments", "10 s clips", "whole clips"."""
    log_loss: float = math.nan
    """Macro average, nats."""
    accuracy: float = math.nan
    """Macro average, 0 to 1."""
    class_log_loss: Mapping[str, float] = field(default_factory=dict)
    class_accuracy: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Result:
    """One system under one protocol."""

    output: SystemOutput
    targets: np.ndarray
    """(N,) index of the true class."""
    places: np.ndarray
    """(N,) name of the location."""
    scores: Scores
    intervals: Intervals

    @cached_property
    def losses(self) -> np.ndarray:
        """(N,) nats."""
        return log_losses(self.output.probabilities, self.targets)

    @cached_property
    def hits(self) -> np.ndarray:
        """(N,) bool: the decision is right."""
        return self.output.decisions == self.targets

    def means(self, rows: np.ndarray) -> tuple[float, float]:
        """Mean log loss (nats) and accuracy of some rows, by their indices; nan for no rows."""
        if not len(rows):
            return math.nan, math.nan
        return float(self.losses[rows].mean()), float(self.hits[rows].mean())
