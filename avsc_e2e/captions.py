"""The segments of a timeline in the formats of other programs: WebVTT subtitles, Audacity labels, rows with commas."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Literal

from avsc_e2e.segments import SceneSegment

Captions = Literal["webvtt", "audacity"]
"""Formats of one recording: neither has a place for a file's name."""


def captions(form: Captions, segments: Sequence[SceneSegment]) -> str:
    """Segments as a text of this format, with a line feed at its end."""
    return webvtt(segments) if form == "webvtt" else audacity(segments)


def webvtt(segments: Sequence[SceneSegment]) -> str:
    """Subtitles that every browser and player reads (W3C WebVTT), one a segment."""
    cues = [
        f"{_clock(s.start)} --> {_clock(s.end)}\n{_cue(s.scene)} {100 * s.confidence:.0f} %" for s in segments
    ]  # fmt: skip
    return "\n\n".join(["WEBVTT", *cues]) + "\n"


def audacity(segments: Sequence[SceneSegment]) -> str:
    """A label track of Audacity: start, end (seconds) and name, with tabs; File > Import > Labels reads it."""
    return "".join(f"{s.start:.6f}\t{s.end:.6f}\t{' '.join(s.scene.split())}\n" for s in segments)


def segments_csv(segments: Sequence[SceneSegment]) -> str:
    """Rows of start, end (seconds), scene and confidence, with a header."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("start", "end", "scene", "confidence"))
    rows.writerows((f"{s.start:.3f}", f"{s.end:.3f}", s.scene, f"{s.confidence:.6f}") for s in segments)
    return text.getvalue()


def _clock(seconds: float) -> str:
    """hh:mm:ss.mmm"""
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}.{rest % 1000:03}"


def _cue(scene: str) -> str:
    """A name as the text of a cue, which knows tags and entities."""
    return " ".join(scene.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
