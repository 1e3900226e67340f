"""The published systems, each as one entry of the zoo.

Values without a comment are published; `published.py` has the figures. A submission that averages several models has an
entry for each member (such as `du_ustc_fcnn`), listed in ENSEMBLES; `avsc fuse` combines their outputs.
"""

from __future__ import annotations

from dataclasses import replace

from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.zoo.frontends import (
    MCDONNELL,
    NARANJO,
    OPENL3_IMAGE,
    OPENL3_MEL256,
    PANN,
    VGGISH,
)
from avsc_e2e.models.zoo.registry import system

# ---- The dataset paper, Wang, Mesaros, Heittola, Virtanen, ICASSP 2021, and its challenge baseline


@system
def openl3_audio() -> Architecture:
    """OpenL3 audio net and the baseline's head (Wang et al., ICASSP 2021)."""
    return Architecture(**OPENL3_MEL256, video="", head="baseline")


@system
def openl3_video() -> Architecture:
    """OpenL3 image net and the baseline's head (Wang et al., ICASSP 2021)."""
    return Architecture(audio="", **OPENL3_IMAGE, head="baseline")


@system
def openl3_early() -> Architecture:
    """Early fusion, Fig. 1a: one head on both concatenated OpenL3 embeddings (Wang et al., ICASSP 2021)."""
    return Architecture(**OPENL3_MEL256, **OPENL3_IMAGE, fusion="early", decision=(0.0, 0.0, 1.0))


@system
def openl3_joint() -> Architecture:
    """The challenge baseline, rank 24, Fig. 1b: a joint layer on the two trained heads (Wang et al., ICASSP 2021)."""
    return Architecture(**OPENL3_MEL256, **OPENL3_IMAGE, head="baseline", fusion="two_heads", decision=(0.0, 0.0, 1.0))


@system
def mcdonnell_usa() -> Architecture:
    """McDonnell_USA's split-frequency ResNet, audio only (Gao and McDonnell, DCASE 2019)."""
    # Ten seconds are classified at once; the recipe trains on 400 of their 461 frames.
    return Architecture(**MCDONNELL, video="", window=10.0)


@system
def resnet50_video() -> Architecture:
    """ResNet-50 on one random frame a second, video only (Wang et al., ICASSP 2021)."""
    return Architecture(audio="", video="resnet50.tv_in1k", size=224)


# ---- Rank 1: Zhang_IOA (M. Wang, C. Chen et al., DCASE 2021)


@system
def zhang_ioa() -> Architecture:
    """EfficientNet-B5 and a 1-D deep CNN on log-mels, hybrid fusion; rank 1 of DCASE 2021 Task 1B (Wang et al.)."""
    # Published: the two trunks, average and difference channels, hybrid fusion. Sizes and weights: our choice.
    return Architecture(
        audio="audio_cnn1d",
        channels="mid_side",
        video="tf_efficientnet_b5.aa_in1k",
        size=456,
        frames=1,
        fusion="concat",
        hidden=1024,
        decision=(1.0, 1.0, 2.0),
    )


@system
def zhang_ioa_wavelet() -> Architecture:
    """zhang_ioa on the scalogram of a Morlet wavelet instead of log-mels (Wang et al., DCASE 2021)."""
    # Published: scalograms; wavelet, range and resolution are our choice.
    return replace(zhang_ioa(), features="wavelet", low=30.0, high=22_000.0)


@system
def zhang_ioa_bark() -> Architecture:
    """zhang_ioa on a Bark filter bank instead of log-mels (Wang et al., DCASE 2021)."""
    return replace(zhang_ioa(), features="bark", bands=64)  # 64 bands are our choice


@system
def zhang_ioa_resnet50() -> Architecture:
    """zhang_ioa with ResNet-50 for the video (Wang et al., DCASE 2021)."""
    return replace(zhang_ioa(), video="resnet50.tv_in1k", size=224)


