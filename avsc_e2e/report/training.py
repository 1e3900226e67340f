"""Values of the sections about training: curves under plain names, and the configuration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from avsc_e2e.report import charts, plots
from avsc_e2e.report.history import History, read_history
from avsc_e2e.report.report import Report
from avsc_e2e.report.values import fields_of, versions
from avsc_e2e.report.words import number

KINDS = {
    "train_loss": ("Training loss", "training loss"),
    "validation_log_loss": ("Validation log loss", "validation log loss"),
    "validation_accuracy": ("Validation accuracy", "validation accuracy"),
    "lr": ("Learning rate", "learning rate"),
}
"""Start of a column's name -> title of its chart, name of its curve."""


class Figure(NamedTuple):
    """Curves of one kind."""

    title: str
    series: list[charts.Series]
    curves: plots.Curves


class Stage(NamedTuple):
    """The curves of a stage."""

    name: str
    figures: list[Figure]
    kept: str
    """One sentence about the epoch that was kept; empty if there is none."""
    head: list[str]
    rows: list[list[str]]
    """One row for each epoch."""
    best: int | None
    """Index of the epoch that was kept."""


def training(report: Report) -> list[Stage]:
    """Curves of each stage, without duplicates."""
    if not report.history:
        return []
    stages = report.history if isinstance(report.history, Mapping) else {"": report.history}
    found: dict[str, History] = {}
    for name, path in stages.items():
        history = read_history(path)
        if all(history.columns != other.columns for other in found.values()):
            found[name] = history
    return [_stage(report, name, history) for name, history in found.items()]


def plain_name(column: str) -> str:
    """A column of metrics.csv in words: "validation_log_loss_audio" is "validation log loss, audio"."""
    for start, (_, words) in KINDS.items():
        if column == start or column.startswith(f"{start}_"):
            rest = column[len(start) + 1 :].replace("_", " ")
            return f"{words}, {rest}" if rest else words
    return column.replace("_", " ")


def distinct(history: History) -> list[str]:
    """The columns without time and without heads whose figures equal the decision's."""
    kept: list[str] = []
    for name, values in history.columns.items():
        if name == "seconds":
            continue
        same = lambda other, values=values: all(  # noqa: E731
            a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(history.columns[other], values, strict=True)
        )
        if not any(name.startswith(other) and same(other) for other in kept):
            kept.append(name)
    return kept


def _stage(report: Report, stage: str, history: History) -> Stage:
    names = distinct(history)
    groups: dict[str, list[str]] = {}
    for name in names:
        title = next((kind[0] for start, kind in KINDS.items() if name.startswith(start)), "Other figures")
        groups.setdefault(title, []).append(name)
    if len(groups.get("Training loss", ())) == len(groups.get("Validation log loss", ())) == 1:
        # training and validation in one chart show where over-fitting begins
        groups = {"Loss": groups.pop("Training loss") + groups.pop("Validation log loss"), **groups}
    figures = []
    for title, columns in groups.items():
        series = [
            charts.Series(plain_name(name), colour, history.columns[name])
            for name, colour in zip(columns, _curve_colours(report, columns), strict=True)
        ]
        form = ".1%" if "accuracy" in title.lower() else ".3g"
        label = f"{title} over the epochs{f' of {stage}' if stage else ''}; numbers in the table below."
        figures.append(Figure(title, series, plots.curves(history.epochs, series, form, label, history.best)))
    rows = [
        [f"{epoch:g}", *(number(history.columns[name][i], ".4g") for name in names)]
        for i, epoch in enumerate(history.epochs)
    ]
    kept = ""
    if history.best is not None:
        kept = (
            f"Dashed: epoch {history.epochs[history.best]:g} has the lowest {plain_name(history.judge)}, "
            f"{history.columns[history.judge][history.best]:.4f}."
        )
    return Stage(stage, figures, kept, ["epoch", *map(plain_name, names)], rows, history.best)


class Configuration(NamedTuple):
    """Settings, each with its name, value and default, and the versions."""

    changed: list[tuple[str, str, str]]
    same: list[tuple[str, str, str]]
    versions: dict[str, str]


def configuration(report: Report) -> Configuration:
    """All settings, first those that differ from their default, and the versions."""
    changed: list[tuple[str, str, str]] = []
    same: list[tuple[str, str, str]] = []
    defaults = dict(settings(report.defaults)) if report.defaults else None
    for name, value in settings(report.configuration or {}):
        default = defaults.get(name, "–") if defaults is not None else ""
        (changed if defaults is not None and value != default else same).append((name, value, default))
    return Configuration(changed, same, versions())


def settings(value: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and shown values of a nested configuration."""
    for key, item in value.items():
        fields = fields_of(item)
        if fields is None:
            yield f"{prefix}{key}", _shown(item)
        else:
            yield from settings(fields, f"{prefix}{key}.")


def _curve_colours(report: Report, names: Sequence[str]) -> list[int]:
    """Colours of the columns: that of the output in the column's name; for the decision, that of the system, with its
    training curve in grey; other columns take the next free colour."""
    colours, free = [], [3, 5, 6, 7, 1, 2, 4, 0]
    for name in names:
        word = name.lower()
        wish = next((colour for system, colour in report.colours.items() if word.endswith(f"_{system.lower()}")), 0)
        if wish == 0:
            wish = 1 if "audio" in word else 2 if "video" in word else 0
        if wish == 0 and "train" in word and any("train" not in other.lower() for other in names):
            wish = 4
        if wish in colours:
            wish = next((colour for colour in free if colour not in colours), wish)
        colours.append(wish)
    return colours


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return "–" if value is None or value == "" else str(value)
