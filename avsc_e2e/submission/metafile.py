"""Checks of a meta.yaml, the description of a system and its authors."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import fields
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import yaml

from avsc_e2e.clip import SCENES
from avsc_e2e.submission.entry import Complexity, Description
from avsc_e2e.submission.violation import Violation, check_label

MOST_NODES = 100_000
"""Largest number of nodes of a file, with its aliases expanded."""


def check_meta(data: bytes, name: str, label: str | None = None) -> Iterator[Violation]:
    """Violations of the content of a meta.yaml; `label` is the name of its folder."""
    try:
        root = yaml.compose(data.decode("utf-8"), Loader=yaml.SafeLoader)
        if root is None:
            yield Violation(name, 0, "is empty")
            return
        _count(root)
    except RecursionError:
        yield Violation(name, 0, "is nested too deeply")
        return
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
    """Walks through one meta.yaml and collects violations."""

    def __init__(self, name: str, label: str | None):
        self.name, self.label = name, label
        self.found: list[Violation] = []

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
            self.found += check_label(label, self.name, parts["label"].start_mark.line + 1)
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
            values = [value for score in scores.values() if (value := score.get(key)) is not None]
            told = overall.get(key)
            if told is None or len(values) < len(SCENES):
                continue
            mean = float(np.mean(values))
            if abs(mean - told) > slack:
                self.refuse(parts["overall"], f"overall {key} {told:g} is not the classes' mean, {mean:.4g}")
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


def _count(node: yaml.Node, counted: dict[yaml.Node, int] | None = None) -> int:
    """Nodes below one, each alias counted as what it stands for. Raises YAMLError for keys that are lists or tables,
    for aliases that hold themselves, and for those that would make a small file large."""
    counted = {} if counted is None else counted
    if node in counted:
        if not counted[node]:
            raise yaml.MarkedYAMLError(problem="an alias holds itself", problem_mark=node.start_mark)
        return counted[node]
    counted[node] = 0
    total = 1
    for child in node.value if isinstance(node, yaml.CollectionNode) else ():
        key, value = child if isinstance(child, tuple) else (None, child)
        if key is not None and not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key is not a plain word", problem_mark=key.start_mark)
        total += _count(value, counted)
    if total > MOST_NODES:
        raise yaml.MarkedYAMLError(problem="its aliases stand for too much", problem_mark=node.start_mark)
    counted[node] = total
    return total
