"""Recordings of class folders that training, evaluation or prediction would refuse or skip, found before a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from avsc_e2e.clip import MODALITIES, Row
from avsc_e2e.data.sets.duplicates import find_copies, join
from avsc_e2e.data.sets.folder import divide
from avsc_e2e.data.sets.grouping import ADVICE, group_rows
from avsc_e2e.data.sets.listing import Fault, Scan
from avsc_e2e.data.sets.rows import measure
from avsc_e2e.errors import AvscError

SHOWN = 20
"""Number of ignored files that are named; more are counted."""


class Foretold(NamedTuple):
    """What training and evaluation would refuse or leave out of class folders."""

    parts: dict[str, list[Row]]
    """Measured rows with their sources."""
    faults: list[tuple[str, Fault]]
    """Faults that stop a run or make evaluation unfair: kind (list, count, split, format) and fault."""
    notes: list[str]
    """What some stages would leave out."""


def foretell(
    root: str, found: Scan, *, group: str = "", groups: str | os.PathLike[str] = "", test: float, validation: float
) -> Foretold:
    """Check a scan against all requirements of a run."""
    faults = [("list", fault) for fault in found.faults]
    notes = [f"{one.path}: {one.reason}: {one.mend}" for one in found.passed_over[:SHOWN]]
    if len(found.passed_over) > SHOWN:
        notes.append(f"and {len(found.passed_over) - SHOWN} more ignored files")
    parts = {part: measure(rows, lenient=True, drop=True) for part, rows in found.parts.items()}
    try:
        parts = group_rows(parts, group, groups)
    except AvscError as error:
        faults.append(("list", Fault(root, f"{error}", "correct the rule or the list")))
        parts = {part: [row._replace(location=row.file) for row in rows] for part, rows in parts.items()}
    rows = [row for of_part in parts.values() for row in of_part]
    part_of = {row.file: part for part, of_part in parts.items() for row in of_part}
    copies = list(find_copies([row._replace(location=row.file) for row in rows]))
    for first, second, exact in copies:
        what = "is the same recording as" if exact else "is a near copy of"
        if part_of[first.file] != part_of[second.file]:
            reason = f"{what} {first.file}, and they are in different parts"
            faults.append(("split", Fault(_path(second), reason, "remove one")))
        elif first.scene != second.scene:
            reason = f"{what} {first.file}, which is in another class"
            faults.append(("split", Fault(_path(second), reason, "remove it from the class it does not belong to")))
        else:
            notes.append(f"{second.file} {what} {first.file}: they count as one source")
    parts = join(parts, [(first.file, second.file) for first, second, _ in copies])
    faults += _few_sources(root, parts, test, validation)
    if not any(kind == "count" for kind, _ in faults) and not found.faults:
        try:
            divide(root, parts, validation=validation, test=test, seed=0)
        except AvscError as error:
            faults.append(("count", Fault(root, f"{error}".removeprefix(f"{root}: "), "see above")))
    faults += _without(root, parts, notes)
    return Foretold(parts, faults, notes)


def _few_sources(
    root: str, parts: Mapping[str, Sequence[Row]], test: float, validation: float
) -> list[tuple[str, Fault]]:
    """Classes with too few sources for the requested parts, and classes without training recordings."""
    trained = "" if "" in parts else "train"
    needed = 1 + bool(validation and "validation" not in parts) + bool(test and not trained)
    faults = []
    scenes = sorted({row.scene for rows in parts.values() for row in rows})
    for scene in scenes:
        rows = [row for row in parts.get(trained, ()) if row.scene == scene]
        sources = {row.location for row in rows}
        if not rows:
            fault = Fault(os.path.join(root, scene), "no training recordings of this class", "add some, or remove it")
            faults.append(("count", fault))
        elif len(sources) < needed:
            reason = (
                f"{len(rows)} recordings of {len(sources)} sources, such as {min(sources)!r}: too few to cut "
                f"{needed - 1} parts from"
            )
            mend = f"add recordings of other sources; {ADVICE}; or ask for no such part (0)"
            faults.append(("count", Fault(os.path.join(root, trained, scene), reason, mend)))
    if len(scenes) == 1:
        faults.append(("count", Fault(root, f"a single class, {scenes[0]!r}", "add a folder of another class")))
    return faults


def _without(root: str, parts: Mapping[str, Sequence[Row]], notes: list[str]) -> list[tuple[str, Fault]]:
    """Recordings that stages of one modality leave out, and classes of which these stages would have no recording."""
    faults = []
    rows = [row for rows in parts.values() for row in rows]
    trained = parts.get("", parts.get("train", ()))
    for modality in MODALITIES:
        lacking = [row for row in rows if not getattr(row, modality)]
        if lacking and len(lacking) < len(rows):
            notes.append(
                f"{len(lacking)} of {len(rows)} recordings have no {modality}, such as {lacking[0].file}: models of "
                f"{modality} alone leave them out, other models use the other modality"
            )
            for scene in sorted({row.scene for row in lacking}):
                if not any(getattr(row, modality) for row in trained if row.scene == scene):
                    reason = f"no recording of this class has {modality}"
                    mend = f"add some, or do not train a model of {modality} alone"
                    faults.append(("count", Fault(os.path.join(root, scene), reason, mend)))
        elif lacking:
            notes.append(f"no recording has {modality}: train a model of the other modality")
    return faults


def _path(row: Row) -> str:
    return row.video or row.audio or row.file
