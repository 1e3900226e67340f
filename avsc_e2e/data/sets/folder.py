"""Your own recordings: a folder with one sub-folder per class.

    ROOT/<class>/...          files of any depth, cut into parts by groups, or
    ROOT/train/<class>/...    with validation/ (or val/) and test/ beside it where you have them

A file may be a video with or without audio, or audio alone; a video and an audio file with the same name are
one recording, whose audio is then that of the audio file.

Or a table, FILES.csv, with the columns file and label, and where you have them audio, group and split: paths relative
to it, of recordings that lie anywhere.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from avsc_e2e.clip import MODALITIES, Corpus, Row
from avsc_e2e.data.sets.duplicates import find_copies, join
from avsc_e2e.data.sets.grouping import ADVICE, group_rows, tell_far_shares
from avsc_e2e.data.sets.listing import scan
from avsc_e2e.data.sets.rows import hold_out, measure
from avsc_e2e.errors import AvscError

log = logging.getLogger(__name__)


def read_folder(
    root: str | os.PathLike[str],
    *,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    group: str = "",
    groups: str | os.PathLike[str] = "",
    modalities: Sequence[str] = MODALITIES,
    lenient: bool = False,
) -> Corpus:
    """Read class folders, part folders with class folders in them, or a table.

    Files of one source recording are never divided among parts, even if they are of several classes: `group`, `groups`,
    a table's column group or the names tell sources (see grouping.py), and copies of one recording are of one source
    (see duplicates.py). Parts without a folder or a split are cut from the rest: `test`, then `validation` of what is
    left, per class, keyed by `seed`; 0 leaves a part empty. With a train/ folder no test set is cut from it. A row's
    file is its path below the root, or as the table has it, without extension, its location the source.

    `modalities` do not change the parts; rows with none of them are left out and counted.

    Raises AvscError for a root, class or file that cannot be used, MediaError for an unreadable file unless `lenient`
    (see `measure`).
    """
    root = Path(os.path.abspath(root))
    found = {part: measure(of_part, lenient=True) for part, of_part in read_rows(root).items()}
    found = group_rows(found, group, groups)
    copies = [(pair.first.file, pair.second.file) for pair in find_copies([r for rows in found.values() for r in rows])]
    corpus = divide(root, join(found, copies), validation=validation, test=test, seed=seed)
    return select(root, corpus, lambda rows: measure(rows, modalities, lenient=lenient, drop=True), modalities)


def select(
    root: Path | str, corpus: Corpus, measured: Callable[[Sequence[Row]], list[Row]], modalities: Sequence[str]
) -> Corpus:
    """The measured rows of each part that have one of the modalities; the number left out is logged. Raises AvscError
    if a class has no training recording left."""
    parts = [tuple(measured(part)) for part in corpus[1:]]
    left = sum(map(len, corpus[1:])) - sum(map(len, parts))
    if left:
        kept = {row.file for part in parts for row in part}
        first = next(row for part in corpus[1:] for row in part if row.file not in kept)
        log.warning("%s: %d recordings have no %s and are left out, such as %s",
                    root, left, " or ".join(modalities), first.file)  # fmt: skip
    gone = sorted(set(corpus.classes) - {row.scene for row in parts[0]})
    if gone:
        raise AvscError(
            f"{root}: class {gone[0]!r} has no training recording with {' or '.join(modalities)}: "
            "add some, or train a model of the other modality"
        )
    return Corpus(corpus.classes, *parts)


def divide(
    root: Path | str, found: Mapping[str, Sequence[Row]], *, validation: float, test: float, seed: int
) -> Corpus:
    """The corpus of `read_folder` from measured rows by part, "" for rows without a part. Raises AvscError, which names
    the set by `root`."""
    way_out = f"add recordings of other sources; {ADVICE}; or ask for no such part (0)"
    train, held_validation, held_test = (
        found.get("train", []),
        found.get("validation", []),
        found.get("test", []),
    )
    if "" in found:
        train, held_test = hold_out(found[""], test, seed=seed, part="test", way_out=way_out)
        tell_far_shares(found[""], held_test, test, "test")
    if "validation" not in found:
        whole = train
        train, held_validation = hold_out(whole, validation, seed=seed, part="validation", way_out=way_out)
        tell_far_shares(whole, held_validation, validation, "validation")
    classes = tuple(sorted({row.scene for row in train}))
    for name, part in (("validation", held_validation), ("test", held_test)):
        unknown = sorted({row.scene for row in part} - set(classes))
        if unknown:
            raise AvscError(f"{root}: class {unknown[0]!r} is in the {name} set only: add training recordings of it")
        shared = {row.location for row in part} & {row.location for row in train}
        if shared:
            log.warning(
                "%s: %d source recordings are in both the training and the %s set, for example %s",
                *(root, len(shared), name, min(shared)),
            )
    return Corpus(classes, tuple(train), tuple(held_validation), tuple(held_test))


def read_rows(root: str | os.PathLike[str]) -> dict[str, list[Row]]:
    """The rows of each part, not yet measured and without locations (see `Scan`). Raises AvscError with the first fault
    of the root and the number of faults."""
    found = scan(root)
    if found.faults:
        more = f" (and {len(found.faults) - 1} more faults: `avsc data check` lists all)" * (len(found.faults) > 1)
        raise AvscError(f"{found.faults[0]}{more}")
    if found.passed_over:
        log.info(
            "%s: %d files ignored, such as %s (%s)",
            *(os.path.abspath(root), len(found.passed_over), found.passed_over[0].path, found.passed_over[0].reason),
        )
    return found.parts
