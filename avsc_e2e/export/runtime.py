"""Prediction from an exported ONNX file with onnxruntime and numpy: no torch is needed.

Axes: B windows of a batch, C channels, N samples, T frames, H, W pixels, K classes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from avsc_e2e.clip import MODALITIES, Window
from avsc_e2e.data.extensions import media_files
from avsc_e2e.data.media import decode_windows, mix_channels, probe
from avsc_e2e.errors import AvscError, MediaError
from avsc_e2e.segments import Prediction, merged

BATCH = 16
"""Windows in a batch."""


class OnnxModel:
    """A model that `avsc export` wrote."""

    def __init__(self, path: str | os.PathLike, threads: int = 0):
        """`threads` of onnxruntime; 0: as many as there are cores. Raises AvscError for another file."""
        try:
            import onnxruntime
        except ImportError:
            raise AvscError(f"{path}: needs onnxruntime; pip install 'avsc-e2e[runtime]'") from None
        self.path = Path(path)
        if not self.path.is_file():
            raise AvscError(f"{path}: no such file; `avsc export` writes one from a checkpoint")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            told = self.session.get_modelmeta().custom_metadata_map
            values = {name: json.loads(told[name]) for name in _TOLD}
        except Exception as error:  # onnxruntime has a type of its own for each kind of damage
            reason = str(error).splitlines()[0]
            raise AvscError(f"{path}: is not a model that `avsc export` wrote ({reason})") from None
        self.classes: tuple[str, ...] = tuple(values["classes"])
        self.modalities: tuple[str, ...] = tuple(values["modalities"])
        self.sample_rate, self.channels = int(values["sample_rate"]), int(values["channels"])
        self.window, self.frame_times = float(values["window"]), [float(time) for time in values["frame_times"]]
        self.size, self.crop, self.short_side = int(values["size"]), float(values["crop"]), int(values["short_side"])
        self.precision = told.get("precision", "fp32")

    def __call__(
        self, audio: np.ndarray | None = None, video: np.ndarray | None = None, present: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Probabilities (B, K) of the decision ("probabilities") and of each head, from audio (B, C, N) float32, video
        (B, T, size, size, 3) uint8 and present (B, 2) bool, as far as the model takes them."""
        given = {"audio": audio, "video": video, "present": present}
        wanted = {one.name: given[one.name] for one in self.session.get_inputs()}
        missing = [name for name, values in wanted.items() if values is None]
        if missing:
            raise AvscError(f"{self.path}: the model needs {', '.join(missing)}")
        names = [one.name for one in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, wanted), strict=True))

    def all(self, paths: Iterable[str | os.PathLike], hop: float = 0.0) -> Iterator[Prediction]:
        """The timelines of recordings and of folders of them; an error stands in for one that cannot be read."""
        for path in media_files(paths):
            try:
                windows = list(self.timeline(path, hop))
            except MediaError as error:
                yield Prediction(str(path), [], [], str(error))
                continue
            probabilities = np.stack([window.probabilities for window in windows])
            starts, ends = ([getattr(window, name) for window in windows] for name in ("start", "end"))
            yield Prediction(str(path), windows, merged(starts, ends, probabilities, self.classes))

    def timeline(self, path: str | os.PathLike, hop: float = 0.0) -> Iterator[Window]:
        """Predict a recording window by window, every `hop` seconds (0: the length of a window). Windows that cannot be
        read are left out. Raises MediaError if no window can be read."""
        media = probe(path)
        there = {"audio": media.has_audio, "video": media.has_video}
        if not any(there[name] for name in self.modalities):
            wants = " and ".join(self.modalities)
            raise MediaError(str(path), f"has no {wants}, which the model needs")
        decoded = decode_windows(
            path,
            window=self.window,
            hop=hop or self.window,
            frames=self.frame_times,
            short_side=self.short_side,
            sample_rate=self.sample_rate,
            audio="audio" in self.modalities,
            video="video" in self.modalities,
            threads=0,
        )
        readable, last = 0, None
        for batch in _batches(decoded, BATCH):
            kept = []
            for one in batch:
                errors = [part for part in (one.audio, one.frames) if isinstance(part, MediaError)]
                last = errors[0] if errors else last
                parts = [None if isinstance(part, MediaError) else part for part in (one.audio, one.frames)]
                if any(part is not None for part in parts):
                    kept.append((one.start, *parts))
            if kept:
                readable += len(kept)
                yield from self._windows(kept, media.duration)
        if not readable:
            raise last or MediaError(str(path), "holds nothing that can be read")

    def _windows(self, kept: list[tuple], duration: float) -> Iterator[Window]:
        count = round(self.window * self.sample_rate)
        audio = np.zeros((len(kept), self.channels, count), np.float32)
        video = np.zeros((len(kept), len(self.frame_times), self.size, self.size, 3), np.uint8)
        present = np.zeros((len(kept), 2), bool)
        for index, (_, heard, seen) in enumerate(kept):
            present[index] = heard is not None, seen is not None
            if heard is not None:
                audio[index] = mix_channels(heard, self.channels)
            if seen is not None:
                video[index] = square(seen, self.size, self.crop)
        found = self(audio, video, present)["probabilities"]
        for (start, *_), there, probabilities in zip(kept, present, found, strict=True):
            modalities = tuple(name for name, one in zip(MODALITIES, there, strict=True) if one)
            end = min(start + self.window, duration or self.window)
            yield Window(start, end, modalities, probabilities.astype(np.float64))


_TOLD = (
    "classes", "modalities", "sample_rate", "channels", "window", "frame_times", "size", "crop", "short_side",
)  # fmt: skip
"""Metadata of a file that `avsc export` wrote."""


def square(frames: np.ndarray, size: int, crop: float = 1.0) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 as (T, size, size, 3): the square in the middle, whose side is the share `crop` of the
    frame's shorter side, or the whole frame, squeezed, where that is 0. As `transforms.CentreCrop` makes it: where
    frames shrink, each pixel is the mean of the area that it covers."""
    height, width = frames.shape[1:3]
    if not crop:
        return _resize(frames, size, size)
    scale = round(size / crop) / min(height, width)
    frames = _resize(frames, round(height * scale), round(width * scale))
    top, left = ((side - size) // 2 for side in frames.shape[1:3])
    return frames[:, top : top + size, left : left + size]


def _resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    if frames.shape[1:3] == (height, width):
        return frames
    rows, columns = _areas(frames.shape[1], height), _areas(frames.shape[2], width)
    values = np.einsum("yh,thwc,xw->tyxc", rows, frames.astype(np.float32), columns, optimize=True)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@lru_cache(maxsize=16)
def _areas(given: int, wanted: int) -> np.ndarray:
    """(wanted, given): the share of each given pixel in each wanted one; where frames grow, linear interpolation."""
    if wanted > given:
        at = np.clip((np.arange(wanted) + 0.5) * given / wanted - 0.5, 0, given - 1)
        return np.maximum(1 - np.abs(at[:, None] - np.arange(given)), 0).astype(np.float32)
    edges = np.arange(wanted + 1) * given / wanted
    inside = np.minimum(edges[1:, None], np.arange(given) + 1) - np.maximum(edges[:-1, None], np.arange(given))
    return (np.maximum(inside, 0) * wanted / given).astype(np.float32)


def _batches(values: Iterable, size: int) -> Iterator[list]:
    batch: list = []
    for value in values:
        batch.append(value)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
