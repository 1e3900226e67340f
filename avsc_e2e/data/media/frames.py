"""Reading the frames that a video shows at given times."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from avsc_e2e.data.media.header import Media, probe_located
from avsc_e2e.data.media.images import read_image
from avsc_e2e.data.media.reader import Reader
from avsc_e2e.data.media.sharing import SharedFile
from avsc_e2e.data.media.source import boundary, kind, locate
from avsc_e2e.errors import MediaError

if TYPE_CHECKING:
    from avsc_e2e.data.media.decord import DecordReader

Decoder = Literal["auto", "pyav", "decord"]
"""Decoder of frames. pyav: exact frames. decord: wrong frames in many files, without an error; for comparison. auto:
pyav, because decord is faster on no file that it reads correctly (benchmarks/media_exact.py)."""


def open_reader(
    path: str,
    media: Media,
    short_side: int | None = None,
    decoder: Decoder = "auto",
    threads: int = 1,
    shared: SharedFile | None = None,
) -> Reader | DecordReader:
    """Open the video of a file to read frames from it. Raises MediaError, or what the decoder raises."""
    if decoder == "decord":
        from avsc_e2e.data.media.decord import DecordReader

        return DecordReader(path, media, short_side, threads)
    return Reader(path, media, short_side, threads, shared)


def read_frames(
    path: str | os.PathLike[str], times: Sequence[float], short_side: int | None = None, decoder: Decoder = "auto"
) -> np.ndarray:
    """Read the frames shown at `times` (seconds) as (T, H, W, 3) uint8 RGB, upright and with square pixels, scaled so
    that the shorter side has `short_side` pixels. An image file counts as a video of one frame. Raises MediaError."""
    path, stamp = locate(path)
    if kind(path) == "image":
        return np.repeat(read_image(path, short_side)[None], len(times), axis=0)
    media = probe_located(path, *stamp)
    if not media.has_video:
        raise MediaError(path, "has no video; give it as audio only")
    with boundary(path, "its video cannot be decoded"), open_reader(path, media, short_side, decoder) as reader:
        order = np.argsort(times, kind="stable")
        shown = reader.at([times[index] for index in order])
        converted = {frame: reader.convert(frame) for frame in dict.fromkeys(shown)}
        frames = [converted[shown[place]] for place in np.argsort(order, kind="stable")]
        return frames[0][None] if len(frames) == 1 else np.stack(frames)
