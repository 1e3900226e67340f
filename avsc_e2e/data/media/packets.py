"""The packets of a video in decoding order, and the frames that decoding them returns."""

from __future__ import annotations


def demux(container, stream, sought: int | None = None):
    """Iterate over the packets that are not empty, in decoding order, up to the end or an unreadable place. A packet
    without a time stamp gets its decoding time. `sought`: target of the last seek."""
    import av

    packets, shift = container.demux(stream), 0
    if sought is not None and container.format.name == "avi":
        index = stream.index_entries
        place = index.search_timestamp(sought)
        key = (index[place].pos + 8, index[place].timestamp) if place >= 0 else None
    else:
        key = None
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, ValueError):
            return
        if packet is None:
            return
        if packet.size == 0:
            continue
        if key and packet.dts is not None:  # after a seek, FFmpeg counts empty chunks (dropped frames) of an AVI wrong
            shift = packet.dts - key[1] if packet.pos == key[0] else 0
            key = None
        if shift:
            packet.pts, packet.dts = packet.pts and packet.pts - shift, packet.dts and packet.dts - shift
        if packet.pts is None:
            packet.pts = packet.dts
        yield packet


def decode(context, packet) -> list:
    """The frames that decoding a packet returns; none if it is damaged."""
    import av

    try:
        return context.decode(packet)
    except (av.FFmpegError, ValueError):
        return []
