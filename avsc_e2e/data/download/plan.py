"""The plan and the progress of a download."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from avsc_e2e.data.download.archives import Archive


class Progress(NamedTuple):
    """The progress of a download."""

    done: int
    """Bytes fetched, in earlier runs too."""
    total: int
    """Bytes of all requested archives."""
    rate: float
    """Bytes a second, over the last half minute."""
    finished: int
    """Archives fetched, verified and unpacked."""
    archives: int
    at_work: tuple[str, ...]
    """Current work, one entry for each archive in progress."""

    @property
    def seconds_left(self) -> float:
        """Estimated seconds until all is fetched; infinite without new data."""
        return (self.total - self.done) / self.rate if self.rate else math.inf

    def __str__(self) -> str:
        left = self.seconds_left
        eta = "" if math.isinf(left) else f", {left // 3600:.0f}:{left % 3600 // 60:02.0f}:{left % 60:02.0f} left"
        return (
            f"{self.done / 1e9:.2f} of {self.total / 1e9:.2f} GB, {self.rate / 1e6:.1f} MB/s{eta}; "
            f"{self.finished} of {self.archives} archives; {', '.join(self.at_work)}"
        )


class Plan(NamedTuple):
    """The work and the disk space of a download."""

    root: Path
    archives: tuple[Archive, ...]
    """All requested archives."""
    finished: tuple[Archive, ...]
    """Archives that are already unpacked."""
    to_fetch: int
    """Bytes that are still to be fetched."""
    needed: int
    """Estimated peak of additional disk space, bytes."""
    free: int
    """Bytes."""

    def __str__(self) -> str:
        return (
            f"{self.root}: {len(self.finished)} of {len(self.archives)} archives are there, "
            f"{self.to_fetch / 1e9:.1f} GB to fetch; about {self.needed / 1e9:.1f} GB of disk "
            f"needed, {self.free / 1e9:.1f} GB free"
        )


def plan_download(
    root: str | os.PathLike[str], archives: Sequence[Archive], *, keep: bool = False, parallel: int = 4
) -> Plan:
    """Compare the files on disk with the requested archives: what remains, and the disk space that it needs."""
    root = Path(os.path.abspath(root))
    finished = tuple(archive for archive in archives if _is_finished(root, archive))
    remaining = [archive for archive in archives if archive not in finished]
    there = {archive: bytes_there(root, archive) for archive in remaining}
    needed = sum(archive.unpacked for archive in remaining)
    sizes = sorted((archive.size for archive in remaining), reverse=True)
    needed += sum(sizes) - sum(there.values()) if keep else sum(sizes[:parallel])
    folder = next(path for path in (root, *root.parents) if path.exists())
    to_fetch = sum(archive.size - there[archive] for archive in remaining)
    return Plan(root, tuple(archives), finished, to_fetch, needed, shutil.disk_usage(folder).free)


def folder_of_set(root: Path, part: str) -> Path:
    """Folder into which the archives of a part are unpacked."""
    name = f"TAU-urban-audio-visual-scenes-2021-{part}"
    return root if root.name == name else root / name


def bytes_there(root: Path, archive: Archive) -> int:
    """Bytes of an archive that are on the disk."""
    for name in (archive.name, f"{archive.name}.part"):
        path = root / "archives" / name
        if path.is_file():
            return min(path.stat().st_size, archive.size)
    return 0


def _is_finished(root: Path, archive: Archive) -> bool:
    """Whether an archive was unpacked and each of its files still exists with its size."""
    try:
        md5, *files = (root / "archives" / f"{archive.name}.done").read_text(encoding="utf-8").split("\n")[:-1]
        target = folder_of_set(root, archive.part)
        sizes = (line.split("\t", 1) for line in files)
        return md5 == archive.md5 and all(os.stat(target / name).st_size == int(size) for size, name in sizes)
    except (OSError, ValueError):
        return False
