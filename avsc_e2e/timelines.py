"""A timeline as text: a table to read, JSON, or rows with commas or tabs."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from typing import Literal

import numpy as np

from avsc_e2e.captions import captions
from avsc_e2e.clip import Window
from avsc_e2e.segments import Prediction, Smooth

Format = Literal["table", "json", "jsonl", "csv", "tsv", "webvtt", "audacity"]
SEPARATORS = {"csv": ",", "tsv": "\t"}
CAPTIONS = ("webvtt", "audacity")
"""Formats of one recording, with a line for each segment."""

BASIS = {("audio", "video"): "audio and video", ("audio",): "audio only", ("video",): "video only"}


def header(form: Format, classes: Sequence[str]) -> str:
    """The line above all timelines, if the format has one."""
    if form == "json":
        return "["
    return (
        _line(form, ("filename", "start", "end", "modalities", "scene_label", *classes)) if form in SEPARATORS else ""
    )


def footer(form: Format) -> str:
    """The line below all timelines, if the format has one."""
    return "]" if form == "json" else ""


def separator(form: Format) -> str:
    """What stands before every timeline but the first."""
    return "," if form == "json" else ""


def _line(form: Format, cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=SEPARATORS[form], lineterminator="").writerow(cells)
    return text.getvalue()


def timeline_text(form: Format, found: Prediction, classes: Sequence[str], smooth: Smooth = "none") -> str:
    """The timeline of one recording: one JSON object, or a line for each window. `smooth` is how it was smoothed."""
    if form in SEPARATORS:
        return _rows(form, found.path, found.windows, classes)
    if form == "webvtt" or form == "audacity":
        return captions(form, found.segments).rstrip("\n")
    if form == "table":
        return _table(found, classes, smooth)
    return _json(found, classes, smooth)


def _table(found: Prediction, classes: Sequence[str], smooth: Smooth) -> str:
    path, windows = found.path, found.windows
    mean = np.mean([window.probabilities for window in windows], axis=0)
    best = int(mean.argmax())
    lines = [f"{path}: {classes[best]} {100 * mean[best]:.0f} %, from {BASIS[windows[0].modalities]}"]
    if smooth != "none":
        lines[0] += f", smoothed ({smooth})"
    if len(found.segments) > 1:
        each = (f"{s.start:.1f} - {s.end:.1f} s {s.scene} {100 * s.confidence:.0f} %" for s in found.segments)
        lines.append(f"  scenes: {', '.join(each)}")
    for window in windows:
        order = window.probabilities.argsort()[::-1]
        likely = ", ".join(f"{classes[i]} {100 * window.probabilities[i]:.0f} %" for i in order[:3])
        bar = "█" * round(10 * window.probabilities[order[0]])
        lines.append(f"  {window.start:6.1f} - {window.end:6.1f} s  {bar:<10}  {likely}")
    return "\n".join(lines)


def _json(found: Prediction, classes: Sequence[str], smooth: Smooth) -> str:
    path, windows = found.path, found.windows
    mean = np.mean([window.probabilities for window in windows], axis=0)

    def of(probabilities) -> dict:
        return {
            "scene": classes[int(probabilities.argmax())],
            "probabilities": dict(zip(classes, probabilities.round(6).tolist(), strict=True)),
        }

    spans = [{"start": round(w.start, 3), "end": round(w.end, 3), **of(w.probabilities)} for w in windows]
    segments = [
        {**s._asdict(), "start": round(s.start, 3), "end": round(s.end, 3), "confidence": round(s.confidence, 6)}
        for s in found.segments
    ]
    told = {"file": str(path), "modalities": windows[0].modalities, **of(mean), "smoothing": smooth}
    return json.dumps({**told, "segments": segments, "timeline": spans})


def _rows(form: Format, path: str | os.PathLike, windows: Sequence[Window], classes: Sequence[str]) -> str:
    lines = []
    for window in windows:
        label = classes[int(window.probabilities.argmax())]
        cells = (path, f"{window.start:.2f}", f"{window.end:.2f}", "+".join(window.modalities), label)
        lines.append(_line(form, [*cells, *(f"{p:.6f}" for p in window.probabilities)]))
    return "\n".join(lines)
