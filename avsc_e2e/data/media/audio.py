"""Reading audio: WAV and FLAC by slices with soundfile, any other audio track with PyAV."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from avsc_e2e.data.media.header import Media, probe_located
from avsc_e2e.data.media.sharing import SharedFile
from avsc_e2e.data.media.source import HELD, TOLERANCE, boundary, locate, main_stream, open_container
from avsc_e2e.errors import MediaError

log = logging.getLogger(__name__)

RUN_UP = 0.2
"""Seconds decoded before a window of compressed audio: MP3 and AAC frames overlap their predecessors."""
MARGIN = 0.01
"""Seconds that are read on each side of a window, so that the resampling filter sees no step to silence there."""
DRIFT = 0.05
"""Seconds by which a time stamp may differ from the count of samples; a larger difference is a gap or an overlap."""
OVERSHOOT = 1.2
"""Largest peak above full scale that lossy coding is taken to cause."""
BLOCK = 1 << 18
"""Samples of an audio file read at a time."""


def read_audio(path: str | os.PathLike[str], start: float, duration: float, sample_rate: int) -> np.ndarray:
    """Read `duration` seconds of audio from `start` (seconds) as (C, N) float32 in [-1, 1], N = round(duration *
    sample_rate). Audio of another rate is resampled. C is 1 or 2: surround is mixed down to stereo by its layout, as
    swresample does it (ITU-R BS.775). Raises MediaError."""
    path, stamp = locate(path)
    media = probe_located(path, *stamp)
    if not media.has_audio:
        raise MediaError(path, "has no audio; give it as video only")
    cut = partial(slice_file, path) if media.sliced else partial(_track_part, path, media)
    with boundary(path, "its audio cannot be decoded"):
        return cut_window(path, cut, media.sample_rate, start, duration, sample_rate)


def cut_window(
    path: str,
    cut: Callable[[int, int], tuple[np.ndarray, int]],
    rate: int,
    start: float,
    duration: float,
    sample_rate: int,
) -> np.ndarray:
    """Return what `read_audio` returns, from audio of `rate` (Hz). `cut` takes the range [first, last) and returns the
    samples that exist as (C, N) and the index of the first one. Raises MediaError; its message names `path`."""
    margin = 0 if rate == sample_rate else math.ceil(MARGIN * rate)
    first = round(start * rate) - margin
    length = math.ceil(duration * rate) + 2 * margin
    audio, offset = cut(max(first, 0), first + length)
    missing = first + length - margin - (offset + audio.shape[1])
    if missing > TOLERANCE * rate:
        end = (offset + audio.shape[1]) / rate
        raise MediaError(path, f"no audio at {start + duration:.2f} s: it ends at {end:.2f} s (is it cut off?)")
    audio = bounded(path, audio)
    count = round(duration * sample_rate)
    if rate == sample_rate and offset == first and audio.shape[1] == count:
        return audio
    window = np.zeros((audio.shape[0], length), np.float32)
    at = offset - first
    audio = audio[:, max(-at, 0) :][:, : length - max(at, 0)]
    window[:, max(at, 0) : max(at, 0) + audio.shape[1]] = audio
    if rate == sample_rate:
        return window[:, :count]
    import soxr

    window = soxr.resample(window.T, rate, sample_rate, quality="HQ").T
    skip = round(margin * sample_rate / rate)
    window = window[:, skip : skip + count]
    return np.ascontiguousarray(np.pad(window, ((0, 0), (0, count - window.shape[1]))), np.float32)


def bounded(path: str, audio: np.ndarray) -> np.ndarray:
    """Limit audio to [-1, 1]; a warning, once a process, says that it was louder. Raises MediaError for samples that
    are NaN or infinite."""
    peak = float(np.abs(audio).max(initial=0.0))
    if not math.isfinite(peak):
        raise MediaError(path, "has audio samples that are NaN or infinite: write it again, or remove it")
    if peak <= 1.0:
        return audio
    if peak > OVERSHOOT:
        _tell_of_peak(path)
    return audio.clip(-1, 1)


def _tell_of_peak(path: str) -> None:
    """Warn once a process: lossy coding makes such peaks common, and a warning for each file would help nobody."""
    if not _told:
        _told.append(path)
        log.warning("%s: its audio is louder than full scale; it is clipped there, as in other files like it", path)


_told: list[str] = []
"""The file that the warning named."""


def audio_blocks(path: str | os.PathLike[str]) -> Iterator[tuple[np.ndarray, int]]:
    """Iterate over all audio of a recording in blocks, so that memory does not grow with its length: (N, C) and the
    rate (Hz). Nothing is lost: files of up to 16 bits give int16, files of 24 bits int32 with an empty low byte, all
    others float32. Surround becomes stereo. Raises MediaError."""
    path, stamp = locate(path)
    media = probe_located(path, *stamp)
    if not media.has_audio:
        raise MediaError(path, "has no audio; give it as video only")
    rate = media.sample_rate
    with boundary(path, "its audio cannot be decoded"):
        if not media.sliced:
            position = 0
            for at, samples, _ in track_blocks(path, media):
                if at - position > HELD * rate:
                    raise MediaError(path, f"no audio from {position / rate:.2f} s to {at / rate:.2f} s")
                for part in _silence(samples.shape[0], at - position):
                    yield part.T, rate
                samples = samples[:, max(position - at, 0) :]
                position = max(position, at) + samples.shape[1]
                yield bounded(path, samples).T, rate
            return
        import soundfile

        with soundfile.SoundFile(os.fsencode(path)) as file:
            kinds = {"PCM_S8": "int16", "PCM_U8": "int16", "PCM_16": "int16", "PCM_24": "int32"}
            dtype = kinds.get(file.subtype, "float32")
            while len(block := file.read(BLOCK, dtype=dtype, always_2d=True)):
                yield bounded(path, block) if dtype == "float32" else block, rate


def _silence(channels: int, samples: int) -> Iterator[np.ndarray]:
    """Silence (C, N) in blocks; no block for 0 samples."""
    for first in range(0, samples, BLOCK):
        yield np.zeros((channels, min(samples - first, BLOCK)), np.float32)


def mix_channels(audio: np.ndarray, channels: int) -> np.ndarray:
    """(C, N) -> (channels, N), both 1 or 2: mono is copied to two channels, stereo is averaged to one."""
    if audio.shape[0] == channels:
        return audio
    return np.repeat(audio, channels, axis=0) if audio.shape[0] == 1 else audio.mean(axis=0, keepdims=True)


def slice_file(path: str, first: int, last: int) -> tuple[np.ndarray, int]:
    """The samples of an audio file within [first, last) that exist, and the index of the first one."""
    import soundfile

    with soundfile.SoundFile(os.fsencode(path)) as file:
        first = min(first, file.frames)
        file.seek(first)
        return file.read(last - first, dtype="float32", always_2d=True).T, first


def _track_part(path: str, media: Media, first: int, last: int) -> tuple[np.ndarray, int]:
    """The samples of a file's audio track within [first, last) that exist, and the index of the first one."""
    return joined(path, media, track_blocks(path, media, first, last), first, last)


