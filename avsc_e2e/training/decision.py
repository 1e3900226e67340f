"""The decision over a model's heads, fitted on the validation set. Axes: N clips, K classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from avsc_e2e.models.architecture import Architecture
from avsc_e2e.outputs.fusion import fit
from avsc_e2e.outputs.loglinear import fit_log_linear

LEAST_WEIGHT = 1e-3
"""Smallest weight of a head, because a head without a weight is not built."""


def fit_decision(
    architecture: Architecture, probabilities: Mapping[str, np.ndarray], targets: np.ndarray, groups: np.ndarray
) -> Architecture:
    """The architecture with the decision that has the lowest macro log loss on clips with both modalities.

    probabilities: head -> (N, K); targets (N,); groups (N,), the sources of the recordings. For a product,
    cross-validation over the groups chooses the strength of the regularisation towards equal weights. For a mean,
    expectation maximisation fits the weights.
    """
    p = np.stack(list(probabilities.values()))
    if architecture.decision_rule == "product":
        weights = fit_log_linear(p, targets, groups, "system", start=1 / len(p), strength=None).weights
        sharpness = max(float(weights.sum()), LEAST_WEIGHT)
    else:
        mean: Any = fit(p, targets, groups, "weights")
        weights, sharpness = mean.weights, 1.0
    share = dict(zip(probabilities, np.maximum(weights / max(weights.sum(), 1e-12), LEAST_WEIGHT), strict=True))
    audio, video, fusion = (float(share.get(name, 0.0)) for name in ("audio", "video", "fusion"))
    return replace(architecture, decision=(audio, video, fusion), sharpness=sharpness)
