"""Audio trunks of our own, and one after Zhang_IOA. They are registered with timm, so that timm creates every trunk,
and take planes (B, P, bands, frames)."""

from __future__ import annotations

import torch
from timm.layers import DropPath
from timm.models import register_model
from torch import Tensor, nn

from avsc_e2e.models.nets.audionet import AudioNet, no_classifier


class _Block(nn.Module):
    """Two 3x3 convolutions with a residual connection (He et al., 2016)."""

    def __init__(self, width_in: int, width: int, stride: int, drop_path: float):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.carry = nn.Identity()
        if stride != 1 or width_in != width:
            carry = [nn.AvgPool2d(stride, ceil_mode=True)] if stride != 1 else []
            self.carry = nn.Sequential(*carry, nn.Conv2d(width_in, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.drop_path(self.bn2(self.conv2(y))) + self.carry(x))


def rising(share: float, count: int) -> list[float]:
    """Shares of stochastic depth for each block, from 0 at the first to `share` at the last (Huang et al., 2016)."""
    return [share * index / max(count - 1, 1) for index in range(count)]


class AudioResNet(AudioNet):
    """A residual network over planes of bands and time frames. Its embedding is the mean over time of the mean and the
    maximum over bands."""

    def __init__(self, in_chans: int, width: int, blocks: tuple[int, ...], drop_path: float = 0.0):
        super().__init__(2 * width * 2 ** (len(blocks) - 1))
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, width, 3, (2, 2), 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        layers, before = [], width
        shares = iter(rising(drop_path, sum(blocks)))
        for stage, count in enumerate(blocks):
            after = width * 2**stage
            for block in range(count):
                layers.append(_Block(before, after, 2 if stage and not block else 1, next(shares)))
                before = after
        self.blocks = nn.Sequential(*layers)

    def tokens(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        return torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1).transpose(1, 2)


class AudioCnn1d(AudioNet):
    """A deep residual network with convolutions over time only; the bands of all planes are its input channels. It
    follows the audio branch of Wang, Chen et al., DCASE 2021 (Zhang_IOA). Layers and widths are our choice, because
    none are published."""

    def __init__(self, in_chans: int, bands: int, width: int, depth: int, drop_path: float = 0.0):
        super().__init__(2 * width, token_width=width)
        self.stem = nn.Sequential(
            nn.Conv1d(in_chans * bands, width, 5, 1, 2, bias=False), nn.BatchNorm1d(width), nn.ReLU()
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, width, 3, 1, padding=2**step, dilation=2**step, bias=False),
                nn.BatchNorm1d(width),
                nn.ReLU(),
                nn.Conv1d(width, width, 1, bias=False),
                nn.BatchNorm1d(width),
                DropPath(share) if share else nn.Identity(),
            )
            for index, share in enumerate(rising(drop_path, depth))
            for step in (index % 4,)
        )

    def tokens(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1, 2))
        for block in self.blocks:
            x = torch.relu(x + block(x))
        return x.transpose(1, 2)

    def pool(self, tokens: Tensor) -> Tensor:
        return torch.cat([tokens.mean(dim=1), tokens.amax(dim=1)], dim=1)


@register_model
def audio_resnet10(
    pretrained: bool = False, in_chans: int = 1, width: int = 32, drop_path_rate: float = 0.0, **options
) -> AudioResNet:
    """1.2 M parameters: trains on a laptop."""
    no_classifier(options)
    return AudioResNet(in_chans, width, (1, 1, 1, 1), drop_path_rate)


@register_model
def audio_resnet18(pretrained: bool = False, in_chans: int = 1, drop_path_rate: float = 0.0, **options) -> AudioResNet:
    no_classifier(options)
    return AudioResNet(in_chans, 64, (2, 2, 2, 2), drop_path_rate)


@register_model
def audio_cnn1d(
    pretrained: bool = False,
    in_chans: int = 1,
    bands: int = 128,
    width: int = 512,
    depth: int = 12,
    drop_path_rate: float = 0.0,
    **options,
) -> AudioCnn1d:
    no_classifier(options)
    return AudioCnn1d(in_chans, bands, width, depth, drop_path_rate)


@register_model
def audio_test(pretrained: bool = False, in_chans: int = 1, drop_path_rate: float = 0.0, **options) -> AudioResNet:
    """A tiny net for tests."""
    no_classifier(options)
    return AudioResNet(in_chans, 8, (1, 1), drop_path_rate)
