"""The run log: metrics.csv, classes.csv, timing.csv, and the summary at the end."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from avsc_e2e.durable import replacing
from avsc_e2e.outputs.metrics import score


class ClassScore(NamedTuple):
    """Scores of one class on the validation set."""

    name: str
    clips: int
    recall: float
    """Share of its clips with the right decision."""
    log_loss: float
    """Mean log loss over its clips, nats."""


class RunLog:
    """The rows of a run's tables, one epoch at a time. The checkpoint stores them, so a resumed run writes the same
    tables as an unbroken one: metrics.csv except for its column `seconds`, and classes.csv. Values that depend on the
    machine are in timing.csv."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.metrics: list[dict] = []
        self.classes: list[dict] = []
        self.timing: list[dict] = []

    def state(self) -> dict:
        return {"metrics": self.metrics, "classes": self.classes, "timing": self.timing}

    def restore(self, state: dict) -> None:
        self.metrics, self.classes = list(state["metrics"]), list(state["classes"])
        self.timing = list(state["timing"])

    def add(self, metrics: dict, classes: Sequence[ClassScore], timing: dict) -> None:
        epoch = metrics["epoch"]
        self.metrics.append(metrics)
        self.classes += [{"epoch": epoch, **one._asdict()} for one in classes]
        self.timing.append({"epoch": epoch, **timing})

    def write(self) -> None:
        """Write all tables again. Raises AvscError if the disk is full."""
        for name in ("metrics", "classes", "timing"):
            with replacing(self.folder / f"{name}.csv") as partial:
                partial.write_text(as_csv(getattr(self, name)))

    def add_step(self, row: dict) -> None:
        """Append a row to steps.csv, which is too long to be stored in the checkpoint."""
        path = self.folder / "steps.csv"
        lines = as_csv([row]).splitlines(keepends=True)
        with path.open("a") as file:
            file.writelines(lines if not file.tell() else lines[1:])

    def forget_steps_after(self, step: int) -> None:
        """Remove rows of steps.csv from after the checkpoint that a run resumes from."""
        path = self.folder / "steps.csv"
        if path.is_file():
            with path.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if row["step"] and int(row["step"]) <= step]
            with replacing(path) as partial:
                partial.write_text(as_csv(kept) if kept else "")

    @property
    def best(self) -> dict:
        """The row of the epoch with the lowest macro log loss on the validation set."""
        return min(self.metrics, key=lambda row: row["validation_log_loss"])

    def ranked(self, count: int) -> list[int]:
        """Numbers of the best epochs (from 1), the best first."""
        rows = sorted(self.metrics, key=lambda row: (row["validation_log_loss"], row["epoch"]))
        return [row["epoch"] for row in rows[:count]]

    @property
    def without_gain(self) -> int:
        """Number of epochs since the best one."""
        return len(self.metrics) - self.best["epoch"] if self.metrics else 0

    def summary(self, name: str, checkpoint: Path, ended: str = "") -> str:
        """A few lines on the run as a whole."""
        best, timing = self.best, self.timing
        heads = [key.removeprefix("validation_log_loss_") for key in best if key.startswith("validation_log_loss_")]
        seconds = sum(row["seconds"] for row in timing)
        clips = sum(row["clips"] for row in timing)
        waited = sum(row["data_wait"] * row["train_seconds"] for row in timing)
        learned = max(sum(row["train_seconds"] for row in timing), 1e-9)
        lines = [
            f"{name}: {len(self.metrics)} epochs, {best['step'] // best['epoch']} steps each{ended}",
            f"  best epoch {best['epoch']}: validation log loss {best['validation_log_loss']:.3f}, "
            f"accuracy {100 * best['validation_accuracy']:.1f} %",
        ]
        if heads:
            each = (f"{head} {best[f'validation_log_loss_{head}']:.3f}" for head in heads)
            lines.append(f"  its heads' log losses: {', '.join(each)}")
        of_best = [row for row in self.classes if row["epoch"] == best["epoch"]]
        lines.append(f"  its weakest classes: {weakest(of_best)}")
        lines.append(
            f"  {seconds:.0f} s in all; training {clips / learned:.1f} clips/s, {100 * waited / learned:.0f} % of its "
            f"time waiting for data" + memory_text(max(row["gpu_memory_gib"] for row in timing))
        )
        lines.append(f"  {checkpoint}")
        return "\n".join(lines)


def memory_text(gib: float) -> str:
    return f", {gib:.1f} GiB of GPU memory" if gib else ""


def weakest(rows: Sequence[Mapping], count: int = 3) -> str:
    """The classes with the lowest recall, as text."""
    rows = sorted(rows, key=lambda row: (row["recall"], -row["log_loss"]))[:count]
    return ", ".join(f"{row['name']} {100 * row['recall']:.0f} %" for row in rows)


def class_scores(probabilities: np.ndarray, truth: np.ndarray, classes: Sequence[str]) -> list[ClassScore]:
    """Scores of every class that has clips, from probabilities (N, K) and targets (N,)."""
    found = score(probabilities, truth, tuple(classes))
    columns = found.class_count.tolist(), found.class_accuracy.tolist(), found.class_log_loss.tolist()
    return [ClassScore(name, *each) for name, *each in zip(classes, *columns, strict=True) if each[0]]


def as_csv(rows: Sequence[Mapping]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
