"""The clock of an MPEG transport or program stream. Time stamps refer to it, so it must not restart within a file."""

from __future__ import annotations

import os
import re

FORMATS = ("mpegts", "mpeg")
"""FFmpeg's names of the containers with such a clock."""
PACKETS = (188, 192, 204)
"""Sizes of the packets of a transport stream, bytes: plain, from a camera (M2TS), with error correction."""
PLACES, PART = 48, 1 << 18
"""Number of places of a file that are read, and bytes read at each."""
SECOND, WRAPS = 90_000, 1 << 33
"""Ticks of the clock in a second, and the number of ticks after which it starts from 0, which FFmpeg handles."""
PACK = re.compile(rb"\x00\x00\x01\xba(?:([\x20-\x2f].{4})|([\x40-\x7f].{5}))", re.DOTALL)
"""Start of a pack of a program stream (MPEG-1 or MPEG-2) and the bytes of its clock."""


def restarts(path: str) -> bool:
    """Whether the clock goes back within the file, as it does where recordings were joined byte by byte. A join is
    found if both parts are longer than a fiftieth of the file."""
    last: dict[int, int] = {}
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        for place in range(PLACES):
            file.seek(max(max(size - PART, 0) * place // (PLACES - 1), file.tell()))
            for program, ticks in references(file.read(PART)):
                if SECOND < (last.get(program, ticks) - ticks) % WRAPS < WRAPS // 2:
                    return True
                last[program] = ticks
    return False


def references(data: bytes) -> list[tuple[int, int]]:
    """The clock references in packets: number of the stream that carries it, and ticks."""
    return _of_transport(data) or _of_program(data)


def _of_program(data: bytes) -> list[tuple[int, int]]:
    found = []
    for old, new in PACK.findall(data):
        bits = int.from_bytes(old or new, "big") >> (0 if old else 8)
        if old:  # 4 bits 0010, then 3, 15 and 15 bits of the clock, each followed by a marker bit of 1
            high, middle, low, markers = bits >> 33 & 7, bits >> 17 & 0x7FFF, bits >> 1 & 0x7FFF, 1 << 32 | 1 << 16 | 1
        else:  # 2 bits 01, then the same; finer ticks follow
            high, middle, low, markers = bits >> 35 & 7, bits >> 19 & 0x7FFF, bits >> 3 & 0x7FFF, 1 << 34 | 1 << 18 | 4
        if bits & markers == markers:  # otherwise these bytes are other data
            found.append((0, high << 30 | middle << 15 | low))
    return found


def _of_transport(data: bytes) -> list[tuple[int, int]]:
    begin, length = next(
        (
            (at, length)
            for at in range(min(len(data), max(PACKETS)))
            for length in PACKETS
            if all(data[at + number * length : at + number * length + 1] == b"G" for number in range(5))
        ),
        (len(data), 1),
    )
    found = []
    for at in range(begin, len(data) - 11, length):
        # An adaptation field of 7 bytes or more with the flag for a clock reference.
        if data[at] == ord("G") and data[at + 3] & 0x20 and data[at + 4] >= 7 and data[at + 5] & 0x10:
            program = (data[at + 1] & 0x1F) << 8 | data[at + 2]
            found.append((program, int.from_bytes(data[at + 6 : at + 11], "big") >> 7))
    return found
