"""Lookup of a recording's line in the indices of a store. The lines stay on the disk, in pages that all processes
share; a process keeps 24 bytes a recording, because a set may have millions and a machine dozens of processes."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from avsc_e2e.data.store.layout import Line, Stored
from avsc_e2e.errors import AvscError

KEPT = 64
"""Number of parsed recordings that are kept."""


class ShardIndex(NamedTuple):
    """The index of one shard."""

    index: Path  # type: ignore[assignment]  # a tuple's method of this name is not needed
    """Local file."""
    shard: Path | str
    """Path or URL."""
    lines: Sequence[Line]


class Recordings(Mapping[str, Stored]):
    """The recordings of a store by their file name."""

    def __init__(self, indices: Iterable[ShardIndex]):
        keys, self._files, places, offsets, sizes = [], [], [], [], []
        for number, (index, shard, lines) in enumerate(indices):
            self._files.append((index, shard))
            keys += [_key(line.record["row"]["file"]) for line in lines]
            places += [number] * len(lines)
            offsets += [line.offset for line in lines]
            sizes += [line.size for line in lines]
        self._keys = np.array(keys, np.uint64)
        order = np.argsort(self._keys, kind="stable")
        self._keys = self._keys[order]
        self._places, self._sizes = (np.array(values, np.int32)[order] for values in (places, sizes))
        self._offsets = np.array(offsets, np.int64)[order]
        self._parsed: OrderedDict[str, Stored] = OrderedDict()

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_parsed": OrderedDict()}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, file: object) -> bool:
        return isinstance(file, str) and self.get(file) is not None

    def __iter__(self) -> Iterator[str]:
        return (stored.row["file"] for stored in self.values())

    def values(self) -> Iterator[Stored]:  # type: ignore[override]  # a view would keep all of them in memory
        """In the order of the shards."""
        return (self._read(place) for place in np.lexsort((self._offsets, self._places)).tolist())

    def __getitem__(self, file: str) -> Stored:
        if file in self._parsed:
            self._parsed.move_to_end(file)
            return self._parsed[file]
        first, beyond = (int(np.searchsorted(self._keys, np.uint64(_key(file)), side)) for side in ("left", "right"))
        for place in range(first, beyond):
            stored = self._read(place)
            if stored.row["file"] == file:
                self._parsed[file] = stored
                if len(self._parsed) > KEPT:
                    self._parsed.popitem(last=False)
                return stored
        raise KeyError(file)

    @property
    def shards(self) -> list[Path | str]:
        """By their number."""
        return [shard for _, shard in self._files]

    def shards_of(self, files: Sequence[str]) -> np.ndarray:
        """(N,) number of the shard of each recording; all must exist."""
        keys = np.fromiter(map(_key, files), np.uint64, len(files))
        return self._places[np.searchsorted(self._keys, keys)]

    def _read(self, place: int) -> Stored:
        index, shard = self._files[self._places[place]]
        try:
            with open(index, "rb") as lines:
                lines.seek(int(self._offsets[place]))
                record = json.loads(lines.read(int(self._sizes[place])))
            if _key(record["row"]["file"]) == int(self._keys[place]):
                return Stored(record, shard)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AvscError(f"{index}: cannot be read ({error}): prepare the store again") from error
        raise AvscError(f"{index}: has changed since it was opened: start again")


def _key(file: str) -> int:
    return int.from_bytes(blake2b(file.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")
