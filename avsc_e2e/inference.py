"""From a model and clips to probabilities: batches, and the rows of a data set."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch

from avsc_e2e import processes
from avsc_e2e.clip import Clip, Row
from avsc_e2e.data.badmedia import OnBad
from avsc_e2e.data.dataset import ClipDataset, Sampling
from avsc_e2e.data.loader import loader
from avsc_e2e.data.media import Decoder
from avsc_e2e.data.store.reader import Store
from avsc_e2e.devices import Precision, autocast, device
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.ensemble import Ensemble
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.trunk import settled
from avsc_e2e.models.weights.checkpoint import read_notes
from avsc_e2e.outputs.calibration import Calibration
from avsc_e2e.outputs.output import SystemOutput
from avsc_e2e.transforms.frames import CentreCrop, Crops, TestTime

CALIBRATION = "calibration"
"""The metadata key of a checkpoint that holds a calibration."""


ONE_VIEW = TestTime()


def sampling(architecture: Architecture, short_side: int = 0) -> Sampling:
    """The sampling of recordings for a model of this architecture. The shorter side of frames is `short_side` (pixels),
    by default that of training, or slightly larger than the model's input."""
    architecture = settled(architecture)
    larger = max(8 / 7, 1 / (architecture.crop or 1))
    return Sampling(
        window=architecture.window,
        audio=bool(architecture.audio),
        sample_rate=architecture.sample_rate,
        channels=architecture.input_channels,
        video=bool(architecture.video),
        frames=architecture.frames,
        short_side=short_side or architecture.short_side or math.ceil(architecture.size * larger),
    )


@torch.inference_mode()
def predict_rows(
    model: SceneNet | Ensemble,
    dataset: ClipDataset,
    *,
    batch_size: int = 32,
    workers: int = 0,
    calibration: Calibration | None = None,
    test_time: TestTime = ONE_VIEW,
    precision: Precision = "auto",
    changes: Mapping[str, Callable[[Clip], Clip]] = MappingProxyType({}),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, SystemOutput]:
    """A system output of each head, and "decision" of their decision-level fusion, by `calibration` if given, with a
    row for every clip of the dataset; under the name of each of `changes`, the decision on batches changed by it. If a
    head's modality is missing from a clip, its output is that for silence or black frames. `test_time` is that of the
    dataset. Under torchrun each process predicts its share of the clips, each clip once, and all get the whole."""
    where = device()
    model = model.to(where).eval()
    # Without torchrun, every SLURM task predicts the whole.
    rank = processes.rank() if processes.count() > 1 else 0
    files: list[str] = []
    starts: list[float] = []
    found: dict[str, list[np.ndarray]] = {}
    for batch in loader(dataset, batch_size, shuffle=False, workers=workers, rank=rank, replicas=processes.count()):
        files += batch.file
        starts += [float(start) for start in batch.start]  # type: ignore[attr-defined]  # a batch
        with autocast(precision, where):
            heads = head_probabilities(model, batch, test_time)
            for name, change in changes.items():
                heads[name] = head_probabilities(model, change(batch), test_time)["decision"]
        for name, values in heads.items():
            found.setdefault(name, []).append(values.cpu().double().numpy())
        if progress and not processes.rank():
            progress(min(len(files) * processes.count(), len(dataset)), len(dataset))
    parts = processes.gather((files, starts, {name: np.concatenate(values) for name, values in found.items()}))
    files = [file for part in parts for file in part[0]]
    starts = [start for part in parts for start in part[1]]
    order = np.arange(len(files))
    if len(parts) > 1:
        place = {(segment.row.file, segment.start): index for index, segment in enumerate(dataset.segments or ())}
        order = np.argsort([place[key] for key in zip(files, starts, strict=True)], kind="stable")
    outputs = {
        name: SystemOutput(
            tuple(files[i] for i in order),
            dataset.classes,
            np.concatenate([part[2][name] for part in parts if name in part[2]])[order],
            np.array(starts)[order],
        )
        for name in next(part[2] for part in parts if part[2])
    }
    if calibration is None:
        return outputs
    return outputs | {name: calibration(outputs[name]) for name in ("decision", *changes)}


def stored_calibration(checkpoint: str | os.PathLike) -> Calibration | None:
    """The calibration in a checkpoint (`avsc calibrate --checkpoint`); None if it has none. Raises AvscError."""
    text = read_notes(checkpoint).get(CALIBRATION)
    return Calibration.from_json(json.loads(text)) if text else None


def head_probabilities(
    model: SceneNet | Ensemble, batch: Clip, test_time: TestTime = ONE_VIEW
) -> dict[str, torch.Tensor]:
    """Probabilities (B, K) of every head and of the decision, the mean over all views of each clip, from a batch of the
    loader."""
    where = next(model.parameters()).device
    clip = batch._replace(
        **{name: getattr(batch, name).to(where, non_blocking=True) for name in ("audio", "video", "target", "present")}
    )
    total: dict[str, torch.Tensor] = {}
    views = list(views_of(clip, model.architecture, test_time))
    for view in views:
        view = model.preprocess(view)
        logits = model(view)
        found = {name: values.float().softmax(dim=1) for name, values in logits.items()}
        found["decision"] = model.decide(logits, view.present)
        total = {name: total[name] + values if total else values for name, values in found.items()}
    return {name: values / len(views) for name, values in total.items()} if len(views) > 1 else total


def views_of(clip: Clip, architecture: Architecture, test_time: TestTime) -> Iterable[Clip]:
    """The views of a batch whose frames (B, crops * frames * views, 3, H, W) hold all crops and sets of frames, each
    as the model takes it, and each mirrored with its ears swapped."""
    crops, views, frames = test_time.crops, test_time.views, architecture.frames
    parts = [clip.video]
    if architecture.video and crops * views > 1:
        images = clip.video.unflatten(1, (crops, frames, views))
        parts = [images[:, crop, :, view] for crop in range(crops) for view in range(views)]
    for video in parts:
        yield clip._replace(video=video)
        if test_time.flip:
            yield clip._replace(video=video.flip(-1), audio=clip.audio.flip(1))


def evaluation_dataset(
    model: SceneNet | Ensemble,
    rows: Sequence[Row],
    short_side: int = 0,
    *,
    store: Store | None = None,
    on_bad: OnBad = "raise",
    bad_media: str | os.PathLike[str] | None = None,
    test_time: TestTime = ONE_VIEW,
    decoder: Decoder = "auto",
) -> ClipDataset:
    """The fixed windows of `rows`, as the model wants them, with the frames of all views."""
    arch = model.architecture
    want = sampling(arch, short_side)
    several = test_time.crops > 1
    return ClipDataset(
        rows,
        arch.classes,
        dataclasses.replace(want, frames=want.frames * test_time.views),
        Crops(arch.size, test_time.crops) if several else CentreCrop(arch.size, arch.crop),
        store=store,
        on_bad=on_bad,
        bad_media=bad_media,
        decoder=decoder,
    )
