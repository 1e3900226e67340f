"""Duration, rates and sizes of a media file, from its header or, where that lacks them, from its packets."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from avsc_e2e.data.media.clock import FORMATS, restarts
from avsc_e2e.data.media.images import image_size
from avsc_e2e.data.media.source import boundary, kind, locate, main_stream, open_container
from avsc_e2e.errors import MediaError

UNTOLD = ("aac", "ac3", "eac3", "amr")
"""Formats without a duration in their header; FFmpeg estimates it from the bit rate of the first frames."""
TAIL = 10.0
"""Seconds before the container's end from which packets are read to find the end of each stream."""

FASTEST = 1_000_000
"""Hz; with a higher rate in a damaged header, one second of audio could fill the memory."""


class Media(NamedTuple):
    """Contents of a media file."""

    duration: float
    """Seconds; for a file with video and audio, the duration that both cover."""
    size: int
    """Bytes."""
    width: int = 0
    """Pixels as stored, before rotation; 0 where there is no video."""
    height: int = 0
    frame_rate: float = 0.0
    """Mean number of frames a second."""
    frames: int = 0
    """Number of frames by the header; 0 where it does not say."""
    sample_rate: int = 0
    """Hz; 0 where there is no audio."""
    channels: int = 0
    video_start: float = 0.0
    """Seconds from the start of the recording to its first frame."""
    origin: float = 0.0
    """Start of the recording on the container's clock, seconds: the start of the earlier stream."""

    sliced: bool = False
    """Whether soundfile reads it, exact to the sample: WAV and FLAC of one or two channels."""

    @property
    def has_video(self) -> bool:
        return self.width > 0

    @property
    def has_audio(self) -> bool:
        return self.sample_rate > 0


def probe(path: str | os.PathLike[str]) -> Media:
    """Read the header of a media file. Raises MediaError with the reason if it cannot be read."""
    path, stamp = locate(path)
    return probe_located(path, *stamp)


@lru_cache(maxsize=65536)
def probe_located(path: str, size: int, _changed: int) -> Media:
    what = kind(path)
    if what == "image":
        width, height = image_size(path)
        return Media(0.0, size, width=width, height=height, frames=1)
    if what == "sound" and (found := _sound_header(path, size)):
        return found
    with open_container(path, **quick(path)) as container, boundary(path, "its header cannot be read"):
        if container.format.name in FORMATS and restarts(path):
            raise MediaError(
                path, "is joined from parts: its clock starts again. Write it anew: ffmpeg -i FILE -c copy NEW.mkv"
            )
        video, audio = main_stream(container, "video"), main_stream(container, "audio")
        streams = [stream for stream in (video, audio) if stream is not None]
        if not streams:
            raise MediaError(path, "holds neither video nor audio")
        for stream in streams:
            if stream.codec_context is None:
                raise MediaError(path, f"its {stream.type} is of a codec that is not known here")
        seconds = lambda stream, value: float(value * stream.time_base) if value is not None else 0.0  # noqa: E731
        origin = min(seconds(stream, stream.start_time) for stream in streams)
        told = {stream.index: _end(stream) for stream in streams}
        ends = {index: end for index, end in told.items() if end is not None}
        if len(ends) < len(told) or container.format.name in UNTOLD:
            ends = _ends_by_packets(path, container, told)
        media = Media(max(min(ends.values()) - origin, 0.0), size, origin=origin)
        if video is not None:
            media = media._replace(
                width=video.codec_context.width,
                height=video.codec_context.height,
                frame_rate=_frame_rate(video),
                frames=video.frames,
                video_start=seconds(video, video.start_time) - origin,
            )
            if not media.width or not media.height:
                raise MediaError(path, "is not a media file that can be read: its video has no size")
        if audio is not None:
            media = media._replace(sample_rate=audio.rate or 0, channels=audio.channels)
            if not 0 < media.sample_rate <= FASTEST:
                raise MediaError(path, f"is not a media file that can be read: its audio has {audio.rate or 0} Hz")
        return media


def quick(path: str) -> dict:
    """Options that skip the decoding of a frame if the header is complete, as in MP4 and MOV: a tenth of the time."""
    with open(path, "rb") as file:
        if file.read(8)[4:] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return {"stream_options": [{"skip_frame": "all"}] * 16}
    return {}


def _sound_header(path: str, size: int) -> Media | None:
    """The header of a WAV or FLAC file of one or two channels; None for files that FFmpeg must read."""
    import soundfile

    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            if file.channels > 2 or not file.frames or not 0 < file.samplerate <= FASTEST:
                return None
            rate = file.samplerate
            return Media(file.frames / rate, size, sample_rate=rate, channels=file.channels, sliced=True)
    except (soundfile.SoundFileError, ValueError, OverflowError):
        return None


def _frame_rate(video) -> float:
    """Mean number of frames a second; if it is not known, FFmpeg's estimate from the time base."""
    return float(video.average_rate or video.guessed_rate or 0)


def _end(stream) -> float | None:
    """End of a stream on the container's clock (seconds), by its header or tags; None if neither has it."""
    start = float((stream.start_time or 0) * stream.time_base)
    if stream.duration:
        return start + float(stream.duration * stream.time_base)
    for name, told in stream.metadata.items():  # Matroska: DURATION, or DURATION-eng
        if name.upper().split("-")[0] == "DURATION":
            try:
                hours, minutes, seconds = told.split(":")
                return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
            except ValueError:
                return None
    return None


def _ends_by_packets(path: str, container, ends: dict[int, float | None]) -> dict[int, float]:
    """Ends of streams by index, if headers lack some of them: from the last packets at the end of the file if the
    container has a duration, otherwise from all packets of the file, which is then read once."""
    total = container.duration / 1e6 if container.duration else 0.0
    last: dict[int, float] = {}
    if container.format.name in UNTOLD:
        ends = dict.fromkeys(ends)
    elif total > TAIL:
        last = _last_packets(path, ends, total - TAIL + (container.start_time or 0) / 1e6)
    if len(last) < len(ends):
        last = _last_packets(path, ends, None)
    return {index: last.get(index, total) if end is None else end for index, end in ends.items()}


def _last_packets(path: str, indices: Iterable[int], seek: float | None) -> dict[int, float]:
    """Times (seconds) at which the last packets of streams end, for streams with packets after `seek`."""
    found: dict[int, float] = {}
    with open_container(path) as container, contextlib.suppress(Exception):  # packets before a damaged place count
        if seek is not None:
            container.seek(int(seek * 1e6))
        for packet in container.demux([container.streams[index] for index in indices]):
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is not None:
                end = float((stamp + (packet.duration or 0)) * packet.time_base)
                found[packet.stream.index] = max(found.get(packet.stream.index, end), end)
    return found
