"""Batch norm over several devices: statistics of all their batches, and one set of them to validate and save."""

from __future__ import annotations

import torch
from timm.layers import convert_sync_batchnorm
from timm.utils import distribute_bn

from avsc_e2e.models.scenenet import SceneNet


def synchronise(model: SceneNet) -> SceneNet:
    """Let the batch norms of a model take their statistics from the batches of all devices, in place. timm's conversion
    keeps the activation that many of its nets hold within their norm; torch's, which Lightning calls, drops it."""
    return convert_sync_batchnorm(model)


def share_statistics(model: SceneNet) -> None:
    """Give every process the mean of all processes' running statistics: each has seen other clips."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        distribute_bn(model, torch.distributed.get_world_size(), reduce=True)
