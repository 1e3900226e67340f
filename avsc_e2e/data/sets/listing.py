"""Listing of class folders or of a table, without opening media: recordings by part and class, faults, and ignored
files."""

from __future__ import annotations

import os
import stat
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple

from avsc_e2e.clip import Row
from avsc_e2e.data.extensions import kind
from avsc_e2e.data.sets.table import TABLES, folder_of, is_table, read_table
from avsc_e2e.data.store.remote import RemoteFolder, fetch, is_url
from avsc_e2e.errors import AvscError

PARTS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
"""Names of sub-folders that are parts, not classes."""


class Fault(NamedTuple):
    """A fault because of which a root cannot be used."""

    path: str
    reason: str
    mend: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}: {self.mend}"


class Scan(NamedTuple):
    """The listing of a root of class folders, or of a table."""

    parts: dict[str, list[Row]]
    """Rows by part, "" where the root is not divided into parts, not yet measured: both paths of a row may name the
    same video. A row's location is the group that a table gives it, else empty."""
    faults: tuple[Fault, ...]
    passed_over: tuple[Fault, ...]
    """Ignored files and links, with the reason."""


def scan(root: str | os.PathLike[str]) -> Scan:
    """List a root or a table. Raises AvscError only if it is neither: not a folder, a folder without class folders, or
    a file that is not such a table."""
    if is_url(root):
        return _scan_url(str(root).rstrip("/"))
    root = Path(os.path.abspath(root))
    if is_table(root):
        return _scan_table(root, folder_of(root), root)
    folders, faults, passed = class_folders(root)
    seen: dict[tuple[int, int], str] = {}
    files = {folder: list(_files(root, folder, seen, passed)) for of_part in folders.values() for folder in of_part}
    images = not any(kind(path) == "video" for found in files.values() for path in found)
    parts = {
        part: [row for folder in of_part for row in _rows(root, folder, files[folder], images, faults, passed)]
        for part, of_part in folders.items()
    }
    counts = Counter(row.file for rows in parts.values() for row in rows)
    for name, count in counts.items():
        if count > 1:
            faults.append(Fault(str(root / name), "more than one recording of this name", "rename all but one"))
    return Scan(parts, tuple(faults), tuple(passed))


COLUMNS = ("audio", "group", "split")
"""Optional columns of a table, beside file and label. audio: a separate file with the audio of a video."""


def _scan_url(url: str) -> Scan:
    """As `scan`; rows have paths relative to the URL of the folder, and nothing is looked at but names. Raises
    AvscError where it cannot be listed."""
    if os.path.splitext(url)[1].lower() in TABLES:
        with tempfile.TemporaryDirectory(prefix="avsc-") as folder:
            path = Path(folder) / PurePosixPath(url).name
            fetch(url, path)
            return _scan_table(path, folder_of(url), url)
    found = [PurePosixPath(name) for name in sorted(RemoteFolder(url).names())]
    media = [path for path in found if kind(path) and not any(part.startswith(".") for part in path.parts)]
    depth = 2 if any(PARTS.get(path.parts[0].lower()) == "train" and len(path.parts) > 2 for path in media) else 1
    if not any(len(path.parts) > depth for path in media):
        raise AvscError(
            f"{url}: no recordings in sub-folders of their classes ({len(found)} files are listed): give the URL of a "
            "folder with one sub-folder per class, or of a table, FILES.csv with the columns file and label"
        )
    faults: list[Fault] = []
    passed: list[Fault] = []
    classes: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for name in media:
        if len(name.parts) <= depth or (depth == 2 and name.parts[0].lower() not in PARTS):
            passed.append(Fault(f"{url}/{name}", "lies in no class", "put it into the folder of its class"))
        else:
            classes[PurePosixPath(*name.parts[:depth])].append(name)
    images = not any(kind(path) == "video" for path in media)
    parts: dict[str, list[Row]] = defaultdict(list)
    for place, files in classes.items():
        part = PARTS[place.parts[0].lower()] if depth == 2 else ""
        parts[part] += _rows(PurePosixPath(), place, files, images, faults, passed)
    return Scan(dict(parts), tuple(faults), tuple(passed))


