"""From heads with outputs out of fold to one model: the decision of each set of modalities, and the ensemble.

Axes: N segments, K classes, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from avsc_e2e.clip import MODALITIES
from avsc_e2e.learner.decision import Candidate, Judged, candidates, choose, product
from avsc_e2e.learner.folds import Folds
from avsc_e2e.learner.probe import Probe
from avsc_e2e.models.ensemble import PATTERNS, Ensemble, Tower, modalities_in


@dataclass(frozen=True, eq=False)
class Head:
    """A head fitted to all rows, and what models that had not seen a row's source say of the row."""

    reads: tuple[str, ...]
    """Members, in the order of the features."""
    modalities: frozenset[str]
    logits: np.ndarray
    """(N, K) out of fold."""
    judged: np.ndarray
    """(N,) bool: rows with logits out of fold."""
    probe: Probe
    """Fitted to all rows."""


@dataclass(frozen=True, eq=False)
class Decisions:
    """The decision of each set of modalities that the training part allows to fit one for."""

    chosen: Mapping[int, Candidate]
    """Index into PATTERNS -> its decision."""
    tried: tuple[Candidate, ...]
    """All of the first pattern, in rising richness."""
    rows: Judged
    """Those of the first pattern."""
    mask: np.ndarray
    """(N,) bool: which rows these are."""

    @property
    def first(self) -> Candidate:
        """The decision that most clips are given: of all modalities that the data set has."""
        return next(iter(self.chosen.values()))


def decide(
    heads: Mapping[str, Head],
    targets: np.ndarray,
    groups: np.ndarray,
    weights: np.ndarray,
    present: np.ndarray,
    seed: int,
) -> Decisions:
    """Fit the decisions. A row is judged by heads and rules that were fitted without its source; what was chosen (the
    strength of a head, the heads that are heard, the rule) was chosen on all rows, so the figures are a little too
    good."""
    chosen: dict[int, Candidate] = {}
    first: tuple[list[Candidate], Judged, np.ndarray] | None = None
    have = {name for head in heads.values() for name in head.modalities}
    for index, pattern in enumerate(PATTERNS):
        allowed = modalities_in(pattern)
        able = {name: head for name, head in heads.items() if head.modalities <= allowed}
        if not able or not allowed <= have:
            continue
        columns = [MODALITIES.index(name) for name in allowed]
        mask = present[:, columns].all(axis=1) & np.all([head.judged for head in able.values()], axis=0)
        if len(np.unique(groups[mask])) < 4:
            continue
        folds = Folds.of(targets[mask], groups[mask], 5, seed + 1)
        rows = Judged(targets[mask], groups[mask], weights[mask], folds)
        joint = [name for name, head in able.items() if len(head.modalities) > 1]
        joint = joint or [max(able, key=lambda name: len(able[name].reads))]
        tried = candidates({name: head.logits[mask] for name, head in able.items()}, rows, joint)
        chosen[index] = choose(tried, rows)
        if first is None:
            first = tried, rows, mask
    if first is None:
        return _undecided(heads, targets, groups, weights, present)
    return Decisions(chosen, tuple(first[0]), first[1], first[2])


def _undecided(
    heads: Mapping[str, Head], targets: np.ndarray, groups: np.ndarray, weights: np.ndarray, present: np.ndarray
) -> Decisions:
    """With fewer than four sources nothing can be fitted out of fold: the heads' product for every pattern."""
    chosen: dict[int, Candidate] = {}
    first: tuple[Judged, np.ndarray] | None = None
    for index, pattern in enumerate(PATTERNS):
        able = {name: head for name, head in heads.items() if head.modalities <= modalities_in(pattern)}
        if not able:
            continue
        columns = [MODALITIES.index(name) for name in {m for head in able.values() for m in head.modalities}]
        mask: np.ndarray = np.all(present[:, columns], axis=1)
        if not mask.any():
            mask = np.any(present, axis=1)
        rows = Judged(targets[mask], groups[mask], weights[mask])
        probabilities = np.stack([torch.from_numpy(h.logits[mask]).softmax(dim=1).numpy() for h in able.values()])
        rule = product(probabilities)
        logs = np.log(rule(probabilities))
        chosen[index] = Candidate("product", tuple(able), logs, rows.loss(logs), rule)
        first = first or (rows, mask)
    assert first is not None  # a head reads one modality at least
    return Decisions(chosen, tuple(chosen.values())[:1], *first)


def assemble(
    classes: Sequence[str], towers: Mapping[str, Tower], heads: Mapping[str, Head], decisions: Decisions
) -> Ensemble:
    """The model of the decisions: the heads that one of them hears and the members that these read."""
    heard = [name for name in heads if any(name in one.heads for one in decisions.chosen.values())]
    needed = [name for name in towers if any(name in heads[head].reads for head in heard)]
    model = Ensemble(
        classes,
        [towers[name].member for name in needed],
        {name: heads[name].reads for name in heard},
        decisions.first.name,
    )
    for name in needed:
        model.towers[name].load_state_dict(towers[name].state_dict())
    with torch.no_grad():
        for name in heard:
            widths = [model.towers[member].width for member in heads[name].reads]
            parts = torch.from_numpy(heads[name].probe.weights).split(widths)
            for member, weights in zip(heads[name].reads, parts, strict=True):
                model.heads[name].maps[member].copy_(weights)
            model.heads[name].bias.copy_(torch.from_numpy(heads[name].probe.bias))
        k = len(classes)
        for index, chosen in decisions.chosen.items():
            matrix = full(chosen, heard, k)
            model.weights[index].copy_(torch.from_numpy(matrix))
            model.bias[index].copy_(torch.from_numpy(chosen.rule.bias))
    return model.eval()


def full(chosen: Candidate, heads: Sequence[str], k: int) -> np.ndarray:
    """(M, K, K) weights over all `heads` of a decision that hears some of them."""
    weights = chosen.rule.weights
    if weights.ndim == 1:
        weights = np.repeat(weights[:, None], k, axis=1)
    if weights.ndim == 2:
        weights = weights[:, :, None] * np.eye(k)
    matrix = np.zeros((len(heads), k, k))
    for name, one in zip(chosen.heads, weights, strict=True):
        matrix[heads.index(name)] = one
    return matrix
