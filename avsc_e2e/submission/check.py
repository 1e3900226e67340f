"""Checks of a DCASE 2021 Task 1B submission. All violations are reported at once.

The organisers' checker tests names and columns only. This one also refuses NaN, rows that do not sum to one, labels
that are not the most probable scene, and results that contradict each other.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from avsc_e2e.errors import AvscError
from avsc_e2e.submission.entry import MOST_SYSTEMS
from avsc_e2e.submission.metafile import check_meta
from avsc_e2e.submission.outputfile import check_output
from avsc_e2e.submission.violation import LABEL, Violation, check_label

MOST_BYTES, MOST_FILES = 256 << 20, 1000
"""Largest unpacked size of a package (bytes; four outputs of 72,000 rows have 60 MB) and most files in it."""
REPORT = re.compile(r"([^_./]+)_([^_./]+)_task1_technical_report\.pdf")


def check(path: str | Path, files: Collection[str] | None = None, report: bool = True) -> list[Violation]:
    """The violations in a package (zip or folder), an output.csv or a meta.yaml, in reading order.

    `files` are the names that an output must hold, by default the challenge's 72,000; `report` tells whether the
    technical report must be there. Raises AvscError for a path that is none of these.
    """
    path = Path(path)
    if path.is_file() and path.suffix == ".csv":
        return list(check_output(path.read_bytes(), path.name, files))
    if path.is_file() and path.suffix in (".yaml", ".yml"):
        return list(check_meta(path.read_bytes(), path.name))
    if path.is_dir():
        prefix = f"{path.absolute().name}/" if (path / "task1").is_dir() else ""
        found = sorted(item for item in path.rglob("*") if item.is_file())
        entries = {prefix + item.relative_to(path).as_posix(): item.read_bytes() for item in found}
        return list(check_package(entries, files, report))
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(item.file_size for item in archive.infolist())
            if size > MOST_BYTES or len(archive.infolist()) > MOST_FILES:
                raise AvscError(
                    f"{path}: unpacks to {size / 1e9:.1f} GB in {len(archive.infolist())} files: no package"
                )
            names = [item for item in archive.namelist() if not item.endswith("/")]
            repeated = [name for name, count in Counter(names).items() if count > 1]
            entries = {name: archive.read(name) for name in names}
    except FileNotFoundError:
        raise AvscError(f"{path}: no such file; give a zip, a folder, an output.csv or a meta.yaml") from None
    except (OSError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
        raise AvscError(f"{path}: not a zip that can be read ({error}); pack it again") from None
    twice = [Violation(name, 0, "is in the archive more than once") for name in repeated]
    return [*twice, *check_package(entries, files, report)]


def check_package(
    entries: dict[str, bytes], files: Collection[str] | None = None, report: bool = True
) -> Iterator[Violation]:
    """Violations of a package given as path -> content: layout, names, then every system."""
    labels: dict[str, dict[str, str]] = {}
    reports = []
    for name in sorted(entries):
        parts = PurePosixPath(name).parts
        if ".." in parts or name.startswith("/") or "\\" in name:
            yield Violation(name, 0, "the path leaves the archive or is not written with /")
        elif name.endswith(".pdf"):
            reports.append(name)
        elif len(parts) != 4 or parts[1] != "task1":
            yield Violation(name, 0, "does not belong here; files lie in <root>/task1/<label>/")
        elif parts[3] in (f"{parts[2]}.output.csv", f"{parts[2]}.meta.yaml"):
            labels.setdefault(parts[2], {})[parts[3].rsplit(".", 1)[1]] = name
        else:
            labels.setdefault(parts[2], {})
            yield Violation(name, 0, f"a system has {parts[2]}.output.csv and {parts[2]}.meta.yaml, nothing else")
    if len({PurePosixPath(name).parts[0] for name in entries}) > 1:
        yield Violation("the package", 0, "has more than one root folder")
    if not labels:
        yield Violation("the package", 0, "has no system in <root>/task1/<label>/")
    if len(labels) > MOST_SYSTEMS:
        yield Violation("the package", 0, f"has {len(labels)} systems; {MOST_SYSTEMS} are allowed")
    teams = {match.group(1, 2) for match in map(LABEL.fullmatch, labels) if match}
    if len(teams) > 1:
        yield Violation("the package", 0, f"is of more than one team: {', '.join('_'.join(t) for t in sorted(teams))}")
    for name in reports:
        match = REPORT.fullmatch(PurePosixPath(name).name)
        if not match:
            yield Violation(name, 0, "a report is called Lastname_Institute_task1_technical_report.pdf")
        elif teams and match.groups() not in teams:
            yield Violation(name, 0, f"is not of the team of the labels, {'_'.join(min(teams))}")
        if not entries[name].startswith(b"%PDF-"):
            yield Violation(name, 0, "is not a PDF")
    if report and not reports:
        yield Violation("the package", 0, "has no Lastname_Institute_task1_technical_report.pdf")
    for label, found in labels.items():
        yield from check_label(label, f"folder {label}", 0)
        for kind in ("csv", "yaml"):
            if kind not in found:
                yield Violation(
                    f"folder {label}", 0, f"has no {label}.{'output.csv' if kind == 'csv' else 'meta.yaml'}"
                )
        if "csv" in found:
            yield from check_output(entries[found["csv"]], found["csv"], files)
        if "yaml" in found:
            yield from check_meta(entries[found["yaml"]], found["yaml"], label)
