"""Prediction of many recordings into Parquet files, a part at a time, by this machine or by a Ray cluster.

    OUT/predictions.json         the model, the options, and which recordings are in which part
    OUT/part-000000.parquet      a row for each window of its recordings, or one for a recording without any

A part is the same whoever predicts it, so a task that runs again writes the same bytes under the same name, and a part
that is there is not predicted again: each recording is in the output once, after a lost machine and after a rerun.

Ray Data, which would batch over all recordings, lacks this: its batches, and with them the last digits, depend on which
block comes first, and its Parquet files are named by the run that writes them. So a part is one task of Ray: a process
decodes, the task's own predicts in batches over the recordings of the part, and memory is that of some batches."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avsc_e2e.cluster import Engine, has_gpus, spread
from avsc_e2e.data.store.place import Place, writable
from avsc_e2e.errors import AvscError
from avsc_e2e.models.weights.files import checkpoint_file
from avsc_e2e.parquet import parquet_about, parquet_bytes
from avsc_e2e.prediction.inputs import Given, recordings
from avsc_e2e.prediction.predictor import Predictor
from avsc_e2e.prediction.recordings import Source
from avsc_e2e.segments import Prediction

MANIFEST = "predictions.json"
FORMAT = 1
PART = 64
"""Recordings of a part."""
DIGITS = 6
"""Of a probability, as in all other formats."""
ABOUT = "avsc_e2e"
"""Key of a part's summary in its Parquet file."""


class Predicted(NamedTuple):
    """What the output holds."""

    recordings: int
    windows: int
    now: int
    """Recordings that this run predicted."""
    errors: dict[str, list[str]]
    """Cause -> the recordings of which nothing, or less than the whole, could be predicted."""

    @property
    def table(self) -> str:
        """Recordings by cause, the most frequent first."""
        ranked = sorted(self.errors.items(), key=lambda one: (-len(one[1]), one[0]))
        return "\n".join(f"{len(files):6d}  {cause}, such as {min(files)}" for cause, files in ranked)


class _Job(NamedTuple):
    """A part to be predicted."""

    checkpoint: str
    options: tuple[tuple[str, Any], ...]
    sources: tuple[Source, ...]
    out: str
    name: str


def predict_parts(
    checkpoint: str | os.PathLike[str],
    given: Given | Iterable[Given],
    out: str | os.PathLike[str],
    *,
    engine: Engine = "local",
    part: int = PART,
    progress: Callable[[int, int, str], None] | None = None,
    **options: Any,
) -> Predicted:
    """Predict recordings into Parquet files at `out`, a folder or a URL, `part` recordings in each, going on where an
    earlier run stopped. `options` are those of Predictor. With the engine "ray" each part is a task, of a GPU where the
    cluster has any; the checkpoint, and files that are no URLs, must be on folders that its machines share. Raises
    AvscError."""
    file, to = checkpoint_file(checkpoint).resolve(), Place(out)
    if part < 1:
        raise AvscError(f"{to}: {part} recordings in a part: give 1 or more")
    found = recordings(given)
    sources = {source.name: source for source in found}
    if len(sources) < len(found):
        [(twice, count)] = Counter(source.name for source in found).most_common(1)
        raise AvscError(f"{twice}: is listed {count} times; list each recording once")
    with to.alone():
        plan = _plan(to, file, list(sources), part, options)
        there = to.names()
        jobs = [
            _Job(
                str(file),
                tuple(sorted(options.items())),
                tuple(sources[n] for n in names if n in sources),
                str(to),
                name,
            )
            for number, names in enumerate(plan)
            if (name := f"part-{number:06d}.parquet") not in there
        ]
        earlier = [parquet_about(to.read(name) or b"", ABOUT) for name in there if name.endswith(".parquet")]
        parts = [json.loads(about) for about in earlier]
        now, total = 0, sum(len(job.sources) for job in jobs)
        for about in _predicted(jobs, engine, str(options.get("device", "")), to.renew):
            parts.append(about)
            now += about["recordings"]
            to.renew()
            if progress:
                progress(now, total, f"{len(parts)} of {len(plan)} parts")
    errors: dict[str, list[str]] = {}
    for about in parts:
        for name, cause in about["errors"].items():
            errors.setdefault(cause, []).append(name)
    return Predicted(sum(p["recordings"] for p in parts), sum(p["windows"] for p in parts), now, errors)


