"""The head that compares an embedding with a text embedding of each class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class TextHead(nn.Module):
    """(B, width) -> logits (B, K): scaled cosines between the projected embedding and each class's text feature
    (Radford et al., 2021). All of it can be trained, starting from CLIP's tensors (models/text.py) or from random
    ones."""

    def __init__(self, width: int, text_width: int, classes: int):
        super().__init__()
        self.project = nn.Linear(width, text_width, bias=False)
        self.text = nn.Parameter(normalize(torch.randn(classes, text_width), dim=-1))
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # the initial value in CLIP

    def forward(self, x: Tensor) -> Tensor:
        cosines = normalize(self.project(x), dim=-1) @ normalize(self.text, dim=-1).T
        return self.scale.clamp(max=math.log(100)).exp() * cosines
