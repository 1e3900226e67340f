"""The official layout of TAU Urban Audio-Visual Scenes 2021: its folders, its lists and the files that they name.

    ROOT/audio/<scene>-<city>-<location>-<segment>.wav     ROOT/video/<the same>.mp4
    ROOT/meta.csv     ROOT/evaluation_setup/fold1_{train,test,evaluate}.csv

The CSVs are tab separated. Any of these may instead lie in a folder that an archive left in the root, such as
ROOT/TAU-urban-audio-visual-scenes-2021-development.meta/meta.csv. Paths in CSVs never lead out of the root.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from avsc_e2e.clip import MODALITIES, SCENES
from avsc_e2e.data.sets.table import is_table
from avsc_e2e.errors import AvscError

log = logging.getLogger(__name__)


KNOWN_GAPS = frozenset({"video/airport-lyon-1095-40158.mp4"})
"""Files reported to be missing from the release: where one is, its row goes on with the other modality."""


ARCHIVE_FOLDER = re.compile(r".+(-(development|evaluation)|\.(meta|audio|video)(\.\d+)?)$", re.IGNORECASE)
"""Names of the folders that unpacking the archives may leave in the root."""


PLAIN_PATH = re.compile(r"(?:[\w-][\w. -]*/)*[\w-][\w. -]*\.\w+")
"""What a CSV may name: folders and a file with an extension, none of them hidden, below the root."""


class Listing(NamedTuple):
    """One line of an official CSV; paths are relative to the root, absent columns are empty."""

    csv: str
    """Path of the CSV."""
    line: int
    """Counted from 1, the header included."""
    audio: str
    video: str
    scene: str
    location: str

    @property
    def file(self) -> str:
        """Base name without its extension, the clip's name everywhere."""
        return _stem(self.audio or self.video)


class Layout(NamedTuple):
    """Where the pieces of a set lie."""

    root: Path
    folders: tuple[Path, ...]
    """The root, then folders left by archives: each CSV and each path of a CSV is looked up in this order."""

    def find(self, path: str) -> Path | None:
        """The first file at `path`, relative to one of the folders; None where there is none."""
        return next((folder / path for folder in self.folders if (folder / path).is_file()), None)


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0]


def find_layout(root: str | os.PathLike[str], part: str = "development") -> Layout:
    """Find the folders of the development or the evaluation set below a root, at most two levels down; none where the
    root is a table.

    Raises AvscError where the root is no folder.
    """
    root = Path(os.path.abspath(root))
    if is_table(root):
        return Layout(root, ())
    if not root.is_dir():
        if root.exists():
            raise AvscError(
                f"{root}: is a file; give the folder of the data set, such as one with a folder per class, or a table, "
                "FILES.csv with the columns file and label"
            )
        raise AvscError(f"{root}: no such folder: give the root of the set, or fetch it with `avsc data download`")
    other = "evaluation" if part == "development" else "development"
    folders, level = [root], [root]
    for _ in range(2):
        level = [
            Path(entry.path)
            for folder in level
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)
            if ARCHIVE_FOLDER.fullmatch(entry.name) and f"-{other}" not in entry.name and entry.is_dir()
        ]
        folders += level
    return Layout(root, tuple(folders))


def is_tau(root: str | os.PathLike[str]) -> bool:
    """Whether a folder holds the set's CSVs."""
    layout = find_layout(root)
    return bool(layout.find("meta.csv")) or any((folder / "evaluation_setup").is_dir() for folder in layout.folders)


