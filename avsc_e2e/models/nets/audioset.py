"""Nets known for their AudioSet weights: CNN14 (PANN), alone and with a wavegram, VGGish, YAMNet. Layers have the names
and shapes of the published code, so that its weights load strictly; their front ends are in zoo/frontends.py."""

from __future__ import annotations

import torch
from timm.models import register_model
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, dropout, max_pool1d, pad, relu

from avsc_e2e.errors import AvscError
from avsc_e2e.models.nets.audionet import AudioNet, no_classifier

PATCH = 96
"""Time frames of 10 ms in a patch of VGGish and YAMNet."""


class ConvBlock(nn.Module):
    """Two convolutions of 3 x 3, each with batch norm and ReLU."""

    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))))


class Cnn14(AudioNet):
    """Kong et al., "PANNs", 2020: six blocks of two convolutions, 64 to 2048 filters; embedding of 2048. Its input is
    dB of 64 bands at 32 kHz. It does not contain the published `fc_audioset` and front-end layers."""

    def __init__(self, in_chans: int, bands: int):
        super().__init__(2048)
        widths = (64, 128, 256, 512, 1024, 2048)
        self.bn0 = nn.BatchNorm2d(bands)
        for index, (before, after) in enumerate(zip((in_chans, *widths), widths, strict=False), start=1):
            setattr(self, f"conv_block{index}", ConvBlock(before, after))
        self.fc1 = nn.Linear(2048, 2048)

    def tokens(self, x: Tensor) -> Tensor:
        return self.above(self.below(x))

    def below(self, x: Tensor) -> Tensor:
        """Planes -> the output of the first block, (B, 64, frames / 2, bands / 2)."""
        x = self.bn0(x.transpose(1, 2)).permute(0, 2, 3, 1)  # the published layout is (B, 1, frames, bands)
        return avg_pool2d(self.conv_block1(x), 2)

    def above(self, x: Tensor) -> Tensor:
        """The other blocks and the mean over bands: output of the first block -> tokens."""
        x = dropout(x, 0.2, self.training)
        for index in range(2, 7):
            x = getattr(self, f"conv_block{index}")(x)
            if index < 6:
                x = avg_pool2d(x, 2)
            x = dropout(x, 0.2, self.training)
        return x.mean(dim=3).transpose(1, 2)

    def pool(self, tokens: Tensor) -> Tensor:
        x = tokens.amax(dim=1) + tokens.mean(dim=1)
        return relu(self.fc1(dropout(x, 0.5, self.training)))


class _WaveBlock(nn.Module):
    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.conv1 = nn.Conv1d(width_in, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv1d(width, width, 3, padding=2, dilation=2, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm1d(width), nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        return max_pool1d(relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))), 4)


class WavegramCnn14(Cnn14):
    """Kong et al., "PANNs", 2020: CNN14 whose second block also takes a wavegram, 32 learned bands of the waveform
    every 10 ms. Its input is the planes of CNN14 and, below them, the 320 samples of each frame."""

    HOP = 5 * 4**3
    """Samples of the waveform that become one frame."""

    def __init__(self, in_chans: int, bands: int):
        super().__init__(in_chans, bands)
        self.bands = bands
        self.pre_conv0, self.pre_bn0 = nn.Conv1d(in_chans, 64, 11, 5, 5, bias=False), nn.BatchNorm1d(64)
        for index, (before, after) in enumerate(((64, 64), (64, 128), (128, 128)), start=1):
            setattr(self, f"pre_block{index}", _WaveBlock(before, after))
        self.pre_block4 = ConvBlock(4, 64)
        self.conv_block2 = ConvBlock(2 * 64, 128)

    def tokens(self, x: Tensor) -> Tensor:
        if x.shape[2] != self.bands + self.HOP:
            raise AvscError(
                f"wavegram_cnn14 takes {self.bands} bands and the {self.HOP} samples of a frame: use the front end "
                f"WAVEGRAM, with --model.waveform and --model.hop {self.HOP}"
            )
        seen, heard = self.below(x[:, :, : self.bands]), self.wavegram(x[:, :, self.bands :, :-1])
        steps = min(seen.shape[2], heard.shape[2])
        return self.above(torch.cat([seen[:, :, :steps], heard[:, :, :steps]], dim=1))

    def wavegram(self, samples: Tensor) -> Tensor:
        """(B, P, 320, frames) -> (B, 64, frames / 2, 32)."""
        x = relu(self.pre_bn0(self.pre_conv0(samples.transpose(2, 3).flatten(2))))
        x = self.pre_block3(self.pre_block2(self.pre_block1(x)))
        x = self.pre_block4(x.unflatten(1, (-1, 32)).transpose(2, 3))
        return avg_pool2d(x, (2, 1))


