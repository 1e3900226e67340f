"""Reading frames with decord, for comparison. On many files its index and its decoder disagree, so it returns wrong
frames without an error. It does not rotate videos upright or make pixels square."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from avsc_e2e.data.media.header import Media
from avsc_e2e.data.media.source import TOLERANCE, fitted
from avsc_e2e.errors import MediaError


class DecordReader:
    """An open video with the methods of `Reader`; frames are represented by their numbers."""

    next = None
    """Unknown, because decord does not report gaps."""

    def __init__(self, path: str, media: Media, short_side: int | None = None, threads: int = 1):
        self.path = path
        width, height = fitted(media.width, media.height, short_side)
        self._reader = _decord().VideoReader(path, num_threads=threads, width=width, height=height)
        spans = self._reader.get_frame_timestamp(np.arange(len(self._reader))) + media.video_start
        self._starts, self.end = spans[:, 0], float(spans[-1, 1])

    def __enter__(self) -> DecordReader:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        del self._reader

    def at(self, times: Sequence[float], more: bool = False) -> list[int]:
        """The numbers of the frames at `times` (seconds). Raises MediaError."""
        if max(times) > self.end + TOLERANCE:
            raise MediaError(self.path, f"no frame at {max(times):.2f} s: its video ends at {self.end:.2f} s")
        places = np.searchsorted(self._starts, np.asarray(times) + 1e-6, side="right") - 1
        return places.clip(0).tolist()

    def convert(self, frame: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return self._reader[frame].asnumpy()


@lru_cache(maxsize=1)
def _decord():
    import decord

    decord.logging.set_level(decord.logging.QUIET)  # errors are raised with the path instead
    return decord
