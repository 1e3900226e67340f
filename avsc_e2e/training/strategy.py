"""Lightning strategies: sharding over processes, and atomic writes of checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning.plugins import TorchCheckpointIO
from pytorch_lightning.strategies import DDPStrategy

from avsc_e2e.durable import replacing
from avsc_e2e.training.sharding import (
    cut_optimiser,
    shard,
    whole_optimiser,
    whole_tensors,
)


class ShardedStrategy(DDPStrategy):
    """Like DDP, but each process holds a part of the model; checkpoints are complete."""

    def configure_ddp(self) -> None:
        module: Any = self.lightning_module
        for model in {module.model, module.judged}:
            shard(model, self.root_device)

    def lightning_module_state_dict(self) -> dict:
        return whole_tensors(self.lightning_module)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict:
        return whole_optimiser(self.lightning_module, getattr(optimizer, "optimizer", optimizer))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimiser, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            cut_optimiser(self.lightning_module, optimiser, state)


class WholeCheckpoints(TorchCheckpointIO):
    """Replaces a checkpoint atomically: a run that is killed while it saves keeps the previous one. (Lightning moves it
    from the system's temporary folder; if that is on another disk, the old file is overwritten slowly.)"""

    def save_checkpoint(self, checkpoint: dict, path: str | os.PathLike, storage_options: object = None) -> None:
        with replacing(path) as partial_file, open(partial_file, "wb") as file:
            torch.save(checkpoint, file)
