"""The report of an evaluation: figures with their protocol and intervals, and one HTML file that shows them.

The file stands alone: no script, no network, pictures and sound inside it. `Report.json` holds the same figures.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import importlib.metadata
import io
import math
import platform
import wave
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from html import escape
from pathlib import Path

import numpy as np

from avsc_e2e import charts
from avsc_e2e.clip import Row
from avsc_e2e.errors import AvscError, MediaError
from avsc_e2e.metrics import (
    Intervals,
    Scores,
    bootstrap,
    intervals,
    log_losses,
    percentiles,
    reliability,
    score,
)
from avsc_e2e.outputs import SystemOutput, city_of, location_of, targets_of, to_clips

PACKAGES = (
    "avsc-e2e", "torch", "torchvision", "torchaudio", "timm", "pytorch-lightning", "albumentations",
    "audiomentations", "decord2", "av", "soundfile", "numpy", "scikit-learn", "matplotlib",
)  # fmt: skip
"""Distributions whose versions the report names, as far as they are installed."""
CLASSES_IN_MATRIX = 24
"""Above, the confusion matrix is a picture, and the class bars show the hardest classes only."""
SAMPLE_RATE = 16000
"""Hz, of the sounds and the spectrograms in the report."""


@dataclass(frozen=True)
class Rival:
    """Published figures to stand beside the system's own."""

    name: str
    protocol: str
    """What its rows are, in the words of `Scores.protocol`: "1 s segments", "10 s clips", "whole clips"."""
    log_loss: float = math.nan
    """Macro average, nats."""
    accuracy: float = math.nan
    """Macro average, 0 to 1."""
    class_log_loss: Mapping[str, float] = field(default_factory=dict)
    class_accuracy: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Result:
    """One system under one protocol."""

    output: SystemOutput
    targets: np.ndarray
    """(N,) index of the true class."""
    places: np.ndarray
    """(N,) name of the location."""
    scores: Scores
    intervals: Intervals

    @cached_property
    def losses(self) -> np.ndarray:
        """(N,) nats."""
        return log_losses(self.output.probabilities, self.targets)

    @cached_property
    def hits(self) -> np.ndarray:
        """(N,) bool: the decision is right."""
        return self.output.decisions == self.targets


