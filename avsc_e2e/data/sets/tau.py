"""Reading TAU Urban Audio-Visual Scenes 2021 (Wang et al., ICASSP 2021), or a set in its layout: the development set
with its fold, and the evaluation set."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from avsc_e2e.clip import MODALITIES, Corpus, Row
from avsc_e2e.data.media import probe
from avsc_e2e.data.sets.rows import hold_out, measure
from avsc_e2e.data.sets.taulayout import (
    PLAIN_PATH,
    Layout,
    Listing,
    compare_with_meta,
    file_names,
    find_layout,
    locate,
    read_listing,
    read_meta,
    required,
)
from avsc_e2e.errors import AvscError, MediaError

log = logging.getLogger(__name__)

CLIP_SECONDS = 10.0
"""Length of a recording of the development set."""

EVALUATION_SECONDS = 1.0
"""Length of a file of the evaluation set."""


def read_tau(
    root: str | os.PathLike[str],
    *,
    fold: int = 1,
    validation: float | str | os.PathLike[str] = 0.1,
    seed: int = 0,
    modalities: Sequence[str] = MODALITIES,
    verify: bool = True,
    lenient: bool = False,
) -> Corpus:
    """Read the development set, or any set in its layout, such as the toy city.

    The validation set is cut from the fold's training set: by the CSV that `validation` names, such as the
    official baseline's; where it is a share, by evaluation_setup/fold<fold>_validate.csv if there is one,
    else by whole locations: per class they are drawn, keyed by `seed`, until 1 - `validation` of its clips
    are in training, as the official baseline did. 0 leaves the part empty. Rows carry only the `modalities`
    asked for. With `verify` every file named must exist; `lenient` keeps what cannot be read (see `measure`).

    Raises AvscError for a root, CSV, row or file that is missing or not as the layout has it.
    """
    layout = find_layout(root)
    known = read_meta(layout)
    setup = f"evaluation_setup/fold{fold}_"
    train = read_listing(required(layout, f"{setup}train.csv"))
    test = read_listing(layout.find(f"{setup}evaluate.csv") or required(layout, f"{setup}test.csv"))
    compare_with_meta(train, known)
    compare_with_meta(test, known)
    _refuse_shared(train, test)

    official = next(filter(None, (layout.find(f"{setup}{name}.csv") for name in ("validate", "validation"))), None)
    share = float(validation) if isinstance(validation, (int, float)) else None
    given = _given(layout, validation) if not isinstance(validation, (int, float)) else official if share else None
    if given is None:
        chosen = None
    else:
        listed = read_listing(given)
        compare_with_meta(listed, known)
        chosen = {entry.file for entry in listed}
        trained = {entry.file for entry in train}
        absent = next((entry for entry in listed if entry.file not in trained), None)
        if absent:
            raise AvscError(f"{given}: line {absent.line}: {absent.file} is not in the training set of fold {fold}")

    paths = locate(layout, [*train, *test], modalities, verify=verify)
    rows = [_row(known[entry.file], paths, modalities) for entry in train]
    tested = [_row(known[entry.file], paths, modalities) for entry in test]
    if verify and not _is_ten_seconds(rows[0]):
        rows, tested = (measure(part, modalities, lenient=lenient) for part in (rows, tested))
    if chosen is None:
        way_out = "add recordings of another location, or ask for no validation set (0)"
        kept, held_out = hold_out(rows, share or 0.0, seed=seed, part="validation", way_out=way_out)
    else:
        kept = [row for row in rows if row.file not in chosen]
        held_out = [row for row in rows if row.file in chosen]
    classes = tuple(sorted({row.scene for row in (*rows, *tested)}))
    for name, part in (("training", kept), ("validation", held_out)):
        shared = {row.location for row in part} & {row.location for row in tested}
        if shared:
            log.warning("%s: %d locations are in both the %s and the test set, for example %s",
                        layout.root, len(shared), name, min(shared))  # fmt: skip
    return Corpus(classes, tuple(kept), tuple(held_out), tuple(tested))


def _is_ten_seconds(row: Row) -> bool:
    try:
        return abs(probe(row.audio or row.video).duration - CLIP_SECONDS) < 0.1
    except MediaError:  # told, with its path, when it is read
        return True


def read_evaluation(
    root: str | os.PathLike[str], *, modalities: Sequence[str] = MODALITIES, verify: bool = True
) -> tuple[Row, ...]:
    """Read the evaluation set: one-second files without labels, `audio/0.wav` with `video/0.mp4` and so on.

    In numeric order. The files are those of a CSV in evaluation_setup/ where there is one, else those found.
    Raises AvscError for a missing root or file, for a name that is no number and for a set without files.
    """
    layout = find_layout(root, "evaluation")
    names = ("test", "evaluate", "fold1_test", "fold1_evaluate")
    csv = next(filter(None, (layout.find(f"evaluation_setup/{name}.csv") for name in names)), None)
    if csv:
        entries = read_listing(csv)
    else:
        entries = list(_found(layout, modalities))
        if not entries:
            raise AvscError(
                f"{layout.root}: no evaluation_setup/*.csv and no audio/ or video/ with files: "
                "give the root of the evaluation set"
            )
    for entry in entries:
        if not re.fullmatch(r"0|[1-9][0-9]*", entry.file):
            place = f"{entry.csv}: line {entry.line}" if entry.line else entry.csv
            raise AvscError(
                f"{place}: {entry.audio or entry.video} is not a number: files of the evaluation set are"
                " 0.wav, 1.wav and so on; the development set is read by its own reader"
            )
    paths = locate(layout, entries, modalities, verify=verify and csv is not None)
    rows = {entry.file: _row(entry, paths, modalities)._replace(scene="", location="", city="",
                                                                 duration=EVALUATION_SECONDS)
            for entry in entries}  # fmt: skip
    return tuple(rows[name] for name in sorted(rows, key=int))


def _found(layout: Layout, modalities: Sequence[str]) -> Iterator[Listing]:
    """The files of audio/ and video/, paired by name, as if a CSV had listed them."""
    names: dict[str, dict[str, str]] = {}
    for modality, suffix in (("audio", ".wav"), ("video", ".mp4")):
        for folder in layout.folders if modality in modalities else ():
            for name in file_names(folder / modality):
                if name.endswith(suffix) and not name.startswith("."):
                    names.setdefault(name.removesuffix(suffix), {})[modality] = f"{modality}/{name}"
    for name, files in names.items():
        for modality in modalities:
            if modality not in files:
                raise AvscError(f"{layout.root}: {name} has no file in {modality}/: fetch the set again")
        yield Listing(str(layout.root), 0, files.get("audio", ""), files.get("video", ""), "", "")


def _given(layout: Layout, path: str | os.PathLike[str]) -> Path:
    """A CSV that the user names: a path as it stands, or below the root."""
    for candidate in (Path(path), layout.root / path):
        if candidate.is_file():
            return candidate
    raise AvscError(f"{path}: no such validation list, here or in {layout.root}")


def names_of_lists(fold: int, validation: float | str | os.PathLike[str]) -> list[str]:
    """The CSVs that `read_tau` may ask a root for, whether they are there or not."""
    names = ["meta.csv"]
    names += [f"evaluation_setup/fold{fold}_{n}.csv" for n in ("train", "test", "evaluate", "validate", "validation")]
    if not isinstance(validation, (int, float)) and PLAIN_PATH.fullmatch(str(validation)):
        names += [str(validation)] * (str(validation) not in names)
    return names


def _refuse_shared(train: list[Listing], test: list[Listing]) -> None:
    names = {entry.file for entry in train}
    shared = next((entry for entry in test if entry.file in names), None)
    if shared:
        raise AvscError(f"{shared.csv}: line {shared.line}: {shared.file} is in {train[0].csv} too: parts must differ")


def _row(entry: Listing, paths: dict[str, str], modalities: Sequence[str]) -> Row:
    return Row(
        file=entry.file,
        audio=paths[entry.audio] if entry.audio and "audio" in modalities else "",
        video=paths[entry.video] if entry.video and "video" in modalities else "",
        scene=entry.scene,
        location=entry.location,
        city=entry.location.rpartition("-")[0],
        duration=CLIP_SECONDS,
    )
