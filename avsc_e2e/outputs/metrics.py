"""Quality of probabilities: macro log loss and accuracy, calibration error.

Axes: N rows (segments or clips), K classes. Rows are summed class by class and the class means
are averaged (macro), so that frequent and rare classes have the same weight. A class without rows has
no mean: it is nan in the class-wise figures and left out of the macro ones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from avsc_e2e.errors import AvscError

CLIP = 1e-15
"""Floor of the true class's probability in the log loss. Rows are not renormalised. It changes the score: a
row with probability zero for its true class costs 34.5 nats, and would cost infinitely many without it."""

BINS = 15
"""Equally wide bins of confidence in the expected calibration error."""


class Reliability(NamedTuple):
    """The reliability diagram: rows sorted into bins by the probability of their most probable class."""

    edges: np.ndarray
    """(bins + 1,) from 0 to 1."""
    count: np.ndarray  # type: ignore[assignment]  # a tuple's method of this name is not needed
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
        """The scores as plain values; nan becomes None."""
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
    probabilities, targets = checked(probabilities, targets)
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
    probabilities, targets = checked(probabilities, targets)
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


def checked(probabilities: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, K) and the index of the true class (N,) as arrays. Raises AvscError for other shapes or
    values."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2 or not len(probabilities):
        raise AvscError(f"scores: probabilities of shape {probabilities.shape}; they must be rows x classes, not empty")
    if np.isnan(probabilities).any():
        raise AvscError(f"scores: row {int(np.isnan(probabilities).any(1).argmax())} of the probabilities is NaN")
    count, k = probabilities.shape
    return probabilities, _indices(targets, count, k, "targets")


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
