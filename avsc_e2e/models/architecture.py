"""Everything that a model is, as one flat value: it travels in the checkpoint and rebuilds the model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Literal

from avsc_e2e.clip import SCENES
from avsc_e2e.errors import AvscError

if TYPE_CHECKING:
    from avsc_e2e.models.scenenet import SceneNet


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
    """Audio trunk, any timm name; empty for a model without sound."""
    channels: Literal["mono", "stereo", "mid_side"] = "mid_side"
    """Which planes the front end makes: the mean of the ears, both, or their average and difference."""
    sample_rate: int = 48_000
    """Hz."""
    fft: int = 2048
    """Samples of a front end's window."""
    hop: int = 480
    """Samples between two time frames."""
    bands: int = 128
    """Mel bands."""
    low: float = 20.0
    """Lower edge of the lowest band, Hz."""
    high: float = 24_000.0
    """Upper edge of the highest band, Hz."""

    video: str = "tf_efficientnet_lite0"
    """Video trunk, any timm name; empty for a model without pictures."""
    frames: int = 1
    """Frames of a clip, evenly spread."""
    size: int = 224
    """Side of the square that the video trunk sees, pixels."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Mean of red, green and blue in [0, 1] that the video trunk was trained with."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Their standard deviation."""

    fusion: Literal["", "concat"] = "concat"
    """Model-level fusion of the two embeddings; empty leaves decision-level fusion alone."""
    hidden: int = 512
    """Width of the fusion head."""
    dropout: float = 0.2
    """Before every last layer."""
    decision: tuple[float, float, float] = (1.0, 1.0, 2.0)
    """Weights of the audio, video and fusion heads in the decision; a modality's head is built only if its weight is
    above zero or the model has no fusion head."""

    def __post_init__(self):
        if not self.audio and not self.video:
            raise AvscError("--model.audio and --model.video are both empty: a model needs at least one of them")
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise AvscError(f"--model.classes: at least two different names are needed, not {self.classes}")
        if not any(weight > 0 for weight in self.weights):
            raise AvscError("--model.decision: at least one head that the model has needs a weight above 0")

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

    def build(self) -> SceneNet:
        """The model, with random weights."""
        from avsc_e2e.models.scenenet import SceneNet

        return SceneNet(self)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Raises AvscError where a field is unknown to this version."""
        values = json.loads(text)
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise AvscError(
                f"the architecture has fields that this version does not know: {', '.join(sorted(unknown))}"
            )
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
