"""Losses of each step, copied without waiting for a GPU, so that a loss that is not finite can stop the run."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Step(NamedTuple):
    """A training step, and its learning rates."""

    epoch: int
    """Epoch, from 1."""
    index: int  # type: ignore[assignment]  # a tuple's method of this name is not needed
    """Number of the batch in its epoch, from 1."""
    step: int
    """Number of the optimiser's step in the run, from 1."""
    files: Sequence[str]
    rates: Sequence[float]
    """Learning rates of the optimiser's groups."""


class LossWatch:
    """Copies the losses of steps to the host while the device computes, and returns them when they have arrived."""

    def __init__(self):
        self._under_way: deque[tuple[Step, Tensor, torch.cuda.Event | None]] = deque()

    def add(self, losses: Tensor, step: Step) -> None:
        """Add the losses (H,) of a step, on any device."""
        on_gpu = losses.device.type == "cuda"
        host = losses.detach().to("cpu", non_blocking=on_gpu)
        event = None
        if on_gpu:
            event = torch.cuda.Event()
            event.record()
        self._under_way.append((step, host, event))

    def arrived(self, wait: bool = False) -> Iterator[tuple[Step, np.ndarray]]:
        """Steps in order with their losses (H,): those that have arrived, or, with `wait`, all."""
        while self._under_way:
            step, host, event = self._under_way[0]
            if event is not None and not event.query():
                if not wait:
                    return
                event.synchronize()
            self._under_way.popleft()
            yield step, host.numpy()
