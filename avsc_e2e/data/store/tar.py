"""Appending the members of a shard to a tar file, with a checksum of the bytes."""

from __future__ import annotations

import struct
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from avsc_e2e.data.media import audio_blocks
from avsc_e2e.errors import MediaError


class Checked:
    """A file to append to, with a checksum of the appended bytes."""

    def __init__(self, file: BinaryIO):
        self.file, self.begin, self.checksum = file, file.tell(), 0

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.checksum = zlib.crc32(data, self.checksum)

    def restart(self) -> None:
        """Remove what was appended."""
        self.file.truncate(self.begin)
        self.file.seek(self.begin)
        self.checksum = 0


def add(tar: Checked, name: str, data: bytes) -> int:
    """Append a member, and return the offset of its data."""
    return add_parts(tar, name, len(data), [data])


def add_parts(tar: Checked, name: str, size: int, parts: Iterable[bytes]) -> int:
    """Append a member of `size` bytes in parts, and return the offset of its data."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    tar.write(member.tobuf(tarfile.GNU_FORMAT, "ascii"))
    offset = tar.file.tell()
    for part in parts:
        tar.write(part)
    tar.write(bytes(-size % tarfile.BLOCKSIZE))
    return offset


def add_audio(tar: Checked, name: str, path: Path, scratch: Path) -> list[int]:
    """Append a recording's audio as a WAV file, and return the offset of its samples, their number, the channels, the
    rate (Hz) and the bits of a sample. A tar needs the size first, so the samples go to an unnamed file before:
    memory does not grow with the recording. Raises MediaError."""
    samples, channels, rate, bits = 0, 1, 0, 16
    with tempfile.TemporaryFile(dir=scratch) as raw:
        for block, rate in audio_blocks(path):  # noqa: B007
            samples, channels = samples + len(block), block.shape[1]
            bits = {"int16": 16, "int32": 24, "float32": 32}[block.dtype.name]
            if bits == 24:
                raw.write(block.astype("<i4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes())
            else:
                raw.write(block.astype("<i2" if bits == 16 else "<f4").tobytes())
        if not rate:
            raise MediaError(str(path), "none of its audio can be decoded (is it cut off?)")
        size = raw.tell()
        raw.seek(0)
        header = _wav_header(size, samples, channels, rate, bits)
        parts = chain([header], iter(partial(raw.read, 1 << 20), b""))
        return [add_parts(tar, name, len(header) + size, parts) + len(header), samples, channels, rate, bits]


def _wav_header(size: int, samples: int, channels: int, rate: int, bits: int) -> bytes:
    """The header of a WAV file with `size` bytes of samples. libsndfile is not used, because it writes the time of day
    into headers of float files, and a store's bytes must depend only on its sources."""
    width = channels * bits // 8
    kind = struct.pack("<HHIIHH", 3 if bits == 32 else 1, channels, rate, rate * width, width, bits)
    head = b"fmt " + struct.pack("<I", len(kind)) + kind
    if bits == 32:
        head += b"fact" + struct.pack("<II", 4, samples)
    head += b"data" + struct.pack("<I", size & 0xFFFFFFFF)
    return b"RIFF" + struct.pack("<I", (4 + len(head) + size) & 0xFFFFFFFF) + b"WAVE" + head
