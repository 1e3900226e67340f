"""Decoding a whole recording in one pass: window by window for prediction, frame by frame for a store."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from avsc_e2e.data.media.audio import Block, cut_window, joined, slice_file, track_blocks
from avsc_e2e.data.media.frames import Decoder, open_reader
from avsc_e2e.data.media.header import Media, probe_located
from avsc_e2e.data.media.images import read_image
from avsc_e2e.data.media.reader import Reader
from avsc_e2e.data.media.sharing import SharedFile
from avsc_e2e.data.media.source import boundary, kind, locate
from avsc_e2e.errors import MediaError

if TYPE_CHECKING:
    from avsc_e2e.data.media.decord import DecordReader

LONGEST = 360_000.0
"""Longest recording, seconds; a header with a longer duration is damaged."""


class MediaWindow(NamedTuple):
    """A window of a recording."""

    start: float
    """Seconds from the start of the recording."""
    audio: np.ndarray | MediaError | None
    """(C, N) float32 in [-1, 1], C 1 or 2; or the error why it cannot be read; None if absent or not wanted."""
    frames: np.ndarray | MediaError | None
    """(T, H, W, 3) uint8 RGB; or the error why it cannot be read; None if absent or not wanted."""


def window_starts(duration: float, window: float, hop: float) -> list[float]:
    """Start times (seconds) of the windows of a recording: one every `hop`, at least one. The last window ends with the
    recording, unless less than a twentieth of a hop would be left over."""
    count = max(math.ceil((duration - window) / hop + 0.95), 1)
    return [min(index * hop, max(duration - window, 0.0)) for index in range(count)]


def decode_windows(
    path: str | os.PathLike[str],
    *,
    window: float = 1.0,
    hop: float = 1.0,
    frames: Sequence[float] = (0.5,),
    short_side: int | None = None,
    sample_rate: int = 48_000,
    audio: bool = True,
    video: bool = True,
    threads: int = 1,
    decoder: Decoder = "auto",
) -> Iterator[MediaWindow]:
    """Iterate over all windows of a recording, in order, in one pass over its video and audio. The starts are those of
    `window_starts`, audio and frames equal those of `read_audio` and `read_frames`, and memory does not grow with the
    length of the recording.

    `frames`: rising times (seconds) within a window; `short_side`: pixels; `sample_rate`: Hz; `audio`, `video`: what is
    wanted; `threads`: threads that decode video, 0 for the number of cores. A part that cannot be read only affects its
    window, which holds the error instead. An image is one window. Raises MediaError if nothing can be read."""
    path, stamp = locate(path)
    if kind(path) == "image":
        image = read_image(path, short_side)[None] if video else None
        yield MediaWindow(0.0, None, image if image is None else np.repeat(image, len(frames), axis=0))
        return
    media = probe_located(path, *stamp)
    if media.duration > LONGEST:
        raise MediaError(path, f"claims to last {media.duration:.0f} s, which no recording does")
    reader = None
    both = video and media.has_video and audio and media.has_audio
    with boundary(path, "cannot be decoded"), SharedFile(path) if both else nullcontext() as shared:
        if video and media.has_video:
            reader = open_reader(path, media, short_side, decoder, threads, shared)
        try:
            cut = _cut_of(path, media, window, shared) if audio and media.has_audio else None
            for start in window_starts(media.duration, window, hop):
                times = [min(start + time, max(media.duration, start)) for time in frames]
                yield MediaWindow(
                    start,
                    _or_error(path, cut_window, path, cut, media.sample_rate, start, window, sample_rate)
                    if cut
                    else None,
                    _or_error(path, _frames, reader, times) if reader else None,
                )
        finally:
            if reader:
                reader.close()


def decode_frames(
    path: str | os.PathLike[str], rate: float, short_side: int | None = None, decoder: Decoder = "auto"
) -> Iterator[tuple[np.ndarray | MediaError, int, float]]:
    """Iterate over a video in one pass: the frames shown at the middles of spans of 1 / `rate` seconds, (H, W, 3) uint8
    RGB as from `read_frames`. Each frame is returned once, with the number of successive spans that show it and the end
    of the video (seconds) as far as it is known by then. An error stands for spans in a gap or with a frame that cannot
    be read. Raises MediaError if there is no frame at all."""
    path, stamp = locate(path)
    if kind(path) == "image":
        yield read_image(path, short_side), 1, 0.0
        return
    media = probe_located(path, *stamp)
    if not media.has_video:
        raise MediaError(path, "has no video; give it as audio only")
    shown, held, span, end, good = None, 0, 0, 0.0, 0
    with (
        boundary(path, "its video cannot be decoded"),
        open_reader(path, media, short_side, decoder) as reader,
    ):
        while True:
            time = (span + 0.5) / rate
            if time > LONGEST:
                raise MediaError(path, f"claims to last longer than {LONGEST:.0f} s, which no recording does")
            spans = 1
            try:
                [frame] = reader.at([time], more=True)
            except MediaError as error:
                if reader.end is not None and not span:
                    raise
                frame = error
                if reader.next is not None:  # nothing is shown before it
                    spans = max(math.ceil(reader.next * rate - 0.5) - span, 1)
            if span and reader.end is not None and time > reader.end + 1e-9:
                break
            if frame != shown:
                if held:
                    yield _converted(reader, shown), held, time
                    good += not isinstance(shown, MediaError)
                shown, held = frame, 0
            held, span = held + spans, span + spans
        end = reader.end
        if isinstance(shown, MediaError) and not good:
            raise shown
        yield _converted(reader, shown), held, end


def _converted(reader: Reader | DecordReader, frame) -> np.ndarray | MediaError:
    return frame if isinstance(frame, MediaError) else reader.convert(frame)


def _frames(reader: Reader, times: Sequence[float]) -> np.ndarray:
    return np.stack([reader.convert(frame) for frame in reader.at(times, more=True)])


def _or_error(path: str, function, *arguments) -> np.ndarray | MediaError:
    try:
        with boundary(path, "cannot be decoded"):
            return function(*arguments)
    except MediaError as error:
        return error


def _cut_of(path: str, media: Media, window: float, shared: SharedFile | None):
    if media.sliced:
        return partial(slice_file, path)
    return rolling_cut(path, media, window, track_blocks(path, media, shared=shared))


def rolling_cut(path: str, media: Media, window: float, blocks: Iterator[Block | None]):
    """A `cut` for `cut_window` over audio that is decoded once, in `blocks`. Ranges [first, last) must be requested in
    rising order; only the last window may reach back."""
    kept: deque[Block] = deque()
    keep = math.ceil(2 * window * media.sample_rate)

    def cut(first: int, last: int) -> tuple[np.ndarray, int]:
        while not kept or kept[-1].at + kept[-1].samples.shape[1] < last:
            block = next(blocks, None)
            if block is None:
                break
            kept.append(block)
        while len(kept) > 1 and kept[0].at + kept[0].samples.shape[1] <= first - keep:
            kept.popleft()
        return joined(path, media, kept, first, last)

    return cut
