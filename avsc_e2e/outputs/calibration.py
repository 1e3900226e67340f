"""Calibration: probabilities that match the observed frequencies, for a lower log loss.

Axes: N rows, K classes. A fitted calibration is a small JSON file, or text in the metadata of a checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np

from avsc_e2e.errors import AvscError
from avsc_e2e.outputs.folds import choose, cross_fit
from avsc_e2e.outputs.loglinear import LogLinear, fit_log_linear
from avsc_e2e.outputs.metrics import Scores, score
from avsc_e2e.outputs.names import location_of
from avsc_e2e.outputs.output import SystemOutput

Method: TypeAlias = Literal["temperature", "classwise", "vector", "isotonic", "floor"]
"""temperature: one exponent for all classes. classwise: an exponent for each class. vector: an exponent and a bias for
each class. isotonic: any rising curve for each class. floor: a lower bound of the probability for each class."""

CELL = 0.001
"""Isotonic probabilities keep this distance from 0 and 1, which steps fitted to few rows would reach."""

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Candidate shares of the isotonic curves; cross-validation chooses one."""

GRID = np.concatenate([[1e-6], np.geomspace(1e-4, 0.1, 25)])
"""Candidate lower bounds of confidence replacement."""


@dataclass(frozen=True, eq=False)
class Isotonic:
    """A rising, piecewise linear curve for each class, then renormalised (Zadrozny and Elkan, KDD 2002)."""

    given: tuple[tuple[float, ...], ...]
    """For each class, probabilities at the corners of its curve, rising."""
    true: tuple[tuple[float, ...], ...]
    """The calibrated probabilities at these corners."""
    share: float = 1.0
    """Share of the curves in the result; the rest is the given probability. Curves from few locations are
    overconfident."""

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """(N, K) -> (N, K)."""
        curves = [np.interp(column, x, y) for column, x, y in zip(probabilities.T, self.given, self.true, strict=True)]
        values = np.clip(np.stack(curves, axis=1), CELL, 1 - CELL)
        values /= values.sum(1, keepdims=True)
        return self.share * values + (1 - self.share) * probabilities / probabilities.sum(1, keepdims=True)


@dataclass(frozen=True, eq=False)
class Floors:
    """Confidence replacement: probabilities below the floor of their class are raised to it, then rows are
    renormalised.

    After Okazaki et al. (DCASE 2021 Task 1B), who bound the confidence that enters the log loss; a floor
    for each class that minimises macro log loss is our rule.
    """

    floor: np.ndarray
    """(K,)"""

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """(N, K) -> (N, K)."""
        values = np.maximum(probabilities, self.floor)
        return values / values.sum(1, keepdims=True)


