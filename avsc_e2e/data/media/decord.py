"""Frames through decord: for comparison. Its index and the decoder disagree on many files, and then the frames are
wrong ones without a word."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from avsc_e2e.data.media.header import Media
from avsc_e2e.data.media.source import TOLERANCE, fitted
from avsc_e2e.errors import MediaError


def read_frames_with_decord(path: str, media: Media, times: Sequence[float], short_side: int | None) -> np.ndarray:
    """As `read_frames`, (T, H, W, 3) uint8 RGB. Raises MediaError, or what decord raises."""
    decord = _decord()
    width, height = fitted(media.width, media.height, short_side)
    reader = decord.VideoReader(path, num_threads=1, width=width, height=height)
    spans = reader.get_frame_timestamp(np.arange(len(reader))) + media.video_start
    if max(times) > spans[-1, 1] + TOLERANCE:
        raise MediaError(path, f"no frame at {max(times):.2f} s: its video ends at {spans[-1, 1]:.2f} s")
    places = np.searchsorted(spans[:, 0], np.asarray(times) + 1e-6, side="right") - 1
    return reader.get_batch(np.clip(places, 0, len(spans) - 1).tolist()).asnumpy()


@lru_cache(maxsize=1)
def _decord():
    import decord

    decord.logging.set_level(decord.logging.QUIET)  # what it has to say comes as an error with the path
    return decord
