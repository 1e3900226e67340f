"""Damaged and hostile files, drawn by keys: every case is the same each time, and is read in a process that may die."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import resource
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import NamedTuple

import numpy as np

LIMIT, WALL = 10.0, 60.0
"""Seconds that a case may take: of the processor, and on the clock, which other load makes longer."""
MEMORY = 8 << 30
"""Bytes that a reader may ask for: beyond them Python and torch raise MemoryError, and the machine lives on."""
WARM, GROWTH = 40, 2.0
"""Cases of a reader after which a process has loaded what it needs, and MB a case by which it may grow then."""
ABSOLUTE = Path(tempfile.gettempdir(), "avsc_payload")
"""Where an archive with an absolute name wants to write."""
WHOLE = -1
"""Number of a case that is read as it is."""


class Case(NamedTuple):
    """A file, a change of it, and what is to read it."""

    reader: str
    seed: str
    """Path of the file that is changed."""
    number: int


class Result(NamedTuple):
    """What came of a case."""

    case: Case
    outcome: str
    """read, refused (an AvscError of one line), untyped (another exception), crash, hang, payload, leak or lost."""
    text: str = ""


def mutate(data: bytes, key: Sequence[int | str]) -> bytes:
    """One to three changes: cut off, flipped bits, zeros, other parts of the file, sizes and durations that lie."""
    draw = np.random.default_rng([*map(_number, key)])
    changed = bytearray(data)
    for _ in range(int(draw.integers(1, 4))):
        if not changed:
            break
        # Headers lie at the begin and the end; half of the changes are made there.
        span = min(len(changed), 4096) if draw.random() < 0.5 else len(changed)
        at = int(draw.integers(span)) if draw.random() < 0.7 else len(changed) - 1 - int(draw.integers(span))
        kind = int(draw.integers(7))
        if kind == 0:
            del changed[at:]
        elif kind == 1:
            for place in draw.integers(0, len(changed), int(draw.integers(1, 40))):
                changed[place] ^= 1 << int(draw.integers(8))
        elif kind == 2:
            length = min(int(draw.integers(1, 5000)), len(changed) - at)
            changed[at : at + length] = bytes(length)
        elif kind == 3:
            other, length = int(draw.integers(len(changed))), int(draw.integers(1, 2000))
            changed[at : at + length] = changed[other : other + length]
        elif kind == 4:
            value = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000)[int(draw.integers(5))]
            changed[at : at + 4] = value.to_bytes(4, ("big", "little")[int(draw.integers(2))])
        elif kind == 5:
            del changed[at : at + int(draw.integers(1, 1000))]
        else:
            words = (b"../../etc/passwd", b"<script>", b"http://127.0.0.1:9/x", b"\xff\xfe", b"\n\t,", b"concat:/x",
                     b"nan", b"-1", b"1e999", "ä\u202e".encode(), b"\x00")  # fmt: skip
            changed[at:at] = words[int(draw.integers(len(words)))]
    return bytes(changed)


def _number(part: int | str) -> int:
    return part if isinstance(part, int) else int.from_bytes(part.encode()[:16], "little")


def cases(found: dict[str, list[Path]], per_seed: dict[str, int] | int) -> Iterator[Case]:
    """So many changes of each file."""
    for reader, files in found.items():
        count = per_seed if isinstance(per_seed, int) else per_seed[reader]
        yield from (Case(reader, str(file), number) for file in files for number in range(count))


def whole(found: dict[str, list[Path]]) -> Iterator[Case]:
    """Each file as it is."""
    yield from (Case(reader, str(file), WHOLE) for reader, files in found.items() for file in files)


def _bytes(case: Case) -> bytes:
    data = Path(case.seed).read_bytes()
    return data if case.number == WHOLE else mutate(data, (case.reader, case.number, Path(case.seed).name))


def _serve(pipe: connection.Connection, readers: dict[str, Callable[[Path], None]], port: int) -> None:
    """Read the cases that the pipe gives, in a folder of their own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.environ |= {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "OMP_NUM_THREADS": "1"}
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    count, start, of, opened = 0, 0.0, "", 0
    with contextlib.suppress(EOFError):
        while True:
            case: Case = pipe.recv()
            count, of = (count + 1 if of == case.reader else 1), case.reader
            with tempfile.TemporaryDirectory() as folder:
                outcome, text = _read(case, Path(folder), readers[case.reader])
            if count == 1:
                gc.collect()
                gc.freeze()  # what was imported, so that the next collections are quick
                opened = len(os.listdir("/proc/self/fd"))
            elif count % 8 == 0:
                gc.collect()
            more = len(os.listdir("/proc/self/fd")) - opened
            now = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
            start = now if count == WARM else start
            pipe.send((outcome, text[:300], more, (now - start) / (count - WARM) if count > 5 * WARM else 0.0))