def _scan_table(path: Path, folder: Path | str, shown: Path | str) -> Scan:
    """Of a table in a file, whose paths are relative to `folder`, and which messages call `shown`."""
    lines, others = read_table(path, ("file", "label"), COLUMNS)
    known = f"known are file, label, {', '.join(COLUMNS)}"
    passed = [Fault(str(shown), f"column {name!r} is passed over", known) for name in others]
    divided = any(cells["split"] for _, cells in lines)
    faults = [] if lines else [Fault(str(shown), "lists no recording", "add a line for each")]
    parts: dict[str, list[Row]] = defaultdict(list)
    first: dict[str, int] = {}
    for number, cells in lines:
        name = os.path.splitext(cells["file"])[0]
        found = list(_faults_of(cells, folder, divided))
        if (before := first.setdefault(name, number)) != number:
            mend = "list a recording once; the audio of a video goes into the column audio"
            found.append((f"{cells['file']} has the same name as line {before}", mend))
        faults += [Fault(f"{shown}: line {number}", *reason_and_mend) for reason_and_mend in found]
        if not found:
            names = [cells[column] for column in ("file", "audio") if cells[column]]
            # Behind a URL, and of media behind URLs, the paths stay as they are listed.
            paths = [name if is_url(name) or is_url(folder) else os.path.join(folder, name) for name in names]
            video = "" if kind(paths[0]) == "audio" else paths[0]
            part = PARTS[cells["split"].lower()] if divided else ""
            parts[part].append(Row(name, paths[-1], video, scene=cells["label"], location=cells["group"]))
    if divided and "train" not in parts and not faults:
        faults.append(Fault(str(shown), "lists no recording of the split train", "add some"))
    return Scan(dict(parts), tuple(faults), tuple(passed))


def _faults_of(cells: dict[str, str], folder: Path | str, divided: bool) -> Iterator[tuple[str, str]]:
    """Reason and remedy of each fault of a line."""
    if not cells["file"] or not cells["label"]:
        yield "no file or no label", "give both"
    if not all(text.isprintable() for text in cells.values()):
        yield "has characters that are not printable", "rename the file: names are lines of system outputs"
    if divided and cells["split"].lower() not in PARTS:
        yield f"split {cells['split']!r}", "give train, validation or test to every recording, or leave the column out"
    for name in filter(None, (cells["file"], cells["audio"])):
        if not kind(name):
            yield f"{name} is neither video nor audio by its name", "give a media file"
        elif not is_url(name) and not is_url(folder) and not os.path.isfile(os.path.join(folder, name)):
            yield f"{name} is absent", f"paths are relative to {folder}"


def class_folders(root: Path) -> tuple[dict[str, list[Path]], list[Fault], list[Fault]]:
    """The class folders of each part ("" if the root itself contains them), their faults, and what is ignored. Raises
    AvscError if the root is not a folder or contains no class folders."""
    if not root.is_dir():
        raise AvscError(
            f"{_shown(root)}: no such folder: give a folder with one sub-folder per class, or a table, "
            "FILES.csv with the columns file and label"
        )
    below = _folders(root)
    parts = [folder for folder in below if folder.name.lower() in PARTS]
    if not any(PARTS[folder.name.lower()] == "train" for folder in parts):
        parts = []  # "test" may be the name of a class
    if {folder.name for folder in below} <= {"audio", "video", "evaluation_setup"}:  # or none at all
        raise AvscError(
            f"{_shown(root)}: neither meta.csv with evaluation_setup/ (TAU Urban Audio-Visual Scenes 2021) nor a "
            "sub-folder per class with recordings in it: give a folder that has one of the two, or a table, FILES.csv"
        )
    faults: list[Fault] = []
    passed = list(_strays(root, "lies in the root, in no class", "put it into the folder of its class"))
    if not parts:
        return {"": _sound_names(below, faults)}, faults, passed
    found: dict[str, list[Path]] = {}
    for folder in below:
        if folder not in parts:
            reason = "neither train, validation nor test"
            faults.append(Fault(str(folder), reason, "with a train folder, classes lie inside it"))
            continue
        part = PARTS[folder.name.lower()]
        if part in found:
            faults.append(Fault(str(folder), f"a second folder for the {part} set", "keep one"))
            continue
        found[part] = _sound_names(_folders(folder), faults)
        passed += _strays(folder, "lies in no class", "put it into the folder of its class")
        if not found[part]:
            mend = "put each class's recordings into a sub-folder of its name"
            faults.append(Fault(str(folder), "no sub-folders", mend))
    return found, faults, passed


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _sound_names(folders: list[Path], faults: list[Fault]) -> list[Path]:
    for folder in folders:
        if not folder.name.isprintable():
            faults.append(Fault(_shown(folder), "its name has characters that are not printable", "rename it"))
        elif folder.name != folder.name.strip():
            reason = "its name begins or ends with a space, which tables do not keep"
            faults.append(Fault(f"{str(folder)!r}", reason, "rename it"))
    return [folder for folder in folders if folder.name.isprintable() and folder.name == folder.name.strip()]


