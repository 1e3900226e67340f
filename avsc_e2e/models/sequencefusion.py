"""Fusion of both branches step by step in time, as two teams of DCASE 2021 published it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, avg_pool1d, scaled_dot_product_attention

from avsc_e2e.errors import AvscError


class UnscaledEncoder(nn.Module):
    """A transformer's encoder layer, norms last, whose products of queries and keys are not divided by the root of
    their width. (B, L, width) -> the same."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2))
        attended = scaled_dot_product_attention(q, k, v, scale=1.0).transpose(1, 2).flatten(2)
        x = self.norm1(x + self.out(attended))
        return self.norm2(x + self.mlp(x))


class SequenceFusion(nn.Module):
    """The model of Hou_UGent (DCASE 2021, rank 16): self-attention and convolutions turn the sequence of audio
    embeddings into ten steps of `hidden` values, and one layer maps each frame's embedding. Both are concatenated step
    by step and classified; the logits are the sum of mean and maximum over time. It has 28,329,010 parameters at width
    256 with ResNet-50 and its ImageNet classifier, which the authors count but do not use."""

    takes_tokens = True
    LENGTH = 96
    """Number of embeddings that the convolutions expect; fewer are repeated, as the authors do for clips of one
    second."""
    NARROWEST = 232
    """Smallest width of an embedding for which the convolutions return at least one value."""

    def __init__(self, widths: Sequence[int], hidden: int, classes: int):
        super().__init__()
        audio, video = widths
        if audio < self.NARROWEST or audio % 8:
            raise AvscError(
                f"--model.fusion sequence: its convolutions need audio embeddings of at least {self.NARROWEST} values, "
                f"a multiple of 8, and --model.audio gives {audio}"
            )
        self.attention = UnscaledEncoder(audio, 8)
        layers: list[nn.Module] = []
        kernels, strides = (7, 5, 5, 5), ((3, 4), (3, 3), (1, 3), (1, 3))
        for index, (kernel, stride) in enumerate(zip(kernels, strides, strict=True)):
            before, after = (1, 64, 128, 256, hidden)[index : index + 2]
            layers += [nn.Conv2d(before, after, (1, kernel), stride), nn.BatchNorm2d(after), nn.ReLU()]
            if index < 2:
                layers.append(nn.MaxPool2d(2, 1))
        self.convs = nn.Sequential(*layers)
        self.frame = nn.Sequential(nn.Linear(video, hidden), nn.ReLU(), nn.BatchNorm1d(hidden))
        self.classifier = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(hidden, classes)
        )

    def forward(self, tokens: Sequence[Tensor], present: Tensor) -> Tensor:
        audio, video = (x * present[:, i, None, None] for i, x in enumerate(tokens))
        frames = self.frame(video.flatten(0, 1)).unflatten(0, video.shape[:2])
        audio = audio.repeat(1, -(-self.LENGTH // audio.shape[1]), 1)[:, : self.LENGTH]
        steps = self.convs(self.attention(audio)[:, None]).mean(dim=3)  # (B, hidden, 10)
        steps = adaptive_avg_pool1d(steps, frames.shape[1]).transpose(1, 2)
        logits = self.classifier(torch.cat([steps, frames], dim=2))
        return logits.mean(dim=1) + logits.amax(dim=1)


class RecurrentFusion(nn.Module):
    """The joint net of Naranjo-Alcazar_UV (DCASE 2021): audio steps (means of three, every two) and frames are
    concatenated; a bidirectional GRU and a softmax follow. One layer then takes its probabilities and those of both
    single heads. It has 272,704 parameters for ten classes, `hidden` 64, audio of 128 and video of 512. A missing
    modality is zero."""

    takes_tokens = True
    on_heads = True

    def __init__(self, widths: Sequence[int], hidden: int, classes: int):
        super().__init__()
        self.gru = nn.GRU(sum(widths), hidden, batch_first=True, bidirectional=True)
        self.steps = nn.Linear(2 * hidden, classes)
        self.last = nn.Linear(3 * classes, classes)

    def forward(self, values: Sequence[tuple[Tensor, Tensor]], present: Tensor) -> Tensor:
        """Tokens (B, L, width) and logits (B, K) of audio and video."""
        (audio, heard), (video, seen) = values
        length = video.shape[1]
        audio = audio.transpose(1, 2)
        pooled = (
            avg_pool1d(audio, 3, 2) if (audio.shape[2] - 3) // 2 + 1 == length else adaptive_avg_pool1d(audio, length)
        )
        mine = [x * present[:, i, None, None] for i, x in enumerate((pooled.transpose(1, 2), video))]
        joint = self.steps(self.gru(torch.cat(mine, dim=2))[0].mean(dim=1)).softmax(dim=1)
        single = [x.softmax(dim=1) * present[:, i : i + 1] for i, x in enumerate((heard, seen))]
        return self.last(torch.cat([joint, *single], dim=1))
