"""Model-level fusion of the branches' embeddings, and the decision-level fusion of the heads' probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class ConcatFusion(nn.Module):
    """Joins two embeddings, each normalised, before a head with one hidden layer. A missing modality is replaced by a
    learned embedding."""

    def __init__(self, widths: Sequence[int], hidden: int, classes: int, dropout: float):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.missing = nn.ParameterList(nn.Parameter(torch.zeros(width)) for width in widths)
        self.head = nn.Sequential(
            nn.Linear(sum(widths), hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> Tensor:
        """Embeddings (B, width) of audio and video, present (B, 2) -> logits (B, K)."""
        joined = [
            torch.where(present[:, i : i + 1], self.norms[i](embedding), self.missing[i].to(embedding.dtype))
            for i, embedding in enumerate(embeddings)
        ]
        return self.head(torch.cat(joined, dim=1))


def decide(logits: Mapping[str, Tensor], weights: Mapping[str, float], present: Tensor) -> Tensor:
    """The weighted mean of the heads' probabilities, (B, K) float32. The head of a modality that a clip lacks has no
    vote; where only heads without a vote are left, they are all heard."""
    votes, total = 0.0, 0.0
    for name, values in logits.items():
        heard = present[:, ("audio", "video").index(name)] if name != "fusion" else torch.ones_like(present[:, 0])
        weight = heard.float()[:, None] * max(weights[name], 1e-6)
        votes = votes + weight * values.float().softmax(dim=1)
        total = total + weight
    fallback = torch.stack([values.float().softmax(dim=1) for values in logits.values()]).mean(dim=0)
    return torch.where(total > 0, votes / total.clamp(min=1e-12), fallback)