@system
def zhang_ioa_efficientnetv2() -> Architecture:
    """zhang_ioa with EfficientNetV2-S for the video (Wang et al., DCASE 2021)."""
    return replace(zhang_ioa(), video="tf_efficientnetv2_s.in1k", size=384)


@system
def zhang_ioa_swin() -> Architecture:
    """zhang_ioa with a Swin transformer for the video (Wang et al., DCASE 2021)."""
    # Which Swin is not published.
    return replace(zhang_ioa(), video="swin_base_patch4_window7_224.ms_in1k", size=224)


@system
def zhang_ioa_jft() -> Architecture:
    """zhang_ioa from a larger pretraining: EfficientNet-B5 of Noisy Student on JFT-300M (Xie et al., 2020)."""
    return replace(zhang_ioa(), video="tf_efficientnet_b5.ns_jft_in1k")


@system
def ioa_joint() -> Architecture:
    """Zhang_IOA's later single system: an image net and a 1-D CNN trained jointly (Chen et al., arXiv 2204.11420)."""
    # Published: the lower part of a pretrained image net, a 1-D CNN, one classifier. Which image net: our choice.
    return replace(zhang_ioa(), decision=(0.0, 0.0, 1.0))


# ---- Rank 5: Du_USTC (Q. Wang, S. Zheng et al., DCASE 2021, and arXiv 2203.04114)


@system
def du_ustc() -> Architecture:
    """FCNN and ResNet-50 trained jointly: the main member of Du_USTC's ensemble, rank 5 (Wang et al., arXiv
    2203.04114)."""
    # Published: an FCNN on log-mels from scratch, nets from ImageNet and Places365, joint training. Width: our choice.
    return replace(du_ustc_fcnn(), video="resnet50.tv_in1k", size=224, fusion="concat", decision=(0.0, 0.0, 1.0))


@system
def du_ustc_fcnn() -> Architecture:
    """Du_USTC's fully convolutional net, audio only (Hu et al., DCASE 2020)."""
    # Log-mels with deltas, as in the team's DCASE 2020 code; stereo is our choice.
    return Architecture(**dict(MCDONNELL, audio="du_fcnn", head="linear"), video="")


@system
def du_ustc_resnet17() -> Architecture:
    """Du_USTC's 17-layer ResNet, audio only (Hu et al., DCASE 2020)."""
    return Architecture(**dict(MCDONNELL, audio="du_resnet17"), video="")


@system
def du_ustc_vggish() -> Architecture:
    """Du_USTC's member on VGGish embeddings (Hershey et al., ICASSP 2017)."""
    return Architecture(**VGGISH, video="")


@system
def du_ustc_pann() -> Architecture:
    """Du_USTC's member on embeddings of CNN14 (Kong et al., 2020)."""
    return Architecture(**PANN, video="")


@system
def du_ustc_video() -> Architecture:
    """Du_USTC's member on video, ResNet-50 from Places365."""
    # The team's nets are not published.
    return Architecture(audio="", video="resnet50.tv_in1k", size=224)


@system
def du_ustc_segments() -> Architecture:
    """du_ustc with the embedding of the audio-visual segment model in its fusion (Wang et al., DCASE 2021)."""
    # Published: units, n-grams and text categorisation. It is our choice that units are fitted to the tokens of both
    # trunks, so train the trunks in earlier stages.
    return replace(du_ustc(), frames=4, fusion="segments")


# ---- Ranks 9 and 12: Okazaki_LDSLVision (Okazaki, Kong, Yoshinaga, DCASE 2021); sizes of all nets are our choice


@system
def okazaki_ldsl() -> Architecture:
    """Audio and video members of Okazaki_LDSLVision's ensemble, rank 9, with decision-level fusion only."""
    return Architecture(
        **PANN, video="resnest50d.in1k", size=224, frames=4, fusion="", decision=(1.0, 1.0, 0.0), decision_rule="mean"
    )


@system
def okazaki_ldsl_audio() -> Architecture:
    """Okazaki_LDSLVision's member on audio: a CNN from AudioSet on log-mels (Kong et al., 2020)."""
    return Architecture(**PANN, video="")


