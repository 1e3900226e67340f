"""The true scenes of recordings, and the targets of an output's rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avsc_e2e.errors import AvscError
from avsc_e2e.outputs.names import base_of, path_of
from avsc_e2e.outputs.output import DECISION_COLUMNS, FILE_COLUMNS, LABEL_COLUMNS, SystemOutput
from avsc_e2e.outputs.table import read_table


def read_reference(path: str | Path) -> dict[str, str]:
    """The true scene of every file, by base name without extension.

    Reads the set's own `meta.csv` and `fold1_evaluate.csv`, a system output that carries labels beside its
    decisions, and any table with a file column and a label column. Where two folders hold files of one base
    name, their keys keep the folder. Raises AvscError for a file without labels and for two scenes of one
    file.
    """
    table = read_table(path)
    file_column = table.column(FILE_COLUMNS, "the file names")
    label_column = table.column(LABEL_COLUMNS, "the true scenes")
    scenes = [row[label_column].strip() for row in table.rows]
    table.refuse(np.array([not scene for scene in scenes]), "the scene is empty")
    if table.optional(DECISION_COLUMNS) is None and set(scenes) <= set(table.header):
        raise AvscError(
            f"{path}: a system output without true labels: its {table.header[label_column]} is the decision"
        )
    by_path: dict[str, str] = {}
    for number, row, scene in zip(table.lines, table.rows, scenes, strict=True):
        if by_path.setdefault(path_of(row[file_column].strip()), scene) != scene:
            raise AvscError(f"{path}, line {number}: {row[file_column]} has another scene in an earlier line")
    bases: dict[str, int] = {}
    for name in by_path:
        bases[base_of(name)] = bases.get(base_of(name), 0) + 1
    return {name if bases[base_of(name)] > 1 else base_of(name): scene for name, scene in by_path.items()}


def targets_of(output: SystemOutput, reference: dict[str, str]) -> np.ndarray:
    """(N,) index of the true class of every row, by name; AvscError for an unknown file or scene."""
    index = {name: i for i, name in enumerate(output.classes)}
    targets = np.empty(len(output), dtype=np.int64)
    for i, file in enumerate(output.files):
        scene = reference.get(file) or reference.get(path_of(file)) or reference.get(base_of(file))
        if scene is None:
            raise AvscError(f"reference: no scene for {file}; give the reference of these recordings")
        if scene not in index:
            raise AvscError(f"reference: {file} is of scene {scene!r}; the output's are {', '.join(output.classes)}")
        targets[i] = index[scene]
    return targets
