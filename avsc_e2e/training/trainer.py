"""Training a recipe: the run from its first file to its kept checkpoint."""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
import os
import sys
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy

from avsc_e2e import processes
from avsc_e2e.clip import Corpus
from avsc_e2e.durable import refusal, replacing
from avsc_e2e.errors import AvscError
from avsc_e2e.memory import keep_freed_memory
from avsc_e2e.models.scenenet import keep_statistics
from avsc_e2e.models.trunk import settled
from avsc_e2e.models.weights.checkpoint import read_checkpoint, save_model
from avsc_e2e.training.averaging import average_checkpoints, between
from avsc_e2e.training.callbacks import Progress, RunFolder
from avsc_e2e.training.initialisation import initial_model
from avsc_e2e.training.module import FineTuning
from avsc_e2e.training.profiling import StepProfile
from avsc_e2e.training.recipe import Recipe
from avsc_e2e.training.run import (
    corpus_of,
    model_file,
    run_folder,
)
from avsc_e2e.training.sharding import (
    check_sharding,
)
from avsc_e2e.training.strategy import ShardedStrategy, WholeCheckpoints

log = logging.getLogger(__name__)

SHARES = (0.0, 0.1, 0.2, 0.3, 0.5)
"""Of the weights that training started from, among which the validation part chooses."""
LEAST_WEIGHT = 1e-3
"""Of a head in fitted decision weights: one without any would not be built."""


