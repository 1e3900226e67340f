"""Windows of frames and samples that arrive one after the other, from a camera and a microphone or from arrays. They
are cut in the same way as those of a file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from avsc_e2e.data.media.audio import MARGIN, Block, cut_window
from avsc_e2e.data.media.conversion import Converter, as_frame
from avsc_e2e.data.media.header import Media
from avsc_e2e.data.media.source import TOLERANCE
from avsc_e2e.data.media.windows import MediaWindow, rolling_cut, window_starts
from avsc_e2e.errors import MediaError


class LiveWindows:
    """Takes frames with `see` and samples with `hear`; `windows` returns complete windows. Two stay in memory."""

    def __init__(
        self,
        *,
        window: float = 1.0,
        hop: float = 1.0,
        frames: Sequence[float] = (0.5,),
        short_side: int | None = None,
        sample_rate: int = 48_000,
        heard_rate: int = 0,
        seen: bool = False,
        name: str = "stream",
    ):
        """Arguments as in `decode_windows`. `heard_rate`: rate (Hz) of the samples, 0 if there will be none; `seen`:
        whether there will be frames; `name`: name in error messages."""
        self.window, self.hop, self.times, self.name = window, hop, tuple(frames), name
        self.sample_rate, self.rate, self.seen = sample_rate, heard_rate, seen
        self._convert = Converter(short_side)
        self._frames: deque = deque()
        """(seconds, frame) of the last two windows, beginning with the frame on screen at their start."""
        self._step = 0.0
        self._blocks: deque[Block] = deque()
        self._channels = self._heard = self._given = 0
        take = iter(lambda: self._blocks.popleft() if self._blocks else None, 0)
        media = Media(0.0, 0, sample_rate=heard_rate, channels=2)
        self._cut = rolling_cut(name, media, window, take) if heard_rate else None

    def hear(self, samples: np.ndarray) -> None:
        """Take the next samples (C, N), C 1 or 2: float in [-1, 1], or int16. Raises MediaError."""
        samples = np.asarray(samples)
        if samples.ndim != 2 or samples.shape[0] not in (1, 2) or samples.shape[0] != (self._channels or len(samples)):
            raise MediaError(self.name, f"samples of shape {samples.shape}: give (C, N), C 1 or 2 and always the same")
        if samples.dtype == np.int16:
            samples = samples * np.float32(2**-15)
        self._channels = len(samples)
        self._blocks.append(Block(self._heard, samples.astype(np.float32, copy=False), False))
        self._heard += samples.shape[1]

    def see(self, frame, time: float) -> None:
        """Take the next frame, (H, W, 3) uint8 RGB or a PyAV frame, shown from `time` (seconds). Raises MediaError."""
        if not hasattr(frame, "pts"):  # what is no frame of PyAV
            frame = np.asarray(frame)
            if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
                told = f"a frame of shape {frame.shape} and {frame.dtype}: give (H, W, 3) uint8 RGB"
                raise MediaError(self.name, told)
        if self._frames:
            if time <= self._frames[-1][0]:
                raise MediaError(self.name, f"a frame at {time:.3f} s after one at {self._frames[-1][0]:.3f} s")
            self._step = time - self._frames[-1][0]
        self._frames.append((time, frame))

    @property
    def end(self) -> float:
        """Duration that both streams cover, seconds."""
        ends = [self._heard / self.rate] if self.rate else []
        if self.seen:
            ends.append(self._frames[-1][0] + (self._step or 1 / 25) if self._frames else 0.0)
        return min(ends, default=0.0)

    def windows(self, end: float | None = None) -> Iterator[MediaWindow]:
        """The complete windows that were not returned before. With the `end` (seconds) of the recording, also the rest
        of its windows; the last one ends with the recording."""
        if end is None:
            while self._complete(start := self._given * self.hop):
                yield self._take(start, start + self.window)
        elif end > 0:
            for start in window_starts(end, self.window, self.hop)[self._given :]:
                yield self._take(start, end)

    def _complete(self, start: float) -> bool:
        beyond = start + self.window
        heard = not self.rate or self._heard >= (beyond + MARGIN) * self.rate + 1
        return heard and (not self.seen or (bool(self._frames) and self._frames[-1][0] >= beyond))

    def _take(self, start: float, end: float) -> MediaWindow:
        self._given += 1
        audio: np.ndarray | MediaError | None = None
        frames: np.ndarray | MediaError | None = None
        if self._cut:
            try:
                audio = cut_window(self.name, self._cut, self.rate, start, self.window, self.sample_rate)
            except MediaError as error:
                audio = error
        if self.seen:
            frames = self._shown([min(start + time, max(end, start)) for time in self.times])
        while len(self._frames) > 1 and self._frames[1][0] <= start - self.window:
            self._frames.popleft()
        return MediaWindow(start, audio, frames)

    def _shown(self, times: Sequence[float]) -> np.ndarray | MediaError:
        found = []
        for time in times:
            before = [frame for at, frame in self._frames if at <= time + 1e-6]
            if not before and (not self._frames or self._frames[0][0] > time + TOLERANCE):
                return MediaError(self.name, f"no frame at {time:.2f} s")
            frame = before[-1] if before else self._frames[0][1]
            found.append(self._convert(as_frame(frame) if isinstance(frame, np.ndarray) else frame))
        return np.stack(found)
