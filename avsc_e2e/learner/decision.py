"""The decision over heads: from the best head alone to a small stacked model, the richer only where it earns it.

Every candidate is fitted to outputs out of fold and judged on sources that took no part in its fit. Axes: M heads,
N segments, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from avsc_e2e.learner.folds import Folds, losses_of, macro
from avsc_e2e.outputs.loglinear import LogLinear, fit_log_linear

MARGIN = 2.0
"""Standard errors, by source, that a later rule must gain over an earlier one to be chosen. Of many tries the one with
the least loss out of fold is the luckiest too, and where hardly a source errs, a sharper rule seems to gain without
any risk (`benchmarks/decisions.py`)."""
PRIOR = 0.1
"""Of one more source of each class, the part that is supposed to be of the other classes."""
LEAST_GAIN = 0.002
"""Nats out of fold that a further head must gain to be heard."""
MOST_HEADS = 6
"""Heard at once."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A decision rule and what cross-fitting says of it."""

    name: str
    heads: tuple[str, ...]
    """Those that it hears."""
    logs: np.ndarray
    """(N, K) log probabilities out of fold."""
    loss: float
    """Macro log loss out of fold."""
    rule: LogLinear
    """Fitted to all rows, over `heads`."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Rows on which decisions are fitted and judged."""

    targets: np.ndarray
    """(N,)."""
    groups: np.ndarray
    """(N,) sources."""
    weights: np.ndarray
    """(N,) segments that each row stands for."""
    folds: Folds = Folds((), ())
    """Of the rows; empty where no rule is fitted to them."""

    def loss(self, logs: np.ndarray) -> float:
        return macro(losses_of(logs, self.targets), self.targets, self.weights)


Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], LogLinear]
"""Probabilities (M, N, K), targets, groups and weights (N,) -> the rule."""


def product(p: np.ndarray, *_: np.ndarray) -> LogLinear:
    """The normalised geometric mean of the heads, or one head as it is; nothing is fitted."""
    return LogLinear(np.full(len(p), 1 / len(p)), np.zeros(p.shape[-1]))


def single(p: np.ndarray, y: np.ndarray, g: np.ndarray, w: np.ndarray) -> LogLinear:
    """One temperature for all heads, which have the same weight."""
    pooled = fit_log_linear(product(p)(p)[None], y, g, rows=w)
    return LogLinear(np.full(len(p), float(pooled.weights[0]) / len(p)), pooled.bias)


def pool(p: np.ndarray, y: np.ndarray, g: np.ndarray, w: np.ndarray) -> LogLinear:
    """A weight for each head."""
    return fit_log_linear(p, y, g, "system", start=1 / len(p), strength=0.03, rows=w)


def classwise(p: np.ndarray, y: np.ndarray, g: np.ndarray, w: np.ndarray) -> LogLinear:
    """A weight for each head and class, and a bias for each class."""
    return fit_log_linear(p, y, g, "class", bias=True, start=1 / len(p), strength=0.1, rows=w)


def stacking(strength: float) -> Fit:
    """Multinomial logistic regression on the heads' log probabilities, held close to their product."""

    def fit(p: np.ndarray, y: np.ndarray, g: np.ndarray, w: np.ndarray) -> LogLinear:
        return fit_log_linear(p, y, g, "matrix", bias=True, start=1 / len(p), strength=strength, rows=w)

    return fit


RULES: tuple[tuple[str, Fit], ...] = (
    ("temperature", single),
    ("pool", pool),
    ("classwise", classwise),
    ("stacking", stacking(1.0)),
    ("loose stacking", stacking(0.2)),
)
"""In rising richness."""


def candidates(logits: Mapping[str, np.ndarray], rows: Judged, joint: Sequence[str]) -> list[Candidate]:
    """The product of the `joint` heads and the best other one; the best head alone; then each rule over the heads that
    improve a pool, in rising richness. logits: head -> (N, K) out of fold.

    The product comes first although it hears several heads: nothing in it is fitted, and on sources that took no part
    in any choice it errs less than the head that was best out of fold (`benchmarks/decisions.py`)."""
    probabilities = {name: _softmax(values) for name, values in logits.items()}
    ranked = sorted(logits, key=lambda name: rows.loss(logits[name]))
    first = [*joint, *[name for name in ranked if name not in joint][:1]]
    best = ranked[0]
    found = [_cross_fitted("product", first, probabilities, rows, product)] if len(first) > 1 else []
    found.append(_cross_fitted("best head", [best], probabilities, rows, product))
    heads = _selected(best, probabilities, rows)
    rules = RULES if len(heads) > 1 else RULES[:1]  # of one head, a temperature is all there is to fit
    return found + [_cross_fitted(name, heads, probabilities, rows, fit) for name, fit in rules]


