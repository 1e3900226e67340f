"""Multinomial logistic regression on features of frozen trunks, its strength chosen out of fold.

Axes: N segments, F features, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from avsc_e2e.learner.folds import Folds, loss_of

STRENGTHS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
"""Pulls of the squared weights of standardised features towards zero, from the strongest; data choose."""
ITERATIONS = 60
"""Of L-BFGS, for each strength, from the solution of the stronger one before it."""
PATIENCE = 2
"""Strengths after the best one that are still tried."""
DIRECTIONS = 512
"""Most coordinates of a regression. Of more features and rows only those combinations are kept that vary most: the
others are pulled to zero all the same, and time grows with them."""


@dataclass(frozen=True, eq=False)
class Probe:
    """A fitted regression, in terms of the features as they are."""

    weights: np.ndarray
    """(F, K)."""
    bias: np.ndarray
    """(K,)."""

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(N, F) -> (N, K)."""
        return features @ self.weights + self.bias


@dataclass(frozen=True, eq=False)
class Probed:
    """A regression on all rows, and what cross-fitting says of it."""

    probe: Probe
    logits: np.ndarray
    """(N, K) out of fold."""
    strength: float
    loss: float
    """Macro log loss out of fold."""


def probe(features: np.ndarray, targets: np.ndarray, weights: np.ndarray, folds: Folds, classes: int) -> Probed:
    """Fit a regression on features (N, F), targets (N,) and weights (N,), with the strength of the least macro log
    loss out of fold."""
    best: tuple[float, float, np.ndarray] = (np.inf, STRENGTHS[0], np.empty(0))
    since = 0
    with _folds_side_by_side() as pool:
        paths = list(pool.map(lambda rows: _Path(features, targets, weights, rows, classes), folds.fitted))
        for strength in STRENGTHS:
            found = np.zeros((len(targets), classes), np.float32)
            fitted = pool.map(lambda path, strength=strength: path.step(strength), paths)
            for one, rows in zip(fitted, folds.judged, strict=True):
                found[rows] = one.logits(features[rows])
            loss = loss_of(found, targets, weights)
            if loss < best[0]:
                best, since = (loss, strength, found), 0
            else:
                since += 1
            if since >= PATIENCE:
                break
    return Probed(fit_probe(features, targets, weights, best[1], classes), best[2], best[1], best[0])


def _folds_side_by_side() -> ThreadPoolExecutor:
    """Threads that compute on one core each: a step is too small to be divided, and where cores are busy its threads
    wait for each other a hundred times as long as they compute."""
    return ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,))


def fit_probe(features: np.ndarray, targets: np.ndarray, weights: np.ndarray, strength: float, classes: int) -> Probe:
    """The regression of one strength on all rows."""

    def fit() -> Probe:
        path = _Path(features, targets, weights, np.arange(len(targets)), classes)
        return [path.step(one) for one in STRENGTHS[: STRENGTHS.index(strength) + 1]][-1]

    with _folds_side_by_side() as pool:
        return pool.submit(fit).result()


class _Path:
    """Solutions for weaker and weaker strengths on some rows, each from the one before."""

    def __init__(self, features: np.ndarray, targets: np.ndarray, weights: np.ndarray, rows: np.ndarray, classes: int):
        x = torch.from_numpy(np.ascontiguousarray(features[rows], np.float32))
        share = torch.from_numpy(balanced(targets[rows], weights[rows]).astype(np.float32))
        self.mean = share @ x
        self.std = (share @ (x - self.mean) ** 2).sqrt().clamp(min=1e-4 + 1e-2 * float(x.std()))
        x = (x - self.mean) / self.std
        self.basis: Tensor | None = None
        if min(x.shape) > DIRECTIONS:
            self.basis = _directions(x)
            x = x @ self.basis
        elif x.shape[1] > x.shape[0]:
            # The solution lies in the span of the rows: N coordinates say the same as F features.
            values, vectors = torch.linalg.eigh(x @ x.T)
            keep = values > 1e-5 * values[-1]
            scaled = vectors[:, keep] / values[keep].sqrt()
            self.basis = x.T @ scaled
            x = vectors[:, keep] * values[keep].sqrt()
        self.x, self.share, self.targets = x, share, torch.from_numpy(targets[rows])
        self.solution = torch.zeros(x.shape[1] + 1, classes, requires_grad=True)

    def step(self, strength: float) -> Probe:
        solution = self.solution
        # A feature's pull does not depend on how many there are of them.
        optimiser = torch.optim.LBFGS(
            [solution], max_iter=ITERATIONS, tolerance_change=1e-6, history_size=10, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimiser.zero_grad()
            losses = cross_entropy(torch.addmm(solution[-1], self.x, solution[:-1]), self.targets, reduction="none")
            loss = self.share @ losses + 0.5 * strength * (solution[:-1] ** 2).sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        with torch.no_grad():
            weights = solution[:-1] if self.basis is None else self.basis @ solution[:-1]
            weights = weights / self.std[:, None]
            return Probe(weights.numpy().copy(), (solution[-1] - self.mean @ weights).numpy().copy())


def _directions(x: Tensor) -> Tensor:
    """(F, DIRECTIONS) orthonormal, nearly the leading principal directions of x (N, F), by random projection and one
    power iteration (Halko, Martinsson and Tropp, SIAM Review 2011)."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.linalg.qr(x @ torch.randn(x.shape[1], DIRECTIONS, generator=draw)).Q
    return torch.linalg.qr(x.T @ rows).Q


def balanced(targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights that sum to one, the same for every class, as the macro score counts."""
    totals = np.bincount(targets, weights=weights)
    return weights / (totals[targets] * (totals > 0).sum())


def joined(features: Sequence[np.ndarray]) -> np.ndarray:
    """Features of several members side by side."""
    return np.concatenate(features, axis=1) if len(features) > 1 else features[0]