def joined(path: str, media: Media, blocks: Iterable[Block], first: int, last: int) -> tuple[np.ndarray, int]:
    """The samples within [first, last) that exist in blocks, and the index of the first one. Short gaps become silence.
    Raises MediaError for long gaps and for damage."""
    parts: list[np.ndarray] = []
    begin, position = None, first
    for block in blocks:
        at, samples = block.at, block.samples
        if at >= last and parts:
            break
        if at + samples.shape[1] <= first or at >= last:
            continue
        lost = at - position
        if lost > (TOLERANCE if block.damaged else HELD) * media.sample_rate:
            start, end = position / media.sample_rate, at / media.sample_rate
            raise MediaError(path, f"no audio from {start:.2f} s to {end:.2f} s{': damaged' * block.damaged}")
        if begin is None:
            begin = position = max(at, first)
        elif lost > 0:
            parts.append(np.zeros((samples.shape[0], lost), np.float32))
            position += lost
        part = samples[:, max(position - at, 0) : last - at]
        parts.append(part)
        position += part.shape[1]
    if begin is None:
        return np.zeros((min(media.channels, 2), 0), np.float32), first
    return np.concatenate(parts, axis=1), begin


class Block(NamedTuple):
    """A decoded part of an audio track."""

    at: int
    """Index of its first sample, from the start of the recording."""
    samples: np.ndarray
    """(C, N) float32."""
    damaged: bool
    """Whether the data just before it could not be decoded."""


