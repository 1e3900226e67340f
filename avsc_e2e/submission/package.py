"""The DCASE 2021 Task 1B package: system outputs, their meta.yaml and the report in one checked archive.

<root>/task1/<label>/<label>.output.csv and <label>.meta.yaml for each system, <root>/task1/ for the report; a label
is Lastname_Institute_task1b_N.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from avsc_e2e.clip import SCENES
from avsc_e2e.durable import replacing
from avsc_e2e.errors import AvscError
from avsc_e2e.outputs.output import SystemOutput, format_output
from avsc_e2e.submission.check import check_package
from avsc_e2e.submission.entry import MOST_SYSTEMS, System
from avsc_e2e.submission.people import Person, team_of
from avsc_e2e.submission.violation import listing

SHOWN = 10
"""Number of violations that the error of `pack` lists."""


def pack(
    path: str | Path,
    systems: Sequence[System],
    people: Sequence[Person],
    report: str | Path | None = None,
    files: Collection[str] | None = None,
) -> Path:
    """Write the package of up to four systems and return its path; it is checked before it is written.

    A path ending in .zip gets an archive with the same bytes for the same content, any other a folder. `report` is
    the PDF of the technical report; a package without it serves for trials only. `files` are the
    names that every output must hold, by default the challenge's 72,000. Raises AvscError for any violation.
    """
    path = Path(path)
    if not 1 <= len(systems) <= MOST_SYSTEMS:
        raise AvscError(f"submission: {len(systems)} systems; a team hands in 1 to {MOST_SYSTEMS}")
    team = team_of(people)
    entries: dict[str, bytes] = {}
    for number, system in enumerate(systems, 1):
        label = f"{team}_task1b_{number}"
        base = f"{team}_task1b/task1/{label}/{label}"
        entries[f"{base}.output.csv"] = format_output(_challenge_order(system.output, label)).encode()
        entries[f"{base}.meta.yaml"] = meta_yaml(label, system, people).encode()
    if report is not None:
        try:
            entries[f"{team}_task1b/task1/{team}_task1_technical_report.pdf"] = Path(report).read_bytes()
        except OSError as error:
            raise AvscError(f"{report}: cannot be read ({error.strerror}); give the PDF of the report") from None
    violations = list(check_package(entries, files, report=report is not None))
    if violations:
        raise AvscError(f"{path}: not packed. {listing(violations, SHOWN, '; ')}")
    if path.suffix == ".zip":
        _write_zip(path, entries)
    else:
        for name, data in entries.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    return path


def meta_yaml(label: str, system: System, people: Sequence[Person]) -> str:
    """The text of a system's meta.yaml; what is not known is !!null, accuracies are in per cent."""
    authors = []
    for person in people:
        author = {key: value for key, value in asdict(person).items() if key != "corresponding" or value}
        names = ("abbreviation", "institute", "department", "location")
        author["affiliation"] = {key: getattr(person.affiliation, key) or None for key in names}
        authors.append(author)
    scores = system.scores
    of_class = dict(zip(scores.classes, zip(scores.class_log_loss, scores.class_accuracy, strict=True), strict=True))
    unknown = (np.nan, np.nan)
    document = {
        "submission": {
            "label": label,
            "name": system.name,
            "abbreviation": system.abbreviation,
            "authors": authors,
        },
        "system": {
            "description": asdict(system.description),
            "complexity": asdict(system.complexity),
            "external_datasets": [asdict(item) for item in system.external_datasets] or None,
            "source_code": system.source_code,
        },
        "results": {
            "development_dataset": {
                "overall": _figures(scores.log_loss, scores.accuracy),
                "class_wise": {scene: _figures(*of_class.get(scene, unknown)) for scene in SCENES},
            }
        },
    }
    text = yaml.safe_dump(_single_lines(document), sort_keys=False, allow_unicode=True, width=10**6)
    return re.sub(r"(?m)^( *(?:- )?\w+:) null$", r"\1 !!null", text)


def _single_lines(value: Any) -> Any:
    """The document with every text in one line, so that a line of YAML is a field."""
    if isinstance(value, dict):
        return {key: _single_lines(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_single_lines(item) for item in value]
    return " ".join(value.split()) if isinstance(value, str) else value


def _figures(log_loss: float, accuracy: float) -> dict[str, float | None]:
    """Nats and per cent; None where there is no figure."""
    return {
        "logloss": None if np.isnan(log_loss) else round(float(log_loss), 4),
        "accuracy": None if np.isnan(accuracy) else round(100 * float(accuracy), 2),
    }


def _challenge_order(output: SystemOutput, label: str) -> SystemOutput:
    """The output with the ten scenes in the challenge's order, one row a file."""
    if set(output.classes) != set(SCENES):
        raise AvscError(f"submission: {label} is of the classes {', '.join(output.classes)}, not of the ten scenes")
    if output.start is not None and output.start.any():
        raise AvscError(f"submission: {label} has rows of segments; the evaluation set has one row a file")
    columns = [output.classes.index(scene) for scene in SCENES]
    return SystemOutput(output.files, SCENES, output.probabilities[:, columns], None, output.predicted)


def _write_zip(path: Path, entries: dict[str, bytes]) -> None:
    """An archive whose bytes depend on nothing but the entries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, zipfile.ZipFile(part, "w") as archive:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.external_attr, info.create_system = 0o644 << 16, 3
            archive.writestr(info, entries[name], zipfile.ZIP_DEFLATED, compresslevel=6)
