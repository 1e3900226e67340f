"""Opening media files: their kind by content, their container and main tracks, and errors in one line."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Literal

from avsc_e2e.data.media.sharing import SharedFile
from avsc_e2e.errors import MediaError

CONTAINERS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,mxf,dv,gif,"
    "mp3,aac,ac3,eac3,ogg,wav,w64,flac,aiff,caf,amr,au",
}
"""Formats that FFmpeg may recognise in a file. It judges by the content, so a playlist named like a video could make it
open other files and addresses."""

HELD = 60.0
"""Seconds for which a frame is shown if no other follows. In a longer gap between time stamps, nothing is shown."""
TOLERANCE = 0.5
"""Seconds by which a stream may end before a window does: the last frame is repeated, and audio is padded with silence.
If more is missing, the window is refused, because a cut-off file must not count as a silent one."""
LONGEST_SIDE = 100
"""Largest ratio of a frame's sides. With a larger one in a damaged header, one frame could fill the memory."""

Kind = Literal["image", "sound", "container"]


def locate(path: str | os.PathLike[str]) -> tuple[str, tuple[int, int]]:
    """The absolute path, which no decoder takes for a URL or a protocol, with size and modification time. Raises
    MediaError unless it is a regular file that is not empty."""
    path = os.path.abspath(os.fspath(path))
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        gone = os.path.islink(path)
        raise MediaError(path, "links to a file that does not exist" if gone else "no such file") from error
    except (OSError, ValueError) as error:
        raise MediaError(path, cause(error)) from error
    if stat.S_ISDIR(status.st_mode):
        raise MediaError(path, "is a folder, not a media file")
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(path, "is a pipe, socket or device, not a media file")
    if status.st_size == 0:
        raise MediaError(path, "is empty")
    stamp = status.st_size, status.st_mtime_ns
    if (path, stamp) in _given_up:
        raise MediaError(path, _given_up[path, stamp])
    return path, stamp


_given_up: dict[tuple[str, tuple[int, int]], str] = {}
"""Files that this process must not read while they are unchanged, and the reasons."""


def give_up(error: MediaError) -> None:
    """Let every later read of a file fail with an error, because another process died while it read the file."""
    with contextlib.suppress(MediaError):
        _given_up[locate(error.path)] = error.reason


def kind(path: str) -> Kind:
    """Which library reads a file, by its first bytes, whatever its name says. Raises MediaError."""
    with boundary(path, "cannot be read"), open(path, "rb") as file:
        head = file.read(12)
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG", b"BM")) or (head[:4] == b"RIFF" and head[8:] == b"WEBP"):
        return "image"
    if head.startswith(b"fLaC") or (head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE"):
        return "sound"
    return "container"


@contextlib.contextmanager
def boundary(path: str, what: str) -> Iterator[None]:
    """Turn any exception of a decoder into a MediaError that names the file and the cause."""
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        raise MediaError(path, f"{what} ({cause(error)})") from error


def cause(error: Exception) -> str:
    """The cause of an exception in one line."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for what it claims to hold"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.split(": '")[0].split("\n")[0]


def open_container(path: str, shared: SharedFile | None = None, **options):
    """Open a file as a PyAV container, through `shared` if other decoders read it too. Raises MediaError."""
    import av

    with boundary(path, "is not a media file that can be read, or it is cut off"):
        file: object = shared.handle() if shared else path
        try:
            path.encode()
        except UnicodeEncodeError:  # the name is not UTF-8
            file = file if shared else open(path, "rb")  # noqa: SIM115
        return av.open(file, metadata_errors="ignore", options=CONTAINERS, **options)


def main_stream(container, modality: str):
    """The video or audio track that a player would choose: of the tracks that can be decoded, the first one marked as
    default, or else the first one; None if there is none. A cover image is not a video."""
    import av

    marks = av.stream.Disposition
    streams = [
        stream
        for stream in (container.streams.video if modality == "video" else container.streams.audio)
        if not stream.disposition & marks.attached_pic
    ]
    streams = [stream for stream in streams if stream.codec_context is not None] or streams
    return next((stream for stream in streams if stream.disposition & marks.default), next(iter(streams), None))


def fitted(width: float, height: float, short_side: int | None) -> tuple[int, int]:
    """Width and height of a frame scaled to a shorter side of `short_side` pixels; unchanged if that is None. Raises
    ValueError for a shape that no video has."""
    if max(width, height) > LONGEST_SIDE * max(min(width, height), 1e-9):
        raise ValueError(f"frames of {width:.0f} x {height:.0f} square pixels")
    if not short_side:
        return max(round(width), 1), max(round(height), 1)
    scale = short_side / min(width, height)
    return max(round(width * scale), short_side), max(round(height * scale), short_side)


def known_codecs() -> frozenset[str]:
    """Names of the codecs that this PyAV can decode, such as "h264"."""
    import av

    return frozenset(av.codecs_available)
