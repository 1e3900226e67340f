"""The published systems, and small ones of our own, each as one entry of the zoo."""

from __future__ import annotations

from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.zoo import system

HALF = (0.5, 0.5, 0.5)


@system
def zhang_ioa() -> Architecture:
    """EfficientNet-B5 and a 1-D deep CNN on log-mels, hybrid fusion; rank 1 of DCASE 2021 Task 1B (Wang et al.)."""
    # Published: the two trunks, average and difference channels, hybrid fusion. Sizes and weights: our choice.
    return Architecture(
        audio="audio_cnn1d",
        channels="mid_side",
        video="tf_efficientnet_b5",
        size=456,
        frames=1,
        fusion="concat",
        hidden=1024,
        decision=(1.0, 1.0, 2.0),
    )


@system
def resnet50_video() -> Architecture:
    """ResNet-50 on one random frame a second, pictures only (Wang et al., ICASSP 2021)."""
    return Architecture(audio="", video="resnet50", size=224)


@system
def lite0() -> Architecture:
    """EfficientNet-Lite0 and a small audio ResNet, hybrid fusion: our own, fine-tunes on a laptop's CPU."""
    return Architecture(
        audio="audio_resnet10",
        bands=64,
        video="tf_efficientnet_lite0",
        size=160,
        mean=HALF,
        std=HALF,
        hidden=256,
        # The fusion head knows both; the single heads, less sure by design, would only dim it.
        decision=(0.1, 0.4, 2.0),
    )


@system
def tiny() -> Architecture:
    """timm's test nets with hybrid fusion: our own, for tests and first steps."""
    return Architecture(
        audio="audio_test",
        bands=32,
        hop=1024,
        video="test_efficientnet",
        size=64,
        hidden=32,
        mean=HALF,
        std=HALF,
    )
