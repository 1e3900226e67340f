"""Fusion of system outputs: the probabilities of several systems become one.

Axes: M systems, N rows, K classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np

from avsc_e2e.errors import AvscError
from avsc_e2e.outputs.folds import cross_fit
from avsc_e2e.outputs.loglinear import LogLinear, fit_log_linear
from avsc_e2e.outputs.metrics import CLIP, Scores, class_means, log_losses, macro_log_loss, score
from avsc_e2e.outputs.names import location_of
from avsc_e2e.outputs.output import SystemOutput, align

Method: TypeAlias = Literal[
    "mean", "product", "vote", "weights", "pool", "classwise", "stacking", "greedy", "confidence"
]
"""mean: of the probabilities. product: their normalised geometric mean. vote: the majority of decisions. weights: a
mean with fitted weights. pool: a product with a fitted exponent for each system. classwise: exponents for each system
and class. stacking: multinomial logistic regression on all log probabilities. greedy: ensemble selection. confidence:
a mean whose weights are each system's confidence in each class."""


@dataclass(frozen=True, eq=False)
class Mean:
    """Weighted mean of probabilities, renormalised."""

    weights: np.ndarray
    """(M,) or (M, K)."""

    def check(self, m: int, k: int) -> None:
        """Raises ValueError unless the weights are for m systems and k classes."""
        if self.weights.shape not in ((m,), (m, k)):
            raise ValueError(f"weights of shape {self.weights.shape} for {m} systems, {k} classes")

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """(M, N, K) -> (N, K)."""
        weights = self.weights[:, None, None] if self.weights.ndim == 1 else self.weights[:, None]
        values = (weights * probabilities).sum(0)
        return values / values.sum(1, keepdims=True)


@dataclass(frozen=True, eq=False)
class Vote:
    """Shares of the votes for each class; the mean of the probabilities counts as one more vote and breaks ties."""

    def check(self, m: int, k: int) -> None:
        """Fits any number of systems and classes."""

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """(M, N, K) -> (N, K)."""
        votes = np.eye(probabilities.shape[2])[probabilities.argmax(2)].sum(0)
        values = votes + probabilities.mean(0)
        return values / values.sum(1, keepdims=True)


FusionRule: TypeAlias = Mean | Vote | LogLinear


@dataclass(frozen=True, eq=False)
class Fusion:
    """A fitted fusion of systems, by their names."""

    method: Method
    systems: tuple[str, ...]
    classes: tuple[str, ...]
    rule: FusionRule

    def __call__(self, outputs: Mapping[str, SystemOutput]) -> SystemOutput:
        """One output from the systems' outputs. Raises AvscError if one is missing or rows differ."""
        missing = sorted(set(self.systems) - set(outputs))
        if missing:
            raise AvscError(f"fusion: no output of {', '.join(missing)}; it is fitted for {', '.join(self.systems)}")
        files, start, classes, probabilities = stack({name: outputs[name] for name in self.systems})
        if set(classes) != set(self.classes):
            raise AvscError(f"fusion: it is fitted for the classes {', '.join(self.classes)}, not {', '.join(classes)}")
        columns = [classes.index(name) for name in self.classes]
        return SystemOutput(files, self.classes, self.rule(probabilities[:, :, columns]), start)

    def to_json(self) -> dict:
        """Plain values that `from_json` reads back."""
        values = {name: value.tolist() for name, value in asdict(self.rule).items()}
        return {"fusion": self.method, "systems": list(self.systems), "classes": list(self.classes), **values}

    @classmethod
    def from_json(cls, values: dict) -> Fusion:
        """A fusion from its plain values. Raises AvscError for values of another kind."""
        try:
            method, systems, classes = values["fusion"], tuple(values["systems"]), tuple(values["classes"])
            if method not in get_args(Method):
                raise ValueError(f"unknown method {method!r}")
            arrays = {name: np.array(values[name], dtype=np.float64) for name in ("weights", "bias") if name in values}
            kind = Vote if method == "vote" else LogLinear if "bias" in arrays else Mean
            fusion = cls(method, systems, classes, kind(**arrays))
            fusion.rule.check(len(systems), len(classes))
            fusion.rule(np.full((len(systems), 1, len(classes)), 1 / len(classes)))
        except (KeyError, TypeError, ValueError) as error:
            raise AvscError(f"fusion: not the values of a fitted one ({error}); fit it again") from None
        return fusion

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        Path(path).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Fusion:
        """Read a file that `save` wrote. Raises AvscError for another file."""
        try:
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise AvscError(f"{path}: cannot be read ({error.strerror}); give the JSON of a fusion") from None
        except ValueError:
            raise AvscError(f"{path}: not JSON; give the file that `avsc fuse --save` wrote") from None


@dataclass(frozen=True, eq=False)
class Fused:
    """The effect of fusing outputs, measured on rows whose location was not used in the fit."""

    fusions: dict[str, Fusion]
    """Method -> fusion, fitted to all rows, for further outputs of the systems."""
    outputs: dict[str, SystemOutput]
    """Method -> output for the given rows, cross-fitted by location."""
    scores: dict[str, Scores]
    """Scores of the single systems by name, then of the fusions by method."""
    folds: int

    @property
    def best(self) -> str:
        """The method with the lowest macro log loss. Choosing it afterwards makes its figure slightly optimistic."""
        return min(self.outputs, key=lambda method: self.scores[method].log_loss)

    def table(self) -> str:
        """The scores of every system and every method as text."""
        first = next(iter(self.scores.values()))
        width = max(map(len, self.scores)) + 2
        lines = [
            f"{first.protocol or 'rows'}: {first.count}, fusions cross-fitted by location in {self.folds} folds",
            f"{'':<{width}}{'log loss':>10}{'accuracy':>11}{'calibration error':>20}",
        ]
        for name, scores in self.scores.items():
            figures = f"{scores.log_loss:>10.4f}{100 * scores.accuracy:>9.2f} %{scores.calibration_error:>20.4f}"
            lines.append(f"{name:<{width}}{figures}")
        return "\n".join(lines)


