"""The frames that a video shows at given times, each the right one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

import numpy as np

from avsc_e2e.data.media.header import probe_located
from avsc_e2e.data.media.images import read_image
from avsc_e2e.data.media.reader import Reader
from avsc_e2e.data.media.source import boundary, kind, locate
from avsc_e2e.errors import MediaError

Decoder = Literal["auto", "pyav", "decord"]
"""What decodes frames. pyav: exact on every file. decord: as fast, but wrong, without a word, on many files: for
comparison. auto: pyav."""


def read_frames(
    path: str | os.PathLike[str], times: Sequence[float], short_side: int | None = None, decoder: Decoder = "auto"
) -> np.ndarray:
    """The frames shown at `times` (seconds) as (T, H, W, 3) uint8 RGB, upright and with square pixels, scaled while
    converting so that the shorter side has `short_side` pixels. An image file is a video of one frame. Raises
    MediaError."""
    path, stamp = locate(path)
    if kind(path) == "image":
        return np.repeat(read_image(path, short_side)[None], len(times), axis=0)
    media = probe_located(path, *stamp)
    if not media.has_video:
        raise MediaError(path, "has no video; give it as audio only")
    with boundary(path, "its video cannot be decoded"):
        if decoder == "decord":
            from avsc_e2e.data.media.decord import read_frames_with_decord

            return read_frames_with_decord(path, media, times, short_side)
        with Reader(path, media) as reader:
            order = np.argsort(times, kind="stable")
            shown = reader.at([times[index] for index in order])
            converted: dict[int, np.ndarray] = {}
            for frame in shown:
                if id(frame) not in converted:
                    converted[id(frame)] = reader.convert(frame, short_side)
            frames = [converted[id(shown[place])] for place in np.argsort(order, kind="stable")]
            return frames[0][None] if len(frames) == 1 else np.stack(frames)
