"""Training a recipe on pytorch_lightning, the only file that knows it."""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
import os
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins import TorchCheckpointIO
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor
from torch.nn.functional import one_hot
from torch.profiler import record_function

from avsc_e2e import processes
from avsc_e2e.acceleration import checkpoint_activations, compile_trunks
from avsc_e2e.averaging import average_checkpoints, follow, shadow
from avsc_e2e.clip import Clip, Corpus
from avsc_e2e.data.dataset import loader
from avsc_e2e.distillation import Teachers, as_seen_by
from avsc_e2e.durable import refusal, replacing
from avsc_e2e.errors import AvscError
from avsc_e2e.inference import evaluation_dataset
from avsc_e2e.initialisation import initial_model
from avsc_e2e.losses import distilled_losses, head_losses, smooth
from avsc_e2e.memory import keep_freed_memory
from avsc_e2e.metrics import macro_accuracy, macro_log_loss
from avsc_e2e.models.checkpoint import read_checkpoint, save_model
from avsc_e2e.models.fusion import fit_decision
from avsc_e2e.models.scenenet import SceneNet, keep_statistics
from avsc_e2e.optimiser import (
    build_optimiser,
    freeze_still_parts,
    highest_rates,
    parameter_groups,
    rate_share,
    unfreeze,
)
from avsc_e2e.profiling import StepProfile
from avsc_e2e.randomness import BATCH_KEY, STEP_KEY, keyed
from avsc_e2e.recipe import Recipe
from avsc_e2e.run import bad_media_file, corpus_of, model_file, run_folder, stage_file, store_of, train_dataset, workers
from avsc_e2e.runlog import ClassScore, RunLog, class_scores, memory_text, weakest
from avsc_e2e.sharding import check_sharding, cut_optimiser, gather, release, shard, whole_optimiser, whole_tensors
from avsc_e2e.transforms.batch import Mixing

log = logging.getLogger(__name__)

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
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, classes=corpus.classes))
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


