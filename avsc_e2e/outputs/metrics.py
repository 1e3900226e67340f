"""Quality of probabilities: macro log loss and accuracy, calibration error, confidence intervals.

Axes: N rows (segments or clips), K classes, R resamples. Rows are summed class by class and the class means
are averaged (macro), so that frequent and rare classes have the same weight. A class without rows has
no mean: it is nan in the class-wise figures and left out of the macro ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from avsc_e2e.errors import AvscError

CLIP = 1e-15
"""Floor of the true class's probability in the log loss. Rows are not renormalised. It changes the score: a
row with probability zero for its true class costs 34.5 nats, and would cost infinitely many without it."""

BINS = 15
"""Equally wide bins of confidence in the expected calibration error."""

FEW_GROUPS, FEW_IN_CLASS = 30, 5
"""Below so many locations in all, or of a class, figures come with a warning."""


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class Intervals(NamedTuple):
    """The intervals of the two figures that rank systems; None where the data cannot give one."""

    log_loss: Interval | None
    accuracy: Interval | None


class Reliability(NamedTuple):
    """The reliability diagram: rows sorted into bins by the probability of their most probable class."""

    edges: np.ndarray
    """(bins + 1,) from 0 to 1."""
    count: np.ndarray
    """(bins,) rows in each bin."""
    confidence: np.ndarray
    """(bins,) mean probability of the most probable class; nan in an empty bin."""
    accuracy: np.ndarray
    """(bins,) share of rows whose most probable class is the true one; nan in an empty bin."""

    @property
    def error(self) -> float:
        """Expected calibration error: mean over rows of |accuracy - confidence| of their bin."""
        filled = self.count > 0
        gaps = np.abs(self.accuracy - self.confidence)[filled]
        return float(np.average(gaps, weights=self.count[filled]))


@dataclass(frozen=True, eq=False)
class Scores:
    """The figures of one system on labelled rows."""

    protocol: str
    """What a row is: "1 s segments", "10 s clips". Published tables mix the two."""
    classes: tuple[str, ...]
    count: int
    """Rows."""
    log_loss: float
    """Macro average, nats."""
    accuracy: float
    """Macro average of the decisions, 0 to 1."""
    micro_log_loss: float
    """Mean over rows, nats."""
    micro_accuracy: float
    brier: float
    """Mean over rows of the squared distance between probabilities and truth, 0 to 2."""
    calibration_error: float
    """Expected calibration error of the most probable class, 15 equally wide bins, 0 to 1."""
    top_accuracy: np.ndarray
    """(K,) macro share of rows with the true class among the 1, 2, ... K most probable."""
    class_count: np.ndarray
    """(K,) rows of each class."""
    class_log_loss: np.ndarray
    """(K,) nats; nan for a class without rows."""
    class_accuracy: np.ndarray
    """(K,) 0 to 1; nan for a class without rows."""
    confusion: np.ndarray
    """(K, K) rows of true class i decided as class j."""

    def to_json(self) -> dict:
        """The same as plain values; nan becomes None."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def score(
    probabilities: np.ndarray,
    targets: np.ndarray,
    classes: tuple[str, ...] | list[str],
    protocol: str = "",
    predictions: np.ndarray | None = None,
) -> Scores:
    """Every figure of one system on labelled rows.

    probabilities (N, K), targets (N,) index of the true class. predictions (N,) are the system's own
    decisions where they are not the most probable class; accuracy and confusion follow them, top-k and
    calibration the probabilities. Raises AvscError for shapes that do not fit and for unknown (-1) targets.
    """
    probabilities, targets = _checked(probabilities, targets)
    count, k = probabilities.shape
    if len(classes) != k:
        raise AvscError(f"scores: {k} columns of probabilities for {len(classes)} classes; give one name a column")
    decided = probabilities.argmax(1) if predictions is None else _indices(predictions, count, k, "predictions")
    losses, hits = log_losses(probabilities, targets), decided == targets
    confusion = np.zeros((k, k), dtype=np.int64)
    np.add.at(confusion, (targets, decided), 1)
    rank = (np.argsort(-probabilities, axis=1, kind="stable") == targets[:, None]).argmax(1)
    return Scores(
        protocol=protocol,
        classes=tuple(classes),
        count=count,
        log_loss=macro_mean(losses, targets),
        accuracy=macro_mean(hits, targets),
        micro_log_loss=float(losses.mean()),
        micro_accuracy=float(hits.mean()),
        brier=float(((probabilities - np.eye(k)[targets]) ** 2).sum(1).mean()),
        calibration_error=reliability(probabilities, targets).error,
        top_accuracy=np.array([macro_mean(rank < top, targets) for top in range(1, k + 1)]),
        class_count=np.bincount(targets, minlength=k),
        class_log_loss=class_means(losses, targets, k),
        class_accuracy=class_means(hits, targets, k),
        confusion=confusion,
    )


