"""Atomic file writes: after a crash, a file has either its old or its new content."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avsc_e2e.errors import AvscError


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write to. When the block ends, the bytes are flushed to the disk, the
    file replaces `path` in one step, and the folder is flushed. A kill or a power failure at any time leaves the old
    file or the new one. Raises AvscError, with the old file untouched, if the disk is full or refuses to write."""
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
        kept = "the old file is unchanged" if path.exists() else "no part of it is left"
        raise AvscError(f"{path}: cannot be written ({reason}), {kept}; make room and try again") from error


def flush_folder(folder: str | os.PathLike) -> None:
    """Flush the names in a folder to the disk, so that they survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refusal(error: BaseException | None) -> str | None:
    """The system's message if an error, or its cause, is a refusal to write; None otherwise. torch and safetensors wrap
    such errors in ways of their own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return os.strerror(error.errno)
        wrapped = re.search(r"os error (\d+)", str(error))
        if wrapped:
            return os.strerror(int(wrapped[1]))
        error = error.__cause__ or error.__context__
    return None
