"""Videos without presentation time stamps (AVI, and Matroska copied from AVI): their frames are counted."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache

from avsc_e2e.data.media.packets import decode, demux
from avsc_e2e.data.media.sharing import SharedFile
from avsc_e2e.data.media.source import TOLERANCE, main_stream, open_container
from avsc_e2e.errors import MediaError

PACKED = re.compile(rb"DivX\d+(Build|b)\d+p")
"""Mark of an MPEG-4 stream that packs two frames into one packet, so that its time stamps cannot be used."""

HEAD = 1 << 18
"""Bytes at the start of a file in which the mark is looked for."""
PROOF = 250
"""Number of packets that show whether a video is stamped in decoding order."""
MATROSKA = "matroska,webm"


def counts(path: str, container, stream, shared: SharedFile | None = None) -> bool:
    """Whether a video has no presentation time stamps. This is the case for an AVI, which cannot store them, if its
    codec may reorder frames and its packets do not say how; and for a Matroska file with the times of an AVI."""
    name = stream.codec_context.name
    if container.format.name == MATROSKA:
        return bool(stream.codec_context.has_b_frames) and stamped_by_decoding(path, os.stat(path).st_mtime_ns)
    if container.format.name != "avi" or name not in ("h264", "hevc", "mpeg4"):
        return False
    if name != "mpeg4":
        return True
    if shared:
        return bool(PACKED.search(shared.at(0, HEAD)))
    with open(path, "rb") as file:
        return bool(PACKED.search(file.read(HEAD)))


@lru_cache(maxsize=65536)
def stamped_by_decoding(path: str, _changed: int) -> bool:
    """Whether packets are stamped in decoding order although frames are shown in another order. FFmpeg writes this when
    it copies an AVI into Matroska. The decoder returns frames in presentation order, so their time stamps are then out
    of order."""
    with open_container(path) as container:
        stream = main_stream(container, "video")
        packets: list = []
        for packet in demux(container, stream):
            if packets and packet.pts is not None and packet.pts < packets[-1].pts:
                return False  # the first B-frame has its presentation time
            packets += [packet] if packet.pts is not None else []
            if len(packets) == PROOF:
                break
        last = None
        for packet in (*packets, None):
            for frame in decode(stream.codec_context, packet):
                if last is not None and frame.pts is not None and frame.pts < last:
                    return True
                last = frame.pts
    return False


class CountedFrames:
    """The frames of a video without presentation time stamps, at rising times. The decoder returns them in presentation
    order, and the n-th one is shown at the n-th decoding time of the packets.

    A key frame's place in this order is the number of packets before it plus the number of packets after it that are
    shown before it. To count the latter, decoding begins one key frame earlier."""

    def __init__(self, reader):
        self._reader = reader
        self._frames: Iterator[tuple[int, object]] = iter(())
        """Times (ticks) and frames that follow."""
        self._following: tuple[int, object] | None = None
        """The first of them, already read."""
        self._shown = None
        self._time: int | None = None
        """Time at which the frame on screen appeared."""

    def at(self, times: Sequence[float]) -> list:
        """The decoded frames on screen at rising `times` (seconds). Raises MediaError."""
        return [self._at(time, self._reader.ticks(time)) for time in times]

    def _at(self, time: float, target: int):
        if not self._is_ahead(target):
            self._begin(target)
        while self._following and self._following[0] <= target:
            self._time, self._shown = self._following
            self._following = next(self._frames, None)
        reader = self._reader
        shown = self._shown or (self._following and self._following[1])
        if shown is None or (reader.end is not None and time > reader.end + TOLERANCE):
            raise MediaError(reader.path, f"no frame at {time:.2f} s can be decoded (is it cut off?)")
        return shown

    def _is_ahead(self, target: int) -> bool:
        """Whether a frame lies ahead and is nearer than the key frame at which decoding would start again."""
        if self._time is None or target < self._time:
            return False
        index = self._reader.stream.index_entries
        key = index.search_timestamp(target)
        before = index.search_timestamp(index[key].timestamp - 1) if key > 0 else -1
        return self._following is None or before < 0 or index[before].timestamp <= self._following[0]

    def _begin(self, target: int) -> None:
        """Decode from two key frames earlier, or from more if the first frame with a known place is still too late."""
        index = self._reader.stream.index_entries
        key = index.search_timestamp(target)
        while True:
            before = index.search_timestamp(index[key].timestamp - 1) if key > 0 else -1
            self._frames = counted(self._reader, index[key].timestamp if before >= 0 else None, before)
            self._shown = self._time = None
            self._following = next(self._frames, None)
            if before < 0 or (self._following and self._following[0] <= target):
                return
            key = before


def counted(reader, key: int | None, before: int) -> Iterator[tuple[int, object]]:
    """Decode from the index entry `before` (below 0: the start), and return the times (ticks) and frames from the key
    frame whose packet has the time `key`."""
    index = reader.stream.index_entries
    matroska = reader.container.format.name == MATROSKA
    if before >= 0:
        if reader.context.name == "mpeg4":  # only the first packet may say that frames are packed
            decode(reader.context, next(demux(reader.container, reader.stream), None))
        reader.container.seek(index[before].timestamp, stream=reader.stream)
        reader.context.flush_buffers()
    else:
        reader._open()
        if matroska:
            reader.container.seek(0)  # this reads the index
    stamps: deque[int] = deque()
    """Times of packets from the next frame on. The last one is kept for frames without a packet of their own."""
    place, leading, step, last = 0 if key is None else None, 0, 0, None
    packets = demux(reader.container, reader.stream)
    while True:
        packet = next(packets, None)
        if packet is not None:
            packet.pts = packet.pts if matroska else packet.dts
            step, last = packet.pts - last if last is not None else 0, packet.pts
            stamps.append(packet.pts)
        for frame in decode(reader.context, packet):
            if place is None and key is not None:
                leading += frame.pts > key
                if frame.pts != key:
                    continue
                place = stamps.index(key) + leading
            while place and len(stamps) > 1:
                stamps.popleft()
                place -= 1
            yield stamps[0], frame
            assert place is not None  # set at the start without a key, else by the key frame
            place += 1
        if packet is None:
            reader.ended(last + step if last is not None else 0)
            return