@dataclass(frozen=True)
class Report:
    """What is known of an evaluation, ready to be shown; nothing is computed before it is asked for."""

    title: str
    outputs: Mapping[str, SystemOutput]
    """Name -> output, of 1 s segments or of whole recordings, all of the same classes."""
    reference: Mapping[str, str]
    """File -> true class."""
    headline: str = ""
    """Name of the output that is the system; the last one by default, the others are its branches or rivals."""
    note: str = ""
    """What a reader must know of these figures; shown first."""
    rows: Sequence[Row] = ()
    """Locations, cities, durations and media of the recordings, as far as they are at hand."""
    train_rows: Sequence[Row] = ()
    """What was trained on: tells seen locations and cities from unseen ones."""
    history: Path | Mapping[str, Path] | None = None
    """metrics.csv of the training, or one by the name of each stage."""
    configuration: Mapping[str, object] | None = None
    """The recipe, nested."""
    rival: Rival | str = ""
    """What the system is measured against: published figures, or the name of one of the outputs."""
    segment: float = 1.0
    """Seconds that one row of a segment output covers."""
    errors: int = 8
    """Confident errors shown."""

    def write(self, path: str | Path) -> Path:
        """Write the page."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.html(), encoding="utf-8")
        return path

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
        """One colour and mark an output, the same in every chart; audio and video always have theirs."""
        colours: dict[str, int] = {}
        free = [3, 4, 5, 6, 7]
        for name in self.names:
            word = name.lower()
            audio, video = "audio" in word or "sound" in word, "video" in word or "visual" in word
            wish = 1 if audio and not video else 2 if video and not audio else 0 if name == self.system else None
            if wish is None or wish in colours.values():
                wish = free[0]
                free = [*free[1:], wish]  # more outputs than colours share them
            colours[name] = wish
        if isinstance(self.rival, Rival):
            colours[self.rival.name] = free[0]
        return colours

    @cached_property
    def results(self) -> dict[str, dict[str, Result]]:
        """Protocol -> name -> result; segment outputs come under both protocols."""
        self._require_known_classes()
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
        return results

    def _require_known_classes(self) -> None:
        unknown = set(self.reference.values()) - set(self.classes)
        if unknown and len(unknown) == len(set(self.reference.values())):
            raise AvscError(
                f"report: the reference's classes ({', '.join(sorted(unknown))}) are none of the output's "
                f"({', '.join(self.classes)})"
            )

    def _result(self, output: SystemOutput, protocol: str) -> Result:
        targets = targets_of(output, dict(self.reference))
        own = output.predicted is not None
        decisions = output.decisions if own else None
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
        if not durations:  # segment outputs tell where their recordings end
            for output in self.outputs.values():
                if output.start is not None:
                    ends: dict[str, float] = {}
                    for file, start in zip(output.files, output.start, strict=True):
                        ends[file] = max(ends.get(file, 0), float(start) + self.segment)
                    durations = list(ends.values())
                    break
        if durations and max(durations) - min(durations) < 0.1:
            return f"{round(durations[0], 1):g} s clips"
        return "whole clips"

    @cached_property
    def _row_of(self) -> dict[str, Row]:
        by_name = {Path(row.file).stem: row for row in self.rows}
        return by_name | {row.file: row for row in self.rows}

    def _row(self, file: str) -> Row | None:
        return self._row_of.get(file) or self._row_of.get(Path(file).stem)

    def _location(self, file: str) -> str:
        row = self._row(file)
        return (row.location if row else "") or location_of(file)

    def _city(self, file: str) -> str:
        """Empty where neither the row nor the name tells."""
        row = self._row(file)
        city = (row.city if row else "") or city_of(file)
        return "" if city == file else city

    @property
    def _clips(self) -> dict[str, Result]:
        return self.results[self._clip_protocol]

    # The same figures for programs

    def json(self) -> dict:
        """Every figure of the page as plain values; nan is None."""
        clips = self._clips
        return _plain(
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
                    name: {city: self._plain_means(result, rows) for city, rows in self._cities(result).items()}
                    for name, result in clips.items()
                },
                "locations": {
                    place: self._plain_means(clips[self.system], rows)
                    for place, rows in self._locations(clips[self.system]).items()
                },
                "seen": {
                    name: {group: self._plain_means(result, rows) for group, rows in self._seen(result).items()}
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
                    for e in self._errors
                ],
                "configuration": self.configuration,
                "versions": versions(),
            }
        )

    @staticmethod
    def _plain_means(result: Result, rows: np.ndarray) -> dict:
        return {
            "count": len(rows),
            "log_loss": result.losses[rows].mean(),
            "accuracy": result.hits[rows].mean(),
        }

    def _cities(self, result: Result) -> dict[str, np.ndarray]:
        return _grouped([self._city(file) for file in result.output.files])

    def _locations(self, result: Result) -> dict[str, np.ndarray]:
        return _grouped(result.places.tolist()) if self._has_places else {}

    def _seen(self, result: Result) -> dict[str, np.ndarray]:
        if not self.train_rows:
            return {}
        files = result.output.files
        places = {row.location or location_of(row.file) for row in self.train_rows}
        cities = {row.city or city_of(row.file) for row in self.train_rows}
        place = np.array([self._location(file) in places for file in files])
        groups = {"seen location": place, "unseen location": ~place}
        if any(self._city(file) for file in files):
            city = np.array([self._city(file) in cities for file in files])
            groups |= {"seen city": city, "unseen city": ~city}
        return {name: np.flatnonzero(mask) for name, mask in groups.items() if mask.any()}

    @cached_property
    def _errors(self) -> list[_Error]:
        """The wrong decisions the system was surest of, one a location as far as that fills the page."""
        result = next(by_name[self.system] for by_name in self.results.values() if self.system in by_name)
        output, targets = result.output, result.targets
        sure = output.probabilities[np.arange(len(output)), output.decisions]
        wrong = np.flatnonzero(~result.hits)
        order = wrong[np.argsort(-sure[wrong], kind="stable")]
        first, files, places = [], set(), set()
        later = []
        for i in order.tolist():
            if output.files[i] in files:
                continue
            files.add(output.files[i])
            (later if result.places[i] in places else first).append(i)
            places.add(result.places[i])
        chosen = sorted((first + later)[: self.errors], key=lambda i: -sure[i])
        return [
            _Error(
                output.files[i],
                None if output.start is None else float(output.start[i]),
                int(targets[i]),
                int(output.decisions[i]),
                output.probabilities[i],
            )
            for i in chosen
        ]

    # The page

    def html(self) -> str:
        """The page as one HTML text."""
        sections = [
            ("figures", "Figures", self._figures()),
            ("systems", "Systems", self._systems()),
            ("classes", "Classes", self._class_bars()),
            ("confusion", "Confusion", self._confusion()),
            ("calibration", "Calibration", self._calibration()),
            ("places", "Places", self._places()),
            ("training", "Training", self._training()),
            ("errors", "Errors", self._error_cards()),
            ("configuration", "Configuration", self._configuration()),
        ]
        sections = [section for section in sections if section[2]]
        links = "".join(f'<a href="#{anchor}">{name}</a>' for anchor, name, _ in sections)
        bodies = "".join(
            f'<section id="{anchor}" aria-labelledby="{anchor}-title">{body}</section>' for anchor, _, body in sections
        )
        whole = "locations, since clips of one place are not independent" if self._has_places else "recordings"
        note = f'<p class="note" role="note">{escape(self.note)}</p>' if self.note else ""
        count = len(self._clips[self.system].output)
        return (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            # Nothing is fetched, and a browser holds the page to it.
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            "media-src data:; style-src 'unsafe-inline'\">"
            f'<meta name="color-scheme" content="light dark"><title>{escape(self.title)}</title>'
            f"<style>{charts.stylesheet()}</style></head><body>"
            f'<header><h1>{escape(self.title)}</h1><div class="muted">{_count(len(self.classes), "class", "classes")}, '
            f"{_count(count, 'recording')}, {date.today().isoformat()}</div>{note}</header>"
            f'<nav aria-label="Sections"><div>{links}</div></nav><main>{bodies}</main>'
            f"<footer>Made by avsc_e2e {escape(versions().get('avsc-e2e', ''))}. Macro averages over classes; log loss "
            "in nats with the true class’s probability clipped at 10<sup>−15</sup>, rows not renormalised. 95 % "
            f"intervals by bootstrap over {whole}.</footer>"
            "</body></html>"
        )

    def _figures(self) -> str:
        cards = []
        for protocol, by_name in self.results.items():
            if self.system not in by_name:
                continue
            result = by_name[self.system]
            scores, (loss, accuracy) = result.scores, result.intervals
            cards.append(
                f'<div class="card"><h3>{escape(protocol)}</h3><small>{self._sample(result)}</small><dl class="figures">'
                f'<div><dt>macro log loss</dt><dd><span class="big">{scores.log_loss:.3f}</span>'
                f'<span class="interval">95 %: {loss.low:.3f} to {loss.high:.3f}</span></dd></div>'
                f'<div><dt>macro accuracy</dt><dd><span class="big">{_percent(scores.accuracy)}</span>'
                f'<span class="interval">95 %: {100 * accuracy.low:.1f} to {_percent(accuracy.high)}</span></dd>'
                f"</div></dl>{self._against(protocol)}</div>"
            )
        chance = (
            f"<p class='muted small'>For scale: a system that knows nothing reaches {math.log(len(self.classes)):.3f} "
            f"and {_percent(1 / len(self.classes))} with {_count(len(self.classes), 'class', 'classes')}.</p>"
        )
        title = f'<h2 id="figures-title">{escape(self.system)} in figures</h2>'
        return f'{title}<div class="cards">{"".join(cards)}</div>{chance}'

    def _against(self, protocol: str) -> str:
        """One sentence: the system beside its rival, or beside the best of the others."""
        by_name = self.results[protocol]
        own = by_name[self.system]
        if isinstance(self.rival, Rival):
            if self.rival.protocol != protocol:
                return ""
            name, loss, accuracy, span = self.rival.name, self.rival.log_loss, self.rival.accuracy, ""
        else:
            others = [self.rival] if self.rival in by_name else [n for n in by_name if n != self.system]
            others = [n for n in others if n != self.system]
            if not others:
                return ""
            name = min(others, key=lambda n: by_name[n].scores.log_loss)
            loss, accuracy = by_name[name].scores.log_loss, by_name[name].scores.accuracy
            span = self._paired(own, by_name[name])
        parts = []
        if math.isfinite(loss):
            parts.append(f"log loss {_signed(own.scores.log_loss - loss, 3)}{span}")
        if math.isfinite(accuracy):
            parts.append(f"accuracy {_signed(100 * (own.scores.accuracy - accuracy), 1)} points")
        return f'<p class="small">Against {escape(name)}: {", ".join(parts)}.</p>' if parts else ""

    def _sample(self, result: Result) -> str:
        recordings = len(set(result.output.files))
        parts = [_count(recordings, "recording")]
        if result.output.start is not None:
            parts.insert(0, _count(result.scores.count, "segment"))
        sample = " of ".join(parts)
        return f"{sample}, {_count(len(set(result.places)), 'location')}" if self._has_places else sample

    @cached_property
    def _has_places(self) -> bool:
        """Whether recordings share locations, as far as rows and names tell."""
        clips = self._clips[self.system]
        return len(set(clips.places)) < len(clips.places)

    @staticmethod
    def _paired(own: Result, other: Result) -> str:
        """The interval of the difference of log losses, where both have the same rows."""
        starts = [np.zeros(1) if r.output.start is None else r.output.start for r in (own, other)]
        if own.output.files != other.output.files or not np.array_equal(*starts):
            return ""
        samples = [bootstrap(r.losses, r.targets, r.places) for r in (own, other)]
        low, high = percentiles(samples[0] - samples[1])
        return f" (95 %: {_signed(low, 3)} to {_signed(high, 3)})"

    def _systems(self) -> str:
        if len(self.outputs) < 2 and not isinstance(self.rival, Rival):
            return ""
        head, bounds = ["system"], {}
        groups = [(escape(protocol), 2) for protocol in self.results]
        for protocol, by_name in self.results.items():
            for what in ("log loss", "accuracy"):
                head.append(what)
                key = what.replace(" ", "_")
                spans = [getattr(r.intervals, key) for r in by_name.values()]
                bounds[protocol, key] = min(s.low for s in spans), max(s.high for s in spans)
        rows = []
        for name in self.outputs:
            cells = [self._label(name)]
            for protocol, by_name in self.results.items():
                if name not in by_name:
                    cells += ["–", "–"]
                    continue
                result = by_name[name]
                for key, form in (("log_loss", ".3f"), ("accuracy", ".1%")):
                    value, span = getattr(result.scores, key), getattr(result.intervals, key)
                    mark = charts.whisker(value, span, *bounds[protocol, key], self.colours[name])
                    low, high = (charts.number(v, form).removesuffix("\u00a0%") for v in span)
                    cells.append(f'{charts.number(value, form)}<span class="interval">{low}–<wbr>{high}</span>{mark}')
            rows.append(cells)
        if isinstance(self.rival, Rival):
            cells = [f"{self._label(self.rival.name)}<span class=interval>published</span>"]
            for protocol in self.results:
                mine = protocol == self.rival.protocol
                cells.append(charts.number(self.rival.log_loss if mine else math.nan, ".3f"))
                cells.append(charts.number(self.rival.accuracy if mine else math.nan, ".1%"))
            rows.append(cells)
        table = charts.table(head, rows, lead=list(self.outputs).index(self.system), style="wide systems", groups=groups)
        return (
            '<h2 id="systems-title">The system and its rivals</h2><p class="muted small">Macro averages; beneath each '
            f"the 95 % interval, drawn on the scale of its column.</p>{table}"
        )

    def _label(self, name: str) -> str:
        return f'<span class="name">{charts.mark(self.colours[name])}{escape(name)}</span>'

    def _series(self, protocol: str, what: str) -> list[charts.Series]:
        """Class-wise figures of every system under a protocol, the system first; what is "log_loss" or "accuracy"."""
        series = [
            charts.Series(name, self.colours[name], getattr(result.scores, f"class_{what}"))
            for name, result in self.results[protocol].items()
        ]
        if isinstance(self.rival, Rival) and self.rival.protocol == protocol:
            figures = getattr(self.rival, f"class_{what}")
            if figures:
                values = [figures.get(name, math.nan) for name in self.classes]
                series.append(charts.Series(self.rival.name, self.colours[self.rival.name], values))
        return series

    def _class_bars(self) -> str:
        panels = {}
        for protocol in self.results:
            losses, accuracies = self._series(protocol, "log_loss"), self._series(protocol, "accuracy")
            hardest = np.argsort(-np.nan_to_num(np.asarray(losses[0].values), nan=-1.0), kind="stable")
            shown = hardest[:20] if len(hardest) > CLASSES_IN_MATRIX else hardest
            names = [self.classes[i] for i in shown]
            pick = lambda series, shown=shown: [s._replace(values=[s.values[i] for i in shown]) for s in series]  # noqa: E731
            drawn = pick(losses)
            finite = [v for s in drawn for v in s.values if math.isfinite(v)]
            marks = charts.ticks(0, max(finite, default=1.0) or 1.0)
            high = max(max(finite, default=1.0), marks[-1]) or 1.0
            left = charts.rows(names, drawn, high, ".3f", "nats")
            right = charts.rows(names, pick(accuracies), 1.0, ".1%", "")
            table = self._class_table(protocol, losses, accuracies)
            less = f"The 20 hardest of {len(hardest)} classes. " if len(shown) < len(hardest) else ""
            panels[protocol] = (
                f"{charts.key((s.name, s.colour) for s in losses)}"
                f'<div class="pair"><figure><h3>Log loss (lower is better)</h3>{left}</figure>'
                f"<figure><h3>Accuracy</h3>{right}</figure></div>"
                f'<p class="muted small">{less}Hardest class first. Bars and figures: {escape(losses[0].name)}; marks: '
                f"the others on the same scale.</p>{charts.details('All figures as a table', table)}"
            )
        return f'<h2 id="classes-title">Class by class</h2>{charts.switch("classes-of", panels)}'

    def _class_table(self, protocol: str, losses: Sequence[charts.Series], accuracies: Sequence[charts.Series]) -> str:
        counts = next(iter(self.results[protocol].values())).scores.class_count
        head = ["class", "rows"]
        head += [f"{escape(s.name)}<br>log loss" for s in losses] + [
            f"{escape(s.name)}<br>accuracy" for s in accuracies
        ]
        rows = [
            [
                escape(name),
                f"{counts[i]:,}",
                *(charts.number(s.values[i], ".3f") for s in losses),
                *(charts.number(s.values[i], ".1%") for s in accuracies),
            ]
            for i, name in enumerate(self.classes)
        ]
        return charts.table(head, rows)

    def _confusion(self) -> str:
        panels = {}
        for protocol, by_name in self.results.items():
            if self.system not in by_name:
                continue
            counts = by_name[self.system].scores.confusion
            said = f"Share of each true class (row) that {self.system} takes for the class of the column, in percent"
            if len(self.classes) <= CLASSES_IN_MATRIX:
                picture = charts.matrix(self.classes, counts, f"{said}.")
                picture += f"<figcaption>{escape(said)}. Blue is right, red is not.</figcaption>"
            else:
                picture = charts.heat(counts, f"{said}; the commonest confusions are in the table beside it.")
                picture += f"<figcaption>{escape(said)}, as depth of colour; classes in the order of the "
                picture += "output. Blue is right, red is not.</figcaption>"
            off = counts * (1 - np.eye(len(counts), dtype=int))
            worst = [np.unravel_index(i, off.shape) for i in np.argsort(-off, axis=None, kind="stable")[:8]]
            rows = [
                [
                    escape(self.classes[i]),
                    escape(self.classes[j]),
                    f"{off[i, j]:,}",
                    charts.number(off[i, j] / counts[i].sum(), ".1%"),
                ]
                for i, j in worst
                if off[i, j]
            ]
            table = charts.table(["truth", "taken for", "rows", "of the class"], rows, text=[1])
            table = table if rows else "<p>No row is confused.</p>"
            panels[protocol] = (
                f'<div class="pair"><figure>{picture}</figure><div><h3>Commonest confusions</h3>{table}</div></div>'
            )
        return f'<h2 id="confusion-title">What is taken for what</h2>{charts.switch("confusion-of", panels)}'

    def _calibration(self) -> str:
        panels = {}
        for protocol, by_name in self.results.items():
            series, rows = [], []
            for name, result in by_name.items():
                bins = reliability(result.output.probabilities, result.targets)
                series.append(
                    (
                        name,
                        self.colours[name],
                        [
                            charts.Bin(int(n), float(c), float(a))
                            for n, c, a in zip(bins.count, bins.confidence, bins.accuracy, strict=True)
                        ],
                    )
                )
                rows.append(
                    [
                        self._label(name),
                        _percent(result.scores.calibration_error),
                        f"{result.scores.brier:.3f}",
                        _percent(float(result.output.probabilities.max(1).mean())),
                        _percent(float((result.output.probabilities.argmax(1) == result.targets).mean())),
                    ]
                )
            least = max(3, round(0.004 * max(result.scores.count for result in by_name.values())))
            picture = charts.reliability(
                series,
                least,
                f"Reliability diagram, {protocol}: share right over confidence; numbers in the table beside it.",
            )
            table = charts.table(["system", "calibration error", "Brier score", "mean confidence", "share right"], rows)
            system, _, bins = series[0]
            full = charts.table(
                ["confidence from", "rows", "mean confidence", "share right"],
                [
                    [
                        _percent(i / len(bins)),
                        f"{b.count:,}",
                        charts.number(b.confidence, ".1%"),
                        charts.number(b.accuracy, ".1%"),
                    ]
                    for i, b in enumerate(bins)
                    if b.count
                ],
            )
            panels[protocol] = (
                f'<div class="pair"><figure>{charts.key((n, c) for n, c, _ in series)}{picture}</figure><div>'
                f'{table}<p class="muted small" style="margin-top:12px">Above the dashed line a system is too modest, '
                f"below it too sure. Points stand for at least {least} rows; the bars count the rows of "
                f"{escape(system)}.</p>{charts.details(f'The bins of {system} as a table', full)}</div></div>"
            )
        return f'<h2 id="calibration-title">Can its probabilities be trusted?</h2>{charts.switch("reliability-of", panels)}'

    def _places(self) -> str:
        own = self._clips[self.system]
        parts = [self._seen_table(), self._city_bars(), self._location_columns()]
        if not any(parts):
            return ""
        return (
            f'<h2 id="places-title">Where it holds</h2><p class="muted small">{_cap(own.scores.protocol)}; plain means '
            f"over the recordings of a place, not macro averages.</p>{''.join(parts)}"
        )

    def _seen_table(self) -> str:
        groups = self._seen(self._clips[self.system])
        if not groups:
            return ""
        head = ["recordings from a", "count"]
        head += [f"{escape(name)}<br>log loss, accuracy" for name in self._clips]
        rows = []
        for group, indices in groups.items():
            cells = [group, f"{len(indices):,}"]
            for result in self._clips.values():
                own = self._seen(result).get(group, np.zeros(0, int))
                cells.append(
                    f"{result.losses[own].mean():.3f}, {_percent(float(result.hits[own].mean()))}" if len(own) else "–"
                )
            rows.append(cells)
        return f"<h3>Seen and unseen in training</h3>{charts.table(head, rows, style='wide')}"

    def _city_bars(self) -> str:
        cities = {name: self._cities(result) for name, result in self._clips.items()}
        names = sorted(name for name in cities[self.system] if name)
        if len(names) < 2:
            return ""
        series, losses = [], []
        for name, result in self._clips.items():
            means = [
                (result.hits[i].mean(), result.losses[i].mean()) if len(i) else (math.nan, math.nan)
                for i in (cities[name].get(city, np.zeros(0, int)) for city in names)
            ]
            series.append(charts.Series(name, self.colours[name], [m[0] for m in means]))
            losses.append(charts.Series(name, self.colours[name], [m[1] for m in means]))
        order = np.argsort(series[0].values, kind="stable")
        pick = lambda group: [s._replace(values=[s.values[i] for i in order]) for s in group]  # noqa: E731
        ordered = [names[i] for i in order]
        series, losses = pick(series), pick(losses)
        high = max((v for s in losses for v in s.values if math.isfinite(v)), default=1.0)
        table = charts.table(
            [
                "city",
                "recordings",
                *(f"{escape(s.name)}<br>accuracy" for s in series),
                *(f"{escape(s.name)}<br>log loss" for s in losses),
            ],
            [
                [
                    escape(city),
                    f"{len(cities[self.system][city]):,}",
                    *(charts.number(s.values[i], ".1%") for s in series),
                    *(charts.number(s.values[i], ".3f") for s in losses),
                ]
                for i, city in enumerate(ordered)
            ],
        )
        return (
            f"<h3>By city</h3>{charts.key((s.name, s.colour) for s in series)}"
            f'<div class="pair"><figure><h3>Accuracy</h3>{charts.rows(ordered, series, 1.0, ".1%", "")}</figure>'
            f"<figure><h3>Log loss</h3>{charts.rows(ordered, losses, high, '.3f', 'nats')}</figure></div>"
            f"{charts.details('Cities as a table', table)}"
        )

    def _location_columns(self) -> str:
        own = self._clips[self.system]
        groups = self._locations(own)
        if len(groups) < 2:
            return ""
        order = sorted(groups, key=lambda p: (own.hits[groups[p]].mean(), -own.losses[groups[p]].mean()))
        values = [float(own.hits[groups[place]].mean()) for place in order]
        labels = [f"{place} ({_count(len(groups[place]), 'recording')})" for place in order]
        perfect = sum(v == 1 for v in values)
        said = (
            f"Share right at each of {len(order)} locations, worst first: the worst {_percent(values[0])}, the median "
            f"{_percent(float(np.median(values)))}, {perfect} without an error."
        )
        rows = []
        for place in order:
            members = groups[place]
            wrong = Counter(own.output.decisions[members][~own.hits[members]].tolist()).most_common(1)
            scenes = ", ".join(sorted({self.classes[t] for t in own.targets[members]}))
            rows.append(
                [
                    escape(place),
                    escape(scenes),
                    f"{len(members):,}",
                    _percent(float(own.hits[members].mean())),
                    f"{own.losses[members].mean():.3f}",
                    escape(self.classes[wrong[0][0]]) if wrong else "–",
                ]
            )
        head = ["location", "truth", "recordings", "accuracy", "log loss", "mostly taken for"]
        worst = charts.table(head, rows[:6], text=[1, 5], style="wide")
        rest = charts.details(f"All {len(rows)} locations", charts.table(head, rows, text=[1, 5])) if len(rows) > 6 else ""
        return (
            f"<h3>By location</h3><figure>{charts.columns(values, labels, self.colours[self.system], said)}"
            f"<figcaption>{escape(said)}</figcaption></figure><h3>The hardest locations</h3>{worst}{rest}"
        )

    def _training(self) -> str:
        if not self.history:
            return ""
        stages = self.history if isinstance(self.history, Mapping) else {"": self.history}
        parts = [self._stage(name, read_history(path)) for name, path in stages.items()]
        return f'<h2 id="training-title">Training</h2>{"".join(parts)}'

    def _stage(self, stage: str, history: History) -> str:
        groups: dict[str, list[str]] = {"Log loss": [], "Accuracy": [], "Learning rate": [], "Other figures": []}
        for name in history.columns:
            word = name.lower()
            kind = "Learning rate" if word.startswith("lr") else "Accuracy" if "acc" in word else "Other figures"
            groups["Log loss" if "loss" in word else kind].append(name)
        figures = []
        for title, names in groups.items():
            if not names:
                continue
            series = [
                charts.Series(name, colour, history.columns[name])
                for name, colour in zip(names, _curve_colours(names), strict=True)
            ]
            form = ".1%" if title == "Accuracy" else ".3g"
            label = f"{title} over the epochs{f' of {stage}' if stage else ''}; numbers in the table below."
            figures.append(
                f"<figure><h3>{title}</h3>{charts.key((s.name, s.colour) for s in series)}"
                f"{charts.curves(history.epochs, series, form, label, history.best)}</figure>"
            )
        head = ["epoch", *(escape(name) for name in history.columns)]
        rows = [
            [f"{epoch:g}", *(charts.number(values[i], ".4g") for values in history.columns.values())]
            for i, epoch in enumerate(history.epochs)
        ]
        title = f"<h3>{escape(stage)}</h3>" if stage else ""
        kept = ""
        if history.best is not None:
            value = history.columns[history.judge][history.best]
            kept = (
                f'<p class="muted small">Dashed: epoch {history.epochs[history.best]:g} has the lowest '
                f"{escape(history.judge)}, {value:.4f}.</p>"
            )
        table = charts.table(head, rows, lead=history.best)
        return (
            f'{title}<div class="trio">{"".join(figures)}</div>{kept}{charts.details("Every epoch as a table", table)}'
        )

    def _error_cards(self) -> str:
        title = '<h2 id="errors-title">Surest errors</h2>'
        result = next(by_name[self.system] for by_name in self.results.values() if self.system in by_name)
        wrong = int((~result.hits).sum())
        if not wrong:
            return f"{title}<p>None of {_count(result.scores.count, 'row')} is decided wrongly.</p>"
        others = {
            name: {key: i for i, key in enumerate(_keys(other.output))}
            for name, other in self.results[result.scores.protocol].items()
            if name != self.system
        }
        cards = "".join(self._error_card(error, others, result.scores.protocol) for error in self._errors)
        return (
            f'{title}<p class="muted small">{_count(wrong, "wrong decision")} of {result.scores.count:,} '
            f"({escape(result.scores.protocol)}). Shown are those that {escape(self.system)} was surest of, one a "
            f'recording, and one a location as far as there are enough.</p><ul class="errors">{cards}</ul>'
        )

    def _error_card(self, error: _Error, others: Mapping[str, Mapping], protocol: str) -> str:
        truth, said = self.classes[error.target], self.classes[error.decided]
        top = np.argsort(-error.probabilities, kind="stable")[:3].tolist()
        top += [i for i in (error.decided, error.target) if i not in top]
        bars = "".join(
            f"<span>{f'<b>{escape(self.classes[i])}</b>' if i == error.target else escape(self.classes[i])}</span>"
            f'<svg width="100%" height="8" class="s{0 if i == error.target else 1}" aria-hidden="true"><rect class="bar" '
            f'width="{100 * min(error.probabilities[i], 1):.1f}%" height="8" rx="1.5"/></svg>'
            f"<span>{_percent(error.probabilities[i], 0)}</span>"
            for i in top
        )
        verdicts = []
        for name, index in others.items():
            i = index.get((error.file, error.start))
            if i is None:
                continue
            output = self.results[protocol][name].output
            guess = int(output.decisions[i])
            right = "right" if guess == error.target else f"says {escape(self.classes[guess])}"
            verdicts.append(
                f"<li>{charts.mark(self.colours[name], 10)}{escape(name)}: {right}, "
                f"{_percent(output.probabilities[i, guess], 0)}</li>"
            )
        row = self._row(error.file)
        length = self.segment if error.start is not None else (row.duration if row else 0.0)
        start = error.start or 0.0
        window = f", {start:g} to {start + length:g} s" if length else ""
        pictures, sound = (
            self._media(row, start, length or self.segment, f"{truth} taken for {said}") if row else ("", "")
        )
        verdict = f'<ul class="key small">{"".join(verdicts)}</ul>' if verdicts else ""
        return (
            f'<li class="error">{pictures}<div class="text"><h3>{escape(truth)}, taken for {escape(said)}</h3>'
            f'<small class="file">{escape(error.file)}{window}</small>{sound}<div class="guess">{bars}</div>{verdict}</div></li>'
        )

    def _media(self, row: Row, start: float, length: float, what: str) -> tuple[str, str]:
        """Pictures with the spectrogram, and the sound, as HTML; what cannot be read says why."""
        from avsc_e2e.data.media import read_audio, read_frames

        pictures, sound = "", ""
        whole = length > 2
        if row.video:
            times = [start + length * share for share in ((1 / 6, 1 / 2, 5 / 6) if whole else (0.5,))]
            try:
                frames = read_frames(row.video, times, short_side=150 if whole else 240)
            except MediaError as error:
                sound += f'<p class="small">No picture: {escape(error.reason)}.</p>'
            else:
                images = "".join(
                    f'<img src="{charts.image_uri(frame, "jpeg")}" alt="{escape(f"{what}, at {time:.1f} s")}">'
                    for frame, time in zip(frames, times, strict=True)
                )
                pictures += f'<div class="frames{"" if whole else " one"}">{images}</div>'
        if row.audio:
            try:
                audio = read_audio(row.audio, start, length, SAMPLE_RATE).mean(axis=0)
            except MediaError as error:
                sound += f'<p class="small">No sound: {escape(error.reason)}.</p>'
            else:
                pictures += (
                    f'<img class="spectrogram" src="{charts.image_uri(charts.spectrogram(audio, SAMPLE_RATE), "jpeg")}" '
                    f'alt="Log-mel spectrogram, {start:g} to {start + length:g} s, 40 Hz to {SAMPLE_RATE / 2000:g} kHz">'
                )
                # A second is enough to know a sound by, and keeps the page small.
                begin = max(len(audio) - SAMPLE_RATE, 0) // 2
                label = "its middle second" if whole else "its sound"
                sound = (
                    f'<audio controls preload="metadata" aria-label="{escape(f"{what}: {label}")}" '
                    f'src="{_wave_uri(audio[begin : begin + SAMPLE_RATE])}"></audio>'
                    f"{'<small>The sound is the middle second.</small>' if whole else ''}{sound}"
                )
        return pictures, sound

    def _configuration(self) -> str:
        parts = []
        if self.configuration:
            rows = "".join(
                f'<tr class="group"><th scope="rowgroup" colspan="2">{escape(name)}</th></tr>'
                if value is None
                else f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
                for name, value in _settings(self.configuration)
            )
            parts.append(
                f'<div><h3>Recipe</h3><div class="scroll" tabindex="0"><table class="settings"><tbody>{rows}</tbody>'
                "</table></div></div>"
            )
        rows = "".join(f'<tr><th scope="row">{escape(n)}</th><td>{escape(v)}</td></tr>' for n, v in versions().items())
        parts.append(f'<div><h3>Versions</h3><table class="settings"><tbody>{rows}</tbody></table></div>')
        return f'<h2 id="configuration-title">Configuration</h2><div class="pair">{"".join(parts)}</div>'


@dataclass(frozen=True, eq=False)
class _Error:
    file: str
    start: float | None
    target: int
    decided: int
    probabilities: np.ndarray


@dataclass(frozen=True, eq=False)
class History:
    """A training, epoch by epoch."""

    epochs: list[float]
    columns: dict[str, list[float]]
    """Name -> one figure an epoch; nan where none was logged."""
    judge: str = ""
    """The column that chose the best epoch; empty where there is none."""

    @property
    def best(self) -> int | None:
        values = self.columns.get(self.judge, [])
        finite = [i for i, value in enumerate(values) if math.isfinite(value)]
        return min(finite, key=values.__getitem__, default=None)


def read_history(path: str | Path) -> History:
    """The epochs of a training's metrics.csv, whichever columns it has; the last figure of an epoch counts.

    Raises AvscError for a file that is missing or has no epochs.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AvscError(f"{path}: cannot be read as a training's metrics.csv ({error})") from None
    epochs: dict[float, dict[str, float]] = {}
    for number, line in enumerate(csv.DictReader(io.StringIO(text))):
        figures = {name: _float(value) for name, value in line.items() if name}
        figures = {name: value for name, value in figures.items() if math.isfinite(value)}
        epoch = figures.pop("epoch", float(number))
        figures.pop("step", None)
        if figures:
            epochs.setdefault(epoch, {}).update(figures)
    if not epochs:
        raise AvscError(f"{path}: no epoch with a figure in it; give the metrics.csv that the training wrote")
    order = sorted(epochs)
    names = dict.fromkeys(name for epoch in order for name in epochs[epoch])
    columns = {name: [epochs[epoch].get(name, math.nan) for epoch in order] for name in names}
    judges = [name for name in columns if "val" in name.lower() and "loss" in name.lower()]
    return History(order, columns, next((n for n in judges if "log_loss" in n), next(iter(judges), "")))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on, as far as they are installed."""
    found = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _curve_colours(names: Sequence[str]) -> list[int]:
    """Validation in the system's colour, training in grey, branches in theirs; others as they come."""
    colours, free = [], [3, 5, 6, 7, 1, 2, 4, 0]
    for name in names:
        word = name.lower()
        wish = 1 if "audio" in word else 2 if "video" in word else 4 if "train" in word else 0
        if wish in colours:
            wish = next((colour for colour in free if colour not in colours), wish)
        colours.append(wish)
    return colours


