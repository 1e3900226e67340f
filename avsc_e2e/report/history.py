"""The epochs of a training run, from its metrics.csv."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

from avsc_e2e.errors import AvscError


@dataclass(frozen=True, eq=False)
class History:
    """The figures of a training run, epoch by epoch."""

    epochs: list[float]
    columns: dict[str, list[float]]
    """Name -> one figure for each epoch; nan if none was logged."""
    judge: str = ""
    """The column that chose the best epoch; empty if there is none."""

    @property
    def best(self) -> int | None:
        values = self.columns.get(self.judge, [])
        finite = [i for i, value in enumerate(values) if math.isfinite(value)]
        return min(finite, key=values.__getitem__, default=None)


def read_history(path: str | Path) -> History:
    """The epochs of a training's metrics.csv, whichever columns it has; the last figure of an epoch counts.

    Raises AvscError for a file that is missing or has no epochs.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AvscError(f"{path}: cannot be read as a training's metrics.csv ({error})") from None
    epochs: dict[float, dict[str, float]] = {}
    for number, line in enumerate(csv.DictReader(io.StringIO(text))):
        figures = {name: _float(value) for name, value in line.items() if name}
        figures = {name: value for name, value in figures.items() if math.isfinite(value)}
        epoch = figures.pop("epoch", float(number))
        figures.pop("step", None)
        if figures:
            epochs.setdefault(epoch, {}).update(figures)
    if not epochs:
        raise AvscError(f"{path}: no epoch with a figure in it; give the metrics.csv that the training wrote")
    order = sorted(epochs)
    names = dict.fromkeys(name for epoch in order for name in epochs[epoch])
    columns = {name: [epochs[epoch].get(name, math.nan) for epoch in order] for name in names}
    # the shortest name is that of the decision: validation_log_loss, not validation_log_loss_audio
    judges = sorted((name for name in columns if "val" in name.lower() and "loss" in name.lower()), key=len)
    return History(order, columns, next((n for n in judges if "log_loss" in n), next(iter(judges), "")))


def _float(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
