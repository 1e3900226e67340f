"""Extensions of files that are recordings. Their content decides how they are read. Class folders, `predict` and `data
check` use this list."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from avsc_e2e.errors import AvscError

VIDEO = frozenset(
    {
        *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".divx", ".mpg", ".mpeg", ".mpe"),
        *(".m2v", ".vob", ".ts", ".mts", ".m2ts", ".mxf", ".wmv", ".asf", ".flv", ".f4v", ".ogv", ".dv", ".gif"),
        *(".mjpeg", ".mjpg"),
    }
)
AUDIO = frozenset(
    {
        *(".wav", ".w64", ".flac", ".mp3", ".mp2", ".m4a", ".m4b", ".aac", ".ac3", ".eac3", ".ogg", ".oga", ".opus"),
        *(".wma", ".aif", ".aiff", ".aifc", ".au", ".caf", ".amr", ".mka", ".weba"),
    }
)
IMAGE = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
MEDIA = VIDEO | AUDIO | IMAGE

Kind = Literal["video", "audio", "image", ""]


def kind(path: str | os.PathLike[str]) -> Kind:
    """The kind of a file by its extension; "" if it is not a recording."""
    extension = os.path.splitext(path)[1].lower()
    if extension in VIDEO:
        return "video"
    if extension in AUDIO:
        return "audio"
    return "image" if extension in IMAGE else ""


def media_files(paths: Iterable[str | os.PathLike]) -> list[Path]:
    """The media files among `paths`, including those in folders. Raises AvscError for a path without any."""
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(f for f in path.rglob("*") if kind(f) and not f.name.startswith(".") and f.is_file())
            if not inside:
                raise AvscError(f"{path}: no media file in this folder (looked for {', '.join(sorted(MEDIA))})")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise AvscError(f"{path}: no such file or folder")
    return found
