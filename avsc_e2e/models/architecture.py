"""The description of a model as one flat value. The checkpoint stores it and rebuilds the model from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from avsc_e2e.arguments import checked_fields
from avsc_e2e.clip import SCENES
from avsc_e2e.errors import AvscError

LEAST = {
    "window": 0.01, "sample_rate": 1000, "fft": 2, "hop": 1, "bands": 1, "frames": 1, "short_side": 0,
    "hidden": 1, "text_width": 1,
}  # fmt: skip
"""Values below these cannot be meant."""
MOST = {
    "window": 3600.0, "sample_rate": 768_000, "fft": 1 << 20, "win_length": 1 << 20, "pad": 1 << 20, "bands": 8192,
    "frames": 4096, "size": 8192, "short_side": 8192, "hidden": 1 << 16, "text_width": 1 << 16,
}  # fmt: skip
"""Values above these cannot be meant either: a checkpoint of a few bytes must not ask for all memory."""


@dataclass(frozen=True)
class Architecture:
    """Front end, trunks, fusion and what they expect of a clip. Empty names switch a part off."""

    name: str = "custom"
    """The zoo entry it comes from."""
    classes: tuple[str, ...] = SCENES
    """Names of the classes in the order of the logits; training takes them from the data."""
    window: float = 1.0
    """Length of a clip, seconds."""

    audio: str = "audio_resnet10"
    """Audio trunk, any timm name; empty for a model without audio."""
    channels: Literal["mono", "stereo", "mid_side", "left_right_difference"] = "mid_side"
    """Channels that the front end takes. mono: the mean of left and right. stereo: both. mid_side: the mean and half
    the difference. left_right_difference: both and their difference."""
    sample_rate: int = 48_000
    """Hz."""
    features: Literal["log_mel", "bark", "gammatone", "fbank", "constant_q", "wavelet"] = "log_mel"
    """Filter bank of the front end. log_mel, bark and gammatone work on a short-time spectrum; fbank works on frames
    cut as Kaldi does (no padding, the mean of each frame subtracted); constant_q and wavelet filter the whole clip."""
    fft: int = 2048
    """Length of the Fourier transform of a short-time spectrum, samples."""
    win_length: int = 0
    """Length of its window, samples; 0: that of the transform."""
    taper: Literal["hann", "symmetric_hann", "povey"] = "hann"
    """Shape of the window. hann: periodic Hann. symmetric_hann: Hann with two equal ends. povey: Kaldi's, the symmetric
    one to the power of 0.85."""
    preemphasis: float = 0.0
    """Pre-emphasis: this share of the previous sample is subtracted from each sample; 0 is off."""
    hop: int = 480
    """Samples between two time frames."""
    pad: int = -1
    """Zeros added on each side of the clip, samples; -1: half a transform on each side, reflected."""
    bands: int = 128
    """Bands of the filter bank."""
    low: float = 20.0
    """Lower edge of the lowest band, Hz; its centre for gammatone, constant_q and wavelet."""
    high: float = 24_000.0
    """Upper edge of the highest band, Hz; its centre for gammatone, constant_q and wavelet."""
    scale: Literal["htk", "slaney", "vggish"] = "htk"
    """Mel scale of log_mel. vggish is HTK's scale with triangles that are straight over mels instead of hertz, as in
    Kaldi."""
    area_norm: bool = True
    """All filters of a short-time spectrum have the same area (Slaney's norm) instead of the same height."""
    sum_norm: bool = False
    """The weights of each filter sum to one; area_norm then has no effect."""
    power: float = 2.0
    """Exponent of the spectrum's magnitude: 1 magnitude, 2 power."""
    exponent: float = 1.0
    """Exponent of the band energies before the logarithm; 0.5 turns powers into amplitudes."""
    log: Literal["ln", "ln_max", "db"] = "ln"
    """Logarithm. ln: ln(x + floor). ln_max: ln(max(x, floor)). db: 10 log10(max(x, floor))."""
    floor: float = 1e-7
    """Smallest band energy; the default is about 70 dB below full scale."""
    dynamic_range: float = 0.0
    """Range of a db scale: the clip's maximum becomes 0 dB, and lower values are cut off this many dB below it. 0: dB
    relative to full scale, no cut."""
    deltas: Literal[0, 1, 2] = 0
    """Number of delta orders that are added as planes: 1 deltas, 2 also delta-deltas. Each is computed over 5 frames
    and shortens the clip by 2 frames at each end."""
    standardise: bool = True
    """Standardise each band to zero mean and unit deviation by statistics of the training set. If false, the trunk gets
    the values as they are, which most published weights expect."""
    rescale: bool = False
    """Scale the planes of each clip to [-1, 1] by their own minimum and maximum."""
    waveform: bool = False
    """Add the samples of each hop as `hop` more rows below the bands, for a trunk that takes both. Do not combine it
    with augmentation that masks bands."""
    audio_window: float = 0.0
    """Length of the windows that a clip's audio is cut into, seconds; the audio trunk makes one embedding of each. 0:
    the whole clip is one window."""
    audio_hop: float = 0.1
    """Seconds between two such windows; the first is centred on the clip's start."""
    audio_pool: Literal["mean", "max", "mean_max", "attention", "gru"] = "mean"
    """Pooling over the embeddings of the windows."""

    video: str = "tf_efficientnet_lite0"
    """Video trunk, any timm name; empty for a model without video."""
    frames: int = 1
    """Frames of a clip, evenly spaced."""
    size: int = 0
    """Side of the square that the video trunk takes, pixels; 0: the value of the trunk's own configuration."""
    short_side: int = 0
    """Shorter side of the frames that the square is cut from, pixels; training stores here the value that it used
    (--data.short-side). 0: 8/7 of `size`, or what `crop` needs."""
    crop: float = 1.0
    """Side of the centre square that is resized to `size`, as a share of the frame's shorter side; 0: the whole frame
    is squeezed into a square."""
    map_pool: Literal["", "avg", "max", "avgmax", "catavgmax", "sum"] = ""
    """timm's pooling of the video trunk's last map, or "sum" of average and maximum; empty: the trunk's own."""
    video_pool: Literal["mean", "max", "mean_max", "attention", "gru"] = "mean"
    """Pooling over the embeddings of the frames."""
    mean: tuple[float, ...] = ()
    """Mean of red, green and blue in [0, 1] that is subtracted from frames; empty: the value of the trunk's own
    configuration."""
    std: tuple[float, ...] = ()
    """Standard deviation by which frames are then divided; empty: the value of the trunk's own configuration."""

    head: Literal["linear", "baseline", "pointwise", "recurrent", "text"] = "linear"
    """Head of each single modality. linear: one layer. baseline: the four layers of the challenge baseline on
    standardised embeddings. pointwise: McDonnell's, which classifies every position before the mean. recurrent:
    Naranjo-Alcazar's recurrent net over the frames (one layer for audio). text: CLIP's comparison with text."""
    text_width: int = 512
    """Width of CLIP's text features, for the head "text"."""
    fusion: Literal[
        "",
        "concat",
        "gated",
        "bilinear",
        "cross_attention",
        "bottleneck",
        "early",
        "two_heads",
        "product",
        "sequence",
        "recurrent",
        "segments",
    ] = "concat"
    """Model-level fusion (models/fusionheads.py); empty: decision-level fusion only."""
    hidden: int = 512
    """Width of the fusion head."""
    dropout: float = 0.2
    """Dropout before the last layer of each head."""
    drop_path: float = 0.0
    """Stochastic depth (Huang et al., 2016): the share of clips for which training skips a residual block. It rises
    from 0 at a trunk's first block to this value at its last. 0 is off."""
    decision: tuple[float, float, float] = (1.0, 1.0, 2.0)
    """Weights of the audio, video and fusion heads in the decision; a modality's head is built only if its weight is
    above zero or the model has no fusion head. "two_heads", "product" and "recurrent" build on both, which are frozen
    where they have no weight."""
    decision_rule: Literal["product", "mean"] = "product"
    """How the heads are combined. product: the product of their probabilities, each to the power of its share of the
    weights. mean: their weighted mean. The weights are fitted unless --heads.no-fit-decision is given."""
    sharpness: float = 1.0
    """Power that the product is raised to; fitted with its weights. Below 1 the decision is less sure; above 1 it only
    counts for clips with all modalities."""
    tune_heads: bool = False
    """Train the single heads that the fusion builds on even where they have no weight in the decision."""

    def __post_init__(self):
        checked_fields(self, "--model.")
        if not self.audio and not self.video:
            raise AvscError("--model.audio and --model.video are both empty: a model needs at least one of them")
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise AvscError(f"--model.classes: at least two different names are needed, not {self.classes}")
        if not any(weight > 0 for weight in self.weights):
            raise AvscError("--model.decision: at least one head that the model has needs a weight above 0")
        for name, least in LEAST.items():
            if not getattr(self, name) >= least:
                raise AvscError(f"--model.{name.replace('_', '-')} {getattr(self, name)}: give {least} or more")
        for name, most in MOST.items():
            if not getattr(self, name) <= most:
                raise AvscError(f"--model.{name.replace('_', '-')} {getattr(self, name)}: give {most} or less")
        if len(self.classes) > 100_000:
            raise AvscError(f"--model.classes: {len(self.classes)} names, more than 100000")
        if self.size and self.size < 8:
            raise AvscError(f"--model.size {self.size}: give 8 or more, or 0 for the trunk's own")
        if not 0 <= self.dropout < 1:
            raise AvscError(f"--model.dropout {self.dropout}: it is a share from 0 to below 1")
        if self.fusion == "two_heads" and self.head != "baseline":
            raise AvscError("--model.fusion two_heads joins the baseline's heads: add --model.head baseline")
        if self.dynamic_range and self.log != "db":
            raise AvscError("--model.dynamic-range counts dB: add --model.log db, or set it to 0")
        if not 0 <= self.crop <= 1:
            raise AvscError(f"--model.crop {self.crop:g}: it is a share from 0 to 1")
        if not self.sharpness > 0:
            raise AvscError(f"--model.sharpness {self.sharpness:g}: give a number above 0")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (0, 3):
                raise AvscError(f"--model.{name}: red, green and blue need three values; leave it out for the trunk's")
        if not 0 <= self.drop_path < 1:
            raise AvscError(f"--model.drop-path {self.drop_path}: it is a share from 0 to below 1")
        if self.win_length > self.fft:
            raise AvscError(f"--model.win-length {self.win_length} is longer than --model.fft {self.fft}")

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(name for name in ("audio", "video") if getattr(self, name))

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads that are built, in the order audio, video, fusion."""
        fused = bool(self.fusion) and len(self.modalities) == 2
        single = [
            m
            for m, weight in zip(("audio", "video"), self.decision, strict=False)
            if getattr(self, m) and (weight > 0 or not fused)
        ]
        return (*single, "fusion") if fused else tuple(single)

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of `heads` in the decision; those of a single-modality model are 1."""
        if len(self.heads) == 1:
            return (1.0,)
        by_name = dict(zip(("audio", "video", "fusion"), self.decision, strict=True))
        return tuple(by_name[head] for head in self.heads)

    @property
    def input_channels(self) -> int:
        """Channels of the waveform that the front end takes."""
        return 1 if self.channels == "mono" else 2

    @property
    def planes(self) -> int:
        """Planes that the front end makes."""
        channels = {"mono": 1, "stereo": 2, "mid_side": 2, "left_right_difference": 3}[self.channels]
        return channels * (1 + self.deltas)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Raises AvscError where a field is unknown to this version."""
        # Checkpoints from before the product rule all decide by the mean.
        values: dict[str, Any] = {"decision_rule": "mean"} | json.loads(text)
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise AvscError(
                f"the architecture has fields that this version does not know: {', '.join(sorted(unknown))}"
            )
        values |= {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return cls(**values)