def patches(x: Tensor, hop: int) -> tuple[Tensor, int]:
    """(B, P, bands, frames) -> (B * E, P, bands, 96) and E: windows of 96 frames, every `hop`. The rest at the end is
    left out, as published; a clip that is too short for one window is padded with its last frame."""
    if x.shape[-1] < PATCH:
        x = pad(x.flatten(1, 2), (0, PATCH - x.shape[-1]), mode="replicate").unflatten(1, x.shape[1:3])
    x = x.unfold(3, PATCH, hop).movedim(3, 1)  # (B, E, P, bands, 96)
    return x.flatten(0, 1), x.shape[1]


class Vggish(AudioNet):
    """Hershey et al., ICASSP 2017: six convolutions and three full layers on patches of 0.96 s; embedding of 128, the
    mean over patches. Takes ln(magnitude + 0.01) of 64 bands at 16 kHz. Names as in the PyTorch port torchvggish."""

    def __init__(self, in_chans: int):
        super().__init__(128)
        layers, before = [], in_chans
        for width in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0):
            if width:
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(512 * 4 * 6, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 128), nn.ReLU()
        )

    def tokens(self, x: Tensor) -> Tensor:
        x, count = patches(x, PATCH)
        x = self.features(x.transpose(2, 3))  # the published layout is (B, 1, frames, bands)
        x = self.embeddings(x.permute(0, 2, 3, 1).flatten(1))  # flattened with the channels last
        return x.unflatten(0, (-1, count))


class _Separable(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.depthwise = _SameConv(width_in, width_in, stride, groups=width_in)
        self.pointwise = nn.Sequential(nn.Conv2d(width_in, width, 1, bias=False), _shift_norm(width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class _SameConv(nn.Sequential):
    """3x3 convolution, batch norm, ReLU; padded as in TensorFlow, that is, for stride 2 only at the end."""

    def __init__(self, width_in: int, width: int, stride: int, groups: int = 1):
        edges = (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1)
        super().__init__(
            nn.ZeroPad2d(edges),
            nn.Conv2d(width_in, width, 3, stride, groups=groups, bias=False),
            _shift_norm(width),
            nn.ReLU(),
        )


def _shift_norm(width: int) -> nn.BatchNorm2d:
    """Batch norm that centres and does not scale: its weight is a constant 1."""
    norm = nn.BatchNorm2d(width, eps=1e-4)
    del norm.weight
    norm.register_buffer("weight", torch.ones(width), persistent=False)
    return norm


class Yamnet(AudioNet):
    """MobileNet v1 (Howard et al., 2017) on patches of 0.96 s every 0.48 s, as AudioSet's YAMNet; embedding of 1024,
    the mean over patches. Takes ln(magnitude + 0.001) of 64 bands at 16 kHz."""

    def __init__(self, in_chans: int):
        super().__init__(1024)
        widths = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
        strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
        layers = [_SameConv(in_chans, 32, 2)]
        for before, after, stride in zip((32, *widths), widths, strides, strict=False):
            layers.append(_Separable(before, after, stride))
        self.layers = nn.Sequential(*layers)

    def tokens(self, x: Tensor) -> Tensor:
        x, count = patches(x, PATCH // 2)
        return self.layers(x.transpose(2, 3)).mean(dim=(2, 3)).unflatten(0, (-1, count))


@register_model
def cnn14(pretrained: bool = False, in_chans: int = 1, bands: int = 64, **options) -> Cnn14:
    no_classifier(options)
    return Cnn14(in_chans, bands)


@register_model
def cnn14_16k(pretrained: bool = False, in_chans: int = 1, bands: int = 64, **options) -> Cnn14:
    """CNN14, for the weights that were trained on audio at 16 kHz."""
    no_classifier(options)
    return Cnn14(in_chans, bands)


@register_model
def wavegram_cnn14(pretrained: bool = False, in_chans: int = 1, bands: int = 64, **options) -> WavegramCnn14:
    """81 M parameters."""
    no_classifier(options)
    return WavegramCnn14(in_chans, bands)


@register_model
def vggish(pretrained: bool = False, in_chans: int = 1, **options) -> Vggish:
    no_classifier(options)
    return Vggish(in_chans)


@register_model
def yamnet(pretrained: bool = False, in_chans: int = 1, **options) -> Yamnet:
    no_classifier(options)
    return Yamnet(in_chans)
