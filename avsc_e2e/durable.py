"""Files that are whole or as they were, whatever happens while they are written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avsc_e2e.errors import AvscError


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a path beside `path` to write to. When the block ends its bytes are flushed to the disk, it takes the
    place of `path` at once, and the folder is flushed: a kill or a loss of power at any instant leaves the file of
    before or the new one. Raises AvscError where the disk is full or refuses, with the file of before untouched."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        flush_folder(path.parent)
    except Exception as error:
        partial.unlink(missing_ok=True)
        reason = refusal(error)
        if reason is None:
            raise
        kept = "the file of before is as it was" if path.exists() else "nothing of it is left"
        raise AvscError(f"{path}: cannot be written ({reason}), {kept}; make room and try again") from error


def flush_folder(folder: str | os.PathLike) -> None:
    """Make the names in a folder last through a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refusal(error: BaseException | None) -> str | None:
    """What the system said where an error, or what led to it, is the system's refusal to write; torch and safetensors
    wrap it each in its own way."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return os.strerror(error.errno)
        wrapped = re.search(r"os error (\d+)", str(error))
        if wrapped:
            return os.strerror(int(wrapped[1]))
        error = error.__cause__ or error.__context__
    return None
