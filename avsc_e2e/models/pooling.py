"""Pooling of a sequence of embeddings, over the frames of a clip or the windows of its audio, into one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

GRU_WIDTH = 128
"""Units of each direction of the recurrent pooling."""


class Pool(nn.Module):
    """(B, T, width) -> (B, self.width) by mean, max, mean_max (both, joined), attention, or the mean over time of a
    bidirectional GRU."""

    def __init__(self, kind: str, width: int):
        super().__init__()
        self.kind, self.width = kind, {"mean_max": 2 * width, "gru": 2 * GRU_WIDTH}.get(kind, width)
        if kind == "attention":  # additive attention with one query (Bahdanau et al., 2015)
            self.score = nn.Sequential(nn.Linear(width, 128), nn.Tanh(), nn.Linear(128, 1, bias=False))
        if kind == "gru":
            self.gru = nn.GRU(width, GRU_WIDTH, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "max":
            return x.amax(dim=1)
        if self.kind == "mean_max":
            return torch.cat([x.mean(dim=1), x.amax(dim=1)], dim=1)
        if self.kind == "attention":
            return (x * self.score(x).softmax(dim=1)).sum(dim=1)
        if self.kind == "gru":
            x = self.gru(x)[0]
        return x.mean(dim=1)
