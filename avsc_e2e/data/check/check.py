"""`avsc data check`: whether a data set is complete and all of it can be read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from avsc_e2e.clip import MODALITIES
from avsc_e2e.data.check.findings import Check, Progress
from avsc_e2e.data.check.folders import check_folders
from avsc_e2e.data.check.official import check_development, check_evaluation, looks_like_evaluation
from avsc_e2e.data.check.store import check_store
from avsc_e2e.data.sets.taulayout import find_layout
from avsc_e2e.data.store.layout import is_store
from avsc_e2e.data.store.remote import is_url
from avsc_e2e.errors import AvscError


def check(
    root: str | os.PathLike[str],
    *,
    fast: bool = False,
    part: str = "",
    fold: int = 1,
    modalities: Sequence[str] = MODALITIES,
    group: str = "",
    groups: str | os.PathLike[str] = "",
    test: float = 0.2,
    validation: float = 0.1,
    progress: Progress | None = None,
) -> Check:
    """Check a development set, an evaluation set, your own set in their layout, class folders, or a table. `fast` reads
    names and headers only; otherwise every frame and sample is decoded. `part` is "development" or "evaluation";
    without it, the files decide. A set nearly as large as the release is compared with the release; others are only
    checked for consistency. Class folders are checked for everything that a run with `group`, `groups`, `test` and
    `validation` would refuse or leave out. Raises AvscError only if there is no set to check; everything else is a
    problem in the result.
    """
    if is_store(root) and not is_url(root):
        return check_store(Path(os.path.abspath(root)), progress)
    layout = find_layout(root)
    if part not in ("", "development", "evaluation"):
        raise AvscError(f"part {part!r}: give development or evaluation")
    listed = layout.find("meta.csv") or layout.find(f"evaluation_setup/fold{fold}_train.csv")
    if part == "development" or (listed and not part):
        return check_development(layout, fold, modalities, fast, progress)
    if part == "evaluation" or looks_like_evaluation(root):
        return check_evaluation(root, modalities, fast, progress)
    return check_folders(root, group, groups, test, validation, fast, progress)
