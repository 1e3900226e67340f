"""Predict the scene of any media, window by window: `avsc predict` as Python."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from avsc_e2e.clip import MODALITIES, UNKNOWN, Clip, Window
from avsc_e2e.data.badmedia import OnBad
from avsc_e2e.data.loader import collate
from avsc_e2e.data.media import Decoder, decode_windows, mix_channels, probe
from avsc_e2e.devices import Precision, autocast, device
from avsc_e2e.errors import AvscError, MediaError
from avsc_e2e.inference import ONE_VIEW, head_probabilities, recordings, sampling, stored_calibration, timeline
from avsc_e2e.models.weights.checkpoint import load_model, read_notes
from avsc_e2e.outputs.output import SystemOutput
from avsc_e2e.segments import Prediction, Smooth, merged, smoothed
from avsc_e2e.transforms.frames import CentreCrop, Crops, TestTime

log = logging.getLogger(__name__)


class Predictor:
    """A model that stays loaded: `Predictor(checkpoint)(path)` predicts one recording, `all(paths)` many, whose windows
    share batches."""

    def __init__(
        self,
        checkpoint: str | os.PathLike | torch.nn.Module,
        *,
        hop: float = 0.0,
        smooth: Smooth = "none",
        batch_size: int = 32,
        on_bad: OnBad = "skip",
        where: str = "",
        precision: Precision | None = None,
        test_time: TestTime = ONE_VIEW,
        decoder: Decoder = "auto",
    ):
        """`hop`: seconds between windows; 0: one window after the other. `on_bad`: skip a window that cannot be read,
        mask the modality that cannot, or raise. `where`: a device. `precision`: by default that of the recipe that the
        model was trained with. Raises AvscError."""
        given = isinstance(checkpoint, torch.nn.Module)
        self.model = checkpoint if given else load_model(checkpoint)
        self.calibration = None if given else stored_calibration(checkpoint)
        self.device = device(where)
        self.model = self.model.to(self.device).eval()
        recipe = {} if given else json.loads(read_notes(checkpoint).get("recipe", "{}"))
        self.precision: Precision = precision or recipe.get("precision", "auto")
        self.classes = self.model.architecture.classes
        self.hop, self.smooth, self.batch_size, self.on_bad = hop, smooth, batch_size, on_bad
        self.test_time, self.decoder = test_time, decoder
        if hop < 0 or batch_size < 1:
            flag = f"--hop {hop:g}: give 0 or more" if hop < 0 else f"--batch-size {batch_size}: give 1 or more"
            raise AvscError(flag)

    def __call__(self, path: str | os.PathLike) -> Prediction:
        """Raises AvscError where nothing of the recording can be predicted."""
        (found,) = self.all([path])
        if not found.windows:
            raise AvscError(found.error)
        return found

    def all(self, paths: Iterable[str | os.PathLike]) -> Iterator[Prediction]:
        """Predictions of files, of all media files in folders, and of the recordings of stores, in order. A file that
        cannot be read is one whose windows are empty, with the error."""
        batch: list[Clip] = []
        open_files: list[_File] = []
        for path, store in recordings(paths):
            file = _File(str(path))
            open_files.append(file)
            try:
                if store:
                    file.windows = timeline(
                        self.model, path, store=store, batch_size=self.batch_size, calibration=self.calibration,
                        test_time=self.test_time,
                    )  # fmt: skip
                else:
                    for clip, end in self._clips(file):
                        batch.append(clip)
                        file.ends.append(end)
                        file.clips += 1
                        if len(batch) == self.batch_size:
                            self._decide(batch, open_files)
                            batch = []
            except AvscError as error:
                if self.on_bad == "raise":
                    raise
                file.error = str(error)
            file.complete = True
            while open_files and open_files[0].complete and open_files[0].decided:
                yield self._prediction(open_files.pop(0))
        if batch:
            self._decide(batch, open_files)
        for file in open_files:
            yield self._prediction(file)

    def _clips(self, file: _File) -> Iterator[tuple[Clip, float]]:
        arch, path = self.model.architecture, file.path
        want, media = sampling(arch), probe(path)
        there = {"audio": media.has_audio, "video": media.has_video}
        used = [name for name in arch.modalities if there[name]]
        if not used:
            have = " and ".join(name for name in MODALITIES if there[name])
            raise AvscError(f"{path}: has only {have}, and the model wants {' and '.join(arch.modalities)}")
        count = arch.frames * self.test_time.views
        crop = Crops(arch.size, self.test_time.crops) if self.test_time.crops > 1 else CentreCrop(arch.size, arch.crop)
        decoded = decode_windows(
            path,
            window=arch.window,
            hop=self.hop or arch.window,
            frames=((np.arange(count) + 0.5) * arch.window / count).tolist(),
            short_side=want.short_side,
            sample_rate=want.sample_rate,
            audio="audio" in used,
            video="video" in used,
            decoder=self.decoder,
        )
        for start, audio, video in decoded:
            for found in (audio, video):
                if isinstance(found, MediaError):
                    file.spoil(start, found)
            audio = None if audio is None or isinstance(audio, MediaError) else mix_channels(audio, want.channels)
            video = None if isinstance(video, MediaError) else video
            bad = ("audio" in used and audio is None) or ("video" in used and video is None)
            if bad and self.on_bad == "raise":
                raise AvscError(file.error)
            if (bad and self.on_bad == "skip") or (audio is None and video is None):
                continue
            yield crop(_clip(path, start, want, audio, video, count)), min(start + arch.window, media.duration or 1e9)

    @torch.inference_mode()
    def _decide(self, clips: list[Clip], files: list[_File]) -> None:
        """Decide a batch, and give each file its windows."""
        with autocast(self.precision, self.device):
            values = head_probabilities(self.model, collate(clips), self.test_time)["decision"]
        output = SystemOutput(
            tuple(clip.file for clip in clips), self.classes, values.cpu().double().numpy(),
            np.array([clip.start for clip in clips]),
        )  # fmt: skip
        output = self.calibration(output) if self.calibration else output
        waiting = iter([file for file in files for _ in range(file.clips - len(file.windows)) if file.clips])
        for clip, found in zip(clips, output.probabilities, strict=True):
            file = next(waiting)
            heard = tuple(name for name, there in zip(MODALITIES, clip.present.tolist(), strict=True) if there)
            file.windows.append(Window(clip.start, file.ends[len(file.windows)], heard, found))

    def _prediction(self, file: _File) -> Prediction:
        if not file.windows:
            return Prediction(file.path, [], [], file.error or f"{file.path}: no window of it can be read")
        steady = smoothed(np.stack([window.probabilities for window in file.windows]), self.smooth)
        windows = [w._replace(probabilities=p) for w, p in zip(file.windows, steady, strict=True)]
        segments = merged([w.start for w in windows], [w.end for w in windows], steady, self.classes)
        return Prediction(file.path, windows, segments, file.error)


class _File:
    """A recording under way."""

    def __init__(self, path: str):
        self.path, self.error, self.complete = path, "", False
        self.windows: list[Window] = []
        self.ends: list[float] = []
        self.clips = 0

    @property
    def decided(self) -> bool:
        return len(self.windows) >= self.clips

    def spoil(self, start: float, error: MediaError) -> None:
        """Note what could not be read: it costs that window alone."""
        if not self.error:
            log.warning("%s (at %.2f s)", error, start)
        self.error = self.error or str(error)


def _clip(path: str, start: float, want, audio: np.ndarray | None, video: np.ndarray | None, frames: int) -> Clip:
    samples, side = round(want.window * want.sample_rate) if want.audio else 0, want.short_side if want.video else 0
    return Clip(
        torch.zeros(want.channels, samples) if audio is None else torch.from_numpy(np.ascontiguousarray(audio)),
        torch.zeros(frames, 3, side, side, dtype=torch.uint8)
        if video is None
        else torch.from_numpy(video).permute(0, 3, 1, 2),
        torch.tensor(UNKNOWN),
        torch.tensor([audio is not None, video is not None]),
        path,
        start,
    )


def predict(
    checkpoint: str | os.PathLike | torch.nn.Module,
    paths: str | os.PathLike | Iterable[str | os.PathLike],
    **options,
) -> list[Prediction]:
    """The scene of recordings, window by window: `avsc predict` as Python. `paths` are media files, folders of them or
    stores; `options` are those of Predictor. Raises AvscError."""
    several = [paths] if isinstance(paths, (str, Path)) else list(paths)
    return list(Predictor(checkpoint, **options).all(several))
