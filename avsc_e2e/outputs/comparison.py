"""Comparison of systems on the same recordings: intervals, paired tests, vote and oracle, disagreements.

The kinds of figures are those of Wang, Heittola, Mesaros and Virtanen, "Audio-visual scene classification:
analysis of DCASE 2021 Challenge submissions" (DCASE Workshop 2021), section 4.

Axes: M systems, N rows, K classes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest, spearmanr

from avsc_e2e.errors import AvscError
from avsc_e2e.outputs.intervals import (
    Interval,
    Intervals,
    bootstrap,
    can_resample,
    intervals,
    percentiles,
    wald,
    warning_of_few,
)
from avsc_e2e.outputs.metrics import Scores, log_losses, macro_mean, score
from avsc_e2e.outputs.names import location_of
from avsc_e2e.outputs.output import SystemOutput, align

TOP = 3
"""Systems in the vote of the best, as in the analysis of the challenge."""


class Pair(NamedTuple):
    """Two systems, row by row."""

    first: str
    second: str
    agreement: float
    """Share of rows with the same decision."""
    only_first: int
    """Rows that only the first decides correctly."""
    only_second: int
    mcnemar: float
    """Two-sided exact p of McNemar's test that both are right equally often; treats rows as independent."""
    log_loss: float
    """Macro log loss of the first less that of the second, nats."""
    interval: Interval | None
    """Interval of that difference, by bootstrap over locations; None if a class has a single location."""
    p: float
    """Two-sided p of a difference of zero, by the same bootstrap; nan if there is no interval."""


class Combination(NamedTuple):
    """Decisions of several systems together."""

    systems: tuple[str, ...]
    vote: float
    """Macro accuracy of the majority; ties go to the class with the highest mean probability."""
    vote_intervals: tuple[Interval, Interval | None]
    """Intervals of the vote by Wald, and by bootstrap over locations if every class has two or more."""
    oracle: float
    """Macro accuracy if a row counts as correct when any of the systems is correct."""
    oracle_intervals: tuple[Interval, Interval | None]


class Disagreement(NamedTuple):
    """A row on which the decisions of the systems differ."""

    file: str
    start: float | None
    """Seconds."""
    scene: str
    decisions: tuple[str, ...]
    """Decision of each system."""
    divergence: float
    """Jensen-Shannon divergence of the systems' probabilities, nats."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several systems on the same rows; systems are in the order of their macro log loss."""

    protocol: str
    systems: tuple[str, ...]
    classes: tuple[str, ...]
    scores: dict[str, Scores]
    wald: dict[str, Intervals]
    """Wald intervals, which treat rows as independent, as published."""
    bootstrap: dict[str, Intervals]
    """Bootstrap over locations, which gives the realistic intervals."""
    locations: int
    pairs: tuple[Pair, ...]
    combinations: tuple[Combination, ...]
    """Combinations of the best three systems, if there are more, and of all."""
    rank_correlation: float
    """Spearman's correlation of the ranks by accuracy and by log loss; nan for two systems that tie."""
    size_correlation: float | None
    """Spearman's correlation of the number of parameters and the rank counted from the last; None if sizes are
    unknown."""
    disagreements: tuple[Disagreement, ...]
    """All rows on which decisions differ, the largest divergence first."""
    confused: tuple[tuple[str, str, int], ...]
    """Pairs of classes between which decisions on a row differ, with the number of rows, most frequent first."""
    warning: str = ""
    """One sentence where the test data are few; else empty."""

    def to_json(self) -> dict:
        """The comparison as plain values."""
        return {
            "protocol": self.protocol,
            "systems": {
                name: {
                    **self.scores[name].to_json(),
                    "wald": {key: list(span) for key, span in self.wald[name]._asdict().items()},
                    "bootstrap": {key: span and list(span) for key, span in self.bootstrap[name]._asdict().items()},
                }
                for name in self.systems
            },
            "locations": self.locations,
            "warning": self.warning,
            "pairs": [pair._asdict() | {"p": None if math.isnan(pair.p) else pair.p} for pair in self.pairs],
            "combinations": [combination._asdict() for combination in self.combinations],
            "rank_correlation": None if np.isnan(self.rank_correlation) else self.rank_correlation,
            "size_correlation": self.size_correlation,
            "disagreements": [item._asdict() for item in self.disagreements],
            "confused": [list(item) for item in self.confused],
        }