def _strays(folder: Path, reason: str, mend: str) -> Iterator[Fault]:
    for path in sorted(folder.iterdir()):
        if kind(path) and not path.name.startswith(".") and not path.is_dir():
            yield Fault(_shown(path), reason, mend)


def _files(root: Path, folder: Path, seen: dict[tuple[int, int], str], passed: list[Fault]) -> Iterator[Path]:
    """The media files of a class folder at any depth. Each folder and file is listed once, even if links lead to it."""
    try:
        here = os.stat(folder)
        entries = sorted(os.scandir(folder), key=lambda entry: (entry.is_symlink(), entry.name))
    except OSError as error:
        passed.append(Fault(_shown(folder), f"cannot be read ({error.strerror})", "give read access"))
        return
    first = seen.setdefault((here.st_dev, here.st_ino), str(folder))
    if first != str(folder):
        passed.append(Fault(_shown(folder), f"is a link to {first}", "files of it count once"))
        return
    folders = []
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        try:
            status = entry.stat()
        except OSError as error:
            if kind(path):
                reason = f"cannot be read ({error.strerror}: a link that leads nowhere?)"
                passed.append(Fault(_shown(path), reason, "remove it"))
            continue
        if stat.S_ISDIR(status.st_mode):
            folders.append(path)
        elif not kind(path):
            passed.append(Fault(_shown(path), "neither video nor audio", "it is ignored"))
        elif not stat.S_ISREG(status.st_mode):
            passed.append(Fault(_shown(path), "is no regular file", "remove it"))
        else:
            first = seen.setdefault((status.st_dev, status.st_ino), str(path))
            if first == str(path):
                yield path
            else:
                passed.append(Fault(_shown(path), f"is a link to the same file as {first}", "it counts once"))
    for below in folders:
        yield from _files(root, below, seen, passed)


def _rows(
    root: PurePath,
    folder: PurePath,
    files: Sequence[PurePath],
    images: bool,
    faults: list[Fault],
    passed: list[Fault],
) -> Iterator[Row]:
    """Rows of one class folder. Images are only used in a set without videos; otherwise they are thumbnails."""
    recordings: dict[PurePath, dict[str, list[PurePath]]] = defaultdict(lambda: {"video": [], "audio": []})
    for path in files:
        if not str(path.relative_to(root)).isprintable():
            mend = "rename it: names are lines of system outputs"
            faults.append(Fault(_shown(path), "its name has characters that are not printable", mend))
        elif kind(path) == "image" and not images:
            passed.append(Fault(str(path), "an image in a set of videos", "it is ignored"))
        else:
            recordings[path.with_suffix("")]["audio" if kind(path) == "audio" else "video"].append(path)
    if not recordings:
        faults.append(
            Fault(str(folder), "no video or audio in this class", "remove the folder, or put recordings into it")
        )
    for stem, found in sorted(recordings.items()):
        for what, paths in found.items():
            for other in paths[1:]:
                reason = f"{paths[0].name} beside it has the same name and is {what} too"
                faults.append(Fault(str(other), reason, "rename one"))
        video = str(found["video"][0]) if found["video"] else ""
        audio = str(found["audio"][0]) if found["audio"] else video
        # Tables drop spaces at the end of a cell, so names in system outputs have none.
        yield Row(stem.relative_to(root).as_posix().strip(), audio, video, scene=folder.name)


def _shown(path: PurePath) -> str:
    """A path that fits in a line of any encoding."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(path))
