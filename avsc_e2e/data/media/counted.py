"""Videos without time stamps, as AVI holds them: their frames are counted."""

from __future__ import annotations

import re
from collections.abc import Sequence

from avsc_e2e.data.media.packets import decode, demux
from avsc_e2e.data.media.source import TOLERANCE
from avsc_e2e.errors import MediaError

PACKED = re.compile(rb"DivX\d+(Build|b)\d+p")
"""What an MPEG-4 stream says of itself that packs two frames into a packet, so that its time stamps are none."""


def counts(path: str, container, stream) -> bool:
    """Whether a video has no true time stamps: an AVI, which has room for none, of a codec whose frames are coded in
    another order than they are shown, and whose packets do not tell which."""
    name = stream.codec_context.name
    if container.format.name != "avi" or name not in ("h264", "hevc", "mpeg4"):
        return False
    if name != "mpeg4":
        return True
    with open(path, "rb") as file:
        return bool(PACKED.search(file.read(1 << 18)))


def counted_frames(reader, times: Sequence[float]) -> list:
    """The decoded frames on screen at rising `times` (seconds) of a video without time stamps: in the order in which
    the decoder gives them, its frames are shown at the times of decoding of its packets.

    A key frame's place in that order is the number of packets before it, and of those behind it that are shown before
    it. So decoding begins one key frame earlier, to see how many these are. Raises MediaError."""
    found: list = []
    targets = [reader.ticks(time) for time in times]
    index = reader.stream.index_entries
    key = index.search_timestamp(targets[0])
    while not found:
        before = index.search_timestamp(index[key].timestamp - 1) if key > 0 else -1
        found = _count(reader, targets, index[key].timestamp if before >= 0 else None, before)
        if before < 0:
            break
        key = before
    if len(found) < len(targets):
        raise MediaError(reader.path, f"no frame at {times[len(found)]:.2f} s can be decoded (is it cut off?)")
    return found


def _count(reader, targets: Sequence[int], key: int | None, before: int) -> list:
    """The frames at `targets` that decoding from the index entry `before` (below 0: the start) gives, counted from the
    packet with the time `key` on; none where the first target lies before that."""
    index = reader.stream.index_entries
    if before >= 0:
        if reader.context.name == "mpeg4":  # only the first packet may tell that frames are packed
            decode(reader.context, next(demux(reader.container, reader.stream), None))
        reader.container.seek(index[before].timestamp, stream=reader.stream)
        reader.context.flush_buffers()
    else:
        reader._open()
    packets, found, stamps = demux(reader.container, reader.stream), [], []
    place = 0 if key is None else None
    """Where in `stamps` the time of the next frame is; unknown until the key frame comes out."""
    leading, shown = 0, None
    while True:
        packet = next(packets, None)
        if packet is not None:
            stamps.append(packet.dts)
            packet.pts = packet.dts
        for frame in decode(reader.context, packet):
            if place is None:
                leading += frame.pts > key
                if frame.pts != key:
                    continue
                place = stamps.index(key) + leading
                if stamps[min(place, len(stamps) - 1)] > targets[0]:
                    return []
            time = stamps[min(place, len(stamps) - 1)]
            while len(found) < len(targets) and targets[len(found)] < time:
                found.append(shown or frame)
            if len(found) == len(targets):
                return found
            shown, place = frame, place + 1
        if packet is None:
            end = stamps[-1] + (stamps[-1] - stamps[-2] if len(stamps) > 1 else 0) if stamps else 0
            reader.ended(end)
            while shown and len(found) < len(targets) and targets[len(found)] <= end + TOLERANCE / reader.base:
                found.append(shown)
            return found
