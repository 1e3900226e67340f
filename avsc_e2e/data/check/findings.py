"""The result of a check of a data set: problems, counts by class, and their table."""

from __future__ import annotations

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from avsc_e2e.clip import Row
from avsc_e2e.data.sets.taulayout import Listing


class Published(NamedTuple):
    """Published counts of one class in the development set."""

    train: int
    """Clips of the release's fold 1, as are the next three."""
    test: int
    train_locations: int
    test_locations: int
    minutes: float
    """Minutes, from Table 1 of Wang et al., ICASSP 2021."""


class Problem(NamedTuple):
    """Something wrong with a set."""

    kind: str
    """list, count, split, missing, extra, empty, unreadable or format."""
    path: str
    """The file or folder that it concerns."""
    reason: str


class ClassCount(NamedTuple):
    """One line of the table."""

    scene: str
    clips: Counter[str]
    """Clips by part."""
    locations: Counter[str]
    """Locations, or source recordings, by part."""
    minutes: float
    """Minutes according to the lists: ten seconds for each clip; in class folders the same as `found`."""
    found: float
    """Minutes of recordings whose headers could be read."""


@dataclass(frozen=True)
class Check:
    """What was found in a root."""

    root: str
    kind: str
    """The kind of set that was recognised, and what it was compared with."""
    parts: tuple[str, ...]
    counts: tuple[ClassCount, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    """Remarks on things that are not problems."""
    files: int
    """Number of media files that were checked."""
    size: int
    """Size of these files, bytes."""
    published: dict[str, Published] = field(default_factory=dict)
    """Published counts for the table; empty if there are none."""

    @property
    def ok(self) -> bool:
        return not self.problems

    def table(self) -> str:
        """Clips, locations and minutes by class, beside the published counts if the root is the published set. For
        class folders, whose lists state no length, the columns are recordings, sources and minutes."""
        counts, release = self.counts, [self.published.get(count.scene) for count in self.counts]
        plain = not self.published and all(count.minutes == count.found for count in counts)
        columns: dict[str, list[str]] = {}

        def add(name: str, values: Sequence[float | None], form: str = "d", total: float | None = None) -> None:
            cells = ["-" if value is None else format(value, form) for value in values]
            known = [value for value in values if value is not None]
            columns[name] = [*cells, format(sum(known) if total is None else total, form)]

        if len(self.parts) > 1 or not plain:
            for part in self.parts:
                add(part, [count.clips[part] for count in counts])
        add("recordings" if plain else "clips", [count.clips.total() for count in counts])
        if self.published:
            whole = sum(one.train + one.test for one in self.published.values())
            add("release", [one.train + one.test if one else None for one in release], total=whole)
        places = [[count.locations[part] for part in self.parts] for count in counts]
        totals = [sum(count.locations[part] for count in counts) for part in self.parts]
        columns["sources" if plain else "locations"] = ["/".join(map(str, each)) for each in (*places, totals)]
        add("minutes" if plain else "min listed", [count.minutes for count in counts], ".1f")
        if not plain:
            add("min found", [count.found for count in counts], ".1f")
        if self.published:
            minutes = sum(one.minutes for one in self.published.values())
            add("min paper", [one.minutes if one else None for one in release], ".1f", minutes)
        rows = zip([*(count.scene for count in counts), "total"], *columns.values(), strict=True)
        lines = [["class", *columns], *map(list, rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [f"{self.root}: {self.kind}"]
        for line in lines:
            cells = [line[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            text.append("  ".join(cells))
        text += [f"note: {note}" for note in self.notes]
        kinds = Counter(problem.kind for problem in self.problems)
        found = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common()) or "none"
        text.append(f"{self.files} media files, {self.size / 1e9:.2f} GB; problems: {found}")
        return "\n".join(text)

    def problem_list(self, limit: int = 20) -> str:
        """The first problems, one on each line with its file; empty if there are none."""
        lines = [f"{problem.kind}: {problem.path}: {problem.reason}" for problem in self.problems[:limit]]
        if len(self.problems) > limit:
            lines.append(f"and {len(self.problems) - limit} more problems")
        return "\n".join(lines)

    def write_problems(self, path: str | os.PathLike[str]) -> None:
        """Write all problems as a CSV: kind, path, reason."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([Problem._fields, *self.problems])


Progress = Callable[[int, int], None]
"""Called with the number of files checked so far and the number of all files."""


def count_classes(
    parts: dict[str, Sequence[Row | Listing]], seconds: Mapping[str, float], clip_seconds: float | None
) -> tuple[ClassCount, ...]:
    """Count the clips and locations of each class by part; `clip_seconds` is the length of a clip according to the
    lists."""
    clips: dict[str, Counter[str]] = defaultdict(Counter)
    places: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for part, rows in parts.items():
        for row in rows:
            clips[row.scene][part] += 1
            places[row.scene][part].add(row.location)
    return tuple(
        ClassCount(
            scene,
            of_class,
            Counter({part: len(of_part) for part, of_part in places[scene].items()}),
            (of_class.total() * clip_seconds if clip_seconds else seconds.get(scene, 0.0)) / 60,
            seconds.get(scene, 0.0) / 60,
        )
        for scene, of_class in sorted(clips.items())
    )
