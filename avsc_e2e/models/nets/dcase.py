"""Nets that DCASE teams trained from scratch on acoustic scenes: McDonnell's split-frequency ResNet, the FCNN and
17-layer ResNet of Du_USTC, the squeeze-excitation net of Naranjo-Alcazar."""

from __future__ import annotations

import timm
import torch
from timm.layers import Conv2dSame, pad_same
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

from avsc_e2e.models.nets.audionet import AudioNet, no_classifier


class _PreActivation(nn.Sequential):
    """Batch norm, ReLU, convolution without bias."""

    def __init__(self, width_in: int, width: int, kernel: int = 3, stride: tuple[int, int] = (1, 1)):
        super().__init__(_keras_norm(width_in, affine=False), nn.ReLU(), _same_conv(width_in, width, kernel, stride))


class _SameMean(nn.Module):
    """The mean over 3x3 positions with time halved; as in Keras, padding at the end of an even length does not
    count."""

    def forward(self, x: Tensor) -> Tensor:
        means, counts = (avg_pool2d(pad_same(y, [3, 3], [1, 2]), 3, (1, 2)) for y in (x, torch.ones_like(x[:1, :1])))
        return means / counts


class _SplitBlock(nn.Module):
    """Two pre-activation convolutions; where the width doubles, time is halved and the shortcut is averaged over time
    and padded with zero channels."""

    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.grow = width - width_in
        stride = (1, 2) if self.grow else (1, 1)
        self.convs = nn.Sequential(_PreActivation(width_in, width, stride=stride), _PreActivation(width, width))
        self.shortcut = _SameMean() if self.grow else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x) + pad(self.shortcut(x), (0, 0, 0, 0, 0, self.grow))


