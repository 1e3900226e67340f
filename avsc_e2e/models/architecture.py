"""Everything that a model is, as one flat value: it travels in the checkpoint and rebuilds the model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Literal

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
"""Values above these neither: a checkpoint of some bytes must not ask for all memory."""


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
    """Channels that the front end takes: the mean of left and right, both, their average and half their difference, or
    both and their difference."""
    sample_rate: int = 48_000
    """Hz."""
    features: Literal["log_mel", "bark", "gammatone", "fbank", "constant_q", "wavelet"] = "log_mel"
    """Filter bank of the front end: over a short-time spectrum the first three, over frames as Kaldi cuts them (without
    padding, each freed of its mean) fbank, over the whole clip the last two."""
    fft: int = 2048
    """Samples of a short-time spectrum."""
    win_length: int = 0
    """Samples of its window; 0: all."""
    taper: Literal["hann", "symmetric_hann", "povey"] = "hann"
    """The window's shape: periodic Hann, with two equal ends, or Kaldi's, which is the latter to the power of 0.85."""
    preemphasis: float = 0.0
    """Share of the sample before that is taken off every sample; 0 is off."""
    hop: int = 480
    """Samples between two time frames."""
    pad: int = -1
    """Zeros on each side of the clip, samples; -1: half a spectrum on each side, reflected."""
    bands: int = 128
    """Bands of the filter bank."""
    low: float = 20.0
    """Lower edge of the lowest band, Hz; of gammatone, constant_q and wavelet its centre."""
    high: float = 24_000.0
    """Upper edge of the highest band, Hz; of gammatone, constant_q and wavelet its centre."""
    scale: Literal["htk", "slaney", "vggish"] = "htk"
    """Mel scale of log_mel; vggish is HTK's with triangles drawn over mels instead of hertz, as Kaldi has it."""
    area_norm: bool = True
    """Each filter of a short-time spectrum has the same area (Slaney's norm) instead of the same height."""
    sum_norm: bool = False
    """The weights of each filter sum to one, whatever bins it meets; area_norm then makes no difference."""
    power: float = 2.0
    """Of the spectrum's magnitude that goes into the bands: 1 magnitude, 2 power."""
    exponent: float = 1.0
    """That the bands' energies are raised to before the logarithm; 0.5 makes amplitudes of powers."""
    log: Literal["ln", "ln_max", "db"] = "ln"
    """Natural logarithm of x + floor or of the larger of x and floor, or 10 log10 of the larger of x and floor."""
    floor: float = 1e-7
    """Least band energy, by default about 70 dB below full scale."""
    dynamic_range: float = 0.0
    """dB below the clip's maximum, which becomes 0 dB, where a db scale ends; 0: full scale is the reference."""
    deltas: Literal[0, 1, 2] = 0
    """Orders of differences over time that follow the planes, each over 5 frames, which costs 2 at either end."""
    standardise: bool = True
    """The trunk gets planes with zero mean and unit deviation in every band; if false, as most published weights
    expect, the values before."""
    rescale: bool = False
    """The planes of each clip are scaled to [-1, 1] by their own least and greatest value."""
    waveform: bool = False
    """The samples of each hop follow the bands, `hop` rows more, for a trunk that takes both; augmentation that masks
    bands does not suit them."""
    audio_window: float = 0.0
    """Length of the windows that a clip's audio is cut into, of which the audio trunk makes one embedding each,
    seconds; 0: the whole clip is one."""
    audio_hop: float = 0.1
    """Seconds between two such windows; the first is centred on the clip's start."""
    audio_pool: Literal["mean", "max", "mean_max", "attention", "gru"] = "mean"
    """What makes one embedding of those of the windows."""

    video: str = "tf_efficientnet_lite0"
    """Video trunk, any timm name; empty for a model without video."""
    frames: int = 1
    """Frames of a clip, evenly spread."""
    size: int = 0
    """Side of the square that the video trunk sees, pixels; 0: that of the trunk's own configuration."""
    short_side: int = 0
    """Pixels of the shorter side of the frames that the square is cut from; training notes here what it used
    (--data.short-side). 0: 8/7 of `size`, or what `crop` needs."""
    crop: float = 1.0
    """Side of the centre square that is resized to `size`, as a share of a frame's shorter side; 0: the whole frame,
    squeezed into a square."""
    map_pool: Literal["", "avg", "max", "avgmax", "catavgmax", "sum"] = ""
    """timm's pooling of the video trunk's last map, or "sum" of average and maximum; empty: the trunk's own."""
    video_pool: Literal["mean", "max", "mean_max", "attention", "gru"] = "mean"
    """What makes one embedding of those of the frames."""
    mean: tuple[float, ...] = ()
    """Mean of red, green and blue in [0, 1] that is subtracted from frames; empty: that of the trunk."""
    std: tuple[float, ...] = ()
    """Standard deviation that frames are then divided by; empty: that of the trunk."""

    head: Literal["linear", "baseline", "pointwise", "recurrent", "text"] = "linear"
    """Of each single modality: one layer, the four of the challenge baseline on standardised embeddings,
    McDonnell's classification of every position before the mean, Naranjo-Alcazar's recurrent net over the frames (of
    audio one layer), or CLIP's comparison with text."""
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
    """Model-level fusion, see models/fusionheads.py; empty leaves decision-level fusion alone."""
    hidden: int = 512
    """Width of the fusion head."""
    dropout: float = 0.2
    """Before every last layer."""
    drop_path: float = 0.0
    """Share of clips that training carries past a residual block (stochastic depth, Huang et al., 2016), rising from 0
    at a trunk's first block to this at its last; of every trunk with such blocks. 0 is off."""
    decision: tuple[float, float, float] = (1.0, 1.0, 2.0)
    """Weights of the audio, video and fusion heads in the decision; a modality's head is built only if its weight is
    above zero or the model has no fusion head. "two_heads", "product" and "recurrent" build on both, which are frozen
    where they have no weight."""
    decision_rule: Literal["product", "mean"] = "product"
    """What decides: the product of the heads' probabilities, each to the power of its share of the weights, or their
    weighted mean. The weights are fitted unless --heads.no-fit-decision is given."""
    sharpness: float = 1.0
    """Power that the product is raised to; fitted with its weights. Below 1 the decision is less sure; above 1 it only
    counts for clips with all modalities."""
    tune_heads: bool = False
    """Single heads without a weight, on which the fusion builds, learn too."""

    def __post_init__(self):
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
        values = {"decision_rule": "mean"} | json.loads(text)  # of checkpoints from before the product, all decide so
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise AvscError(
                f"the architecture has fields that this version does not know: {', '.join(sorted(unknown))}"
            )
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
