"""A timeline as text: a table to read, JSON, or tab-separated rows."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Literal

from avsc_e2e.inference import Window

Format = Literal["table", "json", "csv"]

BASIS = {("audio", "video"): "audio and video", ("audio",): "audio only", ("video",): "video only"}


def header(form: Format, classes: Sequence[str]) -> str:
    """The line above all timelines, if the format has one."""
    return "\t".join(("filename", "start", "end", "modalities", "scene_label", *classes)) if form == "csv" else ""


def timeline_text(form: Format, path: str | os.PathLike, windows: Sequence[Window], classes: Sequence[str]) -> str:
    """The timeline of one recording: one JSON object, or a line for each window."""
    return {"table": _table, "json": _json, "csv": _rows}[form](path, windows, classes)


def _table(path: str | os.PathLike, windows: Sequence[Window], classes: Sequence[str]) -> str:
    mean = sum(window.probabilities for window in windows) / len(windows)
    best = int(mean.argmax())
    lines = [f"{path}: {classes[best]} {100 * mean[best]:.0f} %, from {BASIS[windows[0].modalities]}"]
    for window in windows:
        order = window.probabilities.argsort()[::-1]
        likely = ", ".join(f"{classes[i]} {100 * window.probabilities[i]:.0f} %" for i in order[:3])
        bar = "█" * round(10 * window.probabilities[order[0]])
        lines.append(f"  {window.start:6.1f} - {window.end:6.1f} s  {bar:<10}  {likely}")
    return "\n".join(lines)


def _json(path: str | os.PathLike, windows: Sequence[Window], classes: Sequence[str]) -> str:
    mean = sum(window.probabilities for window in windows) / len(windows)

    def of(probabilities) -> dict:
        return {
            "scene": classes[int(probabilities.argmax())],
            "probabilities": dict(zip(classes, probabilities.round(6).tolist(), strict=True)),
        }

    spans = [{"start": round(w.start, 3), "end": round(w.end, 3), **of(w.probabilities)} for w in windows]
    return json.dumps({"file": str(path), "modalities": windows[0].modalities, **of(mean), "timeline": spans})


def _rows(path: str | os.PathLike, windows: Sequence[Window], classes: Sequence[str]) -> str:
    lines = []
    for window in windows:
        label = classes[int(window.probabilities.argmax())]
        cells = (path, f"{window.start:.2f}", f"{window.end:.2f}", "+".join(window.modalities), label)
        lines.append("\t".join([*map(str, cells), *(f"{p:.6f}" for p in window.probabilities)]))
    return "\n".join(lines)
