"""Cross-fitting by location: each row is scored with a fit that used no row of its location.

Axes: M systems, N rows, K classes. Probabilities are (M, N, K), or (N, K) for one system.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from avsc_e2e.errors import AvscError
from avsc_e2e.outputs.metrics import macro_log_loss

Rule: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""Probabilities (M, N, K) or (N, K) -> (N, K)."""

Fit: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray], Rule]
"""Probabilities, targets (N,), groups (N,) -> the rule fitted to them."""


def split(targets: np.ndarray, groups: np.ndarray, folds: int = 10, seed: int = 0) -> Iterator[tuple]:
    """For each fold, the rows to fit on and the rows to score. No group is in both; classes are spread evenly.

    Fewer groups than folds make fewer folds. Raises AvscError for fewer than two groups.
    """
    places = len(np.unique(groups))
    if places < 2:
        raise AvscError("folds: all rows are of one location; fit on one file and apply it to another")
    if folds < 2:
        raise AvscError(f"folds {folds}: cross-fitting needs at least two folds")
    folds = min(folds, places)
    spread = targets if folds <= np.bincount(targets).max() else np.zeros_like(targets)
    from sklearn.model_selection import StratifiedGroupKFold  # slow, and prediction does not need it

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # of classes in fewer groups than folds: some folds judge none of them, as wanted
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        parts = list(splitter.split(spread, spread, groups))
    yield from ((fitted, judged) for fitted, judged in parts if len(fitted) and len(judged))


def cross_fit(
    fit: Fit, probabilities: np.ndarray, targets: np.ndarray, groups: np.ndarray, folds: int = 10, seed: int = 0
) -> np.ndarray:
    """(N, K) result for each row by a fit that did not use the row's location."""
    result = np.full(probabilities.shape[-2:], np.nan)
    for fitted, judged in split(targets, groups, folds, seed):
        rule = fit(probabilities[..., fitted, :], targets[fitted], groups[fitted])
        result[judged] = rule(probabilities[..., judged, :])
    return result


def choose(
    fit: Callable[[float], Fit],
    options: Sequence[float],
    probabilities: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    folds: int = 5,
) -> float:
    """The option whose fit has the lowest cross-fitted macro log loss on these rows; the last option if there is only
    one location."""
    if len(np.unique(groups)) < 2:
        return options[-1]
    fitted = [cross_fit(fit(option), probabilities, targets, groups, folds) for option in options]
    return options[int(np.argmin([macro_log_loss(result, targets) for result in fitted]))]
