"""Whether a DCASE 2021 Task 1B submission is as the challenge asks, and sound beyond it: every violation at once.

The organisers' checker stops at names and columns. NaN, rows that do not sum to one, labels that are not the most
probable scene and results that contradict each other are refused here too.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import yaml

from avsc_e2e.clip import SCENES
from avsc_e2e.errors import AvscError
from avsc_e2e.outputs.output import TOLERANCE
from avsc_e2e.submission.entry import MOST_SYSTEMS, Complexity, Description

ROWS = 72_000
"""One-second files of the evaluation set, 0.wav to 71999.wav."""

COLUMNS = ("filename", "scene_label", *SCENES)

LABEL = re.compile(r"([^\W_]+(?:-[^\W_]+)*)_([^\W_]+(?:-[^\W_]+)*)_task1b_([1-9]\d*)")
REPORT = re.compile(r"([^_./]+)_([^_./]+)_task1_technical_report\.pdf")


class Violation(NamedTuple):
    """One thing that is wrong with a submission."""

    file: str
    """Inside the package."""
    line: int
    """From 1; 0 where it concerns the file as a whole."""
    reason: str

    def __str__(self) -> str:
        return f"{self.file}{f', line {self.line}' if self.line else ''}: {self.reason}"


def check(path: str | Path, files: Collection[str] | None = None, report: bool = True) -> list[Violation]:
    """Everything that is wrong with a package (zip or folder), an output.csv or a meta.yaml, in reading order.

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
        yield from _check_label(label, f"folder {label}", 0)
        for kind in ("csv", "yaml"):
            if kind not in found:
                yield Violation(
                    f"folder {label}", 0, f"has no {label}.{'output.csv' if kind == 'csv' else 'meta.yaml'}"
                )
        if "csv" in found:
            yield from check_output(entries[found["csv"]], found["csv"], files)
        if "yaml" in found:
            yield from check_meta(entries[found["yaml"]], found["yaml"], label)


