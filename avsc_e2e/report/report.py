"""The report of an evaluation: figures with their protocol and intervals. `Report.json` holds those of the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from avsc_e2e.clip import Row
from avsc_e2e.errors import AvscError
from avsc_e2e.outputs.comparison import Comparison
from avsc_e2e.outputs.intervals import intervals, warning_of_few
from avsc_e2e.outputs.metrics import score
from avsc_e2e.outputs.names import city_of, location_of
from avsc_e2e.outputs.output import SystemOutput, to_clips
from avsc_e2e.outputs.reference import targets_of
from avsc_e2e.report.confident import ConfidentError, by_confusion, surest
from avsc_e2e.report.result import Result, Rival
from avsc_e2e.report.theme import colours_of
from avsc_e2e.report.trials import Ladder, Robustness
from avsc_e2e.report.values import plain, versions


@dataclass(frozen=True)
class Report:
    """The results of an evaluation for a page. Figures are computed when they are first used."""

    title: str
    outputs: Mapping[str, SystemOutput]
    """Name -> output, of 1 s segments or of whole recordings, all of the same classes."""
    reference: Mapping[str, str]
    """File -> true class."""
    headline: str = ""
    """Name of the output that is the system; the last one by default, the others are its branches or rivals."""
    note: str = ""
    """A note that readers of these figures must know; shown first."""
    rows: Sequence[Row] = ()
    """Locations, cities, durations and media of the recordings, if they are known."""
    train_rows: Sequence[Row] = ()
    """The training set, to distinguish seen locations and cities from unseen ones."""
    history: Path | Mapping[str, Path] | None = None
    """metrics.csv of the training, or one by the name of each stage."""
    configuration: Mapping[str, object] | None = None
    """The recipe, nested."""
    rival: Rival | str = ""
    """The system that this one is compared with: published figures, or the name of one of the outputs."""
    segment: float = 1.0
    """Seconds that one row of a segment output covers."""
    errors: int = 8
    """Number of confident errors on the page."""
    data: str = ""
    """Name of the data set."""
    command: str = ""
    """The command that trained or evaluated the system."""
    mend: str = ""
    """The command that fits the decision again, shown if a head is better than the decision."""
    calibrate: str = ""
    """The command that calibrates the system, shown if its confidence is wrong."""
    defaults: Mapping[str, object] | None = None
    """The configuration with every setting at its default, nested as `configuration`."""
    probe: Rival | None = None
    """A simple baseline on the same rows, such as a frozen probe."""
    comparison: Comparison | None = None
    """Paired tests of all outputs, whole recordings or segments alike."""
    ladder: Ladder | None = None
    """The learner's candidates."""
    robustness: Sequence[Robustness] = ()
    """How log loss grows with noise, darkness or a missing modality."""

    @cached_property
    def system(self) -> str:
        """Name of the output that the report is about."""
        if not self.outputs:
            raise AvscError("report: no system output; give at least one")
        name = self.headline or list(self.outputs)[-1]
        known = ", ".join(self.outputs)
        if name not in self.outputs:
            raise AvscError(f"report: headline {name!r} is not among the outputs: {known}")
        if isinstance(self.rival, str) and self.rival and self.rival not in self.outputs:
            raise AvscError(f"report: rival {self.rival!r} is not among the outputs: {known}")
        return name

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, the same in all outputs."""
        classes = self.outputs[self.system].classes
        for name, output in self.outputs.items():
            if output.classes != classes:
                raise AvscError(
                    f"report: {name} has the classes {', '.join(output.classes)}, but {self.system} has "
                    f"{', '.join(classes)}; read them with the same classes"
                )
        return classes

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The outputs, the system first."""
        return (self.system, *(name for name in self.outputs if name != self.system))

    @cached_property
    def colours(self) -> dict[str, int]:
        """Output -> number of its colour and mark, the same in every chart."""
        rival = [self.rival.name] if isinstance(self.rival, Rival) else []
        return colours_of(self.names, rival)

    @cached_property
    def results(self) -> dict[str, dict[str, Result]]:
        """Protocol -> name -> result; segment outputs come under both protocols."""
        results: dict[str, dict[str, Result]] = {}
        if any(output.start is not None for output in self.outputs.values()):
            results[self._segment_protocol] = {
                name: self._result(self.outputs[name], self._segment_protocol)
                for name in self.names
                if self.outputs[name].start is not None
            }
        results[self._clip_protocol] = {}
        for name in self.names:
            output = self.outputs[name]
            clips = output if output.start is None else to_clips(output)
            results[self._clip_protocol][name] = self._result(clips, self._clip_protocol)
        if isinstance(self.rival, Rival) and self.rival.protocol not in results:
            raise AvscError(
                f"report: the figures of {self.rival.name} are of {self.rival.protocol!r}, the report's of "
                f"{' and '.join(map(repr, results))}; compare what follows the same protocol"
            )
        return results

    def _result(self, output: SystemOutput, protocol: str) -> Result:
        targets = targets_of(output, dict(self.reference))
        decisions = None if output.predicted is None else output.decisions
        places = np.array([self._location(file) for file in output.files])
        return Result(
            output,
            targets,
            places,
            score(output.probabilities, targets, self.classes, protocol, decisions),
            intervals(output.probabilities, targets, decisions, places),
        )

    @property
    def _segment_protocol(self) -> str:
        return f"{self.segment:g} s segments"

    @cached_property
    def _clip_protocol(self) -> str:
        durations = [row.duration for row in self.rows if row.duration > 0]
        if not durations:  # the last segment of each recording gives its duration
            for output in self.outputs.values():
                if output.start is not None:
                    ends: dict[str, float] = {}
                    for file, start in zip(output.files, output.start, strict=True):
                        ends[file] = max(ends.get(file, 0), float(start) + self.segment)
                    durations = list(ends.values())
                    break
        rounded = {round(duration, 1) for duration in durations}
        return f"{rounded.pop():g} s clips" if len(rounded) == 1 else "whole clips"

    @cached_property
    def _row_of(self) -> dict[str, Row]:
        by_name = {Path(row.file).stem: row for row in self.rows}
        return by_name | {row.file: row for row in self.rows}

    def row_of(self, file: str) -> Row | None:
        """The recording that a row of an output is about, by its name or by its name without folder and ending."""
        return self._row_of.get(file) or self._row_of.get(Path(file).stem)

    def _location(self, file: str) -> str:
        row = self.row_of(file)
        return (row.location if row else "") or location_of(file)

    def _city(self, file: str) -> str:
        """The city of a recording; empty if neither its row nor its name has one."""
        row = self.row_of(file)
        city = (row.city if row else "") or city_of(file)
        return "" if city == file else city

    @property
    def clips(self) -> dict[str, Result]:
        """Name -> result over whole recordings, the system first."""
        return self.results[self._clip_protocol]

    def json(self) -> dict:
        """Every figure of the page as plain values; nan is None."""
        clips = self.clips
        return plain(
            {
                "title": self.title,
                "note": self.note,
                "system": self.system,
                "classes": self.classes,
                "protocols": {
                    protocol: {
                        name: result.scores.to_json() | {"intervals": result.intervals._asdict()}
                        for name, result in by_name.items()
                    }
                    for protocol, by_name in self.results.items()
                },
                "rival": dataclasses.asdict(self.rival) if isinstance(self.rival, Rival) else self.rival or None,
                "cities": {
                    name: {city: _means(result, rows) for city, rows in self.cities(result).items()}
                    for name, result in clips.items()
                },
                "locations": {
                    place: _means(clips[self.system], rows)
                    for place, rows in self.locations(clips[self.system]).items()
                },
                "seen": {
                    name: {group: _means(result, rows) for group, rows in self.seen(result).items()}
                    for name, result in clips.items()
                },
                "errors": [
                    {
                        "file": e.file,
                        "start": e.start,
                        "scene": self.classes[e.target],
                        "decided": self.classes[e.decided],
                        "probability": e.probabilities[e.decided],
                    }
                    for e in self.surest_errors
                ],
                "configuration": self.configuration,
                "versions": versions(),
            }
        )

    @cached_property
    def warning(self) -> str:
        """One sentence if the test data are few; else empty."""
        result = self.clips[self.system]
        what = "locations" if self.has_places else "recordings"
        return warning_of_few(result.targets, result.places, self.classes, what)

    def cities(self, result: Result) -> dict[str, np.ndarray]:
        """City -> indices of the rows of a result; the name is empty where it is not known."""
        return _grouped([self._city(file) for file in result.output.files])

    @cached_property
    def has_places(self) -> bool:
        """Whether recordings share locations, by their rows and names."""
        places = self.clips[self.system].places
        return len(set(places)) < len(places)

    def locations(self, result: Result) -> dict[str, np.ndarray]:
        """Location -> indices of the rows of a result; empty if no recordings share a location."""
        return _grouped(result.places.tolist()) if self.has_places else {}

    def seen(self, result: Result) -> dict[str, np.ndarray]:
        """Kind of place, such as "cities not seen" -> indices of the rows of a result from such places."""
        if not self.train_rows:
            return {}
        files = result.output.files
        places = {row.location or location_of(row.file) for row in self.train_rows}
        cities = {row.city or city_of(row.file) for row in self.train_rows}
        place = np.array([self._location(file) in places for file in files])
        groups = {"locations seen in training": place, "locations not seen": ~place}
        if any(self._city(file) for file in files):
            city = np.array([self._city(file) in cities for file in files])
            groups |= {"cities seen in training": city, "cities not seen": ~city}
        return {name: np.flatnonzero(mask) for name, mask in groups.items() if mask.any()}

    @cached_property
    def surest_errors(self) -> list[ConfidentError]:
        """The wrong decisions with the highest confidence, one for each location if there are enough."""
        return surest(self._judged, ~self._judged.hits, self.errors)

    @cached_property
    def error_groups(self) -> dict[tuple[int, int], list[ConfidentError]]:
        """(true class, decided class) -> its clips on the page: the surest errors, and two of each common confusion."""
        return by_confusion(self._judged, self.surest_errors)

    @cached_property
    def _judged(self) -> Result:
        """The result of the system under its first protocol."""
        return next(by_name[self.system] for by_name in self.results.values() if self.system in by_name)


def _means(result: Result, rows: np.ndarray) -> dict[str, float]:
    loss, accuracy = result.means(rows)
    return {"count": len(rows), "log_loss": loss, "accuracy": accuracy}


def _grouped(names: Sequence[str]) -> dict[str, np.ndarray]:
    """Name -> indices of its rows."""
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        groups.setdefault(name, []).append(i)
    return {name: np.array(rows) for name, rows in groups.items()}