class SplitResNet(AudioNet):
    """Low and high bands go through two equal paths of 24 to 192 filters that keep the resolution in frequency; a 1x1
    convolution to 768 joins them (Gao and McDonnell, DCASE 2019). Its tokens are all positions in band and time. With
    the head "pointwise" it is the published net: 3,254,468 parameters with the running statistics, 3,247,416 trainable,
    for 6 planes."""

    def __init__(self, in_chans: int, width: int = 24, stacks: int = 4):
        last = width * 2 ** (stacks - 1)
        super().__init__(4 * last)
        self.low, self.high = (self._path(in_chans, width, stacks) for _ in range(2))
        self.join = _PreActivation(last, 4 * last, kernel=1)

    @staticmethod
    def _path(in_chans: int, width: int, stacks: int) -> nn.Sequential:
        layers = [_keras_norm(in_chans), _same_conv(in_chans, width, 3, (1, 2))]
        for stack in range(stacks):
            after = width * 2**stack
            layers += [_SplitBlock(after // 2 if stack else after, after), _SplitBlock(after, after)]
        return nn.Sequential(*layers)

    def tokens(self, x: Tensor) -> Tensor:
        low, high = x.tensor_split(2, dim=2)
        return self.join(torch.cat([self.low(low), self.high(high)], dim=2)).flatten(2).transpose(1, 2)


class Fcnn(AudioNet):
    """A VGG-like fully convolutional net: a 5x5 convolution with stride 2, then 3x3 ones, two, two and four to a block
    (Hu et al., DCASE 2020, of the same team). The numbers of filters are 24, 48 and 96 for each plane. Time is divided
    by 16, so it needs at least 15 frames."""

    def __init__(self, in_chans: int, width: int = 24):
        widths = [in_chans * width * 2**block for block in range(3)]
        super().__init__(widths[-1])
        layers: list[nn.Module] = [_keras_norm(in_chans)]
        before = in_chans
        for block, (after, count) in enumerate(zip(widths, (2, 2, 4), strict=True)):
            for index in range(count):
                first = not block and not index
                conv = nn.Conv2d(before, after, 5 if first else 3, 2 if first else 1, 2 if first else 1, bias=False)
                layers += [conv, _keras_norm(after), nn.ReLU()]
                if block == 2 and index < count - 1:
                    layers.append(nn.Dropout(0.3))
                before = after
            layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers)

    def tokens(self, x: Tensor) -> Tensor:
        # The published net ends in a 1x1 convolution to the classes with channel attention. Our choice is means, so
        # that fusion has an embedding.
        return self.layers(x).mean(dim=2).transpose(1, 2)


class _ScSe(nn.Module):
    """Concurrent spatial and channel squeeze and excitation (Roy et al., 2018)."""

    def __init__(self, width: int, ratio: int):
        super().__init__()
        self.squeeze = nn.Linear(width, width // ratio, bias=False)
        self.excite = nn.Linear(width // ratio, width, bias=False)
        self.spatial = nn.Conv2d(width, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        channel = self.excite(torch.relu(self.squeeze(x.mean(dim=(2, 3))))).sigmoid()
        return x * channel[:, :, None, None] + x * self.spatial(x).sigmoid()


class _SeBlock(nn.Module):
    """Two convolutions and an excitation, with a 1x1 shortcut that is added before and after the excitation."""

    def __init__(self, width_in: int, width: int, ratio: int):
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(width_in, width, 3, padding=1), _keras_norm(width), nn.ELU(),
            nn.Conv2d(width, width, 3, padding=1), _keras_norm(width),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1), _keras_norm(width))
        self.excitation = _ScSe(width, ratio)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        return self.excitation(nn.functional.elu(self.convs(x) + shortcut)) + shortcut


class SeResNet(AudioNet):
    """Three residual squeeze-excitation blocks of 32, 64 and 128 filters; after the first two, time is pooled by two,
    so 50 frames become 12, and the bands are kept (Naranjo-Alcazar et al., DCASE 2021). With its head 323,274
    parameters, running statistics counted, for 3 planes."""

    def __init__(self, in_chans: int, widths: tuple[int, ...] = (32, 64, 128), pools: tuple[int, ...] = (2, 2, 1)):
        super().__init__(widths[-1])
        layers, before = [], in_chans
        for width, pool in zip(widths, pools, strict=True):
            layers += [_SeBlock(before, width, ratio=2), nn.MaxPool2d((1, pool))]
            before = width
        self.layers = nn.Sequential(*layers)

    def tokens(self, x: Tensor) -> Tensor:
        return self.layers(x).mean(dim=2).transpose(1, 2)


def _keras_norm(width: int, affine: bool = True) -> nn.BatchNorm2d:
    """Batch norm with the constants of Keras."""
    return nn.BatchNorm2d(width, eps=1e-3, momentum=0.01, affine=affine)


def _same_conv(width_in: int, width: int, kernel: int, stride: tuple[int, int]) -> nn.Conv2d:
    """Convolution padded as in Keras, that is, for an even length and stride 2 only at the end, with He's
    initialisation."""
    conv = Conv2dSame(width_in, width, kernel, stride, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv


@register_model
def mcdonnell_resnet(pretrained: bool = False, in_chans: int = 6, **options) -> SplitResNet:
    """The split-frequency ResNet of McDonnell_USA, DCASE 2019 Task 1A."""
    no_classifier(options)
    return SplitResNet(in_chans)


@register_model
def du_resnet17(pretrained: bool = False, in_chans: int = 6, **options) -> SplitResNet:
    """The 17-layer ResNet of Du_USTC: McDonnell's net at twice the width, as in the team's DCASE 2020 code for ten
    classes (Hu et al.)."""
    no_classifier(options)
    return SplitResNet(in_chans, width=48)


@register_model
def du_fcnn(pretrained: bool = False, in_chans: int = 6, **options) -> Fcnn:
    """The fully convolutional net of Du_USTC, after the team's DCASE 2020 code (Hu et al.)."""
    no_classifier(options)
    return Fcnn(in_chans)


@register_model
def naranjo_se(pretrained: bool = False, in_chans: int = 3, **options) -> SeResNet:
    """The squeeze-excitation net of Naranjo-Alcazar_UV."""
    no_classifier(options)
    return SeResNet(in_chans)


class Vgg16Features(nn.Module):
    """The convolutions of timm's vgg16, under timm's names, and the maximum over the map: (B, 3, H, W) -> (B, 512).
    Frames are from 0 to 255. `mean` and `std` belong to the loaded weights; by default they have no effect."""

    def __init__(self, in_chans: int):
        super().__init__()
        # One unit in place of 4,096: the layers above the features, most of the net, are not used.
        self.features = timm.create_model("vgg16", in_chans=in_chans, num_classes=0, mlp_ratio=1 / 4096).features
        self.num_features = self.head_hidden_size = 512
        self.register_buffer("mean", torch.zeros(in_chans, 1, 1))
        self.register_buffer("std", torch.ones(in_chans, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.features((x - self.mean) / self.std).amax(dim=(2, 3))


default_cfgs = generate_default_cfgs(  # frames from 0 to 255
    {"vgg16_features.places365": {"input_size": (3, 224, 224), "mean": (0.0, 0.0, 0.0), "std": (1 / 255,) * 3}}
)


@register_model
def vgg16_features(pretrained: bool = False, in_chans: int = 3, **options) -> Vgg16Features:
    """VGG16 without its fully connected layers, as in Naranjo-Alcazar_UV: 14.7 M of its 138 M parameters."""
    no_classifier(options)
    return Vgg16Features(in_chans)