def compare(
    outputs: Mapping[str, SystemOutput],
    targets: np.ndarray,
    parameters: Mapping[str, int] | None = None,
    groups: np.ndarray | None = None,
    protocol: str = "",
) -> Comparison:
    """Compare two or more systems on the labels (N,) of the first one's rows, aligned by name.

    `parameters` are the sizes of the systems, `groups` (N,) the locations, by default those in the file names. Raises
    AvscError for a single system and for rows or classes that differ.
    """
    if len(outputs) < 2:
        raise AvscError(f"compare: {len(outputs)} system output given; it takes two or more")
    aligned = dict(zip(outputs, align(list(outputs.values())), strict=True))
    first = next(iter(aligned.values()))
    groups = np.array([location_of(file) for file in first.files]) if groups is None else np.asarray(groups)
    scores = {
        name: score(one.probabilities, targets, one.classes, protocol, one.decisions) for name, one in aligned.items()
    }
    names = tuple(sorted(scores, key=lambda name: scores[name].log_loss))
    decisions = {name: one.decisions for name, one in aligned.items()}
    spans = {
        name: [intervals(one.probabilities, targets, one.decisions, by) for by in (None, groups)]
        for name, one in aligned.items()
    }
    sizes = None
    if parameters is not None:
        missing = sorted(set(names) - set(parameters))
        if missing:
            raise AvscError(f"compare: no number of parameters for {', '.join(missing)}; give one for each system")
        # the last rank is 1 here, so that "larger is better" is a positive correlation, as published
        sizes = _spearman([parameters[name] for name in names], [-rank for rank in range(len(names))])
    tops = [names[:TOP]] * (len(names) > TOP) + [names]
    return Comparison(
        protocol=protocol,
        systems=names,
        classes=first.classes,
        scores={name: scores[name] for name in names},
        wald={name: spans[name][0] for name in names},
        bootstrap={name: spans[name][1] for name in names},
        locations=len(np.unique(groups)),
        pairs=tuple(_pair(a, b, aligned, targets, groups) for a, b in combinations(names, 2)),
        combinations=tuple(_combination(top, aligned, targets, groups) for top in tops),
        rank_correlation=_spearman([scores[n].accuracy for n in names], [-scores[n].log_loss for n in names]),
        size_correlation=sizes,
        disagreements=_disagreements([aligned[name] for name in names], targets),
        confused=_confused([decisions[name] for name in names], first.classes),
        warning=warning_of_few(targets, groups, first.classes),
    )


def majority(outputs: Sequence[SystemOutput]) -> np.ndarray:
    """(N,) index of the class that most of the aligned outputs decide for; ties by the mean probability."""
    k = len(outputs[0].classes)
    votes = sum(np.eye(k)[one.decisions] for one in outputs)
    return (votes + np.mean([one.probabilities for one in outputs], axis=0) / 2).argmax(1)


def _pair(first: str, second: str, outputs: dict, targets: np.ndarray, groups: np.ndarray) -> Pair:
    a, b = outputs[first], outputs[second]
    right_a, right_b = a.decisions == targets, b.decisions == targets
    alone = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    difference = log_losses(a.probabilities, targets) - log_losses(b.probabilities, targets)
    interval, p = None, float("nan")
    if can_resample(targets, groups):
        samples = bootstrap(difference, targets, groups)
        beyond = min((samples <= 0).sum(), (samples >= 0).sum())
        interval, p = percentiles(samples), float(min(1.0, 2 * (beyond + 1) / (len(samples) + 1)))
    return Pair(
        first=first,
        second=second,
        agreement=float((a.decisions == b.decisions).mean()),
        only_first=alone[0],
        only_second=alone[1],
        mcnemar=float(binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0,
        log_loss=macro_mean(difference, targets),
        interval=interval,
        p=p,
    )


def _combination(names: tuple[str, ...], outputs: dict, targets: np.ndarray, groups: np.ndarray) -> Combination:
    chosen = [outputs[name] for name in names]
    vote = (majority(chosen) == targets).astype(np.float64)
    oracle = np.any([one.decisions == targets for one in chosen], axis=0).astype(np.float64)
    honest = can_resample(targets, groups)
    spans = [
        (wald(hits, targets), percentiles(bootstrap(hits, targets, groups)) if honest else None)
        for hits in (vote, oracle)
    ]
    return Combination(names, macro_mean(vote, targets), spans[0], macro_mean(oracle, targets), spans[1])


def _disagreements(outputs: Sequence[SystemOutput], targets: np.ndarray) -> tuple[Disagreement, ...]:
    decisions = np.stack([one.decisions for one in outputs])
    probabilities = np.stack([one.probabilities for one in outputs])
    divergence = _entropy(probabilities.mean(0)) - _entropy(probabilities).mean(0)
    first = outputs[0]
    rows = np.flatnonzero((decisions != decisions[0]).any(0))
    return tuple(
        Disagreement(
            file=first.files[row],
            start=None if first.start is None else float(first.start[row]),
            scene=first.classes[targets[row]],
            decisions=tuple(first.classes[i] for i in decisions[:, row]),
            divergence=float(divergence[row]),
        )
        for row in rows[np.argsort(-divergence[rows], kind="stable")]
    )


def _confused(decisions: Sequence[np.ndarray], classes: tuple[str, ...]) -> tuple[tuple[str, str, int], ...]:
    counts: Counter[tuple[int, int]] = Counter()
    for row in np.stack(decisions, axis=1).tolist():
        counts.update(combinations(sorted(set(row)), 2))
    return tuple((classes[a], classes[b], count) for (a, b), count in counts.most_common())


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    return -(probabilities * np.log(np.maximum(probabilities, 1e-300))).sum(-1)


def _spearman(first: Sequence[float], second: Sequence[float]) -> float:
    if len(set(first)) < 2 or len(set(second)) < 2:
        return float("nan")
    return float(spearmanr(first, second).statistic)
