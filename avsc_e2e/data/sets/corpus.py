"""Reading of any supported data set; its layout is recognised by the files in its folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from avsc_e2e.arguments import checked
from avsc_e2e.clip import MODALITIES, Corpus, Row
from avsc_e2e.data.sets.duplicates import join
from avsc_e2e.data.sets.folder import divide, read_folder, select
from avsc_e2e.data.sets.grouping import group_rows
from avsc_e2e.data.sets.places import is_places, read_places
from avsc_e2e.data.sets.tau import CLIP_SECONDS, EVALUATION_SECONDS, names_of_lists, read_evaluation, read_tau
from avsc_e2e.data.sets.taulayout import find_layout, is_tau
from avsc_e2e.data.store.layout import is_store
from avsc_e2e.data.store.reader import Store, open_store
from avsc_e2e.data.store.remote import RemoteFolder
from avsc_e2e.errors import AvscError, within


@checked
def read_corpus(
    root: str | os.PathLike[str],
    *,
    fold: int = 1,
    validation: float | str = 0.1,
    test: float = 0.2,
    seed: int = 0,
    group: str = "",
    groups: str | os.PathLike[str] = "",
    modalities: Sequence[str] = MODALITIES,
    lenient: bool = False,
) -> Corpus:
    """Read a root in the layout of TAU Urban Audio-Visual Scenes 2021 (see `read_tau`, which alone uses `fold`), in
    that of Places365 (see `read_places`, which uses nothing else), with a sub-folder per class, or a table of files
    (see `read_folder`, which alone uses `test`, `group` and `groups`). A store made of one of them, or the URL of one,
    gives the same rows, without its media.

    Rows carry only the `modalities` asked for. If `lenient`, files that cannot be read stay in the rows, and recordings
    that a store does not hold are left out. Raises AvscError for a root of another layout, and the errors of these
    readers.
    """
    within("--data.test", test, 0, 1, "it is a share of the recordings")
    if is_store(root):
        return _read_stored(
            open_store(root),
            fold=fold,
            validation=validation,
            test=test,
            seed=seed,
            group=group,
            groups=groups,
            modalities=modalities,
            lenient=lenient,
        )
    if is_tau(root):
        return read_tau(root, fold=fold, validation=validation, seed=seed, modalities=modalities, lenient=lenient)
    if is_places(root):
        return read_places(root)
    return read_folder(
        root,
        validation=_share(validation),
        test=test,
        seed=seed,
        group=group,
        groups=groups,
        modalities=modalities,
        lenient=lenient,
    )


def read_evaluation_set(root: str | os.PathLike[str], *, modalities: Sequence[str] = MODALITIES) -> tuple[Row, ...]:
    """The rows of the evaluation set, of its media (see `read_evaluation`) or of a store made of them."""
    if not is_store(root):
        return read_evaluation(root, modalities=modalities)
    store = open_store(root)
    if store.layout != "evaluation":
        raise AvscError(f"{root}: is a store of the {store.layout} layout, not of the evaluation set")
    rows = store.rows(modalities).get("", [])
    return tuple(row._replace(duration=EVALUATION_SECONDS) for row in sorted(rows, key=lambda row: int(row.file)))


def is_evaluation(root: str | os.PathLike[str]) -> bool:
    """Whether a folder holds the first file of the evaluation set."""
    layout = find_layout(root, "evaluation")
    return bool(layout.find("audio/0.wav") or layout.find("video/0.mp4"))


def _read_stored(
    store: Store,
    *,
    fold: int,
    validation: float | str,
    test: float,
    seed: int,
    group: str,
    groups: str | os.PathLike[str],
    modalities: Sequence[str],
    lenient: bool,
) -> Corpus:
    if store.layout == "evaluation":
        raise AvscError(f"{store.path}: is a store of the evaluation set, which has no labels to train or test on")
    if store.layout == "folder":
        found = join(group_rows(store.rows(), group, groups), store.copies)
        corpus = divide(store.path, found, validation=_share(validation), test=test, seed=seed)
        having = lambda rows: [row for row in (store.measured(r, modalities) for r in rows) if row.audio or row.video]  # noqa: E731
        return select(store.path, corpus, having, modalities)
    with tempfile.TemporaryDirectory() as folder:
        root = store.path
        if isinstance(store.shards, RemoteFolder):
            root = folder
            store.shards.copy(names_of_lists(fold, validation), Path(folder))
        try:
            corpus = read_tau(root, fold=fold, validation=validation, seed=seed, modalities=modalities, verify=False)
        except AvscError as error:
            raise AvscError(f"{error}".replace(folder, str(store.path))) from None
    if lenient:
        corpus = Corpus(corpus.classes, *(tuple(r for r in part if r.file in store.recordings) for part in corpus[1:]))
    parts = []
    first = store.measured((corpus.train or corpus.validation)[0], modalities)
    for part in corpus[1:]:
        rows = [store.measured(row, modalities) for row in part]
        if abs(first.duration - CLIP_SECONDS) < 0.1:  # as read_tau has them
            rows = [row._replace(duration=CLIP_SECONDS) for row in rows]
        parts.append(tuple(rows))
    return Corpus(corpus.classes, *parts)


def _share(validation: float | str) -> float:
    if not isinstance(validation, (int, float)):
        raise AvscError(f"{validation}: a validation list is for the official layout; for class folders give a share")
    return validation
