"""Hostile input, drawn by keys: every case is the same each time, and is read in a process that may die."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import NamedTuple

import numpy as np

LIMIT = 10.0
"""Seconds that a case may take."""


class Case(NamedTuple):
    """A seed file, a change of it, and what is to read it."""

    reader: str
    seed: str
    """Path of the file that is changed."""
    number: int


class Result(NamedTuple):
    """What came of a case."""

    case: Case
    outcome: str
    """read, refused (an AvscError of one line), untyped (another exception), crash, hang, payload or leak."""
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


# ---- what reads a case; heavy imports in the process that needs them


def _media(path: Path) -> None:
    from avsc_e2e.data.media import probe, read_audio, read_frames

    header = probe(path)
    for start in (0.0, min(max(header.duration / 2, 0), 1e6)):
        if header.has_video:
            read_frames(path, [start], 64)
        if header.has_audio:
            read_audio(path, start, 1.0, 16000)


def _decode(path: Path) -> None:
    from avsc_e2e.data.media import decode_frames

    for number, _ in enumerate(decode_frames(path, 5.0, 64)):
        if number > 20:
            break


def _output(path: Path) -> None:
    from avsc_e2e.outputs.output import read_output

    read_output(path)


def _reference(path: Path) -> None:
    from avsc_e2e.outputs.reference import read_reference

    read_reference(path)


def _listing(path: Path) -> None:
    from avsc_e2e.data.sets.taulayout import read_listing

    read_listing(path)


def _groups(path: Path) -> None:
    from avsc_e2e.data.sets.grouping import read_groups

    read_groups(path)


def _checkpoint(path: Path) -> None:
    from avsc_e2e.models.weights.checkpoint import load_model

    load_model(path)


def _yaml(path: Path) -> None:
    from avsc_e2e.submission.metafile import check_meta

    list(check_meta(path.read_bytes(), path.name))


def _archive(path: Path) -> None:
    from avsc_e2e.data.download.unpacking import unpack

    target = path.parent / "unpacked"
    target.mkdir()
    unpack(path, target)


def _store(path: Path) -> None:
    """A store of one shard whose index is the case."""
    from avsc_e2e.data.store.layout import index_file, shard_file
    from avsc_e2e.data.store.reader import open_store

    folder = path.parent / "store"
    folder.mkdir()
    if path.name.startswith("store.json"):
        (folder / "store.json").write_bytes(path.read_bytes())
    else:
        (folder / "store.json").write_text(
            '{"format": 1, "layout": "folder", "root": "/nowhere", "options": {"short_side": 64, "rate": 5.0, '
            '"quality": 90}, "shards": [["a/x"]], "copies": []}'
        )
    index_file(shard_file(folder, 0)).write_bytes(path.read_bytes())
    shard_file(folder, 0).write_bytes(bytes(4096))
    open_store(folder)


READERS: dict[str, Callable[[Path], None]] = {
    "media": _media, "decode": _decode, "output": _output, "reference": _reference, "listing": _listing,
    "groups": _groups, "checkpoint": _checkpoint, "yaml": _yaml, "archive": _archive, "store": _store,
}  # fmt: skip


def seeds(folder: Path, media: Sequence[Path] = ()) -> dict[str, list[Path]]:
    """Files to change, by reader."""
    import torch
    from safetensors.torch import save_file

    def write(name: str, text: str | bytes) -> Path:
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder / name

    output = write(
        "output.csv", "filename\tscene_label\tpark\ttram\n" + "".join(f"{n}.wav\tpark\t0.7\t0.3\n" for n in range(9))
    )
    reference = write("reference.csv", "filename\tscene_label\n" + "".join(f"{n}.wav\tpark\n" for n in range(9)))
    listing = write(
        "meta.csv",
        "filename_audio\tfilename_video\tscene_label\tidentifier\n"
        + "".join(f"audio/park-lyon-{n}-1.wav\tvideo/park-lyon-{n}-1.mp4\tpark\tlyon-{n}\n" for n in range(9)),
    )
    groups = write("groups.csv", "file,group\n" + "".join(f"a/x{n},g{n % 3}\n" for n in range(9)))
    meta = write(
        "a.meta.yaml", "submission:\n  label: A_B_task1b_1\n  name: x\n  authors:\n    - lastname: A\nsystem: {}\n"
    )
    record = (
        '{"row":{"file":"a/x","audio":"a/x.wav","video":"","scene":"a","location":"","city":"","part":""},"source":{},'
        '"bad":{},"duration":{"audio":1.0},"audio":[512,100,1,8000,16],"video":null,"next":3072,"checksum":1}\n'
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("TAU/audio/x.wav", "TAU/README.md"):
            archive.writestr(name, b"text " * 500)
    save_file({"w": torch.zeros(4, 4)}, folder / "model.safetensors", {"architecture": "{}"})
    manifest = (
        '{"format": 1, "layout": "folder", "root": "/x", "options": {"short_side": 64, "rate": 5.0, "quality": 90}, '
        '"shards": [["a/x"]]}'
    )
    found = {
        "output": [output], "reference": [reference], "listing": [listing], "groups": [groups], "yaml": [meta],
        "store": [write("index.jsonl", record), write("store.json", manifest)],
        "archive": [write("x.zip", packed.getvalue())], "checkpoint": [folder / "model.safetensors"],
    }  # fmt: skip
    if media:
        found |= {"media": list(media), "decode": list(media)}
    return found


def cases(found: dict[str, list[Path]], per_seed: dict[str, int] | int) -> Iterator[Case]:
    for reader, files in found.items():
        count = per_seed if isinstance(per_seed, int) else per_seed[reader]
        yield from (Case(reader, str(file), number) for file in files for number in range(count))


def _serve(pipe: connection.Connection) -> None:
    """Read the cases that the pipe gives, in a folder of their own."""
    from avsc_e2e.errors import AvscError

    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    with contextlib.suppress(EOFError):
        while True:
            case: Case = pipe.recv()
            with tempfile.TemporaryDirectory() as folder:
                inside = Path(folder) / "in"
                inside.mkdir()
                path = inside / Path(case.seed).name
                path.write_bytes(mutate(Path(case.seed).read_bytes(), (case.reader, case.number, Path(case.seed).name)))
                before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
                outcome, text = "read", ""
                try:
                    READERS[case.reader](path)
                except AvscError as error:
                    outcome = "refused" if "\n" not in str(error) else "untyped"
                    text = str(error)
                except BaseException as error:
                    outcome, text = "untyped", f"{type(error).__name__}: {error}"
                if os.listdir(folder) != ["in"] or os.path.exists("/tmp/avsc_payload"):
                    outcome = "payload"
                after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
                pipe.send((outcome, text[:300], after - before))


def run(work: Sequence[Case], limit: float = LIMIT) -> Iterator[Result]:
    """Read the cases one after the other; a process that dies or stands still is replaced and its case named."""
    context = multiprocessing.get_context("spawn")
    process = pipe = None
    opened = 0
    for case in work:
        fresh = process is None
        if fresh:
            pipe, other = context.Pipe()
            process = context.Process(target=_serve, args=(other,), daemon=True)
            process.start()
            other.close()
        pipe.send(case)
        begin = time.monotonic()
        # A new process has the library to import before its first case.
        ready = pipe.poll(limit + 60 * fresh)
        try:
            if not ready:
                raise TimeoutError
            outcome, text, more = pipe.recv()
            opened += more
            if opened > 64:
                outcome, text, opened = "leak", f"{opened} file descriptors more", 0
            yield Result(case, outcome, text)
        except (TimeoutError, EOFError, ConnectionError) as error:
            process.kill()
            process.join()
            outcome = "hang" if isinstance(error, TimeoutError) else "crash"
            yield Result(case, outcome, f"exit {process.exitcode} after {time.monotonic() - begin:.1f} s")
            process, opened = None, 0
    if process is not None:
        pipe.close()
        process.join(5)
        process.kill()
