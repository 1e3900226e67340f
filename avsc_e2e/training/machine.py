"""Lightning's trainer for a recipe: devices, processes, precision and callbacks."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy

from avsc_e2e import processes
from avsc_e2e.devices import resolved
from avsc_e2e.errors import AvscError
from avsc_e2e.training.callbacks import Progress, RunFolder
from avsc_e2e.training.recipe import Recipe
from avsc_e2e.training.strategy import ShardedStrategy, WholeCheckpoints

LIGHTNING: Mapping[str, Any] = {"fp32": "32-true", "fp16": "16-mixed", "bf16": "bf16-mixed"}
"""Its names of our precisions."""


class Layout(NamedTuple):
    """The processes of a job, each with one device."""

    devices: int
    """Processes on each machine."""
    nodes: int
    """Machines."""


def layout() -> Layout:
    """The layout with which torchrun or SLURM started the job; otherwise one process, even if the machine has several
    GPUs."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        return Layout(int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ.get("GROUP_WORLD_SIZE", 1)))
    if SLURMEnvironment.detect():
        nodes = int(os.environ.get("SLURM_NNODES", 1))
        return Layout(max(int(os.environ.get("SLURM_NTASKS", nodes)) // nodes, 1), nodes)
    return Layout(1, 1)


def lightning_trainer(recipe: Recipe, folder: Path, run: RunFolder) -> pl.Trainer:
    """The trainer of a recipe. Raises AvscError for options that the machine does not support."""
    cuda = torch.cuda.is_available()
    precision = resolved(recipe.precision, torch.device("cuda" if cuda else "cpu"))
    if precision == "fp16" and not cuda:
        raise AvscError("--precision fp16 needs a GPU; use fp32 or bf16")
    if precision == "fp16" and recipe.machine.shard_model:  # auto chooses it
        precision = "fp32"
    if recipe.machine.sync_batchnorm and not cuda:
        raise AvscError("--machine.sync-batchnorm needs GPUs; leave it out")
    devices, nodes = layout()
    several = devices * nodes > 1
    strategy: DDPStrategy | str = "auto"
    if several:  # layers that are still frozen get no gradient
        strategy = DDPStrategy(find_unused_parameters=bool(recipe.optim.unfreeze))
    if recipe.machine.shard_model:
        if not several:
            raise AvscError("--machine.shard-model needs several processes; start it with torchrun")
        strategy = ShardedStrategy()
    plugins: list = [WholeCheckpoints()]
    if SLURMEnvironment.detect() and "LOCAL_WORLD_SIZE" not in os.environ:
        # Lightning's own checkpoint within an epoch would not resume exactly: requeue with --resume instead.
        plugins.append(SLURMEnvironment(auto_requeue=False))
    last = ModelCheckpoint(dirpath=folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
    return pl.Trainer(
        max_epochs=recipe.epochs,
        accelerator="gpu" if cuda else "cpu",
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        inference_mode=not recipe.machine.shard_model,  # weights gathered in inference mode could not learn afterwards
        precision=LIGHTNING[precision],
        gradient_clip_val=recipe.optim.clip or None,
        accumulate_grad_batches=recipe.optim.accumulate,
        callbacks=[run, last, *([Progress(run)] if sys.stderr.isatty() else [])],
        logger=TensorBoardLogger(folder, name="", version="tensorboard"),
        plugins=plugins,
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        # Shapes are constant, so a search for the fastest convolutions pays; but its result may vary.
        benchmark=cuda and not recipe.machine.deterministic,
        deterministic="warn" if recipe.machine.deterministic else None,
    )


def quiet() -> None:
    """Hide Lightning's tips on hardware and workers."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    if processes.rank():  # only the first process logs
        logging.getLogger("avsc_e2e").setLevel(logging.ERROR)