@system
def okazaki_ldsl_video() -> Architecture:
    """Okazaki_LDSLVision_1, video only, rank 12: its ResNeSt-50 member."""
    return Architecture(audio="", video="resnest50d.in1k", size=224, frames=4)


@system
def okazaki_ldsl_regnet() -> Architecture:
    """Okazaki_LDSLVision's member on video with a RegNet."""
    return replace(okazaki_ldsl_video(), video="regnety_064.pycls_in1k")


@system
def okazaki_ldsl_hrnet() -> Architecture:
    """Okazaki_LDSLVision's member on video with an HRNet."""
    return replace(okazaki_ldsl_video(), video="hrnet_w48.ms_in1k")


@system
def okazaki_ldsl_clip() -> Architecture:
    """Okazaki_LDSLVision's text-guided member: the image encoder of CLIP (Radford et al., 2021), fine-tuned."""
    return replace(okazaki_ldsl_video(), video="vit_base_patch32_clip_quickgelu_224.openai")


@system
def okazaki_ldsl_text() -> Architecture:
    """Okazaki_LDSLVision's text-guided features: CLIP compares images with sentences about the scenes (Radford et
    al.)."""
    # text.guide() loads CLIP: zero-shot at first, then trained if wanted. The sentences are our choice.
    return replace(okazaki_ldsl_clip(), head="text")


# ---- Ranks 10, 16 and 32


@system
def yang_thu() -> Architecture:
    """Early fusion of large pretrained nets, rank 10 (Yang_THU, DCASE 2021)."""
    # Published: early fusion, 121 M in all. The nets are our choice.
    return Architecture(
        **PANN, video="resnet101.tv_in1k", size=224, frames=2, fusion="concat", decision=(0.0, 0.0, 1.0)
    )


@system
def hou_ugent() -> Architecture:
    """Self-attention over audio embeddings, ResNet-50 on ten frames, late fusion over time; rank 16 (Hou et al.)."""
    # Six embeddings of OpenL3 and ten frames for each second, as the authors do for the evaluation set. They train on
    # ten seconds.
    return Architecture(
        **dict(OPENL3_MEL256, audio_window=1.0, audio_hop=0.1),
        video="resnet50.tv_in1k",
        frames=10,
        size=224,
        crop=0.0,
        map_pool="sum",
        mean=(0.432, 0.413, 0.417),
        std=(0.231, 0.230, 0.231),
        fusion="sequence",
        hidden=256,
        decision=(0.0, 0.0, 1.0),
    )


@system
def naranjo_uv_audio() -> Architecture:
    """Squeeze-excitation CNN on gammatones of left, right and difference channels, rank 32 (Naranjo-Alcazar et al.,
    2021)."""
    return Architecture(**NARANJO, video="", dropout=0.0)


@system
def naranjo_uv() -> Architecture:
    """naranjo_uv_audio, VGG16 from Places365 with a BiGRU, a BiGRU on both, and one layer on all three (2021)."""
    return replace(
        naranjo_uv_audio(),
        video="vgg16_features",
        size=224,
        crop=0.0,
        frames=5,
        head="recurrent",
        fusion="recurrent",
        hidden=64,
        decision=(0.0, 0.0, 1.0),
    )


ENSEMBLES = {
    "du_ustc": ("du_ustc", "du_ustc_fcnn", "du_ustc_resnet17", "du_ustc_vggish", "du_ustc_pann", "du_ustc_video"),
    "okazaki_ldsl": (
        "okazaki_ldsl_audio", "okazaki_ldsl_video", "okazaki_ldsl_regnet", "okazaki_ldsl_hrnet", "okazaki_ldsl_clip",
    ),
    "okazaki_ldsl_video": ("okazaki_ldsl_video", "okazaki_ldsl_regnet", "okazaki_ldsl_hrnet", "okazaki_ldsl_clip"),
}  # fmt: skip
"""Members of the submissions that average several models, as far as they are known."""