class FineTuning(pl.LightningModule):
    """Losses, optimiser and validation of a SceneNet for Lightning."""

    def __init__(self, recipe: Recipe, model: SceneNet, corpus: Corpus):
        super().__init__()
        self.recipe, self.model, self.corpus = recipe, model, corpus
        freeze_still_parts(model, recipe.optim)
        self.average = shadow(model) if recipe.averaging.decay else None
        self.mixing = Mixing(recipe.augment.mixup, recipe.augment.cutmix)
        teachers = None
        if recipe.distil.weight:
            files = [stage_file(recipe, name, "--distil.teachers") for name in recipe.distil.teachers]
            teachers = Teachers(files, model.architecture.classes)
        self._teachers = (teachers,)  # in a tuple, so that no checkpoint holds them
        self._given: Tensor | None = None
        self._validation: list[tuple[Tensor, Tensor, dict[str, Tensor]]] = []
        self._fitted_on: tuple[dict[str, Tensor], Tensor] = ({}, torch.zeros(0))
        self.class_scores: list[ClassScore] = []
        if recipe.machine.checkpoint_activations:
            checkpoint_activations(model)
        if recipe.machine.compile:
            compile_trunks(model, recipe.machine.compile)

    @property
    def judged(self) -> SceneNet:
        """The model that is validated and saved: the moving average where there is one."""
        return self.model if self.average is None else self.average

    @property
    def teachers(self) -> Teachers | None:
        return self._teachers[0]

    def train_dataloader(self):
        return loader(
            train_dataset(self.recipe, self.corpus, self.teachers),
            self.recipe.batch_size,
            shuffle=True,
            workers=workers(self.recipe),
            seed=self.recipe.seed,
            rank=self.trainer.global_rank,
            replicas=self.trainer.world_size,
            balance=self.recipe.data.balance,
        )

    def val_dataloader(self):
        data = self.recipe.data
        dataset = evaluation_dataset(
            self.model,
            self.corpus.validation,
            data.short_side,
            store=store_of(self.recipe),
            on_bad=data.on_bad or "skip",
            bad_media=bad_media_file(self.recipe),
        )
        if len(dataset) < self.trainer.world_size:
            raise AvscError(
                f"--data.validation: {len(dataset)} clips for {self.trainer.world_size} processes; use fewer"
            )
        return loader(
            dataset,
            self.recipe.batch_size,
            shuffle=False,
            workers=workers(self.recipe),
            rank=self.trainer.global_rank,
            replicas=self.trainer.world_size,
        )

    def on_fit_start(self) -> None:
        if self.teachers:
            self.teachers.to(self.device)

    def on_train_epoch_start(self) -> None:
        if self.recipe.optim.unfreeze:
            shares = unfreeze(self.model, self.recipe.optim, self.current_epoch)
            if self.recipe.optim.keep_statistics:
                keep_statistics(self.model)  # `unfreeze` sets the mode of every layer
            if self.current_epoch <= self.recipe.optim.unfreeze and self.trainer.is_global_zero:
                learning = ", ".join(f"{100 * share:.0f} % of {part}" for part, share in shares.items())
                log.info("layers that learn: %s", learning)

    def on_before_batch_transfer(self, batch: Clip, dataloader_idx: int) -> Clip:
        if self.trainer.training and self.teachers:
            self._given = self.teachers.look_up(batch)
        return batch

    def training_step(self, batch: Clip, index: int) -> Tensor:
        recipe, augment, classes = self.recipe, self.recipe.augment, len(self.model.architecture.classes)
        place = self.current_epoch, index, self.global_rank
        with record_function("front end"):
            clip = self.model.preprocess(as_seen_by(batch, self.model.architecture) if self.teachers else batch)
        target = smooth(one_hot(clip.target, classes).float(), recipe.smoothing)
        if self.teachers:
            with record_function("teachers"):
                given = None if self._given is None else self._given.to(self.device, non_blocking=True)
                taught = self.teachers.probabilities(batch, given, recipe.distil.temperature)
            target = torch.cat([target, taught], dim=1)  # what mixes the truth mixes what is taught
        clip = clip._replace(target=target)
        with record_function("batch transforms"), keyed(recipe.seed, BATCH_KEY, *place):
            clip = augment.drop(self.mixing(augment.spectrum(clip)))
        # Dropout and stochastic depth draw from the global generators: keyed by the step, whoever resumes before it.
        key = np.random.SeedSequence((recipe.seed, STEP_KEY, *place))
        torch.manual_seed(int(key.generate_state(1)[0]))
        with record_function("forward"):
            logits = self.model(clip)
        with record_function("losses"):
            if self.teachers:
                losses = distilled_losses(logits, clip, recipe.distil.weight, recipe.distil.temperature)
            else:
                losses = head_losses(logits, clip)
            loss = sum(getattr(recipe.heads, name) * value for name, value in losses.items())
        for name, value in {"": loss, **losses}.items():
            self.log(
                "train_loss" + f"_{name}" * bool(name),
                value.detach(),
                on_epoch=True,
                on_step=False,
                sync_dist=self.trainer.world_size > 1,
                batch_size=len(batch.file),
            )
        return loss

    def optimizer_step(self, *args, **kwargs) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            follow(self.average, self.model, self.recipe.averaging.decay, self.trainer.global_step + 1)

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        # Lightning refuses every fused optimiser under autocast, though in bf16 none has scaled gradients to undo.
        if gradient_clip_val:
            self.trainer.precision_plugin.clip_grad_by_norm(optimizer, gradient_clip_val)

    def on_validation_start(self) -> None:
        if self.recipe.machine.shard_model:
            gather(self.judged)

    def on_validation_end(self) -> None:
        if self.recipe.machine.shard_model:
            release(self.judged)

    def validation_step(self, batch: Clip, index: int) -> None:
        model = self.judged
        clip = model.preprocess(batch)
        logits = model(clip)
        heads = {name: values.float().softmax(dim=1) for name, values in logits.items()}
        heads["decision"] = model.decide(logits, clip.present)
        self._validation.append((batch.target, batch.present.all(dim=1), heads))

    def on_validation_epoch_end(self) -> None:
        targets, both = (torch.cat([found[i] for found in self._validation]) for i in (0, 1))
        parts = [heads for _, _, heads in self._validation]
        heads = {name: torch.cat([values[name] for values in parts]) for name in parts[0]}
        self._validation.clear()
        if self.trainer.world_size > 1:  # parts of unequal length: as objects, each clip exactly once
            gathered = [None] * self.trainer.world_size
            mine = targets.cpu(), both.cpu(), {name: values.cpu() for name, values in heads.items()}
            torch.distributed.all_gather_object(gathered, mine)
            targets, both = (torch.cat([found[i] for found in gathered]) for i in (0, 1))
            heads = {name: torch.cat([found[name] for _, _, found in gathered]) for name in heads}
        self._fitted_on = {n: v[both] for n, v in heads.items() if n != "decision"}, targets[both]
        truth = targets.cpu().numpy()
        for name, values in heads.items():
            found = values.cpu().double().numpy()
            suffix = "" if name == "decision" else f"_{name}"
            # Of all clips, so the same in every process.
            self.log(f"validation_log_loss{suffix}", macro_log_loss(found, truth))
            self.log(f"validation_accuracy{suffix}", macro_accuracy(found.argmax(axis=1), truth))
        decision = heads["decision"].cpu().double().numpy()
        self.class_scores = class_scores(decision, truth, self.model.architecture.classes)

    def fitted_weights(self) -> dict[str, float]:
        """Decision weights fitted on the last validation's clips with both modalities. Raises AvscError."""
        probabilities, targets = self._fitted_on
        return fit_decision({name: values.cpu() for name, values in probabilities.items()}, targets.cpu())

    def configure_optimizers(self):
        recipe = self.recipe
        # Lightning cannot clip the gradients of a fused step whose losses are scaled.
        fused = self.device.type == "cuda" and not (recipe.precision == "fp16" and recipe.optim.clip)
        optimiser = build_optimiser(parameter_groups(self.model, recipe.optim), recipe.optim, fused=fused)
        steps = max(int(self.trainer.estimated_stepping_batches), 1)
        share = partial(rate_share, recipe.optim, steps=steps, epochs=recipe.epochs)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class RunFolder(Callback):
    """Writes the run's tables, keeps the best model, ends a run that no longer gains, and says how an epoch went."""

    def __init__(self, recipe: Recipe, folder: Path, profile: StepProfile | None = None):
        self.recipe, self.folder, self.profile = recipe, folder, profile
        self.tables = RunLog(folder)
        self.ended = ""
        self.began = self.trained = self.waited = self.left = 0.0
        self.batches = 0

    def state_dict(self) -> dict:
        return self.tables.state()

    def load_state_dict(self, state: dict) -> None:
        self.tables.restore(state)

    def epoch_file(self, epoch: int) -> Path:
        return self.folder / "epochs" / f"{epoch:04d}.safetensors"

    def on_train_start(self, trainer: pl.Trainer, module: FineTuning) -> None:
        self._stop_without_gain(trainer)  # a run that was killed after its last epoch
        if self.profile and trainer.is_global_zero:
            self.profile.start()

    def on_train_epoch_start(self, trainer: pl.Trainer, module: FineTuning) -> None:
        self.began = self.left = time.monotonic()
        self.waited, self.batches = 0.0, 0
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def on_train_batch_start(self, trainer: pl.Trainer, module: FineTuning, batch: Clip, batch_idx: int) -> None:
        self.waited += time.monotonic() - self.left
        if self.profile:
            self.profile.leave()

    def on_before_backward(self, trainer: pl.Trainer, module: FineTuning, loss: Tensor) -> None:
        if self.profile:
            self.profile.enter("backward")

    def on_after_backward(self, trainer: pl.Trainer, module: FineTuning) -> None:
        if self.profile:
            self.profile.leave()

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: FineTuning, optimizer) -> None:
        if self.profile:
            self.profile.enter("optimiser")

    def on_train_batch_end(self, trainer: pl.Trainer, module: FineTuning, outputs, batch: Clip, batch_idx: int) -> None:
        self.batches += 1
        self.left = self.trained = time.monotonic()
        if self.profile:
            self.profile.leave()
            self.profile.step()
            if batch_idx + 1 < trainer.num_training_batches:  # after the last one comes the validation
                self.profile.enter("wait for data")

    def timing(self, trainer: pl.Trainer) -> dict:
        """How fast the epoch has gone so far, on the host's clock, which never waits for a GPU."""
        seconds = max(self.trained - self.began, 1e-9)
        clips = self.batches * self.recipe.batch_size * trainer.world_size
        cuda = trainer.strategy.root_device.type == "cuda"
        return {
            "clips": clips,
            "clips_per_second": round(clips / seconds, 2),
            "data_wait": round(self.waited / seconds, 4),
            "gpu_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 3) if cuda else 0.0,
            "train_seconds": round(seconds, 2),
        }

    def on_train_epoch_end(self, trainer: pl.Trainer, module: FineTuning) -> None:
        """Lightning calls it after the epoch's validation."""
        seconds = time.monotonic() - self.began
        figures = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            **figures,
            **highest_rates(trainer.optimizers[0]),
            "seconds": round(seconds, 2),
        }
        timing = {**self.timing(trainer), "seconds": round(seconds, 2)}
        self.tables.add(row, module.class_scores, timing)
        better = self.tables.best is row
        tensors = whole_tensors(module.judged) if self.recipe.machine.shard_model else None
        if trainer.is_global_zero:
            self._save(module, row, better, tensors)
            self._say(trainer, module, row, timing, better)
        self._stop_without_gain(trainer)

    def _save(self, module: FineTuning, row: dict, better: bool, tensors: dict[str, Tensor] | None) -> None:
        self.tables.write()
        validation = {key: row[key] for key in ("epoch", "validation_log_loss", "validation_accuracy")}
        notes = {"recipe": json.dumps(dataclasses.asdict(self.recipe)), "validation": json.dumps(validation)}
        if better or self.recipe.keep == "last":
            save_model(module.judged, self.folder / "model.safetensors", notes, tensors)
        kept = [self.epoch_file(epoch) for epoch in self.tables.ranked(self.recipe.averaging.checkpoints)]
        if self.epoch_file(row["epoch"]) in kept:
            save_model(module.judged, self.epoch_file(row["epoch"]), notes)
        for file in (self.folder / "epochs").glob("*.safetensors"):
            if file not in kept:
                file.unlink()

    def _say(self, trainer: pl.Trainer, module: FineTuning, row: dict, timing: dict, better: bool) -> None:
        log.info(
            "%s epoch %d/%d: loss %.3f, validation log loss %.3f, accuracy %.1f %%%s, %.0f s",
            self.recipe.name,
            row["epoch"],
            self.recipe.epochs,
            row["train_loss"],
            row["validation_log_loss"],
            100 * row["validation_accuracy"],
            " (best)" if better else "",
            row["seconds"],
        )
        log.debug(
            "weakest classes: %s%s",
            weakest([s._asdict() for s in module.class_scores]),
            memory_text(timing["gpu_memory_gib"]),
        )
        scalars = {f"machine/{name}": value for name, value in timing.items()}
        scalars |= {name: value for name, value in row.items() if name.startswith("lr_")}
        scalars |= {f"recall/{score.name}": score.recall for score in module.class_scores}
        trainer.logger.log_metrics(scalars, step=trainer.global_step)

    def _stop_without_gain(self, trainer: pl.Trainer) -> None:
        if self.recipe.patience and self.tables.without_gain >= self.recipe.patience:
            trainer.should_stop = True
            self.ended = f", ended after {self.recipe.patience} without gain"

    def on_train_end(self, trainer: pl.Trainer, module: FineTuning) -> None:
        if self.profile and trainer.is_global_zero:
            log.info("%s", self.profile.stop())

    def on_exception(self, trainer: pl.Trainer, module: FineTuning, exception: BaseException) -> None:
        if self.profile and trainer.is_global_zero:
            self.profile.stop()


