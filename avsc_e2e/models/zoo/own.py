"""Models of our own, each as one entry of the zoo: small ones, and the flagship with its student."""

from __future__ import annotations

from dataclasses import replace

from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.zoo.frontends import AISFX, EFFICIENTAT
from avsc_e2e.models.zoo.registry import system

HALF = (0.5, 0.5, 0.5)


@system
def lite0() -> Architecture:
    """EfficientNet-Lite0 and a small audio ResNet with hybrid fusion: our own, small enough to train on a laptop's
    CPU."""
    return Architecture(
        audio="audio_resnet10",
        bands=64,
        video="tf_efficientnet_lite0",
        size=160,
        hidden=256,
        # The fusion head uses both modalities; a larger weight of the single heads would only make it less sure.
        decision=(0.1, 0.4, 2.0),
    )


@system
def lite0_aisfx() -> Architecture:
    """lite0 with aisfx for the audio (Ma and Lerch, ISMIR 2022): both pretrained trunks come from packages."""
    return replace(lite0(), **AISFX)


@system
def flagship() -> Architecture:
    """SigLIP2 ViT-L and EfficientAT mn40 joined by bottleneck tokens: our own, to beat the challenge's ensembles."""
    # SigLIP2 (Tschannen et al., 2025) was trained on images with captions, which often name scenes. mn40 has one of the
    # best AudioSet figures of the CNNs here, and a CNN has no position embeddings that clips of one second would cut.
    return Architecture(
        **dict(EFFICIENTAT, audio="mn40"),
        video="vit_large_patch16_siglip_256.v2_webli",
        frames=2,
        fusion="bottleneck",
        hidden=512,
        dropout=0.1,
        drop_path=0.1,
    )


@system
def flagship_student() -> Architecture:
    """The flagship's student for small devices: EfficientNet-Lite0 and EfficientAT mn04, our own."""
    return Architecture(**dict(EFFICIENTAT, audio="mn04"), video="tf_efficientnet_lite0", fusion="concat", hidden=256)


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
