"""What reads a damaged or hostile file, as a user's command or call would. Heavy imports are in the process that needs
them. A reader raises Lost where something whole was given up, and Ran where a payload had an effect."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

MARKS = ("<script>avsc", "<img src=avsc", "<b>avsc", 'href="javascript:avsc')
"""Must not be in a page as they are."""


class Lost(Exception):
    """A whole recording beside the damaged one was not read, or a row of an output is gone."""


class Ran(Exception):
    """A payload had an effect."""


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


@functools.cache
def _model():
    from dataclasses import replace

    import torch

    from avsc_e2e.models.scenenet import SceneNet
    from avsc_e2e.models.zoo.own import tiny

    torch.set_num_threads(1)
    return SceneNet(replace(tiny(), classes=("a", "b"))).eval()


def _good(path: Path) -> Path:
    """A whole recording."""
    import numpy as np
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(len(path.name)).uniform(-0.5, 0.5, 16000), 8000)
    return path


def _predict(path: Path) -> None:
    """`avsc predict MODEL CASE GOOD`: what is wrong with the one must not touch the other."""
    from avsc_e2e.errors import AvscError
    from avsc_e2e.prediction import Predictor

    good = _good(path.parent / "good.wav")
    case, whole = Predictor(_model(), on_bad="mask").all([path, good])
    if len(whole.windows) != 2:
        raise Lost(f"{good}: {len(whole.windows)} windows of 2")
    if not case.windows:
        raise AvscError(case.error)


def _set(path: Path) -> Path:
    """Class folders with the case and three whole recordings."""
    root = path.parent / "root"
    for name in ("a/good1.wav", "b/good22.wav", "b/good333.wav"):
        _good(root / name)
    shutil.copy(path, root / "a" / path.name)
    return root


def _prepare(path: Path) -> None:
    from avsc_e2e.data.store.layout import verify
    from avsc_e2e.data.store.prepare import Options, prepare
    from avsc_e2e.data.store.reader import open_store

    store = path.parent / "store"
    prepare(_set(path), store, Options(short_side=32, rate=5.0, quality=80), workers=1)
    opened = open_store(store)
    rows = {row.file: row for of_part in opened.rows().values() for row in of_part}
    for name in ("a/good1", "b/good22", "b/good333"):
        if name not in rows or opened.read_audio(rows[name], 0.0, 1.0, 8000).shape[1] != 8000:
            raise Lost(name)
    if any(verify(shard) for shard in store.glob("*.tar")):
        raise Lost("a shard does not fit its checksums")


def _check(path: Path) -> None:
    from avsc_e2e.data.check.check import check

    found = check(_set(path), test=0.0, validation=0.0)
    wrong = [problem for problem in found.problems if "good" in problem.path and problem.kind == "unreadable"]
    if wrong or found.files < 3:
        raise Lost(f"{found.files} files, {wrong}")
    if len(found.problem_list(1000).splitlines()) != len(found.problems):
        raise AssertionError("a problem takes more than a line")


def _output(path: Path) -> None:
    from avsc_e2e.outputs.output import format_output, read_output, write_output

    found = read_output(path)
    write_output(path.with_name("again.csv"), found)
    again = read_output(path.with_name("again.csv"))
    if again.files != found.files or again.classes != found.classes:
        raise Lost(f"{len(again)} of {len(found)} rows")
    format_output(found)


def _scored(path: Path) -> None:
    """`avsc score` with a report: the page shows names as text."""
    from avsc_e2e.outputs.output import read_output
    from avsc_e2e.report.page import write_report
    from avsc_e2e.report.report import Report

    found = read_output(path)
    reference = {file: found.classes[at % len(found.classes)] for at, file in enumerate(dict.fromkeys(found.files))}
    page = write_report(Report(title=path.stem, outputs={"a": found}, reference=reference), path.with_name("a.html"))
    _harmless(page)


def _harmless(page: Path) -> None:
    text = page.read_text(encoding="utf-8").lower()
    for mark in MARKS:
        if mark in text:
            raise Ran(f"{page}: {mark!r} is in the page as it is")


def _reference(path: Path) -> None:
    from avsc_e2e.outputs.reference import read_reference

    read_reference(path)


def _listing(path: Path) -> None:
    from avsc_e2e.data.sets.taulayout import read_listing

    read_listing(path)


def _tau(path: Path) -> None:
    """The list as that of a set: whatever it says, no file outside the root is named to a reader."""
    from avsc_e2e.data.sets.corpus import read_corpus

    root = path.parent / "root"
    lists = root / "evaluation_setup"
    lists.mkdir(parents=True)
    for to in ("meta.csv", *(f"evaluation_setup/fold1_{part}.csv" for part in ("train", "evaluate", "test"))):
        shutil.copy(path, root / to)
    for number in range(9):
        _good(root / "audio" / f"park-lyon-{number}-1.wav")
    corpus = read_corpus(root, validation=0.0, modalities=("audio",), lenient=True)
    for row in (row for part in corpus[1:] for row in part):
        if row.audio and not Path(row.audio).resolve().is_relative_to(root.resolve()):
            raise Ran(f"{row.audio} is outside the root")


def _groups(path: Path) -> None:
    from avsc_e2e.data.sets.grouping import read_groups

    read_groups(path)


def _people(path: Path) -> None:
    from avsc_e2e.submission.people import read_people

    read_people(path)


def _calibration(path: Path) -> None:
    from avsc_e2e.outputs.calibration import Calibration

    Calibration.load(path)


def _checkpoint(path: Path) -> None:
    from avsc_e2e.models.weights.checkpoint import load_model

    load_model(path)


def _weights(path: Path) -> None:
    """As --video-weights reads a file of strangers."""
    from avsc_e2e.models.weights.tensors import read_tensors

    read_tensors(path)


def _yaml(path: Path) -> None:
    from avsc_e2e.submission.metafile import check_meta

    list(check_meta(path.read_bytes(), path.name))


def _package(path: Path) -> None:
    from avsc_e2e.submission.check import check

    check(path)


def _archive(path: Path) -> None:
    from avsc_e2e.data.download.unpacking import unpack

    target = path.parent / "unpacked"
    target.mkdir()
    unpack(path, target)


def _store(path: Path) -> None:
    """A store of one shard whose index or manifest is the case, and what is in it read."""
    from avsc_e2e.data.check.check import check
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
    opened = open_store(folder)
    for row in (row for of_part in opened.rows().values() for row in of_part):
        opened.read_audio(row, 0.0, 1.0, 8000)
    check(folder)


def _names(path: Path) -> None:
    """Class folders with the names that the case lists: told, read, put into an output and a report, all of them."""
    from avsc_e2e.data.check.check import check
    from avsc_e2e.data.sets.folder import read_folder
    from avsc_e2e.outputs.output import SystemOutput, read_output, write_output
    from avsc_e2e.report.page import write_report
    from avsc_e2e.report.report import Report

    root = path.parent / "root"
    for number, name in enumerate(json.loads(path.read_bytes())):
        with contextlib.suppress(OSError, ValueError):  # what a file system refuses no one has
            _good(root / name.replace("/", "\u2215") / f"x{number}.wav")
            _good(root / "a" / f"{name.replace('/', chr(0x2215))}{number}.wav")
    root.mkdir(exist_ok=True)
    check(root, fast=True, test=0.0, validation=0.0).table()
    corpus = read_folder(root, test=0.0, validation=0.0, lenient=True)
    import numpy as np

    files = tuple(row.file for row in corpus.train)
    even = np.full((len(files), len(corpus.classes)), 1 / len(corpus.classes))
    output = SystemOutput(files, corpus.classes, even)
    write_output(path.with_name("output.csv"), output)
    if read_output(path.with_name("output.csv")).files != files:
        raise Lost("the output names other files than the folder has")
    reference = {row.file: row.scene for row in corpus.train}
    report = Report(title=corpus.classes[0], outputs={"a": output}, reference=reference, rows=corpus.train)
    _harmless(write_report(report, path.with_name("a.html")))


def _flags(path: Path) -> None:
    """A command line that the case lists: it ends well, or in one line with status 2."""
    from avsc_e2e.cli import main
    from avsc_e2e.errors import AvscError

    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            main(json.loads(path.read_bytes()))
        except SystemExit as end:
            status = end.code or 0
        else:
            status = 0
    if status == 2:
        errors = [line for line in said.getvalue().split("\n") if line.startswith("error: ")]
        if len(errors) != 1:
            raise AssertionError(f"not one line: {said.getvalue()[-300:]!r}")
        raise AvscError(errors[0])
    if status not in (0, 1):
        raise AssertionError(f"exit status {status}")


READERS: dict[str, Callable[[Path], None]] = {
    "media": _media, "decode": _decode, "predict": _predict, "prepare": _prepare, "check": _check,
    "output": _output, "scored": _scored, "reference": _reference, "listing": _listing, "tau": _tau,
    "groups": _groups, "people": _people, "calibration": _calibration, "checkpoint": _checkpoint,
    "weights": _weights, "yaml": _yaml, "package": _package, "archive": _archive, "store": _store,
    "names": _names, "flags": _flags,
}  # fmt: skip