def fuse(
    outputs: Mapping[str, SystemOutput],
    targets: np.ndarray,
    methods: tuple[Method, ...] = ("pool",),
    groups: np.ndarray | None = None,
    folds: int = 10,
    seed: int = 0,
    protocol: str = "",
) -> Fused:
    """Fuse outputs on the labels (N,) of the first one's rows; figures are cross-fitted by location.

    `groups` (N,) are the locations, by default those in the file names. Raises AvscError for fewer than two outputs,
    rows that differ, an unknown method or a single location.
    """
    if len(outputs) < 2:
        raise AvscError(f"fusion: {len(outputs)} output given; it takes two or more")
    files, start, classes, probabilities = stack(outputs)
    groups = np.array([location_of(file) for file in files]) if groups is None else np.asarray(groups)
    folds = min(folds, len(np.unique(groups)))
    decisions = [output.decisions for output in align(list(outputs.values()))]
    scores = {
        name: score(single, targets, classes, protocol, decided)
        for name, single, decided in zip(outputs, probabilities, decisions, strict=True)
    }
    fused: dict[str, SystemOutput] = {}
    for method in methods:
        fitted = cross_fit(_fitter(method), probabilities, targets, groups, folds, seed)
        fused[method] = SystemOutput(files, classes, fitted, start)
        scores[method] = score(fitted, targets, classes, protocol)
    fusions: dict[str, Fusion] = {
        method: Fusion(method, tuple(outputs), classes, fit(probabilities, targets, groups, method))
        for method in methods
    }
    return Fused(fusions, fused, scores, folds)


def stack(
    outputs: Mapping[str, SystemOutput],
) -> tuple[tuple[str, ...], np.ndarray | None, tuple[str, ...], np.ndarray]:
    """Files, starts and classes of the first output and the probabilities (M, N, K) of all, aligned by name."""
    aligned = align(list(outputs.values()))
    return aligned[0].files, aligned[0].start, aligned[0].classes, np.stack([one.probabilities for one in aligned])


def fit(probabilities: np.ndarray, targets: np.ndarray, groups: np.ndarray, method: Method = "pool") -> FusionRule:
    """The rule of a method for rows (M, N, K), targets (N,), groups (N,); mean, product and vote need no fit.

    The exponents of the log-linear methods are regularised towards the geometric mean.
    """
    m = len(probabilities)
    if method == "mean":
        return Mean(np.full(m, 1 / m))
    if method == "product":
        return LogLinear(np.full(m, 1 / m), np.zeros(probabilities.shape[2]))
    if method == "vote":
        return Vote()
    if method == "weights":
        return _fit_weights(probabilities, targets)
    if method == "pool":
        return fit_log_linear(probabilities, targets, groups, "system", start=1 / m)
    if method == "classwise":
        return fit_log_linear(probabilities, targets, groups, "class", start=1 / m, strength=0.3)
    if method == "stacking":
        return fit_log_linear(probabilities, targets, groups, "matrix", bias=True, start=1 / m, strength=1.0)
    if method == "greedy":
        return _fit_greedy(probabilities, targets)
    if method == "confidence":
        return _fit_confidence(probabilities, targets)
    raise AvscError(f"fusion: unknown method {method!r}; it is one of {', '.join(get_args(Method))}")


def _fitter(method: Method):
    return lambda probabilities, targets, groups: fit(probabilities, targets, groups, method)


def _fit_weights(probabilities: np.ndarray, targets: np.ndarray, rounds: int = 300) -> Mean:
    """Weights of a mixture of the systems, by expectation maximisation with equal class weights."""
    right = np.maximum(probabilities[:, np.arange(len(targets)), targets], CLIP)
    share = 1 / np.bincount(targets)[targets]
    weights = np.full(len(probabilities), 1 / len(probabilities))
    for _ in range(rounds):
        parts = weights[:, None] * right
        weights = (parts / parts.sum(0)) @ share
        weights /= weights.sum()
    return Mean(weights)


def _fit_greedy(probabilities: np.ndarray, targets: np.ndarray, rounds: int = 30) -> Mean:
    """Ensemble selection with replacement (Caruana et al., ICML 2004): repeatedly add the system that lowers the
    macro log loss most, and keep the best ensemble."""
    total = np.zeros(probabilities.shape[1:])
    chosen: list[int] = []
    losses: list[float] = []
    for size in range(1, rounds + 1):
        costs = [macro_log_loss((total + one) / size, targets) for one in probabilities]
        best = int(np.argmin(costs))
        chosen.append(best)
        losses.append(costs[best])
        total += probabilities[best]
    kept = chosen[: int(np.argmin(losses)) + 1]
    return Mean(np.bincount(kept, minlength=len(probabilities)) / len(kept))


def _fit_confidence(probabilities: np.ndarray, targets: np.ndarray) -> Mean:
    """Class-wise weights after Okazaki et al. (DCASE 2021 Task 1B): a system's weight for a class is its confidence
    in it.

    The weight is the geometric mean of the probability that the system gives the class where it is the true one,
    that is exp(-class log loss), shared among the systems. This rule is ours.
    """
    k = probabilities.shape[2]
    losses = np.stack([class_means(log_losses(one, targets), targets, k) for one in probabilities])
    weights = np.exp(-np.nan_to_num(losses))
    return Mean(weights / weights.sum(0))
