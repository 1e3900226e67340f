"""The sound-effect net aisfx, whose weights are in a package on PyPI."""

from __future__ import annotations

import math

from timm.models import register_model
from torch import Tensor
from torch.nn.functional import max_pool2d

from avsc_e2e.models.nets.audionet import AudioNet, no_classifier
from avsc_e2e.models.nets.audioset import ConvBlock

GAIN = 10_000.0
"""The net takes log10(GAIN x + 1) of band powers x, while planes are ln(x + 1 / GAIN)."""
LARGEST = 9.457798957824707
"""Largest value of its training set, by which the published net divides its input."""


class Aisfx(AudioNet):
    """Ma and Lerch, "Representation learning for the automatic indexing of sound effects libraries", ISMIR 2022: eight
    convolutions, 64 to 512 filters; mean over bands, maximum over time; embedding of 512."""

    def __init__(self, in_chans: int):
        super().__init__(512)
        for index, (before, after) in enumerate(zip((in_chans, 64, 128, 256), (64, 128, 256, 512), strict=True), 1):
            setattr(self, f"conv_block{index}", ConvBlock(before, after))

    def tokens(self, x: Tensor) -> Tensor:
        return self.above(self.below(x))

    def below(self, x: Tensor) -> Tensor:
        """Planes -> the input of the last block."""
        x = (x + math.log(GAIN)) / (math.log(10) * LARGEST)
        x = x.transpose(2, 3)  # the published layout is (B, 1, frames, bands)
        for index in range(1, 4):
            x = max_pool2d(getattr(self, f"conv_block{index}")(x), 2)
        return x

    def above(self, x: Tensor) -> Tensor:
        """The last block and the mean over bands: its input -> tokens."""
        return self.conv_block4(x).mean(dim=3).transpose(1, 2)

    def pool(self, tokens: Tensor) -> Tensor:
        return tokens.amax(dim=1)


@register_model
def aisfx(pretrained: bool = False, in_chans: int = 1, **options) -> Aisfx:
    """4.7 M parameters."""
    no_classifier(options)
    return Aisfx(in_chans)
