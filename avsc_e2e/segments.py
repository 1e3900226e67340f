"""A timeline made steadier: smoothed over time, and merged into segments of one scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from avsc_e2e.clip import Window

Smooth = Literal["none", "median", "markov"]
"""median: of five windows around each one. markov: a hidden Markov model whose scene stays with probability STAY."""

STAY = 0.95
"""Probability that the scene of a window is that of the one before."""
AROUND = 2
"""Windows on either side that the median is taken over."""


class SceneSegment(NamedTuple):
    """A stretch of a recording in which one scene is predicted."""

    start: float
    """Seconds."""
    end: float
    """Seconds."""
    scene: str
    confidence: float
    """Mean probability of the scene over the segment's windows."""


class Prediction(NamedTuple):
    """Of one recording."""

    path: str
    windows: list[Window]
    """Empty where the recording cannot be read."""
    segments: list[SceneSegment]
    error: str = ""
    """Why nothing, or less than the whole, could be predicted."""


def smoothed(probabilities: np.ndarray, how: Smooth) -> np.ndarray:
    """Probabilities (W, K) of successive windows, smoothed over time; rows sum to one."""
    if how == "none" or len(probabilities) < 2:
        return probabilities
    if how == "median":
        padded = np.pad(probabilities, ((AROUND, AROUND), (0, 0)), mode="edge")
        found = np.median(np.stack([padded[i : i + len(probabilities)] for i in range(2 * AROUND + 1)]), axis=0)
        found = np.maximum(found, 1e-12)
        return found / found.sum(axis=1, keepdims=True)
    return _posterior(np.maximum(probabilities, 1e-12))


def _posterior(likelihood: np.ndarray) -> np.ndarray:
    """Forward-backward recursion (Rabiner, 1989) with (W, K) likelihoods, scenes equally likely to change to."""
    windows, scenes = likelihood.shape
    change = (1 - STAY) / max(scenes - 1, 1)
    forward, backward = np.empty_like(likelihood), np.ones_like(likelihood)
    state = np.full(scenes, 1 / scenes)
    for index in range(windows):
        state = (change + (STAY - change) * state if index else state) * likelihood[index]
        state = state / state.sum()
        forward[index] = state
    for index in range(windows - 2, -1, -1):
        ahead = backward[index + 1] * likelihood[index + 1]
        backward[index] = change * ahead.sum() + (STAY - change) * ahead
        backward[index] /= backward[index].sum()
    found = forward * backward
    return found / found.sum(axis=1, keepdims=True)


def merged(
    starts: Sequence[float], ends: Sequence[float], probabilities: np.ndarray, classes: Sequence[str]
) -> list[SceneSegment]:
    """Segments of successive windows (W,) with the same most probable scene, from their probabilities (W, K). Where
    windows overlap, a segment ends where the next one starts."""
    best = probabilities.argmax(axis=1)
    firsts = [index for index in range(len(best)) if not index or best[index] != best[index - 1]]
    found = []
    for first, beyond in zip(firsts, [*firsts[1:], len(best)], strict=True):
        end = min(ends[beyond - 1], starts[beyond]) if beyond < len(best) else ends[beyond - 1]
        confidence = float(probabilities[first:beyond, best[first]].mean())
        found.append(SceneSegment(starts[first], end, classes[best[first]], confidence))
    return found