@dataclass(frozen=True, eq=False)
class Calibration:
    """A fitted calibration, for outputs of the system that it was fitted on."""

    method: Method
    classes: tuple[str, ...]
    rule: LogLinear | Isotonic | Floors

    def __call__(self, output: SystemOutput) -> SystemOutput:
        """The calibrated output. A temperature changes no decision; by other methods they follow the probabilities."""
        if set(output.classes) != set(self.classes):
            raise AvscError(
                f"calibration: it is for the classes {', '.join(self.classes)}, not {', '.join(output.classes)}"
            )
        columns = [output.classes.index(name) for name in self.classes]
        probabilities = _apply(self.rule, output.probabilities[:, columns])
        predicted = output.predicted if self.method == "temperature" else None
        return SystemOutput(output.files, self.classes, probabilities, output.start, predicted)

    def to_json(self) -> dict:
        """Plain values that `from_json` reads back."""
        values = {
            name: np.asarray(v).tolist() if isinstance(v, np.ndarray) else v for name, v in asdict(self.rule).items()
        }
        return {"calibration": self.method, "classes": list(self.classes), **values}

    @classmethod
    def from_json(cls, values: dict) -> Calibration:
        """A calibration from its plain values. Raises AvscError for values of another kind."""
        try:
            method, classes = values["calibration"], tuple(values["classes"])
            rule: LogLinear | Isotonic | Floors
            if method == "isotonic":
                given, true = (tuple(map(tuple, values[name])) for name in ("given", "true"))
                if not len(given) == len(true) == len(classes):
                    raise ValueError(f"{len(given)} curves for {len(classes)} classes")
                rule = Isotonic(given, true, float(values["share"]))
            elif method == "floor":
                floor = np.array(values["floor"], dtype=np.float64)
                if floor.shape != (len(classes),):
                    raise ValueError(f"{floor.size} floors for {len(classes)} classes")
                rule = Floors(floor)
            elif method in get_args(Method):
                linear = LogLinear(*(np.array(values[name], dtype=np.float64) for name in ("weights", "bias")))
                linear.check(1, len(classes))
                rule = linear
            else:
                raise ValueError(f"unknown method {method!r}")
            calibration = cls(method, classes, rule)
            _apply(rule, np.full((1, len(classes)), 1 / len(classes)))
        except (KeyError, TypeError, ValueError) as error:
            raise AvscError(f"calibration: not the values of a fitted one ({error}); fit it again") from None
        return calibration

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        Path(path).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a file that `save` wrote. Raises AvscError for another file."""
        try:
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise AvscError(f"{path}: cannot be read ({error.strerror}); give the JSON of a calibration") from None
        except (ValueError, RecursionError):
            raise AvscError(f"{path}: not JSON; give the file that `avsc calibrate --save` wrote") from None


@dataclass(frozen=True, eq=False)
class Calibrated:
    """The effect of calibrating one output, measured on rows whose location was not used in the fit."""

    calibration: Calibration
    """Fitted to all rows, for further outputs of the system."""
    output: SystemOutput
    """The given rows, cross-fitted by location."""
    before: Scores
    after: Scores
    folds: int

    def table(self) -> str:
        """Before and after."""
        lines = [
            f"{self.calibration.method} calibration, {self.before.protocol or 'rows'}: {self.before.count},"
            f" cross-fitted by location in {self.folds} folds",
            f"{'':<10}{'log loss':>10}{'accuracy':>11}{'calibration error':>20}{'Brier':>9}",
        ]
        for name, scores in (("before", self.before), ("after", self.after)):
            lines.append(
                f"{name:<10}{scores.log_loss:>10.4f}{100 * scores.accuracy:>9.2f} %"
                f"{scores.calibration_error:>20.4f}{scores.brier:>9.4f}"
            )
        return "\n".join(lines)


def calibrate(
    output: SystemOutput,
    targets: np.ndarray,
    method: Method = "temperature",
    groups: np.ndarray | None = None,
    folds: int = 10,
    seed: int = 0,
    protocol: str = "",
) -> Calibrated:
    """Calibrate one output on its own labels (N,). Each row is scored with a fit on other locations.

    `groups` (N,) are the locations, by default those in the file names. To fit on one file and use the calibration on
    another, call `.calibration` of the result on that. Raises AvscError for an unknown method or a single location.
    """
    groups = np.array([location_of(file) for file in output.files]) if groups is None else np.asarray(groups)
    folds = min(folds, len(np.unique(groups)))
    fitted = cross_fit(
        lambda p, t, g: _applier(fit(p, t, g, method)), output.probabilities, targets, groups, folds, seed
    )
    predicted = output.predicted if method == "temperature" else None
    after = SystemOutput(output.files, output.classes, fitted, output.start, predicted)
    return Calibrated(
        calibration=Calibration(method, output.classes, fit(output.probabilities, targets, groups, method)),
        output=after,
        before=score(output.probabilities, targets, output.classes, protocol, output.decisions),
        after=score(fitted, targets, output.classes, protocol, after.decisions),
        folds=folds,
    )


def fit(
    probabilities: np.ndarray, targets: np.ndarray, groups: np.ndarray, method: Method = "temperature"
) -> LogLinear | Isotonic | Floors:
    """The rule with the least macro log loss on rows (N, K), targets (N,), groups (N,).

    The temperature is regularised towards 1. For the other scalings and for isotonic curves, cross-validation by groups
    within these rows chooses the strength of the regularisation.
    """
    if method == "isotonic":
        share = choose(lambda value: lambda p, t, _: _fit_isotonic(p, t, value), SHARES, probabilities, targets, groups)
        return _fit_isotonic(probabilities, targets, share)
    if method == "floor":
        return _fit_floors(probabilities, targets)
    if method == "temperature":
        return fit_log_linear(probabilities[None], targets, groups)
    if method in ("classwise", "vector"):
        return fit_log_linear(probabilities[None], targets, groups, "class", bias=method == "vector", strength=None)
    raise AvscError(f"calibration: unknown method {method!r}; it is one of {', '.join(get_args(Method))}")


def _applier(rule: LogLinear | Isotonic | Floors):
    return lambda probabilities: _apply(rule, probabilities)


def _apply(rule: LogLinear | Isotonic | Floors, probabilities: np.ndarray) -> np.ndarray:
    return rule(probabilities[None]) if isinstance(rule, LogLinear) else rule(probabilities)


def _fit_isotonic(probabilities: np.ndarray, targets: np.ndarray, share: float) -> Isotonic:
    """One curve for each class against all others, with equal class weights; a class without rows keeps its values."""
    from sklearn.isotonic import IsotonicRegression  # slow, and prediction does not need it

    weights = 1 / np.bincount(targets)[targets]
    given, true = [], []
    for label in range(probabilities.shape[1]):
        if not (targets == label).any():
            given.append((0.0, 1.0))
            true.append((0.0, 1.0))
            continue
        curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        curve.fit(probabilities[:, label], targets == label, sample_weight=weights)
        given.append(tuple(curve.X_thresholds_.tolist()))
        true.append(tuple(curve.y_thresholds_.tolist()))
    return Isotonic(tuple(given), tuple(true), share)


def _fit_floors(probabilities: np.ndarray, targets: np.ndarray, rounds: int = 3) -> Floors:
    """Coordinate descent over the grid: the best common floor, then class by class."""
    n, k = probabilities.shape
    share = 1 / (np.bincount(targets, minlength=k)[targets] * len(np.unique(targets)))
    rows = np.arange(n)

    def loss(floor: np.ndarray) -> float:
        values = np.maximum(probabilities, floor)
        return float((share * (np.log(values.sum(1)) - np.log(values[rows, targets]))).sum())

    floor = np.full(k, GRID[int(np.argmin([loss(np.full(k, value)) for value in GRID]))])
    for _ in range(rounds):
        for label in range(k):
            values = np.maximum(probabilities, floor)
            others = values.sum(1) - values[:, label]
            column = np.maximum(probabilities[:, label, None], GRID)
            costs = share @ np.log(others[:, None] + column) - share[targets == label] @ np.log(
                column[targets == label]
            )
            floor[label] = GRID[int(costs.argmin())]
    return Floors(floor)
