"""Conversion of decoded frames to arrays: scaled, upright, with square pixels."""

from __future__ import annotations

import numpy as np

from avsc_e2e.data.media.source import fitted


class Converter:
    """Converts decoded frames to (H, W, 3) uint8 RGB: upright, with square pixels, all of one size."""

    def __init__(self, short_side: int | None, aspect: float = 1.0):
        """`aspect`: width of a pixel divided by its height."""
        from av.video.reformatter import VideoReformatter

        self._reformatter, self._aspect = VideoReformatter(), aspect
        self._short_side = short_side
        self._size: tuple[int, int] | None = None

    def __call__(self, frame) -> np.ndarray:
        if self._size is None:  # the first frame decides, because the size may change within a stream
            self._size = fitted(frame.width * self._aspect, frame.height, self._short_side)
        width, height = self._size
        image = self._reformatter.reformat(frame, width, height, "rgb24", interpolation="BICUBIC", threads=1)
        return upright(image.to_ndarray(), display_matrix(frame))


def as_frame(image: np.ndarray):
    """(H, W, 3) uint8 RGB as a decoded frame."""
    from av import VideoFrame

    return VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")


def display_matrix(frame) -> tuple[int, int, int, int]:
    """Signs of the matrix (a, b, c, d) by which a player rotates or mirrors a frame, rounded to right angles: a point
    (x, y) is shown at (a x + c y, b x + d y)."""
    from av.sidedata.sidedata import Type

    data = frame.side_data.get(Type.DISPLAYMATRIX) if frame.side_data else None
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(data), "<i4")[:5])
    sign = lambda value: (value > 0) - (value < 0)  # noqa: E731
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return sign(a) or 1, 0, 0, sign(d) or 1
    return 0, sign(b) or 1, sign(c) or 1, 0


def upright(image: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """An image (H, W, 3), rotated and mirrored as a player shows it."""
    a, b, c, d = matrix
    return np.ascontiguousarray(image[::d, ::a] if a else image.transpose(1, 0, 2)[::b, ::c])
