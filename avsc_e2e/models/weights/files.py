"""Where a checkpoint lies, told without reading it and without torch."""

from __future__ import annotations

import os
from pathlib import Path

from avsc_e2e.errors import AvscError

MODEL = "model.safetensors"


def checkpoint_file(path: str | os.PathLike) -> Path:
    """The file of a checkpoint; the folder of a run stands for its model.safetensors. Raises AvscError where there is
    none."""
    path = Path(path)
    if path.is_dir():
        if not (path / MODEL).is_file():
            raise AvscError(
                f"{path}: no {MODEL} in this folder; give the folder of a trained run, or a checkpoint file"
            )
        return path / MODEL
    if not path.is_file():
        raise AvscError(f"{path}: no such checkpoint; training writes {MODEL} into the folder of the run")
    return path


def is_checkpoint(path: str | os.PathLike) -> bool:
    """Whether a file, or a folder with a checkpoint in it, is named."""
    path = Path(path)
    return (path / MODEL).is_file() if path.is_dir() else path.is_file()
