"""The ladder: every rung with its figures out of fold, as a table, a CSV and a part of the report."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path

from avsc_e2e.durable import replacing
from avsc_e2e.outputs.intervals import Interval
from avsc_e2e.report.trials import Ladder as ReportLadder
from avsc_e2e.report.trials import Rung as ReportRung


@dataclass(frozen=True)
class Rung:
    """One candidate, and how it does on sources that it was not fitted on."""

    name: str
    log_loss: float
    """Macro log loss out of fold, nats."""
    accuracy: float
    """Macro accuracy out of fold, 0 to 1."""
    seconds: float
    """Since the start of the run."""
    error: float = math.nan
    """Standard error of the log loss by source."""
    note: str = ""

    def __str__(self) -> str:
        figures = f"{self.log_loss:8.3f} {100 * self.accuracy:7.1f} % {self.seconds:7.0f} s"
        return f"{self.name:<44}{figures}  {self.note}".rstrip()


@dataclass
class Ladder:
    """Rungs in the order in which they were reached."""

    rungs: list[Rung] = field(default_factory=list)
    chosen: str = ""
    """The rung that the checkpoint holds."""
    method: str = ""
    """How the figures were found, one sentence."""

    HEAD = f"{'rung':<44}log loss  accuracy    time"

    def add(self, rung: Rung) -> None:
        self.rungs = [one for one in self.rungs if one.name != rung.name] + [rung]

    @classmethod
    def read(cls, path: Path) -> Ladder:
        """What an earlier run wrote; empty where it wrote nothing."""
        if not path.is_file():
            return cls()
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        rungs = [
            Rung(
                row["rung"], float(row["log_loss"]), float(row["accuracy"]), float(row["seconds"]),
                float(row["standard_error"]), row["note"],
            )
            for row in rows
        ]  # fmt: skip
        return cls(rungs, next((row["rung"] for row in rows if row["chosen"] == "1"), ""))

    def write(self, path: Path) -> None:
        """The CSV, whole or as it was before."""
        with replacing(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(("rung", "log_loss", "accuracy", "seconds", "standard_error", "chosen", "note"))
            for rung in self.rungs:
                figures = f"{rung.log_loss:.4f}", f"{rung.accuracy:.4f}", f"{rung.seconds:.1f}", f"{rung.error:.4f}"
                lines.writerow((rung.name, *figures, int(rung.name == self.chosen), rung.note))

    def verdict(self) -> str:
        """The chosen rung with its interval by source, and how far to trust it; empty before one is chosen."""
        rung = next((one for one in self.rungs if one.name == self.chosen), None)
        if rung is None:
            return ""
        low, high = (max(rung.log_loss + side * 1.96 * rung.error, 0.0) for side in (-1, 1))
        return (
            f"out of fold, {rung.name}: macro log loss {rung.log_loss:.3f} (95 % by source: {low:.3f} to {high:.3f}), "
            f"macro accuracy {100 * rung.accuracy:.1f} %; chosen among {len(self.rungs)} rungs, so a little too good"
        )

    def report(self, recordings: int, sources: int) -> ReportLadder:
        """The part of the report."""
        rungs = tuple(
            ReportRung(
                rung.name,
                rung.log_loss,
                rung.accuracy,
                rung.seconds,
                Interval(max(rung.log_loss - 1.96 * rung.error, 0.0), rung.log_loss + 1.96 * rung.error)
                if math.isfinite(rung.error)
                else None,
                note=rung.note,
            )
            for rung in self.rungs
        )
        return ReportLadder(rungs, self.chosen, self.method, recordings, sources)
