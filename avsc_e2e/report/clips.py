"""The section of a report about errors: the clips behind confusions, with frames and audio."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Mapping
from html import escape

import numpy as np

from avsc_e2e.clip import Row
from avsc_e2e.errors import MediaError
from avsc_e2e.outputs.output import SystemOutput
from avsc_e2e.report import charts
from avsc_e2e.report.report import Report
from avsc_e2e.report.result import ConfidentError
from avsc_e2e.report.words import count, percent

SAMPLE_RATE = 16000
"""Hz, of the audio and the spectrograms."""


def error_cards(report: Report) -> str:
    result = next(by_name[report.system] for by_name in report.results.values() if report.system in by_name)
    wrong = int((~result.hits).sum())
    if not wrong:
        return f"<p>None of {count(result.scores.count, 'row')} is decided wrongly.</p>"
    others = {
        name: {key: i for i, key in enumerate(_keys(other.output))}
        for name, other in report.results[result.scores.protocol].items()
        if name != report.system
    }
    counts = result.scores.confusion
    groups = ""
    for (target, decided), errors in report.error_groups.items():
        cards = "".join(_error_card(report, error, others, result.scores.protocol) for error in errors)
        title = f"{report.classes[target]}, taken for {report.classes[decided]}"
        groups += (
            f'<h3 id="errors-{target}-{decided}">{escape(title)} <small>{count(int(counts[target, decided]), "row")}'
            f'</small></h3><ul class="errors">{cards}</ul>'
        )
    return (
        f'<p class="muted small">{count(wrong, "wrong decision")} of {result.scores.count:,} '
        f"({escape(result.scores.protocol)}). The clips behind the commonest confusions and those that "
        f"{escape(report.system)} was surest of, one a recording, and one a location as far as there are enough.</p>"
        f"{groups}"
    )


def _error_card(report: Report, error: ConfidentError, others: Mapping[str, Mapping], protocol: str) -> str:
    truth, said = report.classes[error.target], report.classes[error.decided]
    top = np.argsort(-error.probabilities, kind="stable")[:3].tolist()
    top += [i for i in (error.decided, error.target) if i not in top]
    bars = ""
    for i in top:
        name = f"<b>{escape(report.classes[i])}</b>" if i == error.target else escape(report.classes[i])
        hue = "s0" if i == error.target else "bad" if i == error.decided else "rest"
        bars += (
            f'<span>{name}</span><svg width="100%" height="8" class="{hue}" aria-hidden="true"><rect class="bar" '
            f'width="{100 * min(error.probabilities[i], 1):.1f}%" height="8" rx="1.5"/></svg>'
            f"<span>{percent(error.probabilities[i], 0)}</span>"
        )
    verdicts = []
    for name, index in others.items():
        i = index.get((error.file, error.start))
        if i is None:
            continue
        output = report.results[protocol][name].output
        guess = int(output.decisions[i])
        right = "right" if guess == error.target else f"says {escape(report.classes[guess])}"
        verdicts.append(
            f"<li>{charts.mark(report.colours[name], 10)}{escape(name)}: {right}, "
            f"{percent(output.probabilities[i, guess], 0)}</li>"
        )
    row = report.row_of(error.file)
    length = report.segment if error.start is not None else (row.duration if row else 0.0)
    start = error.start or 0.0
    window = f", {start:g} to {round(start + length, 2):g} s" if length else ""
    pictures, sound = _media(row, start, length or report.segment, f"{truth} taken for {said}") if row else ("", "")
    verdict = f'<ul class="key small">{"".join(verdicts)}</ul>' if verdicts else ""
    return (
        f'<li class="error">{pictures}<div class="text"><b>{escape(truth)}, taken for {escape(said)}</b> '
        f'<small class="file">{escape(error.file)}{window}</small>{sound}<div class="guess">{bars}</div>{verdict}'
        "</div></li>"
    )


def _media(row: Row, start: float, length: float, what: str) -> tuple[str, str]:
    """Pictures with the spectrogram, and the sound, as HTML; what cannot be read says why."""
    from avsc_e2e.data.media import read_audio, read_frames

    pictures, sound = "", ""
    whole = length > 2
    if row.video:
        times = [start + length * share for share in ((1 / 6, 1 / 2, 5 / 6) if whole else (0.5,))]
        try:
            frames = read_frames(row.video, times, short_side=150 if whole else 240)
        except MediaError as error:
            sound += f'<p class="small">No image: {escape(error.reason)}.</p>'
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
            sound += f'<p class="small">No audio: {escape(error.reason)}.</p>'
        else:
            picture = charts.image_uri(charts.spectrogram(audio, SAMPLE_RATE), "jpeg")
            span = f"{start:g} to {round(start + length, 2):g} s, 40 Hz to {SAMPLE_RATE / 2000:g} kHz"
            pictures += f'<img class="spectrogram" src="{picture}" alt="Log-mel spectrogram, {span}">'
            # A second is enough to know a sound by, and keeps the page small.
            begin = max(len(audio) - SAMPLE_RATE, 0) // 2
            label = "its middle second" if whole else "its audio"
            sound = (
                f'<audio controls preload="metadata" aria-label="{escape(f"{what}: {label}")}" '
                f'src="{_wave_uri(audio[begin : begin + SAMPLE_RATE])}"></audio>'
                f"{'<small>The audio is the middle second.</small>' if whole else ''}{sound}"
            )
    return pictures, sound


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
