"""Means and standard deviations of more values than fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Moments:
    """Mean and standard deviation over the first axis of batches (N, ...), summed in float64 about the first mean."""

    def __init__(self):
        self.count = 0

    def add(self, values: Tensor) -> None:
        values = values.double()
        if not self.count:
            self.centre = values.mean(dim=0)
            self.first = self.second = torch.zeros_like(self.centre)
        apart = values - self.centre
        self.count += len(values)
        self.first = self.first + apart.sum(dim=0)
        self.second = self.second + apart.square().sum(dim=0)

    @property
    def mean(self) -> Tensor:
        return self.centre + self.first / self.count

    @property
    def std(self) -> Tensor:
        """Standard deviation of a sample: the divisor is the count minus one."""
        return ((self.second - self.first**2 / self.count).clamp(min=0) / max(self.count - 1, 1)).sqrt()


class Joined(NamedTuple):
    """Moments of concatenated values."""

    mean: Tensor
    std: Tensor


def joined(parts: Sequence[Moments]) -> Joined:
    """Concatenates moments of values (N, width) along the width."""
    return Joined(torch.cat([part.mean for part in parts]), torch.cat([part.std for part in parts]))