class Progress(TQDMProgressBar):
    """The bar of an epoch with what the host knows without asking the GPU: rate, wait for data, rates of learning,
    memory; and of the validation before, the log loss and the weakest class."""

    def __init__(self, run: RunFolder):
        super().__init__(leave=False)
        self.run = run

    def get_metrics(self, trainer: pl.Trainer, module: FineTuning) -> dict[str, str]:
        timing = self.run.timing(trainer)
        shown = {"clips/s": f"{timing['clips_per_second']:.1f}", "wait": f"{100 * timing['data_wait']:.0f} %"}
        shown |= {name: f"{rate:.1e}" for name, rate in highest_rates(trainer.optimizers[0]).items()}
        if timing["gpu_memory_gib"]:
            shown["GiB"] = f"{timing['gpu_memory_gib']:.1f}"
        if self.run.tables.metrics:
            row = self.run.tables.metrics[-1]
            shown |= {name: f"{row[name]:.3f}" for name in row if name.startswith("train_loss")}
            shown["validation"] = f"{row['validation_log_loss']:.3f}"
            shown["weakest"] = weakest([s._asdict() for s in module.class_scores], 1)
        return shown


class ShardedStrategy(DDPStrategy):
    """Processes as those of DDP, but each holds a part of the model; checkpoints are whole."""

    def configure_ddp(self) -> None:
        for model in {self.lightning_module.model, self.lightning_module.judged}:
            shard(model, self.root_device)

    def lightning_module_state_dict(self) -> dict:
        return whole_tensors(self.lightning_module)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict:
        return whole_optimiser(self.lightning_module, getattr(optimizer, "optimizer", optimizer))

    def load_optimizer_state_dict(self, checkpoint: dict) -> None:
        for optimiser, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            cut_optimiser(self.lightning_module, optimiser, state)


class WholeCheckpoints(TorchCheckpointIO):
    """Replaces a checkpoint at once: a run that is killed while it saves has the one before. (Lightning moves it from
    the system's temporary folder, which on another disk means copying it over the old one.)"""

    def save_checkpoint(self, checkpoint: dict, path: str | os.PathLike, storage_options: object = None) -> None:
        with replacing(path) as partial_file, open(partial_file, "wb") as file:
            torch.save(checkpoint, file)


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
