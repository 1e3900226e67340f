"""One file that several decoders read side by side, such as those of its video and audio. Each byte is read from the
disk or the network once."""

from __future__ import annotations

import os
from collections import OrderedDict

BLOCK = 1 << 18
"""Bytes read at a time."""
KEPT = 1 << 25
"""Bytes that stay in memory: the distance between two decoders up to which nothing is read twice."""


class SharedFile:
    """A file whose last blocks stay in memory. Decoders may read anywhere in it. A block is read again only if more
    than `KEPT` bytes were read since, so files whose streams are not interleaved are also read once."""

    def __init__(self, path: str):
        self.path = path
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        self.size = os.fstat(self._file.fileno()).st_size
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def __enter__(self) -> SharedFile:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()
        self._blocks.clear()

    def handle(self) -> Handle:
        """A handle for one more decoder, at the start of the file."""
        return Handle(self)

    def at(self, place: int, count: int) -> bytes:
        """At most `count` bytes from `place` on; empty only at the end."""
        number, offset = divmod(place, BLOCK)
        block = self._blocks.get(number)
        if block is None:
            block = self._blocks[number] = os.pread(self._file.fileno(), BLOCK, number * BLOCK)
            while len(self._blocks) > 1 and len(self._blocks) * BLOCK > KEPT:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return block[offset : offset + count]


class Handle:
    """A position in a shared file, with the file methods that PyAV calls."""

    def __init__(self, shared: SharedFile):
        self._shared, self._place = shared, 0
        self.name = shared.path

    def read(self, count: int) -> bytes:
        data = self._shared.at(self._place, count)
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = max(
            offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._shared.size}[whence], 0
        )
        return self._place

    def tell(self) -> int:
        return self._place

    def seekable(self) -> bool:
        return True
