"""An open video that returns the frame on screen at any time, for any codec and container.

A frame is found by its time stamp: the reader seeks to an earlier key frame, reads packets up to the time, and decodes
from the last key frame among them. Frames that come before the first key frame's own time may depend on frames that
were not decoded, so they are not used. If a seek lands too late, or a packet's frame does not come out of the decoder,
the reader begins again at an earlier key frame, at last at the start of the file. Only returned frames are converted.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from avsc_e2e.data.media.conversion import Converter
from avsc_e2e.data.media.counted import CountedFrames, counts
from avsc_e2e.data.media.header import Media, quick
from avsc_e2e.data.media.packets import decode, demux
from avsc_e2e.data.media.sharing import SharedFile
from avsc_e2e.data.media.source import HELD, TOLERANCE, main_stream, open_container
from avsc_e2e.errors import MediaError

SKIPPABLE = ("h264", "mpeg4", "mpeg2video", "mpeg1video")
"""Codecs that mark frames on which no other frame depends, so that these are decoded only if they are wanted."""
TRIES = 5
"""Number of earlier key frames that are tried: enough for intra refresh, and a limit on the cost of damaged files."""
STEP = 0.5
"""Seconds before an unusable key frame at which the next one is looked for; doubled if the same one is found."""


class Reader:
    """An open video that returns frames at rising times."""

    def __init__(
        self,
        path: str,
        media: Media,
        short_side: int | None = None,
        threads: int = 1,
        shared: SharedFile | None = None,
    ):
        """Frames are converted so that their shorter side has `short_side` pixels."""
        self.path, self.media, self.short_side, self.threads = path, media, short_side, threads
        self._shared = shared
        self._open()
        self._counted = CountedFrames(self) if counts(path, self.container, self.stream, shared) else None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self.container.close()

    def _open(self) -> None:
        self.container = open_container(self.path, self._shared, **quick(self.path))
        self.stream = main_stream(self.container, "video")
        self.context = self.stream.codec_context
        self.context.thread_count = self.threads
        if self.threads != 1:
            self.context.thread_type = "AUTO"
        self.base = self.stream.time_base
        self.convert = Converter(self.short_side, float(self.stream.sample_aspect_ratio or 1) or 1.0)
        self._begin(None)

    def _begin(self, sought: int | None) -> None:
        """Reset the state after opening the file or a seek."""
        self._packets = demux(self.container, self.stream, sought)
        self._at_start = sought is None
        self._queue: deque = deque()
        """Packets that were read but not decoded."""
        self._stamps: list[int] = []
        """Time stamps of the frames that were read, from the frame on screen on."""
        self._shown: list = []
        """Decoded frames by their time stamps, from the frame on screen on."""
        self._key: int | None = None
        """Time stamp of the key frame at which decoding began."""
        self._head: int | None = None
        """All frames that were not read yet are shown after this time stamp, if it is known."""
        self._end = 0
        """End of the last frame that was read, ticks."""
        self._over = self._drained = False
        """Whether all packets were read, and whether all frames came out of the decoder."""
        self._promised: int | None = None
        """Time stamp of the frame on screen at the last requested time, from its packet."""

    def ticks(self, time: float) -> int:
        """A time (seconds) in units of the stream, moved slightly later, so that rounding does not put the start of a
        frame before the frame."""
        return math.floor((time + self.media.origin + 1e-6) / self.base)

    def seconds(self, ticks: int) -> float:
        return float(ticks * self.base) - self.media.origin

    @property
    def end(self) -> float | None:
        """End of the last frame (seconds), once all packets were read."""
        return self.seconds(self._end) if self._over else None

    def ended(self, end: int) -> None:
        """Note that all packets were read, and the time stamp at which the last frame ends."""
        self._over, self._end = True, end

    @property
    def next(self) -> float | None:
        """Start of the frame after the one on screen (seconds), if it is known."""
        later = [stamp for stamp in self._stamps if self._promised is None or stamp > self._promised]
        return self.seconds(min(later)) if later else None

    def at(self, times: Sequence[float], more: bool = False) -> list:
        """The decoded frames on screen at rising `times` (seconds); `more`: later times will follow. Raises
        MediaError."""
        if self._counted:
            return self._counted.at(times)
        return [self._at(time, last=number + 1 == len(times) and not more) for number, time in enumerate(times)]

    def _at(self, time: float, last: bool):
        target = limit = self.ticks(time)
        if not self._is_ahead(target):
            self._seek(target)
        frame, back, tries = None, 0, 0
        while True:
            if self._look_ahead(target, limit) or (self._at_start and not tries):
                before, frame = frame, self._decode_to(target, quick=not tries, last=last and not tries)
                promise_kept = frame is not None and frame.pts == self._promised and not frame.is_corrupt
                # An earlier key frame leads to the same frame, so it is the right one.
                if promise_kept or (tries and frame is not None and before is not None and frame.pts == before.pts):
                    break
                if self._key is None or tries == TRIES:
                    break
                if frame is None and self._at_start:  # the first frame is shown later, and nothing lies before it
                    break
                limit, back, tries = self._key - 1, 0, tries + 1
            elif self._at_start:
                break
            else:
                back = 2 * back or round(STEP / self.base)
            self._seek(limit - back)
        self._judge(time, target, frame)
        return frame if frame is not None else self._shown[0]

    def _is_ahead(self, target: int) -> bool:
        """Whether the target lies ahead and there is no key frame before it that would be nearer."""
        if self._head is None:
            return self._at_start and target - (self.stream.start_time or 0) < 1 / self.base
        if self._shown and self._shown[0].pts > target and self._key != self._shown[0].pts:
            return False
        if self._over or target <= self._head:
            return True
        index = self.stream.index_entries
        place = index.search_timestamp(target) if len(index) > 1 else -1
        return index[place].timestamp <= self._head if place >= 0 else target - self._head < 2 / self.base

    def _seek(self, place: int) -> None:
        try:
            if place <= (self.stream.start_time or 0):
                raise ValueError("that is the start")
            self.container.seek(place, stream=self.stream)
        except Exception:  # or seeking is not possible
            self.container.close()
            self._open()
            return
        self.context.flush_buffers()
        self._begin(place)

    def _look_ahead(self, target: int, limit: int) -> bool:
        """Read packets until all later ones are shown after `target`, and drop those before the last key frame up to
        `limit`, which need no decoding. Returns whether decoding can begin or has begun."""
        while not self._over and (self._head is None or self._head <= target):
            packet = self._next()
            if packet is None:
                break
            if packet.is_keyframe and packet.pts is not None and packet.pts <= limit:
                self._queue.clear()
                if self._key is not None:
                    self.context.flush_buffers()
                    self._shown, self._key = [], None
            self._queue.append(packet)
        return self._key is not None or any(
            packet.is_keyframe and packet.pts is not None and packet.pts <= limit for packet in self._queue
        )

    def _next(self):
        """The next packet; None at the end of the file or where it is cut off."""
        packet = next(self._packets, None)
        if packet is None:
            self._over = True
            return None
        self._head = packet.dts if packet.dts is not None else self._head
        if packet.pts is not None:
            length = packet.duration or 0
            if not 0 < length <= HELD / self.base:  # unknown or invented
                length = round(min(1 / (self.media.frame_rate or 25), TOLERANCE) / self.base)
            self._end = max(self._end, packet.pts + length)
            if not packet.is_discard:
                self._stamps.append(packet.pts)
        return packet

    def _decode_to(self, target: int, *, quick: bool, last: bool):
        """The frame on screen at `target` (ticks), or None. `quick`: do not decode unwanted frames on which no other
        frame depends; `last`: decode no frame after the wanted one either."""
        self._promised = max((stamp for stamp in self._stamps if stamp <= target), default=None)
        self._stamps = [stamp for stamp in self._stamps if stamp >= (self._promised or stamp)]
        while True:
            before = [frame for frame in self._shown if frame.pts <= target]
            self._shown = before[-1:] + self._shown[len(before) :]
            shown = before[-1] if before else None
            past = self._drained or len(self._shown) > len(before[-1:])
            if past or (shown is not None and shown.pts == self._promised):
                return shown
            packet = self._queue.popleft() if self._queue else None if self._over else self._next()
            if packet is None:
                self._drain()
                continue
            if self._key is None:
                if not packet.is_keyframe:
                    continue
                self._key = packet.pts
            if self.context.name in SKIPPABLE:
                idle = quick and self._promised is not None and packet.pts is not None and packet.pts < self._promised
                self.context.skip_frame = "NONREF" if idle else "DEFAULT"
            self._take(decode(self.context, packet))
            if last and packet.pts is not None and packet.pts == self._promised:
                self._drain()

    def _drain(self) -> None:
        self._take(decode(self.context, None))
        self._drained = True

    def _take(self, frames: list) -> None:
        """Keep the frames that are not shown before the key frame at which decoding began."""
        self._shown += [frame for frame in frames if frame.pts is not None and frame.pts >= (self._key or frame.pts)]
        self._shown.sort(key=lambda frame: frame.pts)

    def _judge(self, time: float, target: int, frame) -> None:
        """Raises MediaError if no frame is on screen at `time`."""
        if self._over and self._end and target > self._end + TOLERANCE / self.base:
            end = self.seconds(self._end)
            raise MediaError(self.path, f"no frame at {time:.2f} s: its video ends at {end:.2f} s (is it cut off?)")
        if frame is None:
            first = self._shown[0].pts if self._shown else None
            if first is None or first - target > TOLERANCE / self.base:
                why = " (is it cut off?)" if first is None else f": the first is at {self.seconds(first):.2f} s"
                raise MediaError(self.path, f"no frame at {time:.2f} s can be decoded{why}")
        elif target - frame.pts > HELD / self.base:
            last = self.seconds(frame.pts)
            raise MediaError(self.path, f"no frame at {time:.2f} s: the one before is at {last:.2f} s")
        elif self._promised is not None and self._promised - frame.pts > TOLERANCE / self.base:
            raise MediaError(self.path, f"no frame at {time:.2f} s can be decoded: it is damaged there")
