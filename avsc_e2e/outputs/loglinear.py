"""The log-linear model behind calibration and fusion: class logits that are weighted sums of log probabilities.

Axes: M systems, N rows, K classes. One system with one weight is temperature scaling, with a weight and a bias a
class vector scaling (Guo et al., ICML 2017); several systems with one weight each are a log-linear pool; a full
matrix a system is stacking by multinomial logistic regression.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from threadpoolctl import threadpool_limits

from avsc_e2e.outputs.folds import choose

FLOOR = 1e-4
"""Lower probabilities are raised to this value. In tables of three decimals a zero only means "below 0.0005", and a
single zero must not overrule the other systems."""

STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Candidate strengths of the regularisation towards the starting weights; cross-validation chooses one."""

LOOSE = 0.3
"""Share of the regularisation that applies to the common exponent of all systems. It is a single number, which few data
suffice to fit, and all systems may be overconfident or underconfident together."""

Shape: TypeAlias = Literal["system", "class", "matrix"]
"""Number of weights: one for each system, for each class of a system, or for each pair of classes of a system."""


@dataclass(frozen=True, eq=False)
class LogLinear:
    """p_k is proportional to exp(bias_k + sum over systems of weight log p)."""

    weights: np.ndarray
    """(M,), (M, K) or (M, K, K) from class to class."""
    bias: np.ndarray
    """(K,) nats."""

    def check(self, m: int, k: int) -> None:
        """Raises ValueError unless the weights are for m systems and k classes."""
        if self.weights.shape not in ((m,), (m, k), (m, k, k)) or self.bias.shape != (k,):
            raise ValueError(
                f"weights of shape {self.weights.shape} and {self.bias.shape} for {m} systems, {k} classes"
            )

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """(M, N, K) -> (N, K), rows sum to one."""
        k = probabilities.shape[-1]
        logits = _features(probabilities) @ _matrix(self.weights, k) + self.bias
        values = np.exp(logits - logits.max(1, keepdims=True))
        return values / values.sum(1, keepdims=True)


def fit_log_linear(
    probabilities: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    shape: Shape = "system",
    bias: bool = False,
    start: float = 1.0,
    strength: float | None = 0.1,
    rows: np.ndarray | None = None,
) -> LogLinear:
    """The weights with the least macro log loss on rows (M, N, K), targets (N,), regularised towards `start`.

    The regularisation is strength * (squared distance of all parameters from equal weights `start` without bias, their
    common part counted less), because a hundred locations are too few for free parameters. Where strength is None,
    cross-validation by groups (N,) inside these rows chooses it. The weight shared by a system's classes is not
    negative. `rows` (N,) are weights of the rows within their classes, by default equal.
    """
    from scipy.optimize import minimize  # slow, and prediction does not need it
    from scipy.special import log_softmax

    if strength is None:
        strength = choose(
            lambda value: lambda p, t, g: fit_log_linear(p, t, g, shape, bias, start, value),
            STRENGTHS,
            probabilities,
            targets,
            groups,
        )
    m, n, k = probabilities.shape
    features, truth = _features(probabilities), np.eye(k)[targets]
    counts = np.ones(n) if rows is None else rows
    share = np.bincount(targets, weights=counts)[targets] * len(np.unique(targets)) / counts
    rows, eye = np.arange(n), np.eye(k, dtype=bool)
    free = {"system": 0, "class": m * k, "matrix": m * k * k}[shape]

    def unpack(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weights = x[:m, None, None] * eye
        if shape == "class":
            weights = weights + x[m : m + free].reshape(m, k, 1) * eye
        elif shape == "matrix":
            weights = weights + x[m : m + free].reshape(m, k, k)
        return weights, x[m + free :] if bias else np.zeros(k)

    origin = np.concatenate([np.full(m, start), np.zeros(free + k * bias)])

    def held(x: np.ndarray) -> np.ndarray:
        common = np.where(np.arange(len(x)) < m, x[:m].mean(), 0)
        return x - (1 - LOOSE) * common

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        weights, b = unpack(x)
        logs = log_softmax(features @ weights.reshape(m * k, k) + b, axis=1)
        error = (np.exp(logs) - truth) / share[:, None]
        full = (features.T @ error).reshape(m, k, k)
        diagonal = full[:, eye]
        parts = [diagonal.sum(1)]
        if shape != "system":
            parts.append((diagonal if shape == "class" else full).ravel())
        if bias:
            parts.append(error.sum(0))
        pull = held(x - origin)
        loss = -(logs[rows, targets] / share).sum() + strength * (pull**2).sum()
        return loss, np.concatenate(parts) + 2 * strength * held(pull)

    bounds = [(0, None)] * m + [(None, None)] * (len(origin) - m)
    with threadpool_limits(1):  # the products are too small for several threads
        found = minimize(objective, origin, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500})
    weights, b = unpack(found.x)
    narrow = {"system": weights[:, 0, 0], "class": weights[:, eye], "matrix": weights}
    return LogLinear(narrow[shape], b)


def _features(probabilities: np.ndarray) -> np.ndarray:
    """(M, N, K) -> (N, M * K) bounded log probabilities."""
    return np.log(np.maximum(probabilities, FLOOR)).transpose(1, 0, 2).reshape(probabilities.shape[1], -1)


def _matrix(weights: np.ndarray, k: int) -> np.ndarray:
    """(M,), (M, K) or (M, K, K) -> (M * K, K)."""
    if weights.ndim == 1:
        weights = np.repeat(weights[:, None], k, axis=1)
    if weights.ndim == 2:
        weights = weights[:, :, None] * np.eye(k)
    return weights.reshape(-1, k)
