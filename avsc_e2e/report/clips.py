"""Values of the section about errors: the clips behind confusions, with frames and audio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from avsc_e2e.clip import Row
from avsc_e2e.errors import MediaError
from avsc_e2e.outputs.output import SystemOutput
from avsc_e2e.report.confident import ConfidentError
from avsc_e2e.report.images import image_uri, spectrogram, wave_uri
from avsc_e2e.report.report import Report
from avsc_e2e.report.words import count, percent

SAMPLE_RATE = 16000
"""Hz, of the audio and the spectrograms."""


class Medium(NamedTuple):
    """An image or audio as a data URI, and its alternative text."""

    source: str
    alt: str


class Media(NamedTuple):
    """Image and audio of a clip."""

    frames: list[Medium]
    spectrogram: Medium | None
    audio: Medium | None
    middle: bool
    """Whether the audio is the middle second of a longer clip."""
    problems: list[str]
    """Reasons why there is no image or no audio."""


class Guess(NamedTuple):
    """The probability of a class."""

    name: str
    hue: str
    true: bool
    width: str
    shown: str


class Card(NamedTuple):
    """A wrongly decided clip."""

    title: str
    file: str
    window: str
    """Seconds that the clip covers, in words."""
    media: Media | None
    guesses: list[Guess]
    others: list[tuple[str, int, str]]
    """Name, colour and decision of the other systems."""


class Group(NamedTuple):
    """Clips of one confusion."""

    anchor: str
    title: str
    rows: str
    cards: list[Card]


class Errors(NamedTuple):
    """Wrong decisions of the system; no groups where there are none."""

    wrong: str
    total: str
    protocol: str
    groups: list[Group]


def errors(report: Report) -> Errors:
    """Wrong decisions by confusion."""
    result = next(by_name[report.system] for by_name in report.results.values() if report.system in by_name)
    protocol = result.scores.protocol
    wrong = int((~result.hits).sum())
    if not wrong:
        return Errors("", count(result.scores.count, "row"), protocol, [])
    others = {
        name: {key: i for i, key in enumerate(_keys(other.output))}
        for name, other in report.results[protocol].items()
        if name != report.system
    }
    groups = [
        Group(
            f"errors-{target}-{decided}",
            f"{report.classes[target]}, taken for {report.classes[decided]}",
            count(int(result.scores.confusion[target, decided]), "row"),
            [_card(report, error, others, protocol) for error in found],
        )
        for (target, decided), found in report.error_groups.items()
    ]
    return Errors(count(wrong, "wrong decision"), f"{result.scores.count:,}", protocol, groups)


def _card(report: Report, error: ConfidentError, others: Mapping[str, Mapping], protocol: str) -> Card:
    truth, said = report.classes[error.target], report.classes[error.decided]
    top = np.argsort(-error.probabilities, kind="stable")[:3].tolist()
    top += [i for i in (error.decided, error.target) if i not in top]
    guesses = []
    for i in top:
        hue = "s0" if i == error.target else "bad" if i == error.decided else "rest"
        width = f"{100 * min(error.probabilities[i], 1):.1f}%"
        guesses.append(Guess(report.classes[i], hue, i == error.target, width, percent(error.probabilities[i], 0)))
    verdicts = []
    for name, index in others.items():
        i = index.get((error.file, error.start))
        if i is None:
            continue
        output = report.results[protocol][name].output
        guess = int(output.decisions[i])
        right = "right" if guess == error.target else f"says {report.classes[guess]}"
        verdicts.append((name, report.colours[name], f"{right}, {percent(output.probabilities[i, guess], 0)}"))
    row = report.row_of(error.file)
    length = report.segment if error.start is not None else (row.duration if row else 0.0)
    start = error.start or 0.0
    window = f", {start:g} to {round(start + length, 2):g} s" if length else ""
    title = f"{truth}, taken for {said}"
    media = media_of(row, start, length or report.segment, f"{truth} taken for {said}") if row else None
    return Card(title, error.file, window, media, guesses, verdicts)


def media_of(row: Row, start: float, length: float, what: str) -> Media:
    """Frames, spectrogram and audio of a clip, or the reason why they cannot be read."""
    from avsc_e2e.data.media import read_audio, read_frames

    frames, spectrum, sample, problems = [], None, None, []
    whole = length > 2
    if row.video:
        times = [start + length * share for share in ((1 / 6, 1 / 2, 5 / 6) if whole else (0.5,))]
        try:
            shown = zip(read_frames(row.video, times, short_side=150 if whole else 240), times, strict=True)
            frames = [Medium(image_uri(frame, "jpeg"), f"{what}, at {time:.1f} s") for frame, time in shown]
        except MediaError as error:
            problems.append(f"No image: {error.reason}.")
    if row.audio:
        try:
            audio = read_audio(row.audio, start, length, SAMPLE_RATE).mean(axis=0)
            span = f"{start:g} to {round(start + length, 2):g} s, 40 Hz to {SAMPLE_RATE / 2000:g} kHz"
            spectrum = Medium(image_uri(spectrogram(audio, SAMPLE_RATE), "jpeg"), f"Log-mel spectrogram, {span}")
            # One second is enough to recognise a scene, and keeps the page small.
            begin = max(len(audio) - SAMPLE_RATE, 0) // 2
            label = f"{what}: {'its middle second' if whole else 'its audio'}"
            sample = Medium(wave_uri(audio[begin : begin + SAMPLE_RATE], SAMPLE_RATE), label)
        except MediaError as error:
            problems.append(f"No audio: {error.reason}.")
    return Media(frames, spectrum, sample, whole, problems)


def _keys(output: SystemOutput) -> list[tuple[str, float | None]]:
    starts = [None] * len(output) if output.start is None else output.start.tolist()
    return list(zip(output.files, starts, strict=True))
