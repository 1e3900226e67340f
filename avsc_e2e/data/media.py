"""Pictures and sound out of files: decord for frames, soundfile for WAV and FLAC, PyAV for the sound of a video.

Time is counted in seconds from the start of the recording, the earliest of its streams, for picture and sound
alike: one `start` cuts both.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from avsc_e2e.errors import MediaError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
SOUND_FILES = (".wav", ".flac")
TOLERANCE = 0.5
"""Seconds by which a stream may end before the window does: the last picture is held, the sound is padded with
silence. What lacks more is refused, since a cut-off file must not pass for a quiet one."""
INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")
"""Formats in which decord finds its way; in a stream without an index, such as MPEG-TS, it gives wrong pictures."""
RUN_UP = 0.2
"""Seconds decoded before a window of compressed sound: MP3 and AAC frames overlap their predecessors."""

CONTAINERS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,mxf,dv,gif,"
    "mp3,aac,ac3,eac3,ogg,wav,w64,flac,aiff,caf,amr,au",
}
"""What FFmpeg may take a file for. It goes by the content, and would follow a playlist in a video's clothes to other
files and addresses."""
UPRIGHT = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
"""The matrix by which an MP4 file has its pictures shown as they are stored."""
BATCH = 32
"""Frames that one pass over a video holds at a time."""


class Media(NamedTuple):
    """What the header of a file tells."""

    duration: float
    """Seconds; for a file with picture and sound, what both cover."""
    size: int
    """Bytes."""
    width: int = 0
    """Pixels as stored, before a phone's upright video is turned; 0 where there is no picture."""
    height: int = 0
    frame_rate: float = 0.0
    """Mean frames a second."""
    frames: int = 0
    """Frames the header promises; 0 where it does not say."""
    sample_rate: int = 0
    """Hz; 0 where there is no sound."""
    channels: int = 0
    video_start: float = 0.0
    """Seconds between the start of the recording and its first picture."""
    origin: float = 0.0
    """Seconds on the container's clock at which the recording starts."""
    indexed: bool = False
    """Whether the container is one of INDEXED."""

    @property
    def has_video(self) -> bool:
        return self.width > 0

    @property
    def has_audio(self) -> bool:
        return self.sample_rate > 0


def probe(path: str | os.PathLike) -> Media:
    """Read the header of a media file. Raises MediaError with the reason where there is none."""
    path, stamp = _stamp(path)
    return _probe(path, *stamp)


@lru_cache(maxsize=65536)
def _probe(path: str, size: int, _changed: int) -> Media:
    if path.lower().endswith(SOUND_FILES):
        with _open_sound(path) as sound:
            return Media(sound.frames / sound.samplerate, size, sample_rate=sound.samplerate, channels=sound.channels)
    if path.lower().endswith(IMAGES):
        height, width = _read_image(path).shape[:2]
        return Media(0.0, size, width=width, height=height, frames=1)
    # The header of MP4 and MOV tells all; decoding a picture for more, as FFmpeg does, would cost ten times the rest.
    told = {"stream_options": [{"skip_frame": "all"}] * 16} if path.lower().endswith((".mp4", ".m4v", ".mov")) else {}
    with _open_container(path, **told) as container:
        video, audio = _video_stream(container), next(iter(container.streams.audio), None)
        if video is None and audio is None:
            raise MediaError(path, "holds neither pictures nor sound")
        seconds = lambda stream, value: float(value * stream.time_base) if value is not None else 0.0  # noqa: E731
        origin = min(seconds(stream, stream.start_time) for stream in (video, audio) if stream is not None)
        total = container.duration / 1e6 if container.duration else 0.0
        ends = [
            seconds(stream, stream.start_time) + seconds(stream, stream.duration) - origin
            for stream in (video, audio)
            if stream is not None and stream.duration
        ]
        media = Media(min(ends) if ends else total, size, origin=origin, indexed=container.format.name in INDEXED)
        if video is not None:
            media = media._replace(
                width=video.codec_context.width,
                height=video.codec_context.height,
                frame_rate=float(video.average_rate or 0),
                frames=video.frames,
                video_start=seconds(video, video.start_time) - origin,
            )
        if audio is not None:
            media = media._replace(sample_rate=audio.rate, channels=audio.channels)
        return media