def _predicted(jobs: Sequence[_Job], engine: Engine, device: str, waiting: Callable[[], None]) -> Iterable[dict]:
    if engine == "local" or not jobs:
        return map(_predict_part, jobs)
    gpus = 1.0 if device.startswith("cuda") or (not device and has_gpus()) else 0.0
    return (about for _, about in spread(_predict_part, jobs, gpus=gpus, waiting=waiting))


def _plan(to: Place, checkpoint: Path, names: Sequence[str], part: int, options: dict[str, Any]) -> list[list[str]]:
    """Which recordings are in which part. What an earlier run has planned stays, new ones go into new parts."""
    free = ("device", "workers", "patience")
    said = {"model": hashlib.sha256(checkpoint.read_bytes()).hexdigest()}
    defaults = {one.name: one.default for one in inspect.signature(Predictor).parameters.values()}
    whole = {name: value for name, value in {**defaults, **options}.items() if name not in (*free, "checkpoint")}
    said |= {name: str(value) for name, value in sorted(whole.items())}
    plan: list[list[str]] = []
    if (data := to.read(MANIFEST)) is not None:
        try:
            manifest = json.loads(data)
            plan, before = manifest["parts"], manifest["options"]
        except (ValueError, KeyError, TypeError):
            raise AvscError(f"{to}/{MANIFEST}: is damaged: delete this folder, or give another --out") from None
        if manifest["format"] != FORMAT or before != said:
            other = [name for name in {**before, **said} if before.get(name) != said.get(name)]
            raise AvscError(f"{to}: holds predictions with another {', '.join(other)}: give another --out")
    known = {name for names in plan for name in names}
    fresh = [name for name in names if name not in known]
    plan = plan + [fresh[first : first + part] for first in range(0, len(fresh), part)]
    to.write(MANIFEST, json.dumps({"format": FORMAT, "options": said, "parts": plan}).encode())
    return plan


@lru_cache(maxsize=1)
def _predictor(checkpoint: str, options: tuple[tuple[str, Any], ...]) -> Predictor:
    """Loaded once a process."""
    return Predictor(checkpoint, **dict(options))


def _predict_part(job: _Job) -> dict[str, Any]:
    """Predict a part and write it; what it holds."""
    predictor = _predictor(job.checkpoint, job.options)
    found = list(predictor.all(job.sources)) if job.sources else []  # type: ignore[arg-type]  # opened already
    about = {
        "recordings": len(found),
        "windows": sum(len(one.windows) for one in found),
        "errors": {one.path: _cause(one) for one in found if one.error},
    }
    columns = _columns(found, predictor.classes)
    kinds = dict.fromkeys(columns, "float64") | dict.fromkeys(("file", "modalities", "scene", "error"), "string")
    with writable(job.out):
        Place(job.out).write(job.name, parquet_bytes(columns, kinds, {ABOUT: json.dumps(about)}))
    return about


def _columns(found: Sequence[Prediction], classes: Sequence[str]) -> dict[str, list]:
    """file, start and end (seconds), modalities, scene, p_CLASS of each class, error: empty but in the row of a
    recording's error, which has nothing else."""
    rows: list[list] = []
    for one in found:
        for w in one.windows:
            label, values = classes[int(w.probabilities.argmax())], np.round(w.probabilities, DIGITS).tolist()
            rows.append([str(one.path), float(w.start), float(w.end), "+".join(w.modalities), label, *values, ""])
        if one.error:
            rows.append([str(one.path), *[None] * (4 + len(classes)), one.error])
    names = ["file", "start", "end", "modalities", "scene", *(f"p_{name}" for name in classes), "error"]
    return {name: [row[at] for row in rows] for at, name in enumerate(names)}


def _cause(one: Prediction) -> str:
    """An error without the name of its file and without what is told in brackets."""
    return one.error.removeprefix(f"{one.path}: ").split(" (")[0].split("; ")[0]
