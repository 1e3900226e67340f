"""The published archives of TAU Urban Audio-Visual Scenes 2021: names, sizes, checksums and addresses."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

from avsc_e2e.errors import AvscError

RECORDS = {
    "development": "https://zenodo.org/records/4477542/files",
    "evaluation": "https://zenodo.org/records/4767103/files",
}
"""Addresses of the archives of each part (DOI 10.5281/zenodo.4477542 and 10.5281/zenodo.4767103)."""


KINDS = ("doc", "meta", "examples", "audio", "video")


EXPANSION = {"audio": 1.17, "video": 1.01, "examples": 1.17}
"""Unpacked size divided by the size of an archive, from 12,291 WAV files of 2.88 MB; for others see
LARGEST_EXPANSION."""


LARGEST_EXPANSION = 20
"""An archive that would unpack to more than this many times its size, plus 64 MiB, is refused as a zip bomb."""


class Archive(NamedTuple):
    """A published file."""

    part: str
    """development or evaluation."""
    name: str
    size: int
    """Bytes."""
    md5: str

    @property
    def kind(self) -> str:
        """doc, meta, examples, audio or video."""
        return next((kind for kind in KINDS if f".{kind}." in self.name), "doc")

    def url(self, base_url: str = "") -> str:
        """Its published address, or that below another base URL."""
        return f"{(base_url or RECORDS[self.part]).rstrip('/')}/{self.name}"

    @property
    def unpacked(self) -> int:
        """Estimated size of its unpacked files, bytes."""
        return int(self.size * EXPANSION.get(self.kind, LARGEST_EXPANSION))


def list_archives(part: str = "development", kinds: Sequence[str] = KINDS) -> tuple[Archive, ...]:
    """List the published archives of a part. Raises AvscError for an unknown part or kind."""
    if part not in RECORDS:
        raise AvscError(f"part {part!r}: give {' or '.join(RECORDS)}")
    for kind in kinds:
        if kind not in KINDS:
            raise AvscError(f"kind {kind!r}: give one of {', '.join(KINDS)}")
    table = resources.files(__package__).joinpath("tau_archives.tsv").read_text()
    rows = [line.split("\t") for line in table.splitlines()[1:]]
    archives = [Archive(of_part, name, int(size), md5) for of_part, name, size, md5 in rows if of_part == part]
    return tuple(archive for archive in archives if archive.kind in kinds)
