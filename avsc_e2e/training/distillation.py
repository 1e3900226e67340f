"""Teachers: models or outputs of systems whose probabilities a student learns (Hinton et al., 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from avsc_e2e.clip import Clip
from avsc_e2e.data.dataset import Sampling
from avsc_e2e.errors import AvscError
from avsc_e2e.inference import sampling
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.weights.checkpoint import load_model
from avsc_e2e.outputs.output import SystemOutput, read_output

FLOOR = 1e-7
"""Smallest probability of a teacher, so that a temperature can be applied to its logarithm."""


class Teachers(nn.Module):
    """Models and outputs whose probabilities are averaged. Checkpoints do not contain them."""

    def __init__(self, paths: Sequence[str | Path], classes: Sequence[str]):
        """`paths`: checkpoints (.safetensors) and system outputs (.csv). Raises AvscError if a class is missing."""
        super().__init__()
        models, self.outputs = [], []
        for path in map(Path, paths):
            if path.suffix == ".csv":
                self.outputs.append(Output(path, classes))
                continue
            model = load_model(path)
            if set(model.architecture.classes) != set(classes):
                raise AvscError(f"--distil.teachers {path}: its classes are not those of the data")
            models.append(model)
        self.models = nn.ModuleList(models).requires_grad_(False)
        for index, model in enumerate(models):
            order = [model.architecture.classes.index(name) for name in classes]
            self.register_buffer(f"order_{index}", torch.tensor(order), persistent=False)

    def train(self, mode: bool = True) -> Teachers:
        return super().train(False)

    def state_dict(self, *args, **kwargs) -> dict:
        """Empty, because a resumed run reads its teachers again."""
        return kwargs.get("destination") or {}

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        pass

    @torch.no_grad()
    def probabilities(self, batch: Clip, given: Tensor | None, temperature: float) -> Tensor:
        """Mean probabilities (B, K) at a temperature, from a batch of the loader and the sum (B, K) of the outputs'
        probabilities."""
        total: Any = 0.0 if given is None else soften(given / len(self.outputs), temperature) * len(self.outputs)
        for index, model in enumerate(self.models):
            clip = model.preprocess(as_seen_by(batch, model.architecture))
            found = model.decide(model(clip), clip.present)
            total = total + soften(found[:, getattr(self, f"order_{index}")], temperature)
        return total / (len(self.models) + len(self.outputs))

    def look_up(self, batch: Clip) -> Tensor | None:
        """Sum (B, K) of the outputs' probabilities of the batch's clips, on the CPU. Raises AvscError for a recording
        that an output lacks."""
        if not self.outputs:
            return None
        rows = [
            sum(output.at(file, float(start)) for output in self.outputs)
            for file, start in zip(batch.file, batch.start, strict=True)  # type: ignore[call-overload]  # a batch
        ]
        return torch.from_numpy(np.stack(rows)).float()


class Output:
    """A system output by recording and time."""

    def __init__(self, path: Path, classes: Sequence[str]):
        self.path = path
        output: SystemOutput = read_output(path, tuple(classes))
        order = [output.classes.index(name) for name in classes]
        self.starts: dict[str, list[float]] = {}
        self.rows: dict[str, list[np.ndarray]] = {}
        starts = output.start if output.start is not None else np.zeros(len(output))
        for file, start, row in zip(output.files, starts, output.probabilities[:, order], strict=True):
            self.starts.setdefault(file, []).append(float(start))
            self.rows.setdefault(file, []).append(row / row.sum())

    def at(self, file: str, start: float) -> np.ndarray:
        """Probabilities (K,) of the segment with the nearest start. Raises AvscError if the output lacks the
        recording."""
        if file not in self.starts:
            raise AvscError(f"--distil.teachers {self.path}: has no row of {file}; predict the training set with it")
        return self.rows[file][int(np.abs(np.array(self.starts[file]) - start).argmin())]


def soften(probabilities: Tensor, temperature: float) -> Tensor:
    """Apply a temperature to probabilities (B, K)."""
    return (probabilities.float().clamp(min=FLOOR).log() / temperature).softmax(dim=1)


class Needs(NamedTuple):
    """The clips that the loader must give for a student and its teachers."""

    sampling: Sampling
    size: int
    """Side of the square that is cropped, pixels."""


def needs(student: Architecture, teachers: Sequence[Architecture], short_side: int = 0) -> Needs:
    """The clips that serve all models: both modalities if any model takes both, the largest frames, and the largest
    number of them. Raises AvscError if sample rates or windows differ."""
    everybody = (student, *teachers)
    wants = [sampling(arch, short_side) for arch in everybody]
    if len({want.window for want in wants}) > 1:
        raise AvscError("--distil.teachers: their window is not the student's; set --model.window to theirs")
    rates = {arch.sample_rate for arch in everybody if arch.audio}
    if len(rates) > 1:
        raise AvscError(
            f"--distil.teachers: sample rates differ ({sorted(rates)} Hz); set --model.sample-rate to theirs"
        )
    frames = max(want.frames for want in wants)
    if any(frames % want.frames for want, arch in zip(wants, everybody, strict=True) if arch.video):
        raise AvscError("--distil.teachers: numbers of frames must divide each other; set --model.frames")
    return Needs(
        Sampling(
            window=wants[0].window,
            audio=any(want.audio for want in wants),
            sample_rate=max(rates, default=wants[0].sample_rate),
            channels=max(want.channels for want in wants),
            video=any(want.video for want in wants),
            frames=frames,
            short_side=max(want.short_side for want in wants if want.video or not any(w.video for w in wants)),
        ),
        max((arch.size for arch in everybody if arch.video), default=student.size),
    )


def as_seen_by(clip: Clip, arch: Architecture) -> Clip:
    """A batch reduced to the modalities, channels, frames and size of one model."""
    audio, video, present = clip.audio, clip.video, clip.present
    heard = torch.tensor([bool(arch.audio), bool(arch.video)])
    if not heard.all():
        present = present & heard.to(present.device, non_blocking=True)
    if not arch.audio:
        audio = audio[:, :, :0]
    elif arch.input_channels == 1 and audio.shape[1] == 2:
        audio = audio.mean(dim=1, keepdim=True)
    if not arch.video:
        video = video[:, :, :, :0, :0]
    else:
        step = video.shape[1] // arch.frames
        video = video[:, step // 2 :: step]
        if video.shape[-1] != arch.size:
            small = interpolate(
                video.flatten(0, 1).float(), size=(arch.size, arch.size), mode="bilinear", antialias=True
            )
            video = small.round().clamp(0, 255).to(torch.uint8).unflatten(0, video.shape[:2])
    return clip._replace(audio=audio, video=video, present=present)
