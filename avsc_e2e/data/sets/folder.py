"""Your own recordings: a folder with one sub-folder per class.

    ROOT/<class>/...          files of any depth, cut into parts by groups, or
    ROOT/train/<class>/...    with validation/ (or val/) and test/ beside it where you have them

A file may be a video with or without sound, or sound alone; a video and a sound file with the same name are
one recording, and its sound is then the sound file's.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from avsc_e2e.clip import MODALITIES, Corpus, Row
from avsc_e2e.data.sets.rows import hold_out, measure
from avsc_e2e.errors import AvscError

log = logging.getLogger(__name__)

VIDEO = frozenset(
    (
        ".mp4",
        ".m4v",
        ".mkv",
        ".mov",
        ".avi",
        ".webm",
        ".mpg",
        ".mpeg",
        ".ts",
        ".mts",
        ".3gp",
        ".wmv",
        ".flv",
        ".ogv",
    )
)
SOUND = frozenset((".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".wma", ".aif", ".aiff"))
PARTS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
"""Names of sub-folders that stand for parts, not for classes."""

GROUP = r"(.+?)(?:[-_. ]+(?:c|clip|part|pt|seg|segment|chunk|take)?[-_. ]*\d+)?"
"""What of a file's name tells its source recording: all but a number at its end, so that `v_Archery_g12_c01`
belongs to `v_Archery_g12` and `holiday-3_007` to `holiday-3`."""


def read_folder(
    root: str | os.PathLike[str],
    *,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    group: str = GROUP,
    modalities: Sequence[str] = MODALITIES,
    lenient: bool = False,
) -> Corpus:
    """Read class folders, or part folders with class folders in them.

    Files whose names agree in the first group of the regular expression `group` (matched against the whole
    name without extension, case ignored) are of one source recording, and never divided, over classes
    neither. Parts without a folder of their own are cut from the rest: `test`, then `validation` of what is
    left, per class, keyed by `seed`; 0 leaves a part empty. With a train/ folder no test part is cut from
    it. A row's file is its path below the root without extension, its location the group.

    Raises AvscError for a root, class or file that cannot be used, MediaError for an unreadable file unless `lenient`
    (see `measure`).
    """
    root = Path(os.path.abspath(root))
    found = read_rows(root, group)
    found = {part: measure(of_part, modalities, lenient=lenient) for part, of_part in found.items()}
    return divide(root, found, validation=validation, test=test, seed=seed)


def divide(root: Path, found: Mapping[str, Sequence[Row]], *, validation: float, test: float, seed: int) -> Corpus:
    """The corpus of measured rows by their part, "" those that are not in a part yet, as `read_folder` makes it.
    Raises AvscError, in which `root` names the set."""
    way_out = (
        "add recordings, give a group rule that tells sources apart ('(.+)': each file is one), "
        "or ask for no such part (0)"
    )
    train, held_validation, held_test = (
        found.get("train", []),
        found.get("validation", []),
        found.get("test", []),
    )
    if "" in found:
        train, held_test = hold_out(found[""], test, seed=seed, part="test", way_out=way_out)
    if "validation" not in found:
        train, held_validation = hold_out(train, validation, seed=seed, part="validation", way_out=way_out)
    classes = tuple(sorted({row.scene for row in train}))
    for name, part in (("validation", held_validation), ("test", held_test)):
        unknown = sorted({row.scene for row in part} - set(classes))
        if unknown:
            raise AvscError(f"{root}: class {unknown[0]!r} is in the {name} part only: add training recordings of it")
        shared = {row.location for row in part} & {row.location for row in train}
        if shared:
            log.warning(
                "%s: %d source recordings are in both the training and the %s part, for example %s",
                *(root, len(shared), name, min(shared)),
            )
    return Corpus(classes, tuple(train), tuple(held_validation), tuple(held_test))


def read_rows(root: str | os.PathLike[str], group: str = GROUP) -> dict[str, list[Row]]:
    """List the rows of each part, the part "" where the root holds the classes itself, without opening a file: a
    video is taken to have sound until it is measured. Raises AvscError as `read_folder` does."""
    root = Path(os.path.abspath(root))
    folders = class_folders(root)
    try:
        pattern = re.compile(group, re.IGNORECASE)
    except re.error as error:
        raise AvscError(f"group {group!r} is not a regular expression: {error}") from None
    if pattern.groups != 1:
        raise AvscError(f"group {group!r} must have exactly one pair of round brackets, around the source's name")
    found = {
        part: [row for folder in of_part for row in _rows(root, folder, pattern)] for part, of_part in folders.items()
    }
    rows = [row for part in found.values() for row in part]
    names = Counter(row.file for row in rows)
    doubled = next((name for name, count in names.items() if count > 1), None)
    if doubled:
        raise AvscError(f"{root / doubled}: more than one recording of this name: rename all but one")
    return found


def class_folders(root: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """The class folders of each part, the part "" where the root holds them itself.

    Raises AvscError where the root is no folder, holds no class folders, or mixes them with part folders.
    """
    root = Path(os.path.abspath(root))
    if not root.is_dir():
        raise AvscError(f"{root}: no such folder: give a folder with one sub-folder per class")
    below = _folders(root)
    parts = [folder for folder in below if folder.name.lower() in PARTS]
    if not any(PARTS[folder.name.lower()] == "train" for folder in parts):
        parts = []  # "test" may be the name of a class
    if {folder.name for folder in below} <= {"audio", "video", "evaluation_setup"}:  # or none at all
        raise AvscError(
            f"{root}: neither meta.csv with evaluation_setup/ (TAU Urban Audio-Visual Scenes 2021) nor a sub-folder per"
            " class with recordings in it: give a folder that has one of the two"
        )
    if not parts:
        return {"": below}
    found: dict[str, list[Path]] = {}
    for folder in below:
        if folder not in parts:
            raise AvscError(f"{folder}: neither train, validation nor test: with a train folder, classes lie inside it")
        part = PARTS[folder.name.lower()]
        if part in found:
            raise AvscError(f"{folder}: a second folder for the {part} part: keep one")
        found[part] = _folders(folder)
        if not found[part]:
            raise AvscError(f"{folder}: no sub-folders: put each class's recordings into a sub-folder of its name")
    return found


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _rows(root: Path, folder: Path, group: re.Pattern[str]) -> list[Row]:
    """Rows of one class folder, not yet probed: both paths of a row may name the same video."""
    recordings: dict[Path, dict[str, list[Path]]] = defaultdict(lambda: {"video": [], "audio": []})
    ignored: list[str] = []
    for path in sorted(Path(base) / name for base, _, names in os.walk(folder, followlinks=True) for name in names):
        suffix = path.suffix.lower()
        if any(part.startswith(".") for part in path.relative_to(folder).parts) or suffix not in VIDEO | SOUND:
            ignored.append(path.relative_to(root).as_posix())
        else:
            recordings[path.with_suffix("")]["video" if suffix in VIDEO else "audio"].append(path)
    if ignored:
        log.info("%s: %d files ignored, neither video nor sound: %s%s", folder, len(ignored),
                 ", ".join(ignored[:5]), " ..." if len(ignored) > 5 else "")  # fmt: skip
    if not recordings:
        raise AvscError(f"{folder}: no video or sound in this class: remove the folder, or put recordings into it")
    rows = []
    for stem, files in sorted(recordings.items()):
        for kind, paths in files.items():
            if len(paths) > 1:
                raise AvscError(
                    f"{paths[1]}: {paths[0].name} beside it has the same name and is {kind} too: rename one"
                )
        match = group.fullmatch(stem.name)
        if match is None or not match[1]:
            raise AvscError(f"{next(filter(None, files.values()))[0]}: name does not match the group {group.pattern!r}")
        video = str(files["video"][0]) if files["video"] else ""
        audio = str(files["audio"][0]) if files["audio"] else video
        source = (stem.relative_to(folder).parent / match[1]).as_posix()
        rows.append(Row(stem.relative_to(root).as_posix(), audio, video, scene=folder.name, location=source))
    return rows
