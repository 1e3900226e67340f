"""Safe unpacking of a zip archive: everything is checked before it is written."""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from avsc_e2e.data.download.archives import LARGEST_EXPANSION
from avsc_e2e.errors import AvscError

ENVELOPE = re.compile(r"TAU-urban-audio-visual-scenes-2021-\w+(\.\w+)*")
"""Name of a single top-level folder of an archive."""


CHUNK = 1 << 20


class Stopped(Exception):
    """The download was stopped; the files stay for a later run."""


def unpack(archive: str | os.PathLike[str], target: Path, stop: threading.Event | None = None) -> dict[str, int]:
    """Unpack a zip archive below `target` and return the size of each file by its path there. A single top-level folder
    with the name of an archive is removed, so that the parts of a set are combined in its official layout; examples
    have their own folder. Each complete file is renamed into its place.

    Raises AvscError, before anything is written, for an archive with an absolute path, '..', a link, a second file of
    the same name, a password, or more to unpack than LARGEST_EXPANSION allows; and for a damaged one.
    """
    path = Path(archive)
    temporary = path.with_name(f"{path.name}.member")
    try:
        with zipfile.ZipFile(path) as opened:
            members = _members(path, opened.infolist())
            for name, member in members.items():
                destination = target / name
                destination.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as source, open(temporary, "wb") as file:
                    while chunk := source.read(CHUNK):  # reads at most the declared size, and checks the CRC
                        file.write(chunk)
                        if stop and stop.is_set():
                            raise Stopped
                if temporary.stat().st_size != member.file_size:
                    raise zipfile.BadZipFile(f"{member.filename} is not of the size declared")
                temporary.replace(destination)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        if (
            isinstance(error, OSError) and error.errno != errno.EINVAL
        ):  # a directory that points before the beginning of the file
            raise
        temporary.unlink(missing_ok=True)
        raise AvscError(f"{path}: a damaged archive ({error}): delete it and fetch it again") from None
    return {name: member.file_size for name, member in sorted(members.items())}


def _members(path: Path, infos: Sequence[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by their target path. Raises AvscError for an archive with an unsafe member."""
    total = sum(info.file_size for info in infos)
    if total > LARGEST_EXPANSION * path.stat().st_size + (64 << 20) or len(infos) > 1_000_000:
        raise AvscError(
            f"{path}: would unpack to {len(infos)} files of {total / 1e9:.1f} GB, far too many for its size"
        )
    files = []
    for info in infos:
        kind = stat.S_IFMT(info.external_attr >> 16)
        parts = info.filename.rstrip("/").split("/")
        if (
            any(part in ("", ".", "..") for part in parts)
            or re.search(r"[\\:\x00-\x1f]", info.orig_filename)
            or kind not in (0, stat.S_IFREG, stat.S_IFDIR)
            or info.flag_bits & 1
        ):
            raise AvscError(f"{path}: {info.filename!r} is a link, encrypted, or leads out of the folder: not unpacked")
        if not info.is_dir():
            files.append((tuple(parts), info))
    depth = 0
    while files and all(
        len(parts) > depth + 1 and parts[depth] == files[0][0][depth] and ENVELOPE.fullmatch(parts[depth])
        for parts, _ in files
    ):
        depth += 1
    examples = ("examples",) if ".examples." in path.name else ()
    members: dict[str, zipfile.ZipInfo] = {}
    for inside, info in files:
        name = str(PurePosixPath(*examples, *inside[depth:]))
        if name in members:
            raise AvscError(f"{path}: holds {info.filename!r} twice: not unpacked")
        members[name] = info
    return members
