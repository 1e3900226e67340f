"""Checks of the media files of a set: readability, and equal length, rate and size."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from avsc_e2e.apart import Died, apart
from avsc_e2e.clip import MODALITIES
from avsc_e2e.data.check.findings import Problem, Progress
from avsc_e2e.data.media import Media, give_up, probe, read_audio, read_frames
from avsc_e2e.errors import MediaError

SAMPLE_RATE, CHANNELS = 48_000, 2
"""Sample rate and channels of the release's audio."""


def look_at(
    files: dict[str, list[str]], fast: bool, problems: list[Problem], progress: Progress | None
) -> tuple[dict[str, Media], int]:
    """Read the headers of files, and unless `fast` all of their content; a file that cannot be read is a problem."""
    media: dict[str, Media] = {}
    unreadable: list[Problem] = []
    size = 0
    tasks = [(path, tuple(modalities), fast) for path, modalities in files.items()]
    for number, (index, found) in enumerate(apart(_read, tasks), 1):
        path = tasks[index][0]
        if isinstance(found, Died):
            found = MediaError(path, found.reason)
            give_up(found)  # this process reads the rest
        if isinstance(found, MediaError):
            empty = found.path == path and os.path.isfile(path) and not os.path.getsize(path)
            unreadable.append(Problem("empty" if empty else "unreadable", path, found.reason))
        else:
            media[path] = found
            size += found.size
        if progress:
            progress(number, len(files))
    problems += sorted(unreadable, key=lambda problem: (problem.kind, problem.path))
    return media, size


def _read(task: tuple[str, tuple[str, ...], bool]) -> Iterator[Media | MediaError]:
    """The content of a file, or the reason why it cannot be read. It runs in a separate process, because a decoder may
    crash."""
    try:
        yield _media(*task)
    except MediaError as error:
        yield error


def _media(path: str, modalities: Sequence[str], fast: bool) -> Media:
    if not os.path.getsize(path):
        raise MediaError(path, "is empty")
    media = probe(path)
    if fast:
        return media
    if media.has_video and "video" in modalities:
        # Every frame is decoded and reduced at once, so that a long video needs little memory.
        frames = max(media.frames, round(media.duration * media.frame_rate), 1)
        for first in range(0, frames, 256):
            times = (np.arange(first, min(first + 256, frames)) + 0.5) / (media.frame_rate or 1)
            read_frames(path, np.minimum(times, media.duration), short_side=32)
    if media.has_audio and "audio" in modalities:
        for start in range(0, int(np.ceil(media.duration)), 60):
            read_audio(path, start, min(60.0, media.duration - start), media.sample_rate)
    return media


def compare_media(
    files: dict[str, list[str]], media: dict[str, Media], *, seconds: float | None, sample_rate: int
) -> list[Problem]:
    """Compare lengths, rates, channels and frame counts with the release's, or with those of most files of the set."""
    problems = []
    for modality in MODALITIES:
        headers = {path: header for path, header in media.items() if modality in files[path]}
        if not headers:
            continue
        length = seconds or _usual(round(header.duration, 1) for header in headers.values())
        rate = sample_rate or _usual(header.sample_rate for header in headers.values())
        channels = CHANNELS if sample_rate else _usual(header.channels for header in headers.values())
        shape = _usual((header.width, header.height) for header in headers.values())
        frames = _usual(header.frames for header in headers.values())
        frame_rate = _usual(round(header.frame_rate, 1) for header in headers.values())
        for path, header in headers.items():
            faults = []
            if abs(header.duration - length) > 0.1:
                faults.append(f"lasts {header.duration:.3f} s, not {length:g}")
            if modality == "audio":
                if header.sample_rate != rate:
                    faults.append(f"{header.sample_rate} Hz, not {rate}")
                if header.channels != channels:
                    faults.append(f"{header.channels} channels, not {channels}")
            elif not header.has_video:
                faults.append("has no video")
            else:
                if (header.width, header.height) != shape:
                    faults.append(f"{header.width} x {header.height} pixels, most have {shape[0]} x {shape[1]}")
                if abs(header.frame_rate - frame_rate) > 0.1:
                    faults.append(f"{header.frame_rate:.2f} frames a second, most have {frame_rate:g}")
                if header.frames and abs(header.frames - frames) > max(2, 0.01 * frames):
                    faults.append(f"{header.frames} frames, most have {frames}")
            if faults:
                problems.append(Problem("format", path, "; ".join(faults)))
    return sorted(problems, key=lambda problem: problem.path)


def _usual(values: Iterable[Any]) -> Any:
    return Counter(values).most_common(1)[0][0]
