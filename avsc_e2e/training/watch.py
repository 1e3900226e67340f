"""The losses of each step, checked without waiting for a GPU: a loss that is not finite ends the run at its step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Step(NamedTuple):
    """A batch of training, and the rates that it was learned with."""

    epoch: int
    """From 1."""
    index: int
    """Of the batch in its epoch, from 1."""
    step: int
    """Of the optimiser in the whole run, from 1."""
    files: Sequence[str]
    rates: Sequence[float]
    """Of the optimiser's groups."""


class LossWatch:
    """Copies the losses of steps to the host while the device goes on, and gives them once they are there."""

    def __init__(self):
        self._under_way: deque[tuple[Step, Tensor, torch.cuda.Event | None]] = deque()

    def add(self, losses: Tensor, step: Step) -> None:
        """Losses (H,) of a step, on any device."""
        on_gpu = losses.device.type == "cuda"
        host = losses.detach().to("cpu", non_blocking=on_gpu)
        event = None
        if on_gpu:
            event = torch.cuda.Event()
            event.record()
        self._under_way.append((step, host, event))

    def arrived(self, wait: bool = False) -> Iterator[tuple[Step, np.ndarray]]:
        """Steps in their order with their losses (H,), as far as they are there, or all of them."""
        while self._under_way:
            step, host, event = self._under_way[0]
            if event is not None and not event.query():
                if not wait:
                    return
                event.synchronize()
            self._under_way.popleft()
            yield step, host.numpy()