def train(recipe: Recipe, *, resume: bool = False, profile: bool = False) -> Path:
    """Train a stage and return its checkpoint. The run's folder also holds recipe.json, metrics.csv, classes.csv,
    timing.csv, TensorBoard's events and last.ckpt, from which `resume` goes on; with `profile` also a trace of some
    steps and a table of where their time goes. Raises AvscError."""
    folder = run_folder(recipe)
    corpus = corpus_of(recipe)
    if not corpus.train or not corpus.validation:
        empty = "training" if not corpus.train else "validation"
        raise AvscError(
            f"{recipe.data.root}: its {empty} part is empty; give more recordings or another --data.validation"
        )
    check_sharding(recipe)
    recipe = dataclasses.replace(recipe, model=settled(dataclasses.replace(recipe.model, classes=corpus.classes)))
    last = folder / "last.ckpt"
    if resume and not last.is_file():
        raise AvscError(f"{folder}: nothing to resume, there is no last.ckpt in it; leave --resume out to start")
    if not resume and last.is_file():
        raise AvscError(f"{folder}: holds an earlier run; go on with --resume, delete it, or choose another --name")
    _quiet()
    if not torch.cuda.is_available():
        keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    if resume:
        _same_recipe(recipe, folder / "recipe.json")
    model = initial_model(recipe, corpus)
    if not resume and not processes.rank():
        with replacing(folder / "recipe.json") as partial_file:
            partial_file.write_text(json.dumps(dataclasses.asdict(recipe), indent=2) + "\n")
    if not recipe.epochs:
        return save_model(model, model_file(recipe), {"recipe": json.dumps(dataclasses.asdict(recipe))})
    if recipe.optim.keep_statistics:
        keep_statistics(model)
    tuning = FineTuning(recipe, model, corpus)
    run = RunFolder(recipe, folder, StepProfile(folder / "profile") if profile else None)
    trainer = _trainer(recipe, folder, run)
    processes.leave_at_exit()
    try:
        trainer.fit(tuning, ckpt_path=str(last) if resume else None, weights_only=True if resume else None)
        if recipe.averaging.checkpoints:
            _average(recipe, run, trainer, tuning)
        if recipe.averaging.start:
            _mix_with_start(recipe, corpus, trainer, tuning)
        if recipe.heads.fit_decision:
            _fit_decision(recipe, trainer, tuning)
    except SystemExit:  # so Lightning answers Ctrl-C
        raise KeyboardInterrupt from None
    except RuntimeError as error:  # so a collective operation fails: gloo has no type of its own
        if trainer.world_size == 1 or not (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
            raise
        raise AvscError(
            f"{folder}: another process of this job has ended, or cannot be reached; what it said tells why. "
            "Go on with --resume"
        ) from error
    except OSError as error:
        raise AvscError(f"{folder}: cannot be written ({refusal(error)}); make room and go on with --resume") from error
    if trainer.is_global_zero:
        kept = "; the last one is kept" if recipe.keep == "last" else ""
        log.info(run.tables.summary(recipe.name, model_file(recipe), run.ended + kept))
    return model_file(recipe)


def _average(recipe: Recipe, run: RunFolder, trainer: pl.Trainer, tuning: FineTuning) -> None:
    """Put the mean of the best epochs' weights in place of the best ones if it is better on the validation part."""
    epochs = run.tables.ranked(recipe.averaging.checkpoints)
    tensors, metadata = average_checkpoints([run.epoch_file(epoch) for epoch in epochs])
    tuning.judged.load_state_dict(tensors)
    trainer.validate(tuning, verbose=False)
    figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    before, now = run.tables.best["validation_log_loss"], figures["validation_log_loss"]
    if trainer.is_global_zero:
        log.info(
            "%s: the mean of epochs %s has a validation log loss of %.3f, the best alone %.3f%s",
            recipe.name,
            ", ".join(map(str, sorted(epochs))),
            now,
            before,
            "; the mean is kept" if now < before else "",
        )
        if now < before:
            validation = {"epochs": sorted(epochs), **{k: v for k, v in figures.items() if k.startswith("validation")}}
            notes = {"recipe": metadata["recipe"], "validation": json.dumps(validation)}
            save_model(tuning.judged, model_file(recipe), notes)


def _mix_with_start(recipe: Recipe, corpus: Corpus, trainer: pl.Trainer, tuning: FineTuning) -> None:
    """Keep the mixture of the kept model and the one that training started from with the least validation log loss."""
    tensors, metadata = read_checkpoint(model_file(recipe))
    start = initial_model(recipe, corpus).state_dict()
    found: dict[float, dict[str, float]] = {}
    for share in SHARES:
        tuning.judged.load_state_dict(between(tensors, start, share))
        trainer.validate(tuning, verbose=False)
        found[share] = {n: float(v) for n, v in trainer.callback_metrics.items() if n.startswith("validation")}
    best = min(found, key=lambda share: found[share]["validation_log_loss"])
    if trainer.is_global_zero:
        told = ", ".join(f"{share:g}: {figures['validation_log_loss']:.3f}" for share, figures in found.items())
        log.info("%s: validation log loss by the start's share: %s; %g is kept", recipe.name, told, best)
        if best:
            tuning.judged.load_state_dict(between(tensors, start, best))
            notes = {"recipe": metadata["recipe"], "validation": json.dumps({"start": best, **found[best]})}
            save_model(tuning.judged, model_file(recipe), notes)


def _fit_decision(recipe: Recipe, trainer: pl.Trainer, tuning: FineTuning) -> None:
    """Give the model that was kept the decision weights with the least macro log loss on the validation part."""
    tensors, metadata = read_checkpoint(model_file(recipe))
    tuning.judged.load_state_dict(tensors)
    trainer.validate(tuning, verbose=False)
    weights = {name: max(weight, LEAST_WEIGHT) for name, weight in tuning.fitted_weights().items()}
    decision = tuple(weights.get(name, 0.0) for name in ("audio", "video", "fusion"))
    tuning.judged.architecture = dataclasses.replace(tuning.judged.architecture, decision=decision)
    if trainer.is_global_zero:
        log.info("%s: weights of its heads %s", recipe.name, ", ".join(f"{n} {w:.3f}" for n, w in weights.items()))
        kept = {name: text for name, text in metadata.items() if name in ("recipe", "validation")}
        save_model(tuning.judged, model_file(recipe), kept)


def _trainer(recipe: Recipe, folder: Path, run: RunFolder) -> pl.Trainer:
    cuda = torch.cuda.is_available()
    precision = recipe.precision
    if precision == "auto":
        precision = "bf16" if cuda and torch.cuda.is_bf16_supported() else "fp32"
    if precision == "fp16" and not cuda:
        raise AvscError("--precision fp16 needs a GPU; use fp32 or bf16")
    if recipe.machine.sync_batchnorm and not cuda:
        raise AvscError("--machine.sync-batchnorm needs GPUs; leave it out")
    # "auto" under torchrun on CPU would train separate copies.
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", torch.cuda.device_count() if cuda else 1))
    nodes = int(os.environ.get("GROUP_WORLD_SIZE", os.environ.get("SLURM_NNODES", 1)))
    several = devices * nodes > 1
    strategy: DDPStrategy | str = "auto"
    if several:  # layers that do not learn yet get no gradient
        strategy = DDPStrategy(find_unused_parameters=bool(recipe.optim.unfreeze))
    if recipe.machine.shard_model:
        if not several:
            raise AvscError("--machine.shard-model needs several processes; start it with torchrun")
        strategy = ShardedStrategy()
    plugins: list = [WholeCheckpoints()]
    if SLURMEnvironment.detect() and "LOCAL_WORLD_SIZE" not in os.environ:
        # A checkpoint of Lightning's own amid an epoch would not resume exactly: requeue with --resume instead.
        plugins.append(SLURMEnvironment(auto_requeue=False))
    last = ModelCheckpoint(dirpath=folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
    return pl.Trainer(
        max_epochs=recipe.epochs,
        accelerator="gpu" if cuda else "cpu",
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        inference_mode=not recipe.machine.shard_model,  # what is gathered in it could not learn afterwards
        sync_batchnorm=recipe.machine.sync_batchnorm,
        precision={"fp32": "32-true", "fp16": "16-mixed", "bf16": "bf16-mixed"}[precision],
        gradient_clip_val=recipe.optim.clip or None,
        accumulate_grad_batches=recipe.optim.accumulate,
        callbacks=[run, last, *([Progress(run)] if sys.stderr.isatty() else [])],
        logger=TensorBoardLogger(folder, name="", version="tensorboard"),
        plugins=plugins,
        log_every_n_steps=10,
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        benchmark=cuda,  # shapes stay the same, so the fastest convolutions are worth looking for
    )


def _same_recipe(recipe: Recipe, file: Path) -> None:
    """Refuse to resume another recipe, and show the difference."""
    before = json.loads(file.read_text())
    now = json.loads(json.dumps(dataclasses.asdict(recipe)))
    lines = [json.dumps(value, indent=2).splitlines() for value in (before, now)]
    changed = [
        line
        for line in difflib.unified_diff(*lines, n=0, lineterm="")
        if line[0] in "+-" and line[:3] not in ("+++", "---")
    ]
    if changed:
        raise AvscError(
            f"{file}: the run was started with another recipe: " + "; ".join(" ".join(c.split()) for c in changed)
        )


def _quiet() -> None:
    """Lightning's tips on hardware and workers are no news to a user of recipes."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    if processes.rank():  # the first process speaks for all
        logging.getLogger("avsc_e2e").setLevel(logging.ERROR)
