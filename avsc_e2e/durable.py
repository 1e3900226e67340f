"""Atomic file writes: after a crash, a file has either its old or its new content. One process a folder."""

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


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text as `replacing` does."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def alone(folder: str | os.PathLike) -> Iterator[None]:
    """Make a folder if there is none, and keep other processes that ask for it out of it. The lock ends with the
    process, even when that is killed, and is no file. Raises AvscError where another process has it, or it cannot be
    made."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise AvscError(f"{folder}: cannot be made ({error.strerror}); give another folder") from None
    try:
        _lock(handle)
        yield
    except BlockingIOError:
        raise AvscError(f"{folder}: another process is at work there: wait for it, or give another folder") from None
    finally:
        os.close(handle)


def _lock(handle: int) -> None:
    """Where neither the system nor the file system knows locks, there is none."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return


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
