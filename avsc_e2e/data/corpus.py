"""Any data set that the library reads, told apart by what lies in its folder."""

from __future__ import annotations

import os
from collections.abc import Sequence

from avsc_e2e.clip import MODALITIES, Corpus
from avsc_e2e.data.folder import GROUP, read_folder
from avsc_e2e.data.places import is_places, read_places
from avsc_e2e.data.tau import is_tau, read_tau
from avsc_e2e.errors import AvscError


def read_corpus(
    root: str | os.PathLike[str],
    *,
    fold: int = 1,
    validation: float | str = 0.1,
    test: float = 0.2,
    seed: int = 0,
    group: str = GROUP,
    modalities: Sequence[str] = MODALITIES,
) -> Corpus:
    """Read a root in the layout of TAU Urban Audio-Visual Scenes 2021 (see `read_tau`, which alone uses `fold`), in
    that of Places365 (see `read_places`, which uses nothing else), or with a sub-folder per class (see `read_folder`,
    which alone uses `test` and `group`).

    Rows carry only the `modalities` asked for. Raises AvscError for a root that is neither, and what they raise.
    """
    if is_tau(root):
        return read_tau(root, fold=fold, validation=validation, seed=seed, modalities=modalities)
    if is_places(root):
        return read_places(root)
    if not isinstance(validation, (int, float)):
        raise AvscError(f"{validation}: a validation list is for the official layout; for class folders give a share")
    return read_folder(root, validation=validation, test=test, seed=seed, group=group, modalities=modalities)
