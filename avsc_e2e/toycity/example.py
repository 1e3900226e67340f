"""One video with audio whose scene changes, drawn and synthesised, to try a model with."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np

from avsc_e2e.toycity.audio import SAMPLE_RATE, synthesise
from avsc_e2e.toycity.city import REFERENCE, ToyCity
from avsc_e2e.toycity.image import draw

EXAMPLES = {
    "toy traffic, then park": ("street_traffic", "park"),
    "toy station, then metro": ("metro_station", "metro"),
    "toy mall, then airport": ("shopping_mall", "airport"),
}
"""Name -> scenes of a few examples."""


def write_example(path: Path, scenes: Sequence[str], seconds: float = 4.0, seed: int = 0) -> Path:
    """Write an MP4 file that shows each of the scenes for so many seconds, in turn, with its audio. Raises OSError."""
    settings = ToyCity(duration=seconds, seed=seed)
    draws = lambda scene, modality: [np.random.default_rng((seed, modality, part, len(scene))) for part in range(3)]  # noqa: E731
    frames = chain.from_iterable(draw(REFERENCE[scene].look, settings, *draws(scene, 1)) for scene in scenes)
    samples = [synthesise(REFERENCE[scene].audio, seconds, *draws(scene, 0)) for scene in scenes]
    sound = np.concatenate(samples).T  # (2, N)
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        video = container.add_stream("libx264", rate=settings.frame_rate, options={"preset": "superfast"})
        video.width, video.height, video.pix_fmt = settings.width, settings.height, "yuv420p"
        video.codec_context.thread_count = 1
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_image(frame)))
        container.mux(video.encode(None))
        size = audio.codec_context.frame_size or 1024
        for first in range(0, sound.shape[1], size):
            part = np.ascontiguousarray(sound[:, first : first + size], np.float32)
            heard = av.AudioFrame.from_ndarray(part, "fltp", "stereo")
            heard.sample_rate, heard.pts, heard.time_base = SAMPLE_RATE, first, Fraction(1, SAMPLE_RATE)
            container.mux(audio.encode(heard))
        container.mux(audio.encode(None))
    return path
