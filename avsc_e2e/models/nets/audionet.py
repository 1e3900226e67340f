"""The base of our own audio nets: tokens over time, an embedding of them, and no classifier."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from avsc_e2e.errors import AvscError


class AudioNet(nn.Module, ABC):
    """A trunk over planes (B, P, bands, frames).

    tokens(planes) -> (B, L, token_width), L steps in time
    pool(tokens) -> (B, num_features), the embedding
    """

    def __init__(self, width: int, token_width: int = 0):
        super().__init__()
        self.num_features = self.head_hidden_size = width
        self.token_width = token_width or width

    @abstractmethod
    def tokens(self, x: Tensor) -> Tensor:
        """(B, P, bands, frames) -> (B, L, token_width)"""

    def pool(self, tokens: Tensor) -> Tensor:
        return tokens.mean(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.tokens(x))


def no_classifier(options: dict) -> None:
    """Raises AvscError if a classifier is asked of one of our own nets; other options that timm's factory adds are
    ignored."""
    if options.get("num_classes") or options.get("drop_rate"):
        raise AvscError("this net has no classifier: create it with num_classes=0; the model adds the heads")


def parameter_count(module: nn.Module, statistics: bool = False) -> int:
    """Number of weights; with `statistics`, also the running statistics of batch norm, as Keras counts."""
    count = sum(p.numel() for p in module.parameters())
    if statistics:
        count += sum(b.numel() for name, b in module.named_buffers() if name.split(".")[-1].startswith("running_"))
    return count