def read_listing(path: str | os.PathLike[str]) -> list[Listing]:
    """Read an official CSV: tab separated, with a header, any line ending, with or without a byte-order mark.

    Raises AvscError, naming file and line, for a file that is not such a CSV, and for a path in it that is
    absolute, contains '..' or is a URL or an ffmpeg pseudo-protocol.
    """
    path = str(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().split("\n")
    except UnicodeDecodeError as error:
        raise AvscError(f"{path}: not UTF-8 text ({error.reason}): fetch the set's meta archive again") from None
    except OSError as error:
        raise AvscError(f"{path}: cannot be read: {error.strerror}") from None
    header = [name.strip() for name in lines[0].split("\t")]
    if "filename_audio" not in header and "filename_video" not in header:
        raise AvscError(
            f"{path}: line 1: no column filename_audio or filename_video in {lines[0][:80]!r}: "
            "a tab-separated CSV of the set is expected"
        )
    names = ("filename_audio", "filename_video", "scene_label", "identifier")
    columns = [header.index(name) if name in header else None for name in names]
    listing: list[Listing] = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != len(header):
            raise AvscError(f"{path}: line {number}: {len(cells)} columns, {len(header)} expected")
        audio, video, scene, location = ("" if column is None else cells[column].strip() for column in columns)
        for column, name in ((columns[0], audio), (columns[1], video)):
            if column is not None:
                _refuse_unsafe(name, path, number)
        row = Listing(path, number, audio, video, scene, location)
        if audio and video and _stem(video) != row.file:
            raise AvscError(f"{path}: line {number}: {audio} and {video} are not of one recording")
        named = row.file.split("-")[0]
        if scene and scene not in SCENES and named in SCENES:
            raise AvscError(f"{path}: line {number}: unknown scene {scene!r}; by its name {row.file} is of {named}")
        listing.append(row)
    if not listing:
        raise AvscError(f"{path}: no rows below the header: fetch the set's meta archive again")
    return listing


def _refuse_unsafe(name: str, path: str, line: int) -> None:
    """Media libraries open URLs and `concat:`-like names as gladly as files, so only plain paths pass."""
    if not PLAIN_PATH.fullmatch(name):
        raise AvscError(
            f"{path}: line {line}: {name[:120]!r} is not a plain path of a file inside the root: "
            "no absolute path, '..', URL or protocol is followed"
        )


def read_meta(layout: Layout) -> dict[str, Listing]:
    """Read meta.csv: every clip by its name, with scene and location.

    Raises AvscError where it is missing, has no labels, or lists a clip twice.
    """
    path = required(layout, "meta.csv")
    known: dict[str, Listing] = {}
    for entry in read_listing(path):
        if not entry.scene or not entry.location:
            raise AvscError(f"{path}: line {entry.line}: no scene_label or no identifier")
        if entry.file in known:
            raise AvscError(f"{path}: line {entry.line}: {entry.file} is already in line {known[entry.file].line}")
        known[entry.file] = entry
    return known


def required(layout: Layout, name: str) -> Path:
    """The file of a list. Raises AvscError, with the lists that are there, where it is absent."""
    path = layout.find(name)
    if path is None:
        folder = Path(name).parent
        found = sorted(file.name for base in layout.folders for file in (base / folder).glob("*.csv"))
        raise AvscError(
            f"{layout.root}: no {name} in it or in a folder left by an archive"
            + (f" (found: {', '.join(found)})" if found else "")
            + ": give the root of the set, or unpack its meta archive there"
        )
    return path


def compare_with_meta(entries: Iterable[Listing], known: dict[str, Listing]) -> None:
    """Check a list against meta.csv, which alone has all labels and locations."""
    lines: dict[str, int] = {}
    for entry in entries:
        place = f"{entry.csv}: line {entry.line}"
        if entry.file not in known:
            raise AvscError(f"{place}: {entry.file} is not in meta.csv")
        meta = known[entry.file]
        if entry.scene not in ("", meta.scene):
            raise AvscError(f"{place}: {entry.file} is {entry.scene!r} here and {meta.scene!r} in meta.csv")
        if (entry.audio and entry.audio != meta.audio) or (entry.video and entry.video != meta.video):
            raise AvscError(f"{place}: {entry.file} has another path in meta.csv, line {meta.line}")
        if entry.file in lines:
            raise AvscError(f"{place}: {entry.file} is already in line {lines[entry.file]}")
        lines[entry.file] = entry.line


def file_names(folder: Path) -> set[str]:
    """Names in a folder; one scan instead of a stat per file."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def locate(
    layout: Layout, entries: Iterable[Listing], modalities: Sequence[str] = MODALITIES, *, verify: bool = True
) -> dict[str, str]:
    """Map each relative path of a list to an absolute one.

    A folder that an archive left may hold the files directly, without audio/ or video/ above them. Where a
    file is absent its place in the root is given, or with `verify` AvscError raised: one line with the CSV,
    the line and the path, and how many more are absent.
    """
    scanned: dict[str, dict[str, str]] = {}
    paths: dict[str, str] = {}
    absent: list[tuple[Listing, str]] = []
    for entry in entries:
        for modality in modalities:
            path = entry.audio if modality == "audio" else entry.video
            if not path:
                continue
            parent, _, name = path.rpartition("/")
            if parent not in scanned:
                scanned[parent] = {}
                for folder in layout.folders:
                    for place in (folder / parent, *([folder] if f".{parent}" in folder.name else [])):
                        for found in file_names(place):
                            scanned[parent].setdefault(found, os.path.join(place, found))
            if name not in scanned[parent] and path in KNOWN_GAPS and verify:
                log.warning("%s is absent, as reported of the release too: its row goes on without it", path)
                paths[path] = ""
                continue
            if name not in scanned[parent]:
                absent.append((entry, path))
            paths[path] = scanned[parent].get(name) or os.path.join(layout.root, *path.split("/"))
    if absent and verify:
        entry, path = absent[0]
        more = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
        raise AvscError(
            f"{entry.csv}: line {entry.line}: {path} is absent from {layout.root}{more}: "
            "see `avsc data check` for the list, fetch them with `avsc data download`"
        )
    return paths
