"""Further results of a report: the learner's ladder, and figures under noise and missing input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from avsc_e2e.errors import AvscError
from avsc_e2e.outputs.intervals import Interval


@dataclass(frozen=True)
class Rung:
    """One candidate that the learner tried, with its out-of-fold figures."""

    name: str
    """A description, such as "logistic regression on frozen features"."""
    log_loss: float = math.nan
    """Out-of-fold macro log loss, nats; nan if it was not tried."""
    accuracy: float = math.nan
    """Out-of-fold macro accuracy, 0 to 1."""
    seconds: float = math.nan
    """Wall-clock time that it took."""
    log_loss_interval: Interval | None = None
    """95 % interval by source; None if there are too few sources."""
    accuracy_interval: Interval | None = None
    note: str = ""
    """One line, such as "skipped: no time left"."""


@dataclass(frozen=True)
class Ladder:
    """The candidates of `avsc train DATA`, cheapest first, and the one that became the checkpoint.

    `Report(..., ladder=Ladder((Rung("frozen probe", 0.31, 0.91, 12.0), ...), chosen="frozen probe", method="..."))`.
    Raises AvscError if `chosen` is not the name of a rung.
    """

    rungs: tuple[Rung, ...]
    chosen: str
    """The name of the rung that the checkpoint holds."""
    method: str
    """The method behind the figures, in one sentence: "Five folds by source; each recording is predicted by the model
    that was not trained on its source."."""
    recordings: int = 0
    """Number of recordings of these figures; 0: not stated."""
    sources: int = 0
    """Number of their source recordings or locations; 0: not stated."""

    def __post_init__(self):
        names = [rung.name for rung in self.rungs]
        if self.chosen not in names:
            raise AvscError(f"report: {self.chosen!r} is not among the rungs: {', '.join(names)}")


@dataclass(frozen=True)
class Robustness:
    """Macro log loss of one or more systems under one disturbance, from none to strongest.

    Levels that are numbers give curves; names ("audio and video", "audio only") give bars. Raises AvscError unless each
    system has one figure for each level.
    """

    disturbance: str
    """Name of the change of the input, such as "white noise" or "missing modality"."""
    levels: tuple[float, ...] | tuple[str, ...]
    log_loss: Mapping[str, tuple[float, ...]]
    """System -> macro log loss (nats) at each level; nan if there is none."""
    accuracy: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """System -> macro accuracy (0 to 1) at each level."""
    unit: str = ""
    """Unit of the levels, such as "dB signal-to-noise ratio"."""
    note: str = ""
    """How it was measured, in one sentence: recordings, protocol, seed."""

    def __post_init__(self):
        for figures in (self.log_loss, self.accuracy):
            for name, values in figures.items():
                if len(values) != len(self.levels):
                    raise AvscError(
                        f"report: {name} has {len(values)} figures for {len(self.levels)} levels of "
                        f"{self.disturbance}; give one a level, nan where there is none"
                    )

    @property
    def is_numeric(self) -> bool:
        """Whether the levels are numbers, so that a curve can be drawn."""
        return all(isinstance(level, (int, float)) for level in self.levels)

    @property
    def text(self) -> str:
        """The figures as a table for the terminal: one line for each level, with log loss and accuracy of each
        system."""
        levels = [f"{level:g} {self.unit}" if self.is_numeric else str(level) for level in self.levels]
        width = max(map(len, levels))
        lines = [f"{self.disturbance}{f' ({self.unit})' * bool(self.unit and not self.is_numeric)}: {self.note}"]
        for index, level in enumerate(levels):
            cells = [
                f"{losses[index]:8.3f}" + (f"  {100 * self.accuracy[name][index]:5.1f} %" if self.accuracy else "")
                for name, losses in self.log_loss.items()
            ]
            lines.append(f"  {level:<{width}}  " + "  ".join(cells))
        return "\n".join(lines)
