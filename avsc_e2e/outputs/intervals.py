"""Confidence intervals of macro averages, and the warning of few test data.

Axes: N rows (segments or clips), K classes, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from avsc_e2e.outputs.metrics import checked, log_losses, macro_mean

FEW_GROUPS, FEW_IN_CLASS = 30, 5
"""With fewer locations in total, or fewer of a class, figures have a warning."""


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class Intervals(NamedTuple):
    """The intervals of the two figures that rank systems; None where the data cannot give one."""

    log_loss: Interval | None
    accuracy: Interval | None


def intervals(
    probabilities: np.ndarray,
    targets: np.ndarray,
    predictions: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    level: float = 0.95,
) -> Intervals:
    """Confidence intervals of macro log loss and accuracy.

    With groups (N,), the location of each row, they are found by bootstrap over locations, because clips of one
    location resemble each other. If a class has a single location, there is no interval of the log loss, and that of
    the accuracy is Wilson's with as many trials as locations. Wilson's interval is also used if all decisions are right
    or all are wrong. Without groups, they are Wald's, as in the challenge's publications, which treats rows as
    independent.
    """
    probabilities, targets = checked(probabilities, targets)
    decided = probabilities.argmax(1) if predictions is None else np.asarray(predictions)
    losses, hits = log_losses(probabilities, targets), (decided == targets).astype(np.float64)
    if groups is None:
        return Intervals(wald(losses, targets, level), wald(hits, targets, level))
    resampled = can_resample(targets, groups)
    if resampled and hits.min() < hits.max():
        accuracy = percentiles(bootstrap(hits, targets, groups), level)
    else:
        accuracy = wilson(macro_mean(hits, targets), len(np.unique(groups)), level)
    return Intervals(percentiles(bootstrap(losses, targets, groups), level) if resampled else None, accuracy)


def groups_per_class(targets: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(K',) number of different groups (N,) with rows of each class up to the last one in targets (N,)."""
    pairs = np.unique(np.stack([targets, np.unique(np.asarray(groups), return_inverse=True)[1]]), axis=1)
    return np.bincount(pairs[0], minlength=int(targets.max()) + 1)


def can_resample(targets: np.ndarray, groups: np.ndarray) -> bool:
    """Whether every class that occurs has two groups or more, so that a bootstrap over groups varies all of them."""
    count = groups_per_class(targets, groups)
    return bool(count[count > 0].min() > 1)


def warning_of_few(targets: np.ndarray, groups: np.ndarray, classes: Sequence[str], what: str = "locations") -> str:
    """One sentence if the test data are too few to trust a figure, naming the class with the fewest locations if these
    are too few; else empty."""
    count = groups_per_class(targets, groups)
    there = np.flatnonzero(count)
    total, scarcest = len(np.unique(groups)), there[count[there].argmin()]
    if total >= FEW_GROUPS and count[scarcest] >= FEW_IN_CLASS:
        return ""
    words = lambda number: f"{number} {what[:-1] if number == 1 else what}"  # noqa: E731
    few = f", {words(int(count[scarcest]))} of class {classes[scarcest]}" if count[scarcest] < FEW_IN_CLASS else ""
    return (
        f"few test data: {words(total)} in all{few}; figures from so few may change much with other test data. "
        f"Test on {FEW_GROUPS} or more, {FEW_IN_CLASS} of each class"
    )


def wilson(share: float, trials: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share (0 to 1) of a number of independent trials (Wilson, JASA 1927)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle, scale = share + z * z / (2 * trials), 1 + z * z / trials
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # At a share of 0 or 1 rounding must not leave the share outside its interval.
    return Interval(min(max((middle - half) / scale, 0.0), share), max(min((middle + half) / scale, 1.0), share))


def wald(values: np.ndarray, targets: np.ndarray, level: float = 0.95) -> Interval:
    """Normal interval of a macro mean of values (N,), treating rows as independent.

    For hits this is the published a +- 1.96 sqrt(a (1 - a) / N) with the macro accuracy a.
    """
    mean = macro_mean(values, targets)
    half = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt(macro_mean((values - mean) ** 2, targets) / len(values))
    return Interval(float(mean - half), float(mean + half))


def bootstrap(
    values: np.ndarray, targets: np.ndarray, groups: np.ndarray, resamples: int = 2000, seed: int = 0
) -> np.ndarray:
    """(R,) macro means of values (N,), whole groups (N,) drawn with replacement.

    Groups are drawn within their (commonest) class, so that no class vanishes from a resample; a class with a
    single group therefore adds no spread. Equal arguments draw equal groups: differences of systems are
    paired.
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    g, k = len(names), int(targets.max()) + 1
    cell = group * k + targets
    count = np.bincount(cell, minlength=g * k).reshape(g, k).astype(np.float64)
    total = np.bincount(cell, weights=values, minlength=g * k).reshape(g, k)
    rng = np.random.default_rng(seed)
    drawn = np.zeros((resamples, g))
    stratum = count.argmax(1)
    for label in np.unique(stratum):
        members = np.flatnonzero(stratum == label)
        drawn[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), resamples)
    rows = drawn @ count
    means = np.where(rows > 0, drawn @ total / np.maximum(rows, 1e-300), np.nan)
    return np.nanmean(means, axis=1)


def percentiles(samples: np.ndarray, level: float = 0.95) -> Interval:
    """The central share of bootstrap samples (R,)."""
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
