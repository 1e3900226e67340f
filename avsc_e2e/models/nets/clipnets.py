"""Video nets that take all frames of a clip at once: torchvision's, with weights from Kinetics-400, and VideoMAE v2."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torchvision.models import video

from avsc_e2e.errors import AvscError
from avsc_e2e.models.nets.audionet import no_classifier
from avsc_e2e.models.nets.residual import rising


class ClipNet(nn.Module):
    """A net of torchvision without its classifier. (B, T, 3, H, W) -> (B, num_features)."""

    takes_clips = True

    def __init__(self, name: str, build: Callable[..., nn.Module], head: str, width: int, frames: int = 0):
        super().__init__()
        self.name, self.frames = name, frames
        self.net = build(weights=None)
        setattr(self.net, head, nn.Identity())
        self.num_features = self.head_hidden_size = width

    def forward(self, x: Tensor) -> Tensor:
        if self.frames and x.shape[1] != self.frames:
            raise AvscError(f"--model.video {self.name} takes {self.frames} frames: add --model.frames {self.frames}")
        return self.net(x.transpose(1, 2))


class VideoMae(nn.Module):
    """VideoMAE v2 (Wang et al., CVPR 2023): a ViT over patches of 16 x 16 pixels and two frames, with sinusoidal
    positions; the layer norm of the mean over tokens is the embedding. (B, T, 3, H, W) -> (B, num_features). Layers
    have the names and shapes of the published code, except that queries, keys and values share one bias tensor."""

    takes_clips = True
    FRAMES, PATCH = 16, 16

    def __init__(self, width: int, depth: int, heads: int, drop_path: float = 0.0):
        super().__init__()
        self.num_features = self.head_hidden_size = width
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv3d(3, width, (2, self.PATCH, self.PATCH), (2, self.PATCH, self.PATCH))
        norm: Any = partial(nn.LayerNorm, eps=1e-6)  # timm asks for a class and takes what makes one
        self.blocks = nn.Sequential(
            *(Block(width, heads, qkv_bias=True, norm_layer=norm, drop_path=p) for p in rising(drop_path, depth))
        )
        self.fc_norm = norm(width)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.FRAMES or x.shape[-1] % self.PATCH or x.shape[-2] % self.PATCH:
            raise AvscError(
                f"--model.video videomae2 takes {self.FRAMES} frames whose sides are multiples of {self.PATCH}: add "
                f"--model.frames {self.FRAMES} and --model.size 224"
            )
        x = self.patch_embed.proj(x.transpose(1, 2)).flatten(2).transpose(1, 2)
        return self.fc_norm(self.blocks(x + sines(*x.shape[1:]).to(x)).mean(dim=1))


def sines(count: int, width: int) -> Tensor:
    """(count, width) float32: sine and cosine of each position at falling frequencies (Vaswani et al., 2017)."""
    rates = 10_000 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).float()


KINETICS = {"mean": (0.43216, 0.394666, 0.37645), "std": (0.22803, 0.22145, 0.216989)}
HALVES = {"mean": (0.45, 0.45, 0.45), "std": (0.225, 0.225, 0.225)}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

default_cfgs = generate_default_cfgs(
    {
        "tv_mvit_v2_s.kinetics400": {"input_size": (3, 224, 224), "fixed_input_size": False, **HALVES},
        "tv_swin3d_t.kinetics400": {"input_size": (3, 224, 224), **IMAGENET},
        "tv_s3d.kinetics400": {"input_size": (3, 224, 224), **KINETICS},
        "tv_r2plus1d_18.kinetics400": {"input_size": (3, 112, 112), **KINETICS},
        "videomae2_small.k710": {"input_size": (3, 224, 224), **IMAGENET},
        "videomae2_base.k710": {"input_size": (3, 224, 224), **IMAGENET},
    }
)


@register_model
def videomae2_small(pretrained: bool = False, drop_path_rate: float = 0.0, **options) -> VideoMae:
    """ViT-S, 22 M parameters, on 16 frames of 224 pixels."""
    no_classifier(options)
    return VideoMae(384, 12, 6, drop_path_rate)


@register_model
def videomae2_base(pretrained: bool = False, drop_path_rate: float = 0.0, **options) -> VideoMae:
    """ViT-B, 86 M parameters, on 16 frames of 224 pixels."""
    no_classifier(options)
    return VideoMae(768, 12, 12, drop_path_rate)


@register_model
def tv_mvit_v2_s(pretrained: bool = False, **options) -> ClipNet:
    """MViTv2-S (Li et al., CVPR 2022) on 16 frames of 224 pixels."""
    no_classifier(options)
    return ClipNet("tv_mvit_v2_s", video.mvit_v2_s, "head", 768, frames=16)


@register_model
def tv_swin3d_t(pretrained: bool = False, **options) -> ClipNet:
    """Video Swin-T (Liu et al., CVPR 2022)."""
    no_classifier(options)
    return ClipNet("tv_swin3d_t", video.swin3d_t, "head", 768)


@register_model
def tv_s3d(pretrained: bool = False, **options) -> ClipNet:
    """S3D (Xie et al., ECCV 2018), of 14 frames or more."""
    no_classifier(options)
    return ClipNet("tv_s3d", video.s3d, "classifier", 1024)


@register_model
def tv_r2plus1d_18(pretrained: bool = False, **options) -> ClipNet:
    """R(2+1)D-18 (Tran et al., CVPR 2018)."""
    no_classifier(options)
    return ClipNet("tv_r2plus1d_18", video.r2plus1d_18, "fc", 512)
