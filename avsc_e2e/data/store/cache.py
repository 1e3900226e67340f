"""A cache of whole shards of a store behind a URL, on a local disk, limited in bytes."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from avsc_e2e.data.store.reader import Maps
from avsc_e2e.data.store.remote import RemoteFolder
from avsc_e2e.errors import AvscError

AT_ONCE = 4
"""Number of shards fetched at the same time."""


class ShardCache:
    """The shards of a store behind a URL. The process that decides the order of reading calls `fetch`; the other ones
    find the shards on the disk. A shard that is not on the disk is read from the URL, by ranges."""

    def __init__(self, remote: RemoteFolder, names: Sequence[str], folder: str, limit: float):
        """`names`: URLs of the shards by their number. `folder`: the place where this process makes a folder
        of its own, which it removes at the end; empty: that of temporary files. `limit`: bytes."""
        self.remote, self.names, self.limit = remote, list(names), limit
        try:
            if folder:
                Path(folder).mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix="avsc-shards-", dir=folder or None))
        except OSError as error:
            raise AvscError(f"--data.cache {folder}: cannot be written ({error.strerror}): give another") from None
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.maps = Maps()
        self.fetched = 0
        """Shards that this process has fetched."""
        self._here: dict[int, Future] = {}
        self._pool: ThreadPoolExecutor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_here": {}, "_pool": None}

    def parts(self, shard: str, spans: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """The bytes of each span (offset, size) of a shard."""
        path = self.folder / shard.rpartition("/")[2]
        if self.maps.holds(path) or path.exists():
            return self.maps.parts(path, spans)
        return self.remote.parts(shard, spans)

    def fetch(self, now: Sequence[int], then: Sequence[int]) -> None:
        """Return when the shards with the numbers `now` are on the disk. Those of `then` follow in the background, as
        far as they fit. The shards that were read longest ago are removed first. Raises AvscError."""
        need = sum(map(self._size, now))
        if need > self.limit:
            raise AvscError(
                f"--data.cache-size {self.limit / 1e9:g}: the shards that --data.buffer shuffles at a time have "
                f"{need / 1e9:.2f} GB: give more, or a smaller buffer"
            )
        for number in [*now, *then]:
            if number in now or self._used() + self._size(number) <= self.limit or number in self._here:
                self._keep(number, {*now, *then})
        for number in now:
            self._here[number].result()

    def _keep(self, number: int, wanted: set[int]) -> None:
        """Fetch a shard, or note that it is used again. Other shards are removed to make room."""
        self._pool = self._pool or ThreadPoolExecutor(AT_ONCE)
        known = self._here.pop(number, None)
        while known is None and self._used() + self._size(number) > self.limit:
            old = next((one for one in self._here if one not in wanted), next(iter(self._here)))
            future = self._here.pop(old)
            if not future.cancel():
                future.exception()
            self._path(old).unlink(missing_ok=True)
        self._here[number] = known or self._pool.submit(self._fetch, number)

    def _fetch(self, number: int) -> None:
        path = self._path(number)
        partial = path.with_suffix(".partial")
        try:
            self.remote.copy_whole(self.names[number], partial)
            partial.rename(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise AvscError(f"{self.folder}: cannot be written ({error.strerror}): give another --data.cache") from None
        self.fetched += 1

    def _path(self, number: int) -> Path:
        return self.folder / self.names[number].rpartition("/")[2]

    def _size(self, number: int) -> int:
        return self.remote.sizes[self.names[number]]

    def _used(self) -> int:
        return sum(map(self._size, self._here))
