"""Prediction of a data set's segments on a Ray cluster, a task for some batches: the outputs of one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from avsc_e2e.clip import Clip, Row
from avsc_e2e.cluster import has_gpus, spread
from avsc_e2e.data.store.layout import is_store
from avsc_e2e.data.store.reader import open_store
from avsc_e2e.inference import evaluation_dataset, predict_rows, stored_calibration
from avsc_e2e.models.ensemble import Ensemble
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.checkpoint import load_model
from avsc_e2e.outputs.output import SystemOutput

BATCH = 32
"""Segments, as `predict_rows` has them."""
BATCHES = 32
"""Of a task."""


class _Job(NamedTuple):
    """Some successive segments."""

    checkpoint: str
    root: str
    rows: tuple[Row, ...]
    """That they are of."""
    skipped: int
    """Segments of these rows that come before."""
    segments: int
    short_side: int
    changes: Mapping[str, Callable[[Clip], Clip]]


def predict_on_cluster(
    checkpoint: Path,
    root: str,
    rows: Sequence[Row],
    short_side: int,
    changes: Mapping[str, Callable[[Clip], Clip]],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, SystemOutput]:
    """As `predict_rows` of all fixed segments of `rows`, in the same batches. The checkpoint and the data, a store or
    its URL, or media, must be where all machines see them. Raises AvscError."""
    path = checkpoint.resolve()
    segments = evaluation_dataset(_model(str(path)), rows, short_side).segments or []
    index = {row.file: number for number, row in enumerate(rows)}
    places = [index[segment.row.file] for segment in segments]
    jobs = []
    for first in range(0, len(segments), BATCH * BATCHES):
        beyond = min(first + BATCH * BATCHES, len(segments))
        begin = places.index(places[first])  # of the first row's segments
        some = tuple(rows[places[first] : places[beyond - 1] + 1])
        jobs.append(_Job(str(path), root, some, first - begin, beyond - first, short_side, changes))
    parts: list[dict[str, SystemOutput]] = [{} for _ in jobs]
    done = 0
    for number, outputs in spread(_predict_segments, jobs, gpus=1.0 if has_gpus() else 0.0):
        parts[number] = outputs
        done += jobs[number].segments
        if progress:
            progress(done, len(segments))
    outputs = {name: _joined([part[name] for part in parts if part]) for name in next(part for part in parts if part)}
    calibration = stored_calibration(path)
    return outputs | ({name: calibration(outputs[name]) for name in ("decision", *changes)} if calibration else {})


@lru_cache(maxsize=1)
def _model(checkpoint: str) -> SceneNet | Ensemble:
    """Loaded once a process."""
    return load_model(checkpoint)


def _predict_segments(job: _Job) -> dict[str, SystemOutput]:
    """The outputs of a job's segments; none where none of them can be read."""
    model = _model(job.checkpoint)
    store = open_store(job.root) if is_store(job.root) else None
    dataset = evaluation_dataset(model, job.rows, job.short_side, store=store, on_bad="mask")
    dataset.segments = (dataset.segments or [])[job.skipped : job.skipped + job.segments]
    return predict_rows(model, dataset, batch_size=BATCH, changes=job.changes)


def _joined(outputs: Sequence[SystemOutput]) -> SystemOutput:
    files = tuple(file for output in outputs for file in output.files)
    probabilities = np.concatenate([output.probabilities for output in outputs])
    return SystemOutput(files, outputs[0].classes, probabilities, np.concatenate([output.start for output in outputs]))
