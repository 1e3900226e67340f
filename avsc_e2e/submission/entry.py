"""The systems of a challenge submission, in the fields of the meta.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avsc_e2e.models.architecture import Architecture
    from avsc_e2e.outputs.metrics import Scores
    from avsc_e2e.outputs.output import SystemOutput

MOST_SYSTEMS = 4
"""Systems that one team may hand in."""


@dataclass(frozen=True)
class Description:
    """Description of a system in the challenge's terms; None becomes !!null."""

    input_channels: str | None = None
    """mono, binaural, left, right, mixed."""
    input_sampling_rate: str | None = None
    """48kHz."""
    acoustic_features: str | None = None
    audio_embeddings: str | None = None
    visual_embeddings: str | None = None
    data_augmentation: str | None = None
    machine_learning_method: str | None = None
    ensemble_method_subsystem_count: int | None = None
    modality_combination: str | None = None
    """audio, video, early fusion, late fusion, hybrid fusion."""
    decision_making: str | None = None
    external_data_usage: str | None = None


@dataclass(frozen=True)
class Complexity:
    """Number of parameters of a system, frozen parts included."""

    total_parameters: int | None = None
    total_parameters_audio: int | None = None
    total_parameters_visual: int | None = None


@dataclass(frozen=True)
class ExternalDataset:
    """External data that a system was trained on."""

    name: str
    url: str | None = None
    total_audio_length: int | None = None
    """Minutes."""


@dataclass(frozen=True, eq=False)
class System:
    """One entry of a submission."""

    name: str
    abbreviation: str
    """Ten characters at most."""
    output: SystemOutput
    """Output on the evaluation set, one row for each file."""
    scores: Scores
    """Scores on the test set of the development set, for one-second segments."""
    complexity: Complexity
    description: Description = Description()
    external_datasets: tuple[ExternalDataset, ...] = ()
    source_code: str | None = None
    """Address."""


def describe(
    architecture: Architecture, augmentation: Sequence[str] = (), pretrained: Sequence[str] = (), subsystems: int = 1
) -> Description:
    """The description of a system by its architecture.

    `augmentation` names the transforms that training used, `pretrained` names the data that the trunks were pretrained
    on.
    """
    channels = {
        "mono": "mono",
        "stereo": "binaural",
        "mid_side": "mid, side",
        "left_right_difference": "left, right, difference",
    }
    features = {
        "log_mel": "log-mel energies",
        "fbank": "log-mel energies",
        "bark": "log Bark energies",
        "gammatone": "gammatones",
        "constant_q": "CQT",
        "wavelet": "scalogram",
    }
    both = bool(architecture.audio and architecture.video)
    fused = bool(architecture.fusion) and both
    learned = f" ({', '.join(pretrained)})" if pretrained else ""
    trunks = [trunk for trunk in (architecture.audio, architecture.video) if trunk]
    combination = (
        "hybrid fusion" if fused and len(architecture.heads) > 1 else "early fusion" if fused else "late fusion"
    )
    return Description(
        input_channels=channels.get(architecture.channels, architecture.channels) if architecture.audio else None,
        input_sampling_rate=f"{architecture.sample_rate / 1000:g}kHz" if architecture.audio else None,
        acoustic_features=features[architecture.features] if architecture.audio else None,
        audio_embeddings=architecture.audio or None,
        visual_embeddings=f"{architecture.video}{learned}" if architecture.video else None,
        data_augmentation=", ".join(augmentation) or None,
        machine_learning_method=", ".join(trunks),
        ensemble_method_subsystem_count=None if subsystems < 2 else subsystems,
        modality_combination=combination if both else "audio" if architecture.audio else "video",
        decision_making="average" if len(architecture.heads) > 1 or subsystems > 1 else "maximum likelihood",
        external_data_usage="pre-trained model" if pretrained else None,
    )
