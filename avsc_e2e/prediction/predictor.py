"""Predict the scene of any recording, window by window: `avsc predict` as Python."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import torch

from avsc_e2e import devices
from avsc_e2e.arguments import checked
from avsc_e2e.clip import MODALITIES, Clip, Window
from avsc_e2e.data.badmedia import OnBad
from avsc_e2e.data.loader import collate
from avsc_e2e.data.media import Decoder
from avsc_e2e.devices import Precision, autocast
from avsc_e2e.errors import AvscError
from avsc_e2e.inference import ONE_VIEW, head_probabilities, sampling, stored_calibration
from avsc_e2e.models.ensemble import Ensemble
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.checkpoint import load_model, read_notes
from avsc_e2e.outputs.calibration import Calibration
from avsc_e2e.outputs.output import SystemOutput
from avsc_e2e.prediction.inputs import Given, recordings
from avsc_e2e.prediction.reading import PATIENCE, Part, Reading, Workers, parts
from avsc_e2e.prediction.recordings import Cut, Source
from avsc_e2e.segments import Prediction, Smooth, merged, smoothed
from avsc_e2e.transforms.frames import CentreCrop, Crops, TestTime

Progress = Callable[[int, int, str], None]
"""Called with the bytes done so far, the total bytes, and a note."""


class Predictor:
    """A model that stays loaded: `Predictor(checkpoint)(recording)` predicts one recording, `windows` gives its windows
    as they are decided, `all` predicts many recordings, whose windows share batches."""

    @checked
    def __init__(
        self,
        checkpoint: str | os.PathLike | SceneNet | Ensemble,
        *,
        hop: float = 0.0,
        smooth: Smooth = "none",
        batch_size: int = 32,
        on_bad: OnBad = "skip",
        device: str = "",
        workers: int = 0,
        precision: Precision | None = None,
        test_time: TestTime = ONE_VIEW,
        calibration: Calibration | None = None,
        decoder: Decoder = "auto",
        patience: float = PATIENCE,
    ):
        """`hop`: seconds between windows; 0: one window after the other. `on_bad`: skip a window that cannot be read,
        mask the modality that cannot, or raise. `device`: cpu, cuda or cuda:N; empty: a
        GPU if there is one. `workers`: processes that read recordings; 0: this
        one does; `patience`: seconds after which such a process is given up, and its recording with it. `precision`: by
        default that of the recipe that the model was trained with; `calibration`: that of the checkpoint. Raises
        AvscError."""
        for flag, value, least in (("hop", hop, 0), ("batch-size", batch_size, 1), ("workers", workers, 0)):
            if not value >= least:
                raise AvscError(f"--{flag} {value:g}: give {least} or more")
        if not patience > 0:
            raise AvscError(f"--patience {patience:g}: give seconds above 0")
        self.device = devices.device(device)
        self.model: SceneNet | Ensemble
        if isinstance(checkpoint, (str, os.PathLike)):
            self.model, notes = load_model(checkpoint), read_notes(checkpoint)
            calibration = calibration or stored_calibration(checkpoint)
        else:
            self.model, notes = checkpoint, {}
        self.model = self.model.to(self.device).eval()
        self.calibration = calibration
        recipe = json.loads(notes.get("recipe", "{}"))
        self.precision: Precision = precision or recipe.get("precision", "auto")
        self.classes = self.model.architecture.classes
        self.smooth, self.batch_size, self.workers, self.test_time = smooth, batch_size, workers, test_time
        self.patience, self.reading = patience, self._reading(hop, on_bad, decoder)

    def _reading(self, hop: float, on_bad: OnBad, decoder: Decoder) -> Reading:
        arch, count = self.model.architecture, self.model.architecture.frames * self.test_time.views
        want, crops = sampling(arch), self.test_time.crops
        return Reading(
            Cut(
                arch.window,
                hop or arch.window,
                tuple(((np.arange(count) + 0.5) * arch.window / count).tolist()),
                want.short_side,
                arch.size if want.video else 0,
                want.sample_rate,
                arch.modalities,
                decoder,
                threads=0,
            ),
            want.channels,
            Crops(arch.size, crops) if crops > 1 else CentreCrop(arch.size, arch.crop),
            on_bad,
        )

    def __call__(self, recording: Given) -> Prediction:
        """The prediction of one recording. Raises AvscError if nothing of it can be predicted."""
        (found,) = self.all([recording])
        if not found.windows:
            raise AvscError(found.error)
        return found

    def windows(self, recording: Given) -> Iterator[Window]:
        """The windows of a recording, in batches as they are decided, without smoothing. Raises AvscError if there are
        none."""
        given = 0
        for file in self._decided(recordings([recording])):
            yield from file.windows[given:]
            given = len(file.windows)
        if not given:
            raise AvscError(file.error)

    def all(self, given: Given | Iterable[Given], progress: Progress | None = None) -> Iterator[Prediction]:
        """Predictions of files, of all media files in folders, and of the recordings of stores, in order. A file that
        cannot be read has no windows and an error. Raises AvscError for a path that is not there."""
        sources = recordings(given)
        ready: dict[int, Prediction] = {}
        following = 0
        for file in self._decided(sources, progress):
            if file.complete:
                ready[file.index] = self._prediction(file)
            while following in ready:
                yield ready.pop(following)
                following += 1

    def _decided(self, sources: Sequence[Source], progress: Progress | None = None) -> Iterator[_File]:
        """Recordings in progress: each is yielded when some of its windows are decided, and finally when all are."""
        if self.workers:
            read: Iterator[Part] = Workers(self.reading, self.workers, self.patience).parts(sources)
        else:
            read = chain.from_iterable(parts(index, source, self.reading) for index, source in enumerate(sources))
        told = _Told(sources, progress) if progress else None
        files: dict[int, _File] = {}
        batch: list[tuple[_File, Clip, float]] = []
        for part in read:
            if part.error and self.reading.on_bad == "raise":
                raise part.error
            file = files.setdefault(part.index, _File(part.index, sources[part.index].name))
            for clip, end in zip(part.clips, part.ends, strict=True):
                batch.append((file, clip, end))
                file.waiting += 1
                if len(batch) == self.batch_size:
                    yield from self._decide(batch)
                    batch = []
            if part.done:
                file.read, file.error = True, str(part.error or "")
                del files[part.index]
                if file.complete:
                    yield file
            if told:
                told(part)
        if batch:
            yield from self._decide(batch)

    def _decide(self, batch: Sequence[tuple[_File, Clip, float]]) -> list[_File]:
        """Decide the windows of a batch and return their files."""
        found = self.probabilities([clip for _, clip, _ in batch])
        for (file, clip, end), values in zip(batch, found, strict=True):
            file.windows.append(window(clip, end, values))
            file.waiting -= 1
        return list(dict.fromkeys(file for file, _, _ in batch))

    def probabilities(self, clips: Sequence[Clip]) -> np.ndarray:
        """Calibrated probabilities (B, K) of clips from `Reading`."""
        return self.heads(clips)["decision"]

    @torch.inference_mode()
    def heads(self, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
        """Probabilities (B, K) of each head, not calibrated, and of "decision", calibrated."""
        with autocast(self.precision, self.device):
            found = head_probabilities(self.model, collate(list(clips)), self.test_time)
        values = {name: value.cpu().double().numpy() for name, value in found.items()}
        if self.calibration:
            starts = np.array([clip.start for clip in clips])
            output = SystemOutput(tuple(clip.file for clip in clips), self.classes, values["decision"], starts)
            values["decision"] = self.calibration(output).probabilities
        return values

    def clips(self, recording: Given, hop: float = 0.0) -> Iterator[tuple[Clip, float]]:
        """The clip of each window of one recording with the window's end (seconds). `hop`: seconds between windows, in
        place of the predictor's. Raises AvscError where there is no window."""
        reading = replace(self.reading, cut=replace(self.reading.cut, hop=hop)) if hop else self.reading
        (source,) = recordings([recording])
        given = 0
        for part in parts(0, source, reading):
            yield from zip(part.clips, part.ends, strict=True)
            given += len(part.clips)
            if part.error and not given:
                raise part.error

    def _prediction(self, file: _File) -> Prediction:
        if not file.windows:
            return Prediction(file.name, [], [], file.error)
        steady = smoothed(np.stack([window.probabilities for window in file.windows]), self.smooth)
        windows = [w._replace(probabilities=p) for w, p in zip(file.windows, steady, strict=True)]
        segments = merged([w.start for w in windows], [w.end for w in windows], steady, self.classes)
        return Prediction(file.name, windows, segments, file.error)


