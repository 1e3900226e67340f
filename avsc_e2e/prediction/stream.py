"""Prediction of a live stream, such as that of a camera with a microphone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from avsc_e2e.arguments import checked
from avsc_e2e.clip import Window
from avsc_e2e.data.media import MediaWindow
from avsc_e2e.errors import AvscError, within
from avsc_e2e.prediction.predictor import Predictor, window
from avsc_e2e.prediction.reading import clip_of
from avsc_e2e.prediction.recordings import live_windows


class SceneStream:
    """Takes frames and samples as they arrive, and returns the decision of each window when it is complete. Decisions
    equal those of `Predictor` for a file with this content.

        stream = SceneStream("runs/mine", sample_rate=48_000)
        for samples, frame, time in source:
            for window in (*stream.hear(samples), *stream.see(frame, time)):
                ...
        last = stream.close()
    """

    @checked
    def __init__(
        self,
        checkpoint: str | os.PathLike | torch.nn.Module | Predictor,
        *,
        sample_rate: int = 0,
        video: bool = True,
        **options,
    ):
        """`sample_rate`: of the samples (Hz); 0: there will be none. `video`: whether frames will come. `options` are
        those of Predictor. Raises AvscError where the model can use neither."""
        within("sample_rate", sample_rate, 0)
        self.predictor = checkpoint if isinstance(checkpoint, Predictor) else Predictor(checkpoint, **options)
        cut = self.predictor.reading.cut
        self.wanted = [name for name in cut.modalities if (sample_rate if name == "audio" else video)]
        if not self.wanted:
            raise AvscError(f"the stream has none of {' and '.join(cut.modalities)}, which the model wants")
        self._live = live_windows(cut, sample_rate if "audio" in self.wanted else 0, "video" in self.wanted, "stream")

    def hear(self, samples: np.ndarray) -> list[Window]:
        """The next samples (C, N), float in [-1, 1] or int16, C 1 or 2; the windows that they complete. Raises
        AvscError."""
        if "audio" in self.wanted:
            self._live.hear(samples)
        return self._decided(self._live.windows())

    @checked
    def see(self, frame: Any, time: float) -> list[Window]:
        """The next frame, (H, W, 3) uint8 RGB or a frame of PyAV, shown from `time` (seconds) on; the windows that it
        completes. Raises AvscError."""
        if "video" in self.wanted:
            self._live.see(frame, time)
        return self._decided(self._live.windows())

    def close(self, end: float | None = None) -> list[Window]:
        """The stream ends, at `end` (seconds) or with the last sample and frame; the windows that are left, the last of
        which ends with it."""
        return self._decided(self._live.windows(self._live.end if end is None else end), end)

    def _decided(self, found: Iterable[MediaWindow], end: float | None = None) -> list[Window]:
        length = self.predictor.reading.cut.window
        bad: list = []
        made = [clip_of("stream", one, self.wanted, self.predictor.reading, bad) for one in found]
        clips = [clip for clip in made if clip is not None]
        if not clips:
            return []
        values = self.predictor.probabilities(clips)
        ends = [min(clip.start + length, end or clip.start + length) for clip in clips]
        return [window(*one) for one in zip(clips, ends, values, strict=True)]