def read_frames(path: str | os.PathLike, times: Sequence[float], short_side: int | None = None) -> np.ndarray:
    """The pictures shown at `times` (seconds) as (T, H, W, 3) uint8 RGB, resized while decoding so that the shorter
    side has `short_side` pixels. An image file is a video of one frame. Raises MediaError."""
    path, stamp = _stamp(path)
    if path.lower().endswith(IMAGES):
        return np.repeat(_read_image(path, short_side)[None], len(times), axis=0)
    media = _probe(path, *stamp)
    if not media.has_video:
        raise MediaError(path, "has no picture; give it as sound only")
    width, height = _fitted(*_shown_size(path, stamp, media), short_side)
    if not media.indexed:
        return _read_frames_with_av(path, media, times, width, height)
    decord = _decord()
    try:
        reader = decord.VideoReader(path, num_threads=1, width=width, height=height)
        spans = reader.get_frame_timestamp(np.arange(len(reader))) + media.video_start
    except (decord.DECORDError, RuntimeError):
        return _read_frames_with_av(path, media, times, width, height)
    try:
        return reader.get_batch(_frames_at(path, times, spans[:, 0], spans[-1, 1])).asnumpy()
    except (decord.DECORDError, RuntimeError):
        return _read_frames_with_av(path, media, times, width, height)


def _read_frames_with_av(path: str, media: Media, times: Sequence[float], width: int, height: int) -> np.ndarray:
    """The same through PyAV, for containers that decord cannot seek in."""
    first, last = min(times), max(times)
    for seek in (
        first > 1.0,
        False,
    ):  # without an index a seek may land past the picture wanted: then from the start
        starts, pictures = [], []
        for start, frame in _decoded(path, media, first - 0.5 if seek else None):
            if start <= first:  # nothing before the picture shown at the first time is wanted
                starts.clear()
                pictures.clear()
            starts.append(start)
            pictures.append(_as_rgb(frame, width, height))
            if start > last:
                break
        if starts and (starts[0] <= first or not seek):
            end = starts[-1] + 1 / (media.frame_rate or 25)
            return np.stack([pictures[i] for i in _frames_at(path, times, np.array(starts), end)])
    raise MediaError(path, f"no picture at {first:.2f} s can be decoded (is it cut off?)")


def _as_rgb(frame, width: int, height: int) -> np.ndarray:
    """(height, width, 3), turned as a player does."""
    turns = frame.rotation // 90
    stored = (width, height) if turns % 2 == 0 else (height, width)
    return np.ascontiguousarray(np.rot90(frame.reformat(*stored, format="rgb24").to_ndarray(), turns))


def _shown_size(path: str, stamp: tuple[int, int], media: Media) -> tuple[int, int]:
    """Width and height as a player shows the pictures: a phone held upright stores them lying."""
    upright = _rotation(path, *stamp) % 180 != 0
    return (media.height, media.width) if upright else (media.width, media.height)


@lru_cache(maxsize=65536)
def _rotation(path: str, _size: int, _changed: int) -> int:
    """Degrees by which a player turns the pictures (decord does so too); PyAV tells it with a picture only."""
    import av

    if not _may_be_turned(path):
        return 0
    with _open_container(path) as container:
        try:
            first = next(container.decode(_video_stream(container)), None)
        except (av.FFmpegError, ValueError):
            return 0  # reading tells what is wrong
        return first.rotation if first else 0


