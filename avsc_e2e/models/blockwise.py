"""Computing a batch block by block, so that a CPU's caches hold what is computed in between."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def in_blocks(function: Callable[[Tensor], Tensor], x: Tensor, rows: int) -> Tensor:
    """A function of a batch (B, ...) whose rows do not depend on each other. A CPU is given at most `rows` of them at a
    time, other devices and exported graphs take all."""
    if torch.compiler.is_exporting() or x.device.type != "cpu" or len(x) <= rows:
        return function(x)
    return torch.cat([function(block) for block in x.split(rows)])
