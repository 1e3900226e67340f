"""Heads of single branches, and the decision-level fusion of the heads' probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from avsc_e2e.models.moments import Joined, Moments
from avsc_e2e.models.texthead import TextHead


class ZScore(nn.Module):
    """Standardises embeddings by statistics of the training set, which the checkpoint stores. (B, width) -> (B,
    width)."""

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    @property
    def fitted(self) -> bool:
        """Whether statistics have been computed."""
        return bool(self.mean.any())

    @torch.no_grad()
    def fit(self, moments: Moments | Joined) -> None:
        """Compute the mean and deviation of embeddings (N, width)."""
        self.mean.copy_(moments.mean)
        self.std.copy_(moments.std.clamp(min=1e-5))


class BaselineHead(nn.Module):
    """The head of the DCASE 2021 Task 1B baseline (Wang et al., ICASSP 2021): z-score, then 512, 128 and 64 units, each
    with batch norm, ReLU and dropout. 338,634 parameters for embeddings of 512, 600,778 for 1024."""

    def __init__(self, width: int, classes: int, dropout: float = 0.2):
        super().__init__()
        self.standardise = ZScore(width)
        self.first = nn.Linear(width, 512)
        self.to_second = _after(512, dropout)
        self.second = nn.Linear(512, 128)
        self.to_third = _after(128, dropout)
        self.third = nn.Linear(128, 64)
        self.to_last = _after(64, dropout)
        self.last = nn.Linear(64, classes)

    def inner(self, embedding: Tensor) -> Tensor:
        """(B, 128): the second layer's output, before its batch norm and ReLU."""
        return self.second(self.to_second(self.first(self.standardise(embedding))))

    def forward(self, embedding: Tensor) -> Tensor:
        return self.last(self.to_last(self.third(self.to_third(self.inner(embedding)))))


def _after(width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout))


class PointwiseHead(nn.Module):
    """Classifies every token and then takes the mean, between batch norms without parameters (Gao and McDonnell, 2019).
    (B, L, width) -> (B, K)."""

    takes_tokens = True

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=1e-3, momentum=0.01, affine=False)  # as of Keras
        self.layer = nn.Conv1d(width, classes, 1, bias=False)
        self.last = nn.BatchNorm1d(classes, eps=1e-3, momentum=0.01, affine=False)
        nn.init.kaiming_normal_(self.layer.weight, nonlinearity="relu")

    def forward(self, tokens: Tensor) -> Tensor:
        return self.last(self.layer(self.norm(tokens.transpose(1, 2)))).mean(dim=2)


class RecurrentHead(nn.Module):
    """A bidirectional GRU over the frames, a softmax for each frame, and the mean of their probabilities
    (Naranjo-Alcazar et al., 2021). (B, T, width) -> the logarithm of that mean, (B, K)."""

    takes_tokens = True

    def __init__(self, width: int, classes: int, hidden: int = 32, dropout: float = 0.5):
        super().__init__()
        self.gru = nn.GRU(width, hidden, batch_first=True, bidirectional=True)
        self.last = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * hidden, classes))

    def forward(self, tokens: Tensor) -> Tensor:
        steps = self.last(self.gru(tokens)[0])
        return steps.float().log_softmax(dim=2).logsumexp(dim=1) - math.log(steps.shape[1])


def single_head(
    kind: str, modality: str, width: int, token_width: int, classes: int, dropout: float, text_width: int = 512
) -> nn.Module:
    """The head of one modality."""
    if kind == "text":
        return TextHead(width, text_width, classes)
    if kind == "baseline":
        return BaselineHead(width, classes, dropout)
    if kind == "pointwise":
        return PointwiseHead(token_width, classes)
    if kind == "recurrent" and modality == "video":
        return RecurrentHead(token_width, classes)
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, classes))


def takes_tokens(head: nn.Module | type[nn.Module]) -> bool:
    """Whether a head takes tokens (B, L, width) rather than embeddings."""
    return getattr(head, "takes_tokens", False)


def decide(
    logits: Mapping[str, Tensor],
    weights: Mapping[str, float],
    present: Tensor,
    rule: str = "mean",
    sharpness: float = 1.0,
) -> Tensor:
    """The weighted arithmetic mean of the heads' probabilities, or their weighted geometric mean raised to `sharpness`,
    (B, K) float32. The head of a modality that a clip lacks is left out, and a `sharpness` above 1 is then 1. If only
    heads without a weight remain, all of them are used."""
    there = torch.ones_like(present[:, 0])
    heard = {name: present[:, ("audio", "video").index(name)] if name != "fusion" else there for name in logits}
    # Weights stay numbers: a tensor of them would be copied to the device in every step.
    votes = torch.stack([there.float() * max(weights[name], 1e-6) for name, there in heard.items()], dim=1)  # (B, M)
    votes = torch.where(votes.sum(dim=1, keepdim=True) > 0, votes, torch.ones_like(votes))
    votes = (votes / votes.sum(dim=1, keepdim=True))[:, :, None]
    logs = torch.stack([values.float() for values in logits.values()], dim=1).log_softmax(dim=2)
    if rule == "product":
        # Heads with independent errors may be sharper together than alone; with one missing, the rest are no surer than
        # their mean.
        whole = torch.stack(list(heard.values()), dim=1).all(dim=1, keepdim=True).float()
        power = min(sharpness, 1.0) + (sharpness - min(sharpness, 1.0)) * whole
        return (power * (votes * logs).sum(dim=1)).softmax(dim=1)
    return (votes * logs.exp()).sum(dim=1)
