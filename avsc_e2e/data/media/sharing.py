"""One file for several decoders that go through it side by side, such as those of its video and its audio: each byte is
read from the disk, or the network behind it, once."""

from __future__ import annotations

import os
from collections import OrderedDict

BLOCK = 1 << 18
"""Bytes that are read at a time."""
KEPT = 1 << 25
"""Bytes that stay in memory: as far as one decoder may be ahead of another before what it read is read again."""


class SharedFile:
    """A file whose last blocks stay in memory. Decoders may be anywhere in it; they read twice only what they read more
    than `KEPT` bytes of reading apart, so a file whose streams are not interleaved is read once as well."""

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
        """The file as a decoder opens it, at its start."""
        return Handle(self)

    def at(self, place: int, count: int) -> bytes:
        """At most `count` bytes from `place` on; none only at the end."""
        number, offset = divmod(place, BLOCK)
        block = self._blocks.get(number)
        if block is None:
            block = self._blocks[number] = os.pread(self._file.fileno(), BLOCK, number * BLOCK)
            while len(self._blocks) > 1 and len(self._blocks) * BLOCK > KEPT:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return block[offset : offset + count]


class Handle:
    """A place in a shared file, with the methods of a file that PyAV uses."""

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
