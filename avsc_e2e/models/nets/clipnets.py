"""Video nets over several frames at once, from torchvision, with their weights from Kinetics-400: one trunk over the
frames of a clip."""

from __future__ import annotations

from collections.abc import Callable

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn
from torchvision.models import video

from avsc_e2e.errors import AvscError
from avsc_e2e.models.nets.audionet import no_classifier


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


KINETICS = {"mean": (0.43216, 0.394666, 0.37645), "std": (0.22803, 0.22145, 0.216989)}
HALVES = {"mean": (0.45, 0.45, 0.45), "std": (0.225, 0.225, 0.225)}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

default_cfgs = generate_default_cfgs(
    {
        "tv_mvit_v2_s.kinetics400": {"input_size": (3, 224, 224), "fixed_input_size": False, **HALVES},
        "tv_swin3d_t.kinetics400": {"input_size": (3, 224, 224), **IMAGENET},
        "tv_s3d.kinetics400": {"input_size": (3, 224, 224), **KINETICS},
        "tv_r2plus1d_18.kinetics400": {"input_size": (3, 112, 112), **KINETICS},
    }
)


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