def track_blocks(
    path: str, media: Media, first: int = 0, last: int | None = None, shared: SharedFile | None = None
) -> Iterator[Block]:
    """The decoded blocks of a file's audio track that contain the samples [first, last)."""
    import av

    rate, run_up = media.sample_rate, round(RUN_UP * media.sample_rate)
    with open_container(path, shared) as container:
        stream = main_stream(container, "audio")
        stream.codec_context.thread_count = 1
        for other in container.streams:
            if other is not stream:
                other.discard = av.stream.Discard.all  # so that nothing of them is read from an MP4
        clock, damaged = AudioClock(stream, media), False
        if first > run_up:
            _seek(container, stream, media.origin + (first - run_up) / rate)
        resampler = None
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, ValueError):
                return  # cut off
            if packet is None:
                return
            if packet.pts is not None and packet.duration:
                end = (float((packet.pts + packet.duration) * packet.time_base) - media.origin) * rate
                if end < first - run_up:
                    continue
            try:
                frames = packet.decode()
            except (av.FFmpegError, ValueError):
                damaged = True  # or the end of a frame that began before the seek
                continue
            for frame in frames:
                if frame.pts is None or not frame.samples:
                    continue
                at = clock(frame)
                if resampler is None:
                    # Packed samples: PyAV reads past the end of planar samples with more than eight channels.
                    layout = None if frame.layout.nb_channels <= 2 else "stereo"
                    resampler = av.AudioResampler(format="flt", layout=layout)
                for part in resampler.resample(frame):
                    samples = part.to_ndarray().reshape(-1, part.layout.nb_channels).T
                    yield Block(at, samples, damaged)
                    at, damaged = at + samples.shape[1], False
                if last is not None and at >= last:
                    return


class AudioClock:
    """Computes the index of each decoded frame's first sample. It counts samples from the first time stamp, which is
    moved to the grid of the stream's frames if the container rounds it. After a gap it takes the time stamp."""

    def __init__(self, stream, media: Media):
        self._stream, self._media = stream, media
        self._next: int | None = None

    def __call__(self, frame) -> int:
        rate, base = self._media.sample_rate, frame.time_base
        stamped = round((float(frame.pts * base) - self._media.origin) * rate)
        if self._next is None:
            at = stamped
            if base * rate > 1:
                start = float((self._stream.start_time or 0) * self._stream.time_base)
                grid = round((start - self._media.origin) * rate)
                on_grid = grid + round((stamped - grid) / frame.samples) * frame.samples
                at = on_grid if abs(on_grid - stamped) <= base * rate else stamped
        elif abs(stamped - self._next) > DRIFT * rate:
            at = max(stamped, self._next)
        else:
            at = self._next
        self._next = at + frame.samples
        return at


def _seek(container, stream, time: float) -> None:
    """Seek to a place before a time (seconds on the container's clock). Matroska indexes only its video."""
    import av

    by = stream
    if container.format.name == "matroska,webm":
        by = main_stream(container, "video") or stream
    try:
        container.seek(max(math.floor(time / by.time_base), by.start_time or 0), stream=by)
    except (av.FFmpegError, ValueError, OverflowError):
        container.seek(0)
