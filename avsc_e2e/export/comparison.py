"""Exporting a checkpoint and comparing the file with it on real recordings."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from avsc_e2e.arguments import checked
from avsc_e2e.clip import MODALITIES, Row
from avsc_e2e.data.extensions import media_files
from avsc_e2e.data.loader import loader
from avsc_e2e.data.media import probe
from avsc_e2e.errors import AvscError
from avsc_e2e.export.deployed import Deployed, Modality
from avsc_e2e.export.onnx import Precision, export_onnx, export_program
from avsc_e2e.inference import evaluation_dataset, sampling, stored_calibration
from avsc_e2e.models.ensemble import Ensemble
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.checkpoint import load_model

Format = Literal["onnx", "torch-export"]


@dataclass(frozen=True)
class Exported:
    """An exported file and its comparison with the checkpoint."""

    path: Path
    size: int
    """Bytes."""
    windows: int = 0
    """Number of compared windows; 0 without recordings."""
    difference: float = 0.0
    """Largest difference between probabilities of the decision."""
    agreement: float = 0.0
    """Share of windows with the same decision."""
    milliseconds: float = 0.0
    """Per window, of the exported model on one core."""

    def text(self) -> str:
        """What `avsc export` prints."""
        line = f"{self.path}: {self.size / 1e6:.1f} MB"
        if self.windows:
            line += (
                f"; on {self.windows} windows the largest difference of a probability is {self.difference:.1e}, "
                f"{100 * self.agreement:.1f} % have the same decision, {self.milliseconds:.1f} ms a window on one core"
            )
        return line


@checked
def export_checkpoint(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    form: Format = "onnx",
    precision: Precision = "fp32",
    modality: Modality = "both",
    media: Sequence[str | os.PathLike[str]] = (),
) -> Exported:
    """Write a checkpoint as an ONNX graph or a torch.export program, and compare them on the windows of `media`. Raises
    AvscError."""
    out = Path(out)
    if not out.parent.is_dir():
        raise AvscError(f"{out}: the folder {out.parent} does not exist; make it first")
    model = load_model(checkpoint)
    deployed = Deployed(model, modality, stored_calibration(checkpoint)).eval()
    metadata = deployed.metadata(sampling(model.architecture).short_side)
    batches = list(windows_of(deployed, model, media))
    if form == "onnx":
        export_onnx(deployed, out, metadata, precision)
    else:
        export_program(deployed, out, metadata)
    size = out.stat().st_size
    if not batches:
        return Exported(out, size)
    with torch.inference_mode():
        expected = np.concatenate(
            [deployed(*(torch.from_numpy(one[name]) for name in deployed.inputs))[0].numpy() for one in batches]
        )
    run = _onnx_runner(out) if form == "onnx" else _program_runner(out, deployed.inputs)
    run(batches[0])
    began = time.process_time()
    found = np.concatenate([run(one) for one in batches])
    seconds = time.process_time() - began
    return Exported(
        out,
        size,
        len(found),
        float(np.abs(found - expected).max()),
        float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        1000 * seconds / len(found),
    )


def windows_of(
    deployed: Deployed, model: SceneNet | Ensemble, media: Sequence[Path]
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of eight windows of recordings, as the deployed model takes them. Windows without any of its modalities
    are left out."""
    takes, rows = [name in deployed.takes for name in MODALITIES], []
    for path in media_files(media):
        found = probe(path)
        there = {"audio": found.has_audio, "video": found.has_video}
        paths = {name: str(path) for name in deployed.takes if there[name]}
        if paths:
            rows.append(Row(str(path), **paths, duration=found.duration))
    if not rows:
        return
    for clip in loader(evaluation_dataset(model, rows, on_bad="skip"), 8, shuffle=False):
        present = clip.present & torch.tensor(takes)
        kept = present.any(dim=1) if len(deployed.takes) > 1 else present[:, takes.index(True)]
        if not kept.any():
            continue
        given = {
            "audio": clip.audio.float(),
            "video": clip.video.permute(0, 1, 3, 4, 2).contiguous(),
            "present": present,
        }
        yield {name: given[name][kept].numpy() for name in deployed.inputs}


def _onnx_runner(path: Path):
    from avsc_e2e.export.runtime import OnnxModel

    model = OnnxModel(path, threads=1)
    return lambda batch: model(**batch)["probabilities"]


def _program_runner(path: Path, inputs: Sequence[str]):
    program = torch.export.load(path).module()

    def run(batch: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            return program(*(torch.from_numpy(batch[name]) for name in inputs))[0].numpy()

    return run