class _File:
    """A recording in progress."""

    def __init__(self, index: int, name: str):
        self.index, self.name, self.error = index, name, ""
        self.windows: list[Window] = []
        self.waiting = 0
        """Number of clips that are read but not decided."""
        self.read = False

    @property
    def complete(self) -> bool:
        return self.read and not self.waiting


class _Told:
    """Turns parts into progress."""

    def __init__(self, sources: Sequence[Source], progress: Progress):
        self.weights = [source.weight for source in sources]
        self.total, self.progress = sum(self.weights), progress
        self.before = 0.0
        self.under_way: dict[int, float] = {}
        self.files = 0

    def __call__(self, part: Part) -> None:
        self.under_way[part.index] = part.share * self.weights[part.index]
        if part.done:
            self.before += self.under_way.pop(part.index)
            self.files += 1
        done = self.before + sum(self.under_way.values())
        self.progress(round(done), round(self.total), f"{self.files} of {len(self.weights)} recordings")


def window(clip: Clip, end: float, probabilities: np.ndarray) -> Window:
    """What is said of a clip that ends at `end` (seconds), from its probabilities (K,)."""
    based = tuple(name for name, there in zip(MODALITIES, clip.present.tolist(), strict=True) if there)
    return Window(clip.start, end, based, probabilities)


def predict(
    checkpoint: str | os.PathLike | torch.nn.Module, given: Given | Iterable[Given], **options
) -> list[Prediction]:
    """The scene of recordings, window by window: `avsc predict` as Python. `given` are media files, folders of them,
    stores, URLs, the bytes of media files, or arrays (`Recording`); `options` are those of Predictor. Raises
    AvscError."""
    return list(Predictor(checkpoint, **options).all(given))


def timeline(model: torch.nn.Module, recording: Given, **options) -> list[Window]:
    """The windows of one recording; `options` are those of Predictor. Raises AvscError."""
    return Predictor(model, **options)(recording).windows
