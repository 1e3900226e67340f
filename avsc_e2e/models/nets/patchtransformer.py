"""Audio transformers over patches of a spectrogram, known for their AudioSet weights: PaSST and AST. Layers have the
names and shapes of the published code; their front ends are in zoo/frontends.py."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any

import torch
from timm.layers import trunc_normal_
from timm.models import register_model
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import interpolate

from avsc_e2e.models.nets.audionet import AudioNet, no_classifier
from avsc_e2e.models.nets.residual import rising

PATCH, STRIDE = 16, 10
"""Size of a patch and distance of neighbouring patches, in bands and frames."""


class PatchTransformer(AudioNet):
    """A distilled DeiT-B (Touvron et al., 2021) over overlapping patches of log-mels. Its tokens are the class token,
    the distillation token, and one token for each step in time, the mean over bands. The mean of the first two is the
    embedding of 768."""

    SHIFT, SPREAD = 0.0, 1.0
    """Mean and divisor with which the published net normalises its input."""

    def __init__(self, in_chans: int, width: int = 768, depth: int = 12, heads: int = 12, drop_path: float = 0.0):
        super().__init__(width)
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(in_chans, width, PATCH, STRIDE)
        self.cls_token, self.dist_token = (nn.Parameter(0.02 * torch.randn(1, 1, width)) for _ in range(2))
        norm: dict[str, Any] = {"qkv_bias": True, "norm_layer": partial(nn.LayerNorm, eps=1e-6)}
        self.blocks = nn.Sequential(*(Block(width, heads, drop_path=p, **norm) for p in rising(drop_path, depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    @abstractmethod
    def placed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (B, width, F, T) and the first two tokens (1, 2, width), with positions added."""

    def tokens(self, x: Tensor) -> Tensor:
        x = self.patch_embed.proj((x - self.SHIFT) / self.SPREAD)
        bands, times = x.shape[2:]
        patches, first = self.placed(x)
        x = torch.cat([first.expand(len(x), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        x = self.norm(self.blocks(x))
        return torch.cat([x[:, :2], x[:, 2:].unflatten(1, (bands, times)).mean(dim=1)], dim=1)

    def pool(self, tokens: Tensor) -> Tensor:
        return tokens[:, :2].mean(dim=1)

    def no_weight_decay(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if "token" in name or "pos_embed" in name}


class Passt(PatchTransformer):
    """PaSST (Koutini et al., Interspeech 2022): separate positions for bands and for time. A shorter clip uses the
    first positions in time; for a longer one they are interpolated. Patchout, used in its training, is not
    implemented."""

    SHIFT, SPREAD = -4.5, 5.0

    def __init__(self, in_chans: int, bands: int = 128, frames: int = 998, **options):
        super().__init__(in_chans, **options)
        width = self.num_features
        self.new_pos_embed = nn.Parameter(0.02 * torch.randn(1, 2, width))
        self.freq_new_pos_embed = nn.Parameter(0.02 * torch.randn(1, width, bands // STRIDE, 1))
        self.time_new_pos_embed = nn.Parameter(0.02 * torch.randn(1, width, 1, frames // STRIDE))

    def placed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        time: Tensor = self.time_new_pos_embed
        if x.shape[3] > time.shape[3]:
            time = interpolate(time, (1, x.shape[3]), mode="bilinear")
        first = torch.cat([self.cls_token, self.dist_token], dim=1) + self.new_pos_embed
        return x + time[..., : x.shape[3]] + self.freq_new_pos_embed, first


class Ast(PatchTransformer):
    """AST (Gong et al., Interspeech 2021): a position for each patch of 128 bands and 1024 frames. A shorter clip uses
    those in the middle; for a longer one they are interpolated, as published."""

    SHIFT, SPREAD = -4.2677393, 2 * 4.5689974
    GRID = (12, 101)

    def __init__(self, in_chans: int, **options):
        super().__init__(in_chans, **options)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 2 + self.GRID[0] * self.GRID[1], self.num_features))

    def placed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        grid = self.pos_embed[:, 2:].transpose(1, 2).unflatten(2, self.GRID)
        bands, times = x.shape[2:]
        if times <= self.GRID[1]:
            start = self.GRID[1] // 2 - times // 2
            grid = grid[..., start : start + times]
        else:
            grid = interpolate(grid, (self.GRID[0], times), mode="bilinear")
        if bands != self.GRID[0]:
            grid = interpolate(grid, (bands, times), mode="bilinear")
        return x + grid, torch.cat([self.cls_token, self.dist_token], dim=1) + self.pos_embed[:, :2]


@register_model
def passt_s(
    pretrained: bool = False, in_chans: int = 1, bands: int = 128, drop_path_rate: float = 0.0, **options
) -> Passt:
    """85 M parameters; 10 s of 128 bands at 32 kHz make 1,190 tokens."""
    no_classifier(options)
    return Passt(in_chans, bands, drop_path=drop_path_rate)


@register_model
def ast_base(pretrained: bool = False, in_chans: int = 1, drop_path_rate: float = 0.0, **options) -> Ast:
    """86 M parameters; 10.24 s of 128 bands at 16 kHz make 1,214 tokens."""
    no_classifier(options)
    return Ast(in_chans, drop_path=drop_path_rate)
