"""Places365 (Zhou et al., TPAMI 2018) in its standard layout: single images of 365 scenes, to pretrain on.

    ROOT/categories_places365.txt    ROOT/places365_train_standard.txt    ROOT/places365_val.txt
    ROOT/data_256_standard/a/airfield/00000001.jpg    ROOT/val_256/Places365_val_00000001.jpg

The large images (data_large_standard, val_large) and the challenge's training list serve as well. An image is a
silent video of one frame.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from avsc_e2e.clip import Corpus, Row
from avsc_e2e.data.sets.taulayout import PLAIN_PATH
from avsc_e2e.errors import AvscError

log = logging.getLogger(__name__)

CATEGORIES = "categories_places365.txt"


def is_places(root: str | os.PathLike[str]) -> bool:
    """Whether a folder holds the list of the categories."""
    return (Path(root) / CATEGORIES).is_file()


def read_places(root: str | os.PathLike[str]) -> Corpus:
    """Read the training and the validation list, in the order of the published categories; the test set, which has no
    labels, is left empty. If both sizes of the images exist, the small ones (256 x 256 pixels) are used.

    Class names are the categories without their letter, such as "airfield" and "apartment_building/outdoor". Lists that
    are not the published ones, such as those of a subset, are used with a warning. Raises AvscError for a root, list,
    line or folder that is missing or does not follow the layout.
    """
    root = Path(os.path.abspath(root))
    if not is_places(root):
        raise AvscError(f"{root}: no {CATEGORIES} in it: give the folder of Places365 in its standard layout")
    variant = "standard" if (root / "places365_train_standard.txt").is_file() else "challenge"
    train = _read_split(root, f"train-{variant}")
    validation = _read_split(root, "val")
    return Corpus(train[0], train[1], validation[1], ())


def _read_split(root: Path, split: str) -> tuple[tuple[str, ...], tuple[Row, ...]]:
    from torchvision.datasets import Places365  # imports torch, which other readers do not need

    class Places(Places365):
        def _check_integrity(self, file: str, md5: str, download: bool) -> bool:
            if not os.path.isfile(file):
                raise AvscError(f"{file}: is absent: unpack the file lists of Places365 in its folder")
            if not super()._check_integrity(file, md5, download=True):
                log.warning("%s is not the published list; it is used as it is", file)
            return True

    name = Places365._FILE_LIST_META[split][0]
    try:
        places = Places(root, split=split, small=True)
        small = places.images_dir
        if not os.path.isdir(small):
            places = Places(root, split=split, small=False)
    except (ValueError, TypeError) as error:
        raise AvscError(f"{root / name}: not a list of images and categories ({error})") from None
    folder = places.images_dir
    if not os.path.isdir(folder):
        raise AvscError(f"{root}: neither {Path(small).name} nor {Path(folder).name}: unpack one there")
    scenes = {index: category.strip("/").partition("/")[2] for category, index in places.class_to_idx.items()}
    rows = []
    for line, (path, index) in enumerate(places.imgs, 1):
        relative = path[len(str(root)) + 1 :]
        if not PLAIN_PATH.fullmatch(relative):
            raise AvscError(f"{root / name}: line {line}: {relative[:120]!r} is not a plain path inside {folder}")
        if index not in scenes:
            raise AvscError(f"{root / name}: line {line}: category {index} is not in {CATEGORIES}")
        file = relative.rpartition(".")[0].replace(os.sep, "/")
        rows.append(Row(file, video=path, scene=scenes[index], location=file))
    if not os.path.isfile(rows[0].video):
        raise AvscError(f"{root / name}: line 1: {rows[0].video} is absent: unpack the images of Places365 again")
    return tuple(scenes[index] for index in sorted(scenes)), tuple(rows)
