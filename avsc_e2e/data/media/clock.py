"""The clock of a transport stream, which has to go on through the file: its time stamps are found by it."""

from __future__ import annotations

import os

PACKETS = (188, 192, 204)
"""Bytes of a packet: plain, of a camera (M2TS), with error correction."""
PLACES, PART = 48, 1 << 18
"""Places of a file that are looked at, and bytes at each."""
SECOND, WRAPS = 90_000, 1 << 33
"""Ticks of the clock a second, and after which it starts from 0, as FFmpeg knows."""


def restarts(path: str) -> bool:
    """Whether the clock goes back within the file, as where recordings were joined byte by byte. A join is seen where
    the parts are longer than a fiftieth of the file."""
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
    """The clock references among packets: number of the stream that carries one, and ticks."""
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
        # An adaptation field of 7 bytes or more, with the flag of a reference.
        if data[at] == ord("G") and data[at + 3] & 0x20 and data[at + 4] >= 7 and data[at + 5] & 0x10:
            program = (data[at + 1] & 0x1F) << 8 | data[at + 2]
            found.append((program, int.from_bytes(data[at + 6 : at + 11], "big") >> 7))
    return found
