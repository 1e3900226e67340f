"""Places that stores and predictions are written to: a folder, or the URL of writable storage."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avsc_e2e.data.store.remote import RemoteFolder, is_url
from avsc_e2e.durable import alone, refusal, replacing
from avsc_e2e.errors import AvscError

LOCK = "writer.lock"
"""File at a URL that names the run that writes there and the time of its last sign of life."""
SILENT = 120.0
"""Seconds after which a lock that was not renewed is ignored."""


class Place:
    """A local folder, a shared folder, or a folder behind a URL. Names are relative to it. Raises AvscError."""

    def __init__(self, path: str | os.PathLike[str]):
        self.remote = RemoteFolder(str(path).rstrip("/")) if is_url(path) else None
        self.path: Path | str = self.remote.url if self.remote else Path(os.path.abspath(path))
        self._renewed = 0.0

    def __str__(self) -> str:
        return str(self.path)

    def read(self, name: str) -> bytes | None:
        """None where there is no such file."""
        return self.read_all([name])[0]

    def read_all(self, names: list[str]) -> list[bytes | None]:
        if self.remote:
            return self.remote.read(names, optional=True)
        files = [Path(self.path) / name for name in names]
        return [file.read_bytes() if file.is_file() else None for file in files]

    def size(self, name: str) -> int | None:
        """Bytes; None where there is no such file."""
        if self.remote:
            return self.remote.size(name)
        file = Path(self.path) / name
        return file.stat().st_size if file.is_file() else None

    def names(self) -> dict[str, int]:
        """The files and their sizes in bytes."""
        if self.remote:
            return self.remote.names()
        found = sorted(path for path in Path(self.path).rglob("*") if path.is_file())
        return {path.relative_to(self.path).as_posix(): path.stat().st_size for path in found}

    def write(self, name: str, data: bytes, writer: int = 0) -> None:
        """Write a file. In a folder this is atomic, and each `writer` has a temporary file of its own; at a URL it
        depends on the storage, but mostly is atomic too."""
        if self.remote:
            return self.remote.write(name, data)
        file = Path(self.path) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.{writer}.partial")  # the next run overwrites the file of a killed one
        with writable(self):
            with open(partial, "wb") as opened:
                opened.write(data)
                opened.flush()
                os.fsync(opened.fileno())
            os.replace(partial, file)

    def put(self, file: Path, name: str) -> None:
        """As `write`, for a local file."""
        if self.remote:
            return self.remote.put(file, name)
        with replacing(Path(self.path) / name) as partial:
            shutil.copyfile(file, partial)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs out. In a folder, the system's lock does this. Storage has no locks: there a file names the
        run, and `renew` renews it. Two runs that begin at the same instant may both go on; they write the same."""
        if not self.remote:
            with alone(self.path):
                yield
            return
        held = self.read(LOCK)
        try:
            other = json.loads(held) if held else None
            # Machines share no other clock. If a clock goes back, the older lock is ignored.
            taken = other is not None and abs(time.time() - other["time"]) < SILENT
        except (ValueError, KeyError, TypeError):
            other, taken = {}, False
        if taken and other:
            raise AvscError(
                f"{self}: another run is at work there ({other['host']}, process {other['process']}): wait for it, or "
                f"give another place. A run that was killed is forgotten after {SILENT:g} s"
            )
        self.renew()
        try:
            yield
        finally:
            if self.remote.size(LOCK) is not None:
                self.remote.remove(LOCK)

    def renew(self) -> None:
        """Renew the lock of this run."""
        if self.remote and time.monotonic() - self._renewed > SILENT / 6:
            self._renewed = time.monotonic()
            told = {"host": socket.gethostname(), "process": os.getpid(), "time": time.time()}
            self.remote.write(LOCK, json.dumps(told).encode())


@contextmanager
def writable(place: Place | str | os.PathLike[str]) -> Iterator[None]:
    """Turn errors of writing, such as a full disk, into an AvscError that names the place."""
    try:
        yield
    except OSError as error:
        reason = refusal(error) or str(error)
        raise AvscError(f"{place}: cannot be written ({reason}): mend that and run it again") from error
