"""The results that the page shows: probabilities of each head, of the decision and of each modality alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from threading import Event

import numpy as np

from avsc_e2e.app.limits import Limits
from avsc_e2e.captions import audacity, segments_csv, webvtt
from avsc_e2e.clip import MODALITIES, Clip
from avsc_e2e.data.media import probe
from avsc_e2e.errors import AvscError
from avsc_e2e.explanation.occlusion import without
from avsc_e2e.prediction.predictor import Predictor
from avsc_e2e.segments import SceneSegment, merged

BATCH = 8
"""Windows predicted at a time; progress is sent and limits are checked in between."""


def analyse(
    predictor: Predictor,
    path: Path,
    limits: Limits,
    progress: Callable[[float], None] = lambda share: None,
    stop: Event | None = None,
) -> dict[str, object]:
    """All that the page shows of a recording, as JSON takes it. Raises AvscError where it cannot be read, is longer
    than the limits allow or takes more time, or where `stop` is set."""
    until = time.monotonic() + limits.time
    duration = probe(path).duration
    if duration > limits.length:
        raise AvscError(f"the recording lasts {duration:.0f} s, and {limits.length:g} s are allowed: send a part of it")
    found: dict[str, list[np.ndarray]] = {}
    spans: list[tuple[float, float]] = []
    present: list[list[bool]] = []
    windows = predictor.clips(path)
    while batch := list(islice(windows, BATCH)):
        if stop and stop.is_set():
            raise AvscError("the visitor has left")
        if time.monotonic() > until:
            raise AvscError(f"the prediction takes more than {limits.time:g} s: send a shorter recording")
        clips = [clip for clip, _ in batch]
        for name, values in _voices(predictor, clips).items():
            found.setdefault(name, []).append(values)
        spans += [(clip.start, end) for clip, end in batch]
        present += [clip.present.tolist() for clip in clips]
        progress(min(spans[-1][1] / (duration or 1), 1))
    if not spans:
        raise AvscError("no window of the recording can be read: is the file damaged?")
    used = [name for i, name in enumerate(MODALITIES) if any(there[i] for there in present)]
    used = [name for name in used if name in predictor.model.architecture.modalities]
    voices = {name: np.concatenate(values) for name, values in found.items() if _is_voice(predictor, name, used)}
    starts, ends = zip(*spans, strict=True)
    segments = merged(starts, ends, voices["decision"], predictor.classes)
    return {
        "classes": list(predictor.classes),
        "duration": duration or ends[-1],
        "modalities": used,
        "starts": [round(start, 3) for start in starts],
        "ends": [round(end, 3) for end in ends],
        "voices": {name: values.round(4).tolist() for name, values in voices.items()},
        "segments": [segment._asdict() for segment in segments],
        "sentences": _sentences(voices, predictor.classes),
        "downloads": _downloads(segments),
    }


def _voices(predictor: Predictor, clips: list[Clip]) -> dict[str, np.ndarray]:
    """Name -> (B, K): each head, "decision", and for models of both modalities "audio alone" and "video alone", which
    is the decision where a clip has one modality anyway."""
    found = predictor.heads(clips)
    if len(predictor.model.architecture.modalities) < 2:
        return found
    both = [i for i, clip in enumerate(clips) if bool(clip.present.all())]
    for name, other in (MODALITIES, MODALITIES[::-1]):
        found[f"{name} alone"] = found["decision"].copy()
        if both:
            found[f"{name} alone"][both] = predictor.heads([without(clips[i], other) for i in both])["decision"]
    return found


def _is_voice(predictor: Predictor, name: str, used: list[str]) -> bool:
    """Whether a recording of the modalities `used` has what a head reads, or a modality alone to compare."""
    if name == "decision" or name.endswith(" alone"):
        return name == "decision" or len(used) > 1
    reads = getattr(predictor.model, "modalities_of", lambda head: {head} & set(MODALITIES))
    return reads(name) <= set(used)


def _sentences(voices: dict[str, np.ndarray], classes: tuple[str, ...]) -> list[str]:
    """The decision of the recording in words, and what it would be without each modality."""
    best = lambda name: (classes[int(voices[name].mean(axis=0).argmax())], voices[name].mean(axis=0).max())  # noqa: E731
    scene, share = best("decision")
    said = [f"{scene}, {100 * share:.0f} %, on average over the recording."]
    if "audio alone" in voices:
        for name, other in (("video", "audio"), ("audio", "video")):
            label, alone = best(f"{name} alone")
            same = "still " if label == scene else ""
            said.append(f"Without {other} it would {same}be {label}, {100 * alone:.0f} %.")
    return said


def _downloads(segments: list[SceneSegment]) -> dict[str, str]:
    return {"csv": segments_csv(segments), "webvtt": webvtt(segments), "audacity": audacity(segments)}