def _may_be_turned(path: str) -> bool:
    """Whether any matrix in the header of an MP4 or MOV file is other than the identity: a look that spares most files
    the decoding of a picture. True of other containers."""
    with open(path, "rb") as file:
        while len(head := file.read(16)) >= 8:
            size, kind = struct.unpack_from(">I4s", head)
            if size == 1 and len(head) == 16:
                size = struct.unpack_from(">Q", head, 8)[0]
            if kind == b"moov":
                header = head[8:] + file.read(max(size - 16, 0))
                break
            if size < 8 or (file.tell() == 16 and kind != b"ftyp"):
                return True
            file.seek(size - len(head), os.SEEK_CUR)
        else:
            return True
    for kind, offset in ((b"mvhd", (40, 52)), (b"tkhd", (44, 56))):  # of the matrix, in versions 0 and 1 of the box
        at = header.find(kind)
        while at >= 0:
            begin = at + offset[header[at + 4] == 1]
            if header[begin : begin + len(UPRIGHT)] != UPRIGHT:
                return True
            at = header.find(kind, at + 4)
    return False


def _decoded(path: str, media: Media, seek: float | None):
    """Start (seconds) and frame, one after the other, from about `seek` seconds."""
    import av

    try:
        with _open_container(path) as container:
            stream = _video_stream(container)
            if seek is not None:
                container.seek(int((seek + media.origin) / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.pts is not None:
                    yield float(frame.pts * stream.time_base) - media.origin, frame
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(path, f"its pictures cannot be decoded ({_cause(error)})") from error


def _frames_at(path: str, times: Sequence[float], starts: np.ndarray, end: float) -> list[int]:
    """Index of the frame on screen at each time; works for constant and variable frame rates."""
    if max(times) > end + TOLERANCE:
        raise MediaError(path, f"no picture at {max(times):.2f} s: its pictures end at {end:.2f} s (is it cut off?)")
    # A hair later than asked, so that a time that falls on a frame's start is not lost to rounding.
    return np.clip(np.searchsorted(starts, np.asarray(times) + 1e-6, side="right") - 1, 0, len(starts) - 1).tolist()


def read_audio(path: str | os.PathLike, start: float, duration: float, sample_rate: int) -> np.ndarray:
    """The sound from `start` for `duration` (seconds) as (C, N) float32 in [-1, 1], N = round(duration *
    sample_rate), resampled where the file's rate is another. WAV and FLAC are read as slices, any other file
    through its sound track. Raises MediaError."""
    path, stamp = _stamp(path)
    media = _probe(path, *stamp)
    if not media.has_audio:
        raise MediaError(path, "has no sound; give it as pictures only")
    cut = _slice if path.lower().endswith(SOUND_FILES) else _sound_track
    return cut_window(path, partial(cut, path, media), media.sample_rate, start, duration, sample_rate)


def cut_window(
    path: str,
    cut: Callable[[int, int], tuple[np.ndarray, int]],
    rate: int,
    start: float,
    duration: float,
    sample_rate: int,
) -> np.ndarray:
    """What `read_audio` returns, out of a sound of `rate` (Hz) of which `cut` gives the samples [first, last), as many
    as there are, as (C, N) with the index of the first. Raises MediaError, in which `path` names the sound."""
    # A margin on each side keeps the resampling filter from seeing the cut as a step to silence.
    margin = 0 if rate == sample_rate else math.ceil(0.01 * rate)
    first = round(start * rate) - margin
    length = math.ceil(duration * rate) + 2 * margin
    audio, offset = cut(max(first, 0), first + length)
    missing = first + length - margin - (offset + audio.shape[1])
    if missing > TOLERANCE * rate:
        end = (offset + audio.shape[1]) / rate
        raise MediaError(path, f"no sound at {start + duration:.2f} s: it ends at {end:.2f} s (is it cut off?)")
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


def decode_frames(
    path: str | os.PathLike, rate: float, short_side: int | None = None
) -> Iterator[tuple[np.ndarray, float]]:
    """All of a video in one pass: the pictures shown at the middles of spans of 1 / `rate` seconds, in batches
    (T, H, W, 3) uint8 RGB as `read_frames` gives them, each with the second at which the pictures end, as far as it is
    known by then. Raises MediaError."""
    path, stamp = _stamp(path)
    if path.lower().endswith(IMAGES):
        yield _read_image(path, short_side)[None], 0.0
        return
    media = _probe(path, *stamp)
    if not media.has_video:
        raise MediaError(path, "has no picture; give it as sound only")
    width, height = _fitted(*_shown_size(path, stamp, media), short_side)
    decord, done = _decord(), 0
    try:
        if not media.indexed:
            raise RuntimeError("decord does not find its way in it")
        reader = decord.VideoReader(path, num_threads=1, width=width, height=height)
        spans = reader.get_frame_timestamp(np.arange(len(reader))) + media.video_start
        end = float(spans[-1, 1])
        indices = _frames_at(path, np.minimum(middles(end, rate), end), spans[:, 0], end)
        while done < len(indices):
            pictures = reader.get_batch(indices[done : done + BATCH]).asnumpy()
            done += len(pictures)
            yield pictures, end
        return
    except (decord.DECORDError, RuntimeError):  # some containers it cannot open, or not seek in
        starts: list[float] = []
    shown = None
    for start, frame in _decoded(path, media, None):
        starts.append(start)
        while shown is not None and (done + 0.5) / rate + 1e-6 < start:
            yield _as_rgb(shown, width, height)[None], start
            done += 1
        shown = frame
    if shown is None:
        raise MediaError(path, "no picture can be decoded (is it cut off?)")
    end = starts[-1] + 1 / (media.frame_rate or 25)
    for _ in range(done, len(middles(end, rate))):
        yield _as_rgb(shown, width, height)[None], end


def middles(end: float, rate: float) -> np.ndarray:
    """Middles of the spans of 1 / `rate` seconds that at least half lie before `end`; at least one."""
    return (np.arange(max(math.floor(end * rate + 0.5), 1)) + 0.5) / rate


def decode_sound(path: str | os.PathLike) -> tuple[np.ndarray, int]:
    """All of a recording's sound as (N, C) and its rate (Hz): int16 where the file holds 16 bits or fewer, int32 with
    the low byte empty where it holds 24, else float32, so that nothing is lost. Raises MediaError."""
    import soundfile

    path, stamp = _stamp(path)
    media = _probe(path, *stamp)
    if not media.has_audio:
        raise MediaError(path, "has no sound; give it as pictures only")
    if not path.lower().endswith(SOUND_FILES):
        audio, offset = _sound_track(path, media, 0, 1 << 62)
        return np.pad(audio, ((0, 0), (offset, 0))).T, media.sample_rate
    try:
        with _open_sound(path) as sound:
            kinds = {"PCM_S8": "int16", "PCM_U8": "int16", "PCM_16": "int16", "PCM_24": "int32"}
            return sound.read(dtype=kinds.get(sound.subtype, "float32"), always_2d=True), media.sample_rate
    except soundfile.SoundFileError as error:
        raise MediaError(path, f"its sound cannot be read ({_cause(error)})") from error


def mix_channels(audio: np.ndarray, channels: int) -> np.ndarray:
    """(C, N) -> (channels, N): mono is doubled, stereo averaged, surround (order L R C LFE Ls Rs) folded down with
    the usual -3 dB for the centre and the sides (ITU-R BS.775)."""
    have = audio.shape[0]
    if have > 2:
        left, right = audio[0].copy(), audio[1].copy()
        if have == 3 or have >= 5:
            left, right = left + math.sqrt(0.5) * audio[2], right + math.sqrt(0.5) * audio[2]
        sides = audio[-2:] if have >= 4 else np.zeros_like(audio[:2])
        audio = np.stack([left + math.sqrt(0.5) * sides[0], right + math.sqrt(0.5) * sides[1]]).clip(-1, 1)
        have = 2
    if have == channels:
        return audio
    return np.repeat(audio, channels, axis=0) if have == 1 else audio.mean(axis=0, keepdims=True)


def _slice(path: str, media: Media, first: int, last: int) -> tuple[np.ndarray, int]:
    """Samples [first, last) of a sound file, as many as there are, and the index of the first."""
    import soundfile

    try:
        with _open_sound(path) as sound:
            first = min(first, sound.frames)
            sound.seek(first)
            return sound.read(last - first, dtype="float32", always_2d=True).T, first
    except soundfile.SoundFileError as error:
        raise MediaError(path, f"its sound cannot be read ({_cause(error)})") from error


def _sound_track(path: str, media: Media, first: int, last: int) -> tuple[np.ndarray, int]:
    """Samples [first, last) of a file's first sound track, as many as there are, and the index of the first."""
    import av

    rate = media.sample_rate
    blocks, position, begin = [], None, first
    try:
        with _open_container(path) as container:
            stream = container.streams.audio[0]
            grid = round((float((stream.start_time or 0) * stream.time_base) - media.origin) * rate)
            if first > RUN_UP * rate:
                container.seek(int((first / rate + media.origin - RUN_UP) / stream.time_base), stream=stream)
            to_float = av.AudioResampler(format="fltp")
            for frame in container.decode(stream):
                if frame.pts is None:
                    continue
                stamped = round((float(frame.pts * frame.time_base) - media.origin) * rate)
                # Some containers round time stamps to a millisecond: start on the grid of the stream's frames, run on
                # by counting, unless there is a real gap.
                if position is None:
                    position = stamped
                    if stream.time_base * rate > 1:
                        on_grid = grid + round((stamped - grid) / frame.samples) * frame.samples
                        position = on_grid if abs(on_grid - stamped) <= stream.time_base * rate else stamped
                    begin = position
                elif abs(stamped - position) > 0.05 * rate:
                    blocks.append(np.zeros((media.channels, max(stamped - position, 0)), np.float32))
                    position = max(stamped, position)
                for part in to_float.resample(frame):
                    block = part.to_ndarray()
                    blocks.append(block)
                    position += block.shape[1]
                if position >= last:
                    break
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(path, f"its sound cannot be decoded ({_cause(error)})") from error
    if not blocks:
        return np.zeros((media.channels, 0), np.float32), first
    audio = np.concatenate(blocks, axis=1)
    skip = max(first - begin, 0)
    return audio[:, skip : last - begin], begin + min(skip, audio.shape[1])


def _stamp(path: str | os.PathLike) -> tuple[str, tuple[int, int]]:
    """The absolute path, which no decoder takes for a URL or a pseudo-protocol, with size and time of change."""
    path = os.path.abspath(os.fspath(path))
    try:
        status = os.stat(path)
    except OSError as error:
        raise MediaError(path, "no such file" if isinstance(error, FileNotFoundError) else _cause(error)) from error
    if not os.path.isfile(path):
        raise MediaError(path, "is a folder, not a media file")
    if status.st_size == 0:
        raise MediaError(path, "is empty")
    return path, (status.st_size, status.st_mtime_ns)


def _fitted(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    if not short_side:
        return width, height
    scale = short_side / min(width, height)
    return max(round(width * scale), short_side), max(round(height * scale), short_side)


def _read_image(path: str, short_side: int | None = None) -> np.ndarray:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise MediaError(path, "is not a picture that can be read") from error
    return np.asarray(image.resize(_fitted(*image.size, short_side), Image.Resampling.BILINEAR))


def _open_sound(path: str):
    import soundfile

    try:
        return soundfile.SoundFile(path)
    except soundfile.SoundFileError as error:
        raise MediaError(path, f"is not a sound file that can be read ({_cause(error)})") from error


def _open_container(path: str, **options):
    import av

    try:
        return av.open(path, metadata_errors="ignore", options=CONTAINERS, **options)
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(path, f"is not a media file that can be read, or it is cut off ({_cause(error)})") from error


def _video_stream(container):
    """The first stream of pictures that is not a cover."""
    import av

    cover = av.stream.Disposition.attached_pic
    return next((stream for stream in container.streams.video if not stream.disposition & cover), None)


@lru_cache(maxsize=1)
def _decord():
    import decord

    decord.logging.set_level(decord.logging.QUIET)  # what it has to say comes as an error with the path
    return decord


def _cause(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text.split(": '")[0].split("\n")[0]
