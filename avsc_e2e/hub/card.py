"""The card of a model: its use, classes, data, trunks and figures, and what is not known about it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avsc_e2e.inference import CALIBRATION
from avsc_e2e.models.ensemble import Ensemble
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.checkpoint import read_notes
from avsc_e2e.models.weights.sources import chosen
from avsc_e2e.outputs.intervals import Interval, intervals, warning_of_few
from avsc_e2e.outputs.metrics import score
from avsc_e2e.outputs.names import location_of
from avsc_e2e.outputs.output import SystemOutput, read_output, to_clips
from avsc_e2e.outputs.reference import read_reference, targets_of


@dataclass(frozen=True)
class About:
    """Facts about a model that only its author knows."""

    data: str = ""
    """Training data: a name or a link."""
    data_licence: str = ""
    licence: str = ""
    """Licence of the checkpoint: an identifier of the hub, such as mit or cc-by-4.0."""
    use: str = ""
    """Intended use."""


def card_of(checkpoint: Path, model: SceneNet | Ensemble, name: str, about: About) -> str:
    """The card in Markdown. Figures come from evaluation/segments.csv beside the checkpoint, if it exists."""
    arch, notes = model.architecture, read_notes(checkpoint)
    heard = " and ".join(arch.modalities)
    lines = [
        f"# {name or checkpoint.parent.name}",
        "",
        f"Classifies the scene of a recording, for each {arch.window:g} s, from {heard}, into {len(arch.classes)} "
        "classes. Made with avsc_e2e.",
        *([about.use] if about.use else []),
        "",
        "## How to use it",
        "",
        "```python",
        "import avsc_e2e",
        "",
        f'for found in avsc_e2e.predict("hf-hub:{name or "user/name"}", ["HOLIDAY.mp4"]):',
        "    print(found.path, found.segments)",
        "```",
        "",
        "## Classes",
        "",
        ", ".join(arch.classes),
        "",
        "## Data",
        "",
        f"Trained on {about.data or 'data that the author has not named'}"
        f" ({about.data_licence or 'licence not stated'}).",
        "",
        "## Trunks",
        "",
        "| trunk | pretrained on | licence |",
        "|---|---|---|",
        *_trunks(model),
        "",
        "## Figures",
        "",
    ]
    folder = checkpoint.parent / "evaluation"
    tested = (folder / "segments.csv").is_file() and (folder / "reference.csv").is_file()
    lines += _figures(folder, arch.window) if tested else _out_of_fold(notes)
    lines += ["", "## What is missing", "", *(f"- {text}" for text in _missing(about, notes, tested, arch.modalities))]
    return "\n".join(lines) + "\n"


def _trunks(model: SceneNet | Ensemble) -> Iterator[str]:
    members = [member.architecture for member in model.members] if isinstance(model, Ensemble) else [model.architecture]
    for trunk in dict.fromkeys(trunk for arch in members for trunk in (arch.audio, arch.video) if trunk):
        source = chosen(trunk)
        told = f"{source.data} ({source.name}, {source.url})" if source else "nothing, or weights of a file"
        yield f"| {trunk} | {told} | {source.licence if source else ''} |"


def _figures(folder: Path, window: float) -> list[str]:
    segments, reference = read_output(folder / "segments.csv"), read_reference(folder / "reference.csv")
    lines = ["| test set | macro log loss | macro accuracy | calibration error |", "|---|---|---|---|"]
    for protocol, output in ((f"{window:g} s segments", segments), ("whole recordings", to_clips(segments))):
        lines.append(_line(protocol, output, reference))
    places = np.array([location_of(file) for file in segments.files])
    few = warning_of_few(targets_of(segments, reference), places, segments.classes, "recordings")
    lines += ["", "In brackets 95 % intervals, by bootstrap over recordings, or over locations where names tell them."]
    return lines + ([f"Careful: {few}."] if few else [])


def _line(protocol: str, output: SystemOutput, reference: dict[str, str]) -> str:
    targets = targets_of(output, reference)
    places = np.array([location_of(file) for file in output.files])
    found = score(output.probabilities, targets, output.classes, protocol)
    spread = intervals(output.probabilities, targets, groups=places)
    loss = f"{found.log_loss:.3f}{_bounds(spread.log_loss, 1, 3)}"
    accuracy = f"{100 * found.accuracy:.1f} %{_bounds(spread.accuracy, 100, 1)}"
    return f"| {protocol} ({found.count}) | {loss} | {accuracy} | {found.calibration_error:.3f} |"


def _bounds(interval: Interval | None, scale: float, digits: int) -> str:
    return f" ({scale * interval.low:.{digits}f} to {scale * interval.high:.{digits}f})" if interval else ""


def _out_of_fold(notes: dict[str, str]) -> list[str]:
    rungs = json.loads(notes.get("ladder", "[]"))
    if not rungs:
        return ["None: the model was not tested."]
    best = min(rungs, key=lambda rung: rung["log_loss"])
    return [
        f"Out of fold on the training set, a little too good: macro log loss {best['log_loss']:.3f}, macro accuracy "
        f"{100 * best['accuracy']:.1f} % of one-second segments ({best['name']})."
    ]


def _missing(about: About, notes: dict[str, str], tested: bool, modalities: tuple[str, ...]) -> Iterator[str]:
    if not tested:
        yield "No figures on a test set."
    if CALIBRATION in notes:
        yield "The probabilities are calibrated; on other recordings than those of the fit they may not be."
    elif "ladder" in notes:
        yield "The decision was fitted out of fold; how well it is calibrated elsewhere is not known."
    else:
        yield "The probabilities are not calibrated."
    for told, what in ((about.data, "the training data"), (about.data_licence, "their licence"),
                       (about.licence, "the licence of the checkpoint"), (about.use, "the intended use")):  # fmt: skip
        if not told:
            yield f"Its author has not stated {what}."
    if len(modalities) == 1:
        yield f"It uses {modalities[0]} alone."
    yield "It always answers with one of its classes, also for a scene that is none of them."