def choose(found: Sequence[Candidate], rows: Judged) -> Candidate:
    """The first candidate that no later one beats by more than the noise between sources."""
    chosen = found[0]
    for candidate in found[1:]:
        if beats(candidate.logs, chosen.logs, rows, MARGIN):
            chosen = candidate
    return chosen


def beats(logs: np.ndarray, before: np.ndarray, rows: Judged, margin: float) -> bool:
    """Whether log probabilities (N, K) have a lower macro log loss than those of before, by so many standard errors of
    the difference; and still a lower one if a part of one more source of each class were of the other classes. Where
    hardly a source errs, a sharper rule gains a little each time, until one does."""
    gain = losses_of(before, rows.targets) - losses_of(logs, rows.targets)
    if macro(gain, rows.targets, rows.weights) <= margin * standard_error(gain, rows):
        return False
    gain = _with_one_more_source(before, rows) - _with_one_more_source(logs, rows)
    return macro(gain, rows.targets, rows.weights) > 0


def _with_one_more_source(logs: np.ndarray, rows: Judged) -> np.ndarray:
    """(N,) log losses if each row stood in part for the other classes, as Platt (1999) smooths targets."""
    logs = torch.from_numpy(logs.astype(np.float64)).log_softmax(dim=1).numpy()
    sources = np.array([len(np.unique(rows.groups[rows.targets == label])) for label in range(logs.shape[1])])
    share = PRIOR / (sources[rows.targets] + 2)
    right = logs[np.arange(len(logs)), rows.targets]
    return -(1 - share) * right - share * (logs.sum(axis=1) - right) / (logs.shape[1] - 1)


def standard_error(values: np.ndarray, rows: Judged) -> float:
    """Of the macro mean of values (N,), from how it differs between sources within a class."""
    _, group = np.unique(rows.groups, return_inverse=True)
    variance, classes = 0.0, np.unique(rows.targets)
    for label in classes:
        of_class = rows.targets == label
        weights = np.bincount(group[of_class], weights=rows.weights[of_class])
        sums = np.bincount(group[of_class], weights=(rows.weights * values)[of_class])
        there = weights > 0
        mean, count = sums.sum() / weights.sum(), int(there.sum())
        residuals = sums[there] - mean * weights[there]
        variance += (residuals**2).sum() / weights.sum() ** 2 * count / max(count - 1, 1)
    return float(np.sqrt(variance)) / len(classes)


def _selected(best: str, probabilities: Mapping[str, np.ndarray], rows: Judged) -> list[str]:
    """Forward selection of heads by the loss of their pool out of fold."""
    heads = [best]
    loss = _cross_fitted("", heads, probabilities, rows, pool).loss
    while len(heads) < min(MOST_HEADS, len(probabilities)):
        tried = {
            name: _cross_fitted("", [*heads, name], probabilities, rows, pool).loss
            for name in probabilities
            if name not in heads
        }
        further = min(tried, key=tried.__getitem__)
        if tried[further] > loss - LEAST_GAIN:
            break
        heads, loss = [*heads, further], tried[further]
    return heads


def _cross_fitted(
    name: str, heads: Sequence[str], probabilities: Mapping[str, np.ndarray], rows: Judged, fit: Fit
) -> Candidate:
    p = np.stack([probabilities[head] for head in heads])
    logs = np.zeros(p.shape[1:])
    for fitted, judged in zip(rows.folds.fitted, rows.folds.judged, strict=True):
        rule = fit(p[:, fitted], rows.targets[fitted], rows.groups[fitted], rows.weights[fitted])
        logs[judged] = np.log(rule(p[:, judged]) + 1e-300)
    return Candidate(name, tuple(heads), logs, rows.loss(logs), fit(p, rows.targets, rows.groups, rows.weights))


def _softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits.astype(np.float64)).softmax(dim=1).numpy()
