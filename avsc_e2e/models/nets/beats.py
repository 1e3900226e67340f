"""BEATs (Chen et al., ICML 2023): a transformer over patches of Kaldi's filter banks, pretrained on AudioSet with a
tokenizer that was learned with it. Its positions are relative, so it takes clips of any length. The front end is in
zoo/frontends.py."""

from __future__ import annotations

import math

import torch
from timm.models import register_model
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from avsc_e2e.models.nets.audionet import AudioNet, no_classifier

PATCH = 16
"""Bands and frames of a patch; patches do not overlap."""
SHIFT, SPREAD = 15.41663 - 30 * math.log(2), 2 * 6.55582
"""Mean and divisor with which the published net normalises log energies; its samples are 2^15 times ours."""
BUCKETS, FARTHEST = 320, 800
"""Number of distance buckets, half of them for each direction, and the distance from which all share the last
bucket."""


def buckets(length: int) -> Tensor:
    """(L, L) int64: the distance bucket of each pair of tokens. A quarter of the buckets are exact; the others grow
    logarithmically (as in T5, Raffel et al., 2020)."""
    distance = torch.arange(length)[None, :] - torch.arange(length)[:, None]
    half, exact = BUCKETS // 2, BUCKETS // 4
    far = distance.abs().clamp(min=1).float()
    rough = exact + (torch.log(far / exact) / math.log(FARTHEST / exact) * (half - exact)).long()
    return torch.where(distance.abs() < exact, distance.abs(), rough.clamp(max=half - 1)) + half * (distance > 0)


class _Attention(nn.Module):
    """Attention whose position bias (H, L, L) is scaled for each query by two gates."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gates = nn.Linear(width // heads, 8)
        self.gain = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        one, other = self.gates(query).unflatten(3, (2, 4)).sum(dim=4).sigmoid().split(1, dim=3)
        scale = one * (other * self.gain - 1) + 2
        seen = scaled_dot_product_attention(query, key, value, attn_mask=(scale * bias).to(query))
        return self.out(seen.transpose(1, 2).flatten(2))


class _Block(nn.Module):
    """A transformer block whose norms follow the sums and whose residual input is multiplied by `carry` (DeepNorm, Wang
    et al., 2022)."""

    def __init__(self, width: int, inner: int, heads: int, carry: float):
        super().__init__()
        self.carry = carry
        self.attn, self.norm1 = _Attention(width, heads), nn.LayerNorm(width)
        self.fc1, self.fc2, self.norm2 = nn.Linear(width, inner), nn.Linear(inner, width), nn.LayerNorm(width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.norm1(self.carry * x + self.attn(x, bias))
        return self.norm2(self.carry * x + self.fc2(gelu(self.fc1(x))))


class Beats(AudioNet):
    """Its tokens are those of the patches, the mean over bands; their mean is the embedding of 768. The dropout of its
    training is left out."""

    def __init__(self, in_chans: int, width: int = 768, depth: int = 12, heads: int = 12, patch_width: int = 512):
        super().__init__(width)
        self.patch_embed = nn.Conv2d(in_chans, patch_width, PATCH, PATCH, bias=False)
        self.patch_norm, self.proj = nn.LayerNorm(patch_width), nn.Linear(patch_width, width)
        self.pos_conv = nn.Conv1d(width, width, 128, padding=64, groups=16)
        self.pos_norm = nn.LayerNorm(width)
        self.position = nn.Embedding(BUCKETS, heads)
        carry, narrow = (2 * depth) ** 0.25, (8 * depth) ** -0.25
        self.blocks = nn.ModuleList(_Block(width, 4 * width, heads, carry) for _ in range(depth))
        nn.init.normal_(self.pos_conv.weight, std=math.sqrt(4 / (128 * width)))
        assert self.pos_conv.bias is not None
        nn.init.zeros_(self.pos_conv.bias)
        for layer in (self.proj, self.position):
            nn.init.normal_(layer.weight, std=0.02)
        for block in self.blocks:
            for layer in (block.attn.out, block.fc1, block.fc2):
                nn.init.xavier_normal_(layer.weight, gain=narrow)
            for part, gain in zip(block.attn.qkv.weight.chunk(3), (1.0, 1.0, narrow), strict=True):
                nn.init.xavier_normal_(part, gain=gain)

    def tokens(self, x: Tensor) -> Tensor:
        x = self.patch_embed((x - SHIFT).transpose(2, 3) / SPREAD)  # the published layout is (B, 1, frames, bands)
        times, bands = x.shape[2:]
        x = self.proj(self.patch_norm(x.flatten(2).transpose(1, 2)))
        x = self.pos_norm(x + gelu(self.pos_conv(x.transpose(1, 2))[..., :-1]).transpose(1, 2))
        bias = self.position(buckets(x.shape[1]).to(x.device)).permute(2, 0, 1)
        for block in self.blocks:
            x = block(x, bias)
        return x.unflatten(1, (times, bands)).mean(dim=2)


@register_model
def beats(pretrained: bool = False, in_chans: int = 1, **options) -> Beats:
    """90 M parameters; 10 s of 128 bands at 16 kHz make 496 tokens."""
    no_classifier(options)
    return Beats(in_chans)