def macro_log_loss(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Mean over classes of the mean -log p(true class), nats; probabilities (N, K), targets (N,)."""
    probabilities, targets = _checked(probabilities, targets)
    return macro_mean(log_losses(probabilities, targets), targets)


def macro_accuracy(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Mean over classes of the share of right decisions, 0 to 1; predictions and targets (N,)."""
    predictions, targets = np.asarray(predictions), np.asarray(targets)
    if predictions.shape != targets.shape:
        raise AvscError(f"scores: {predictions.shape} predictions for {targets.shape} targets; give one a row")
    return macro_mean(predictions == targets, targets)


def log_losses(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(N,) -log p(true class) with p clipped to [1e-15, 1] and not renormalised."""
    return -np.log(np.clip(probabilities[np.arange(len(targets)), targets], CLIP, 1.0))


def class_means(values: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """(K,) mean of the values (N,) over the rows of each class; nan for a class without rows."""
    count = np.bincount(targets, minlength=k)
    total = np.bincount(targets, weights=np.asarray(values, dtype=np.float64), minlength=k)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def macro_mean(values: np.ndarray, targets: np.ndarray) -> float:
    """Mean over the classes that occur of the class means of the values (N,)."""
    return float(np.nanmean(class_means(values, targets, int(targets.max()) + 1)))


def reliability(probabilities: np.ndarray, targets: np.ndarray, bins: int = BINS) -> Reliability:
    """The reliability diagram of the most probable class (Guo et al., ICML 2017)."""
    confidence, hits = probabilities.max(1), probabilities.argmax(1) == targets
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)  # bins are open at the left
    return Reliability(
        edges=np.linspace(0, 1, bins + 1),
        count=np.bincount(index, minlength=bins),
        confidence=class_means(confidence, index, bins),
        accuracy=class_means(hits, index, bins),
    )


def intervals(
    probabilities: np.ndarray,
    targets: np.ndarray,
    predictions: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    level: float = 0.95,
) -> Intervals:
    """Confidence intervals of macro log loss and accuracy.

    With groups (N,), the location of each row, by bootstrap over them, since clips of one location resemble each
    other. A class with a single location gives the bootstrap no spread: then there is no interval of the log loss, and
    that of the accuracy is Wilson's with as many trials as locations. The accuracy gets Wilson's interval as well
    where every decision is right, or every one wrong. Without groups, by Wald as the challenge publishes them, which
    takes rows as independent.
    """
    probabilities, targets = _checked(probabilities, targets)
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
    """One sentence where the test data are too few to trust a figure, naming the scarcest class; else empty."""
    count = groups_per_class(targets, groups)
    there = np.flatnonzero(count)
    total, scarcest = len(np.unique(groups)), there[count[there].argmin()]
    if total >= FEW_GROUPS and count[scarcest] >= FEW_IN_CLASS:
        return ""
    words = lambda number: f"{number} {what[:-1] if number == 1 else what}"  # noqa: E731
    return (
        f"few test data: {words(total)} in all, {words(int(count[scarcest]))} of class {classes[scarcest]}; figures "
        f"from so few may change much with other test data. Test on {FEW_GROUPS} or more, {FEW_IN_CLASS} of each class"
    )


def wilson(share: float, trials: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share (0 to 1) of so many independent trials (Wilson, JASA 1927)."""
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


def _checked(probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2 or not len(probabilities):
        raise AvscError(f"scores: probabilities of shape {probabilities.shape}; they must be rows x classes, not empty")
    if np.isnan(probabilities).any():
        raise AvscError(f"scores: row {int(np.isnan(probabilities).any(1).argmax())} of the probabilities is NaN")
    return probabilities, _indices(targets, *probabilities.shape, "targets")


def _indices(values: np.ndarray, count: int, k: int, what: str) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != (count,) or not np.issubdtype(values.dtype, np.integer):
        raise AvscError(f"scores: {what} must be {count} integers, one a row, not {values.dtype}{values.shape}")
    if values.min() < 0 or values.max() >= k:
        row = int(((values < 0) | (values >= k)).argmax())
        raise AvscError(f"scores: row {row} of {what} is {values[row]}; it must be the index of one of {k} classes")
    return values


def _plain(value):
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
