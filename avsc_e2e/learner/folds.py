"""Folds of whole sources, and scores of rows that stand for more or fewer segments.

Axes: N segments, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from avsc_e2e.outputs.folds import split

FOLDS = 5
"""Parts of whole sources in cross-fitting."""


@dataclass(frozen=True, eq=False)
class Folds:
    """Rows to fit on and rows to judge, fold by fold; no source is on both sides of one."""

    fitted: tuple[np.ndarray, ...]
    judged: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, targets: np.ndarray, groups: np.ndarray, count: int = FOLDS, seed: int = 0) -> Folds:
        """Raises AvscError for fewer than two sources."""
        parts = list(split(targets, groups, count, seed))
        return cls(tuple(a for a, _ in parts), tuple(b for _, b in parts))

    def within(self, rows: np.ndarray) -> Folds:
        """The same folds over a selection (N,) bool of the rows, which are counted anew."""
        place = np.cumsum(rows) - 1
        pairs = [(place[a[rows[a]]], place[b[rows[b]]]) for a, b in zip(self.fitted, self.judged, strict=True)]
        pairs = [(a, b) for a, b in pairs if len(a) and len(b)]
        return Folds(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))


def losses_of(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(N, K) logits, or log probabilities -> (N,) log losses."""
    logs = torch.from_numpy(logits.astype(np.float64)).log_softmax(dim=1).numpy()
    return -logs[np.arange(len(targets)), targets]


def macro(values: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
    """Mean over classes of the weighted means of values (N,)."""
    totals = np.bincount(targets, weights=weights)
    sums = np.bincount(targets, weights=weights * values)
    return float((sums[totals > 0] / totals[totals > 0]).mean())


def loss_of(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
    """Macro log loss."""
    return macro(losses_of(logits, targets), targets, weights)


def accuracy_of(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
    """Macro accuracy."""
    return macro((logits.argmax(axis=1) == targets).astype(float), targets, weights)
