"""The packets of a video in the order of decoding, and the frames that they bring out."""

from __future__ import annotations


def demux(container, stream, sought: int | None = None):
    """Packets with something in them, in the order of decoding; one without a time stamp gets that of its decoding. The
    end of what can be read is the end. `sought` is where the last seek asked for."""
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
        if key and packet.dts is not None:  # FFmpeg counts an AVI's empty chunks, of dropped frames, wrong after a seek
            shift = packet.dts - key[1] if packet.pos == key[0] else 0
            key = None
        if shift:
            packet.pts, packet.dts = packet.pts and packet.pts - shift, packet.dts and packet.dts - shift
        if packet.pts is None:
            packet.pts = packet.dts
        yield packet


def decode(context, packet) -> list:
    """The frames that a packet brings out; none where it is damaged."""
    import av

    try:
        return context.decode(packet)
    except (av.FFmpegError, ValueError):
        return []