def _read(case: Case, folder: Path, reader: Callable[[Path], None]) -> tuple[str, str]:
    """Outcome and text. The reader is in FOLDER/in/at and may write there only."""
    from readers import Lost, Ran

    from avsc_e2e.errors import AvscError

    inside = folder / "in" / "at"
    inside.mkdir(parents=True)
    path, data = inside / Path(case.seed).name, _bytes(case)
    path.write_bytes(data)
    os.chdir(inside)
    outcome, text = "read", ""
    try:
        reader(path)
    except Lost as error:
        outcome, text = "lost", str(error)
    except Ran as error:
        outcome, text = "payload", str(error)
    except AvscError as error:
        outcome, text = ("refused" if "\n" not in str(error) else "untyped"), str(error)
    except BaseException as error:
        outcome, text = "untyped", f"{type(error).__name__}: {error}"
    finally:
        os.chdir("/")
    if os.listdir(folder) != ["in"] or os.listdir(folder / "in") != ["at"] or ABSOLUTE.exists():
        return "payload", f"a file outside the folder; {text}"
    if not path.is_file() or path.read_bytes() != data:
        return "lost", f"the file that was read has changed; {text}"
    return outcome, text


def listen() -> socket.socket:
    """Where a payload would call; nothing ever should."""
    ear = socket.create_server(("127.0.0.1", 0))
    ear.setblocking(False)
    return ear


def _called(ear: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        ear.accept()[0].close()
        return True
    return False


def run(
    work: Sequence[Case],
    readers: dict[str, Callable[[Path], None]] | None = None,
    ear: socket.socket | None = None,
    method: str = "spawn",
    wall: float = WALL,
    start: float = 60.0,
) -> Iterator[Result]:
    """Read the cases one after the other; a process that dies or stands still is replaced and its case named. A new
    process has `start` seconds more, since it has the library to import before its first case."""
    if readers is None:
        from readers import READERS as readers
    ear = ear or listen()
    context = multiprocessing.get_context(method)
    process = pipe = None
    for case in work:
        extra = 0.0
        if process is None:
            pipe, other = context.Pipe()
            process = context.Process(target=_serve, args=(other, readers, ear.getsockname()[1]), daemon=True)
            process.start()
            other.close()
            extra = start
        pipe.send(case)
        begin, used = time.monotonic(), _processor_seconds(process.pid)
        outcome = ""
        try:
            while not pipe.poll(0.5):
                if _processor_seconds(process.pid) - used > LIMIT + extra or time.monotonic() - begin > wall + extra:
                    raise TimeoutError
            outcome, text, more, growth = pipe.recv()
            if outcome in ("read", "refused") and (more > 32 or growth > GROWTH):
                outcome, text = "leak", f"{more} file descriptors more, {growth:.1f} MB a case"
        except (TimeoutError, EOFError, ConnectionError) as error:
            outcome = "hang" if isinstance(error, TimeoutError) else "crash"
            text = f"after {time.monotonic() - begin:.1f} s"
        if outcome in ("hang", "crash", "leak"):
            process.kill()
            process.join()
            text, process = f"exit {process.exitcode}, {text}", None
        yield Result(case, "payload" if _called(ear) else outcome, text)
    if process is not None:
        process.kill()
        process.join()


def _processor_seconds(pid: int) -> float:
    """Of a process and all its threads."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0
