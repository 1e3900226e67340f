"""The one value that flows through the library, the scenes, and the legend of axes.

Axes, everywhere in the library:
    B clips of a batch      C channels of audio      N samples of a waveform
    T frames of a clip      H, W pixels              K classes
    P planes of a time-frequency image (log-mels of the channels, deltas), then bands and time frames
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SCENES = (
    "airport", "bus", "metro", "metro_station", "park",
    "public_square", "shopping_mall", "street_pedestrian", "street_traffic", "tram",
)  # fmt: skip
"""The ten scenes of TAU Urban Audio-Visual Scenes 2021, alphabetical as in every system output."""

MODALITIES = ("audio", "video")
"""The order of `Clip.present`."""

UNKNOWN = -1
"""The target of a clip with an unknown scene."""


class Clip(NamedTuple):
    """About one second of video and audio; a batch is a Clip whose tensors have a leading axis B."""

    audio: Tensor
    """(C, N) float32 waveform in [-1, 1]; after `preprocess` (P, bands, frames)."""
    video: Tensor
    """(T, 3, H, W) uint8; after `preprocess` float32, normalised."""
    target: Tensor
    """() int64, index of the class, -1 where unknown; in training (K,) float32 weights of the classes, and once mixed
    (2, K), those of audio and of video: where a clip lacks one of them, its partner's stands alone."""
    present: Tensor
    """(2,) bool: audio, video. A missing modality is zeros and False."""
    file: str
    """The row's name in a system output."""
    start: float
    """Seconds from the start of the recording."""


class Row(NamedTuple):
    """One recording, as a data set lists it."""

    file: str
    """Its name in a system output, unique in the set."""
    audio: str = ""
    """Path of a WAV or FLAC file, or of a video file with an audio stream; empty where there is no audio."""
    video: str = ""
    """Path of the video file; empty where there is no video."""
    scene: str = ""
    """Name of the class; empty where unknown."""
    location: str = ""
    """Group that no split may divide: the location, or the source recording."""
    city: str = ""
    duration: float = 0.0
    """Seconds."""


class Segment(NamedTuple):
    """A window of a recording."""

    row: Row
    start: float
    """Seconds from the start of the recording."""
    duration: float = 1.0
    """Seconds."""


class Window(NamedTuple):
    """The prediction for one window of a recording."""

    start: float
    """Seconds."""
    end: float
    """Seconds."""
    modalities: tuple[str, ...]
    """The modalities that it is based on."""
    probabilities: np.ndarray
    """(K,)"""


class Corpus(NamedTuple):
    """The rows of a data set by their part, and its classes in order."""

    classes: tuple[str, ...]
    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]