def check_output(data: bytes, name: str, files: Collection[str] | None = None) -> Iterator[Violation]:
    """Violations of the content of an output.csv, line by line."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        yield Violation(name, data[: error.start].count(b"\n") + 1, "is not UTF-8 text")
        return
    if text.startswith("\ufeff"):
        yield Violation(name, 1, "begins with a byte order mark, which spoils the first column's name")
        text = text[1:]
    lines = io.StringIO(text, newline=None).read().split("\n")
    if lines[-1] == "":
        lines.pop()
    if not lines:
        yield Violation(name, 0, "is empty")
        return
    header = lines[0].split("\t")
    if header != list(COLUMNS):
        yield from _check_header(header, name)
        return

    rows, numbers = [], []
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        if len(cells) == len(COLUMNS):
            rows.append(cells)
            numbers.append(number)
        elif not line.strip():
            yield Violation(name, number, "is empty")
        else:
            yield Violation(name, number, f"has {len(cells)} values for {len(COLUMNS)} columns")
    found = [*_check_names([row[0] for row in rows], numbers, name, files), *_check_rows(rows, numbers, name)]
    yield from sorted(found, key=lambda violation: (violation.line == 0, violation.line))


def _check_header(header: list[str], name: str) -> Iterator[Violation]:
    if len(header) == 1 and any(mark in header[0] for mark in ",;"):
        yield Violation(name, 1, "columns are not separated by tabs")
        return
    for column, count in Counter(header).items():
        if column not in COLUMNS:
            yield Violation(name, 1, f"unknown column {column!r}")
        elif count > 1:
            yield Violation(name, 1, f"column {column} occurs {count} times")
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        yield Violation(name, 1, f"no column {', '.join(missing)}")
    if sorted(header) == sorted(COLUMNS):
        yield Violation(name, 1, f"the columns must be in the order {' '.join(COLUMNS)}")


def _check_names(
    names: list[str], numbers: list[int], file: str, expected: Collection[str] | None
) -> Iterator[Violation]:
    """Names of the right form, each once, none missing."""
    known = {f"{i}.wav" for i in range(ROWS)} if expected is None else set(expected)
    seen: dict[str, int] = {}
    for name, number in zip(names, numbers, strict=True):
        if name in seen:
            yield Violation(file, number, f"{name} is already in line {seen[name]}")
            continue
        seen[name] = number
        if name not in known:
            yield Violation(file, number, _name_fault(name, known, expected is None))
    missing = known - seen.keys()
    if missing:
        first = sorted(missing, key=lambda n: (len(n), n))[:3]
        listed = ", ".join(first) + (", ..." if len(missing) > 3 else "")
        yield Violation(file, 0, f"{len(missing)} of {len(known)} files have no row: {listed}")


def _name_fault(name: str, known: set[str], challenge: bool) -> str:
    if not name:
        return "the file name is empty"
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    if base != name and base in known:
        return f"{name!r} must be the base name, {base}"
    if name.strip() in known:
        return f"{name!r} has spaces around it"
    if not challenge:
        return f"{name!r} is not a file of the evaluation set"
    stem, dot, extension = name.rpartition(".")
    if extension != "wav" or not dot:
        return f"{name!r} does not end in .wav"
    if not re.fullmatch(r"\d+", stem, re.ASCII):
        return f"{name!r} is not an integer and .wav"
    if stem != "0" and stem.startswith("0"):
        return f"{name!r} has leading zeros"
    return f"{name!r} is out of range; the files are 0.wav to {ROWS - 1}.wav"


def _check_rows(rows: list[list[str]], numbers: list[int], file: str) -> Iterator[Violation]:
    """Labels and probabilities of rows with the right number of cells."""
    values, bad = _numbers(rows)
    for row, text in bad:
        yield Violation(file, numbers[row], f"{text!r} is not a number")
    known = {scene: i for i, scene in enumerate(SCENES)}
    labels = np.array([known.get(row[1], -1) for row in rows], dtype=np.int64)
    for row in np.flatnonzero(labels < 0):
        yield Violation(file, numbers[row], f"unknown scene {rows[row][1]!r}")
    readable = np.ones(len(rows), dtype=bool)
    readable[[row for row, _ in bad]] = False
    nan = readable & np.isnan(values).any(1)
    infinite = readable & np.isinf(values).any(1)
    negative = readable & (values < 0).any(1)
    large = readable & (values > 1 + TOLERANCE).any(1) & ~infinite
    sums = values.sum(1)
    with np.errstate(invalid="ignore"):
        off = readable & ~nan & ~infinite & ~negative & ~large & (np.abs(sums - 1) > TOLERANCE)
    for rows_at, reason in (
        (nan, "a probability is NaN"),
        (infinite, "a probability is infinite"),
        (negative, "a probability is negative"),
        (large, "a probability is above 1"),
    ):
        for row in np.flatnonzero(rows_at):
            yield Violation(file, numbers[row], reason)
    for row in np.flatnonzero(off):
        yield Violation(file, numbers[row], f"the probabilities sum to {sums[row]:.4g}, not to 1")
    sound = readable & ~nan & ~infinite & (labels >= 0)
    chosen = values[np.arange(len(rows)), np.maximum(labels, 0)]
    for row in np.flatnonzero(sound & (chosen < values.max(1, initial=0))):
        best = SCENES[int(values[row].argmax())]
        yield Violation(file, numbers[row], f"the label {rows[row][1]} is not the most probable scene, {best}")


def _numbers(rows: list[list[str]]) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """(N, K) values and the cells that hold none: row and text. An unreadable row is zeros."""
    try:
        return np.array([list(map(float, row[2:])) for row in rows]).reshape(-1, len(SCENES)), []
    except ValueError:
        values, bad = np.zeros((len(rows), len(SCENES))), []
        for i, row in enumerate(rows):
            try:
                values[i] = list(map(float, row[2:]))
            except ValueError:
                bad.append((i, next(cell for cell in row[2:] if not _is_number(cell))))
        return values, bad


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_label(label: Any, file: str, line: int) -> Iterator[Violation]:
    match = LABEL.fullmatch(label) if isinstance(label, str) else None
    if not match:
        yield Violation(file, line, f"{label!r} is not Lastname_Institute_task1b_N of exactly four parts")
    elif int(match[3]) > MOST_SYSTEMS:
        yield Violation(file, line, f"{label!r}: N is 1 to {MOST_SYSTEMS}")


def check_meta(data: bytes, name: str, label: str | None = None) -> Iterator[Violation]:
    """Violations of the content of a meta.yaml; `label` is what its folder is called."""
    try:
        root = yaml.compose(data.decode("utf-8"), Loader=yaml.SafeLoader)
        if root is None:
            yield Violation(name, 0, "is empty")
            return
        _refuse_odd_keys(root)
    except UnicodeDecodeError as error:
        yield Violation(name, data[: error.start].count(b"\n") + 1, "is not UTF-8 text")
        return
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        yield Violation(name, mark.line + 1 if mark else 0, f"is not YAML: {getattr(error, 'problem', error)}")
        return
    meta = _Meta(name, label)
    meta.check(root)
    yield from sorted(meta.found, key=lambda violation: violation.line)


class _Meta:
    """Walks one meta.yaml and collects what is wrong."""

    def __init__(self, name: str, label: str | None):
        self.name, self.label, self.found = name, label, []

    def refuse(self, node: yaml.Node, reason: str) -> None:
        self.found.append(Violation(self.name, node.start_mark.line + 1, reason))

    def keys(self, node: yaml.Node, names: Collection[str], where: str) -> dict[str, yaml.Node]:
        """The values of a mapping that must have exactly these keys."""
        if not isinstance(node, yaml.MappingNode):
            self.refuse(node, f"{where} must hold {', '.join(names)}")
            return {}
        values: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if key.value in values:
                self.refuse(key, f"{key.value} occurs twice in {where}")
            elif key.value not in names:
                self.refuse(key, f"unknown key {key.value!r} in {where}")
            values[key.value] = value
        for missing in (key for key in names if key not in values):
            self.refuse(node, f"{where} has no {missing}")
        return {key: value for key, value in values.items() if key in names}

    def text(self, node: yaml.Node | None, where: str, optional: bool = False) -> str:
        value = None if node is None else _value(node)
        if node is not None and (value is None or value == "") and not optional:
            self.refuse(node, f"{where} is empty")
        elif isinstance(value, (dict, list)):
            self.refuse(node, f"{where} must be a single value")
        return "" if value is None else str(value)

    def number(self, node: yaml.Node | None, where: str, low: float, high: float) -> float | None:
        if node is None:
            return None
        value = _value(node)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.refuse(node, f"{where} is {value!r}, not a number" if value is not None else f"{where} is not given")
            return None
        if not low <= value <= high:
            self.refuse(node, f"{where} is {value:g}, not within {low:g} to {high:g}")
            return None
        return float(value)

    def count(self, node: yaml.Node | None, where: str, optional: bool) -> int | None:
        if node is None:
            return None
        value = _value(node)
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self.refuse(node, f"{where} must be a whole number" + (" or !!null" if optional else ""))
            return None
        return value

    def check(self, root: yaml.Node) -> None:
        parts = self.keys(root, ("submission", "system", "results"), "the file")
        if "submission" in parts:
            self.submission(parts["submission"])
        if "system" in parts:
            self.system(parts["system"])
        if "results" in parts:
            self.results(parts["results"])

    def submission(self, node: yaml.Node) -> None:
        parts = self.keys(node, ("label", "name", "abbreviation", "authors"), "submission")
        if "label" in parts:
            label = _value(parts["label"])
            self.found += _check_label(label, self.name, parts["label"].start_mark.line + 1)
            own = self.label or PurePosixPath(self.name).name.removesuffix(".meta.yaml")
            if label != own:
                self.refuse(parts["label"], f"the label {label!r} is not that of the file, {own!r}")
        self.text(parts.get("name"), "submission.name")
        if len(self.text(parts.get("abbreviation"), "submission.abbreviation")) > 10:
            self.refuse(parts["abbreviation"], "submission.abbreviation has more than 10 characters")
        if "authors" not in parts:
            return
        authors = parts["authors"]
        if not isinstance(authors, yaml.SequenceNode) or not authors.value:
            self.refuse(authors, "submission.authors must list at least one author")
            return
        corresponding = sum(self.author(author) for author in authors.value)
        if corresponding != 1:
            self.refuse(authors, f"{corresponding} authors have corresponding: true; exactly one must")

    def author(self, node: yaml.Node) -> bool:
        """Whether this one is the corresponding author."""
        required = ("lastname", "firstname", "email", "affiliation")
        plain = isinstance(node, yaml.MappingNode)
        marked = plain and any(key.value == "corresponding" for key, _ in node.value)
        parts = self.keys(node, (*required, "corresponding") if marked else required, "an author")
        for key in ("lastname", "firstname", "email"):
            self.text(parts.get(key), f"an author's {key}")
        if "email" in parts and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", str(_value(parts["email"]) or "a@b.c")):
            self.refuse(parts["email"], f"{_value(parts['email'])!r} is not an e-mail address")
        if "affiliation" in parts:
            own = ("abbreviation", "institute", "department", "location")
            items = parts["affiliation"]
            for item in items.value if isinstance(items, yaml.SequenceNode) else [items]:
                affiliation = self.keys(item, own, "an affiliation")
                self.text(affiliation.get("institute"), "an affiliation's institute")
                for key in ("abbreviation", "department", "location"):
                    self.text(affiliation.get(key), f"an affiliation's {key}", optional=True)
        value = _value(parts["corresponding"]) if "corresponding" in parts else False
        if not isinstance(value, bool):
            self.refuse(parts["corresponding"], "corresponding must be true or false")
        return value is True

    def system(self, node: yaml.Node) -> None:
        parts = self.keys(node, ("description", "complexity", "external_datasets", "source_code"), "system")
        if "description" in parts:
            names = [field.name for field in fields(Description)]
            for key, value in self.keys(parts["description"], names, "system.description").items():
                if key == "ensemble_method_subsystem_count":
                    self.count(value, f"system.description.{key}", optional=True)
                elif isinstance(value, yaml.MappingNode):
                    self.refuse(value, f"system.description.{key} must be a value or a list")
        if "complexity" in parts:
            names = [field.name for field in fields(Complexity)]
            counts = {
                key: self.count(value, f"system.complexity.{key}", optional=key != "total_parameters")
                for key, value in self.keys(parts["complexity"], names, "system.complexity").items()
            }
            total = counts.get("total_parameters")
            for key, count in counts.items():
                if count is not None and total is not None and count > total:
                    self.refuse(parts["complexity"], f"system.complexity.{key} is more than total_parameters")
        if "external_datasets" in parts:
            sets = parts["external_datasets"]
            if isinstance(sets, yaml.SequenceNode):
                for item in sets.value:
                    given = self.keys(item, ("name", "url", "total_audio_length"), "an external data set")
                    self.text(given.get("name"), "an external data set's name")
            elif _value(sets) is not None:
                self.refuse(sets, "system.external_datasets must be a list or !!null")

    def results(self, node: yaml.Node) -> None:
        parts = self.keys(node, ("development_dataset",), "results")
        if "development_dataset" not in parts:
            return
        where = "results.development_dataset"
        parts = self.keys(parts["development_dataset"], ("overall", "class_wise"), where)
        scores: dict[str, dict[str, float | None]] = {}
        if "class_wise" in parts:
            for scene, value in self.keys(parts["class_wise"], SCENES, f"{where}.class_wise").items():
                scores[scene] = self.scores(value, scene)
        if "overall" not in parts:
            return
        overall = self.scores(parts["overall"], "overall")
        for key, slack in (("logloss", 0.01), ("accuracy", 0.2)):
            values = [score.get(key) for score in scores.values()]
            if overall.get(key) is None or len(values) < len(SCENES) or None in values:
                continue
            mean = float(np.mean(values))
            if abs(mean - overall[key]) > slack:
                self.refuse(parts["overall"], f"overall {key} {overall[key]:g} is not the classes' mean, {mean:.4g}")
        accuracies = [score.get("accuracy") for score in (overall, *scores.values())]
        given = [value for value in accuracies if value is not None]
        if given and 0 < max(given) <= 1:
            self.refuse(parts["overall"], "accuracies are shares; they must be in per cent")

    def scores(self, node: yaml.Node, where: str) -> dict[str, float | None]:
        parts = self.keys(node, ("logloss", "accuracy"), where)
        high = {"logloss": 1000.0, "accuracy": 100.0}
        return {key: self.number(value, f"{where} {key}", 0.0, high[key]) for key, value in parts.items()}


def _value(node: yaml.Node) -> Any:
    """The plain value of a node; a scalar with a mistaken tag as its text."""
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError):
        return node.value
    finally:
        loader.dispose()


def _refuse_odd_keys(node: yaml.Node, above: tuple[yaml.Node, ...] = ()) -> None:
    """Raises YAMLError for keys that are lists or tables and for aliases that hold themselves."""
    if any(node is other for other in above):
        raise yaml.MarkedYAMLError(problem="an alias holds itself", problem_mark=node.start_mark)
    for child in node.value if isinstance(node, yaml.CollectionNode) else ():
        key, value = child if isinstance(child, tuple) else (None, child)
        if key is not None and not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key is not a plain word", problem_mark=key.start_mark)
        _refuse_odd_keys(value, (*above, node))
