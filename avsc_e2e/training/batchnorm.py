"""Batch norm over several devices: statistics over all their batches, and equal running statistics for validation and
saving."""

from __future__ import annotations

import torch
from timm.layers import convert_sync_batchnorm
from timm.utils import distribute_bn

from avsc_e2e.models.scenenet import SceneNet


def synchronise(model: SceneNet) -> SceneNet:
    """Convert, in place, the batch norms of a model to statistics over the batches of all devices. timm's conversion
    keeps the activation that is part of the norm in many of its nets; torch's, which Lightning calls, drops it."""
    return convert_sync_batchnorm(model)


def share_statistics(model: SceneNet) -> None:
    """Give every process the mean of all processes' running statistics, because each has seen other clips."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        distribute_bn(model, torch.distributed.get_world_size(), reduce=True)