def _settings(value: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """Rows of a nested configuration: plain values first, then each group under its dotted name (value None)."""
    fields = {key: _fields(item) for key, item in value.items()}
    for key, item in value.items():
        if fields[key] is None:
            yield str(key), _shown(item)
    for key, group in fields.items():
        if group is not None:
            name = f"{prefix}{key}"
            yield name, None
            yield from _settings(group, f"{name}.")


def _fields(value: object) -> dict[str, object] | None:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)} or None
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) and value else None


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(item) for item in value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return "–" if value is None or value == "" else str(value)


def _grouped(names: Sequence[str]) -> dict[str, np.ndarray]:
    """Name -> indices of its rows."""
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        groups.setdefault(name, []).append(i)
    return {name: np.array(rows) for name, rows in groups.items()}


def _keys(output: SystemOutput) -> list[tuple[str, float | None]]:
    starts = [None] * len(output) if output.start is None else output.start.tolist()
    return list(zip(output.files, starts, strict=True))


def _wave_uri(audio: np.ndarray) -> str:
    """(N,) in [-1, 1] as a WAV data URI, 16 bit."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE)
        sound.writeframes((np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes())
    return f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"


def _plain(value: object) -> object:
    """As JSON has it: tuples are lists, nan is None, other objects their text."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    fields = _fields(value)
    if fields is not None:
        return {key: _plain(item) for key, item in fields.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else {} if value == {} else str(value)


def _float(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _percent(value: float, digits: int = 1) -> str:
    return charts.number(value, f".{digits}%")


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _cap(text: str) -> str:
    return text[:1].upper() + text[1:]
