"""An open video, from which the frame on screen at any time is taken, whatever the codec and the container.

A frame is found by its time stamp: seek to a key frame before, read packets up to the time, and decode from the last
key frame among them. What a decoder gives before the first key frame's own time leads into it and may lean on frames
that were never decoded, so it is not used. Where a seek lands too late, or a frame that a packet promises does not come
out, it begins at an earlier key frame, at last at the start of the file. Only frames that are returned are converted.
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
"""Codecs in which a frame that no other leans on says so, so that it need not be decoded unless it is wanted."""
TRIES = 5
"""Key frames before the last that decoding may begin with: as many intra refresh needs, and damage cannot cost more."""
STEP = 0.5
"""Seconds before a key frame that was no use, from where the next is looked for; doubled where it is found again."""


class Reader:
    """An open video from which frames are taken at rising times."""

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
        """Nothing is read yet since the file was opened, or a seek."""
        self._packets = demux(self.container, self.stream, sought)
        self._at_start = sought is None
        self._queue: deque = deque()
        """Packets that are read and not decoded."""
        self._stamps: list[int] = []
        """Time stamps of the frames that are read, from the last one on screen on."""
        self._shown: list = []
        """Decoded frames, from the one on screen on, by their time stamps."""
        self._key: int | None = None
        """Time stamp of the key frame that decoding began with."""
        self._head: int | None = None
        """What is not read yet is shown later than this, if it is known."""
        self._end = 0
        """Time stamp at which the last frame that is read ends."""
        self._over = self._drained = False
        """All packets are read; all frames are out of the decoder."""
        self._promised: int | None = None
        """Time stamp of the frame on screen at the last time asked for, by its packet."""

    def ticks(self, time: float) -> int:
        """A time (seconds) in units of the stream, a hair later, so that one that falls on a frame's start is not lost
        to rounding."""
        return math.floor((time + self.media.origin + 1e-6) / self.base)

    def seconds(self, ticks: int) -> float:
        return float(ticks * self.base) - self.media.origin

    @property
    def end(self) -> float | None:
        """Seconds at which the last frame ends, once all packets are read."""
        return self.seconds(self._end) if self._over else None

    def ended(self, end: int) -> None:
        """Note that all packets are read, and the time stamp at which the last frame ends."""
        self._over, self._end = True, end

    @property
    def next(self) -> float | None:
        """Seconds at which the first frame after the one on screen starts, as far as it is known."""
        later = [stamp for stamp in self._stamps if self._promised is None or stamp > self._promised]
        return self.seconds(min(later)) if later else None

    def at(self, times: Sequence[float], more: bool = False) -> list:
        """The decoded frames on screen at rising `times` (seconds); `more` says that later ones will be asked for.
        Raises MediaError."""
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
                # What an earlier key frame leads to as well is what there is.
                if promise_kept or (tries and frame is not None and before is not None and frame.pts == before.pts):
                    break
                if self._key is None or tries == TRIES:
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
        """Whether a frame lies ahead of what is read, with no key frame between."""
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
        except Exception:  # or there is no way to seek
            self.container.close()
            self._open()
            return
        self.context.flush_buffers()
        self._begin(place)

    def _look_ahead(self, target: int, limit: int) -> bool:
        """Read packets until all to come are shown after `target`; what lies before the last key frame up to `limit`
        need not be decoded. Whether decoding can begin, or has."""
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
        """The next packet; None at the end of the file, or where it is cut off."""
        packet = next(self._packets, None)
        if packet is None:
            self._over = True
            return None
        self._head = packet.dts if packet.dts is not None else self._head
        if packet.pts is not None:
            length = packet.duration or 0
            if not 0 < length <= HELD / self.base:  # not told, or made up
                length = round(min(1 / (self.media.frame_rate or 25), TOLERANCE) / self.base)
            self._end = max(self._end, packet.pts + length)
            if not packet.is_discard:
                self._stamps.append(packet.pts)
        return packet

    def _decode_to(self, target: int, *, quick: bool, last: bool):
        """The frame on screen at `target` (ticks), None where there is none. `quick`: do not decode frames that are not
        wanted and that no other leans on; `last`: nor any after the one wanted."""
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
        """Keep frames that do not lead into the key frame that decoding began with."""
        self._shown += [frame for frame in frames if frame.pts is not None and frame.pts >= (self._key or frame.pts)]
        self._shown.sort(key=lambda frame: frame.pts)

    def _judge(self, time: float, target: int, frame) -> None:
        """Raises MediaError where no frame is on screen at `time`."""
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
