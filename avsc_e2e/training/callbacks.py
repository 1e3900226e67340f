"""Lightning callbacks of a run: tables and checkpoints of its folder, and the progress bar."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.loggers import Logger
from torch import Tensor

from avsc_e2e import processes
from avsc_e2e.clip import Clip
from avsc_e2e.errors import AvscError
from avsc_e2e.models.weights.checkpoint import save_model
from avsc_e2e.training.module import FineTuning
from avsc_e2e.training.optimiser import (
    highest_rates,
)
from avsc_e2e.training.profiling import StepProfile
from avsc_e2e.training.recipe import Recipe
from avsc_e2e.training.runlog import RunLog, memory_text, weakest
from avsc_e2e.training.sharding import (
    whole_tensors,
)
from avsc_e2e.training.watch import LossWatch, Step

LOG_EVERY = 10
"""Losses and learning rates of every tenth batch are logged."""

log = logging.getLogger(__name__)


class RunFolder(Callback):
    """Writes the run's tables, keeps the best model, stops early, and logs the results of each epoch."""

    def __init__(self, recipe: Recipe, folder: Path, profile: StepProfile | None = None, rows: str = ""):
        """`rows`: fingerprint of the training and validation recordings."""
        self.recipe, self.folder, self.profile, self.rows = recipe, folder, profile, rows
        self.tables = RunLog(folder)
        self.watch = LossWatch()
        self.rates: list[float] = []
        self.ended = ""
        self.began = self.trained = self.waited = self.left = 0.0
        self.batches = 0

    def state_dict(self) -> dict:
        return {**self.tables.state(), "rows": self.rows, "processes": processes.count()}

    def load_state_dict(self, state: dict) -> None:
        if state["rows"] != self.rows:
            raise AvscError(
                f"{self.folder}: the run was started on other recordings than --data.root has now; resume it on those, "
                "or start a new one"
            )
        if state["processes"] != processes.count():
            log.warning(
                "%s: was started with %d processes and resumes with %d, so the size of its batches changes",
                *(self.folder, state["processes"], processes.count()),
            )
        self.tables.restore(state)

    def epoch_file(self, epoch: int) -> Path:
        return self.folder / "epochs" / f"{epoch:04d}.safetensors"

    def on_train_start(self, trainer: pl.Trainer, module: FineTuning) -> None:
        self.began = self.left = self.trained = time.monotonic()
        self._stop_without_gain(trainer)  # if a run was killed after its last epoch
        if trainer.is_global_zero:
            self.tables.forget_steps_after(trainer.global_step)
        if self.profile and trainer.is_global_zero:
            self.profile.start()

    def on_train_epoch_start(self, trainer: pl.Trainer, module: FineTuning) -> None:
        self.began = self.left = time.monotonic()
        self.waited, self.batches = 0.0, 0
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def on_train_batch_start(self, trainer: pl.Trainer, module: FineTuning, batch: Clip, batch_idx: int) -> None:
        self.waited += time.monotonic() - self.left
        self.rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
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
        self._look_at_losses(trainer, module, batch, batch_idx)
        self.left = self.trained = time.monotonic()
        if self.profile:
            self.profile.leave()
            self.profile.step()
            if batch_idx + 1 < trainer.num_training_batches:  # the validation follows the last batch
                self.profile.enter("wait for data")
        stepped = (batch_idx + 1) % self.recipe.optim.accumulate == 0
        due = self.recipe.save_every and trainer.global_step % self.recipe.save_every == 0
        if due and stepped and batch_idx + 1 < trainer.num_training_batches:
            module.save_amid(self.folder / "last.ckpt")

    def _look_at_losses(self, trainer: pl.Trainer, module: FineTuning, batch: Clip, index: int) -> None:
        """Log the losses of some steps, and stop the run at a step whose loss is not finite. It waits for the GPU only
        at the end of an epoch, so on a GPU the stop comes a few steps later."""
        last = index + 1 == trainer.num_training_batches
        place = trainer.current_epoch + 1, index + 1, trainer.global_step
        self.watch.add(module.losses, Step(*place, batch.file, self.rates))
        for step, losses in self.watch.arrived(wait=last):
            if not np.isfinite(losses).all():
                raise AvscError(self._not_finite(trainer, module, step, losses))
            if step.index % LOG_EVERY == 0 and trainer.is_global_zero:
                names = [group["name"] for group in trainer.optimizers[0].param_groups]
                figures = dict(zip(module.loss_names, losses.tolist(), strict=True))
                figures |= {f"lr/{name}": rate for name, rate in zip(names, step.rates, strict=True)}
                self.tables.add_step({"epoch": step.epoch, "step": step.step, **figures})
                _logger(trainer).log_metrics({f"step/{name}": v for name, v in figures.items()}, step=step.step)

    def _not_finite(self, trainer: pl.Trainer, module: FineTuning, step: Step, losses: np.ndarray) -> str:
        listed = self.folder / "not_finite.txt"
        listed.write_text("".join(f"{file}\n" for file in step.files))
        each = zip(module.model.architecture.heads, losses[1:], strict=True)
        heads = [f"{name} head" for name, value in each if not np.isfinite(value)]
        rates = highest_rates(trainer.optimizers[0], step.rates)
        kept = self.folder / "last.ckpt"
        return (
            f"{self.recipe.name}: the loss of the {' and '.join(heads) or 'heads together'} is {losses[0]:g} in epoch "
            f"{step.epoch}, step {step.index} (learning rates "
            f"{', '.join(f'{name} {rate:.2g}' for name, rate in rates.items())}; files {', '.join(step.files[:3])}, "
            f"all in {listed}): lower --optim.lr, --optim.audio-lr and --optim.video-lr, or look at these files; "
            + (f"{kept} is of the last good epoch" if kept.is_file() else "no epoch was complete")
        )

    def timing(self, trainer: pl.Trainer) -> dict:
        """Rates of the epoch so far, by the host's clock, without waiting for a GPU."""
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
        """Save the results of an epoch. Lightning calls it after the epoch's validation."""
        seconds = time.monotonic() - self.began
        found: dict[str, Any] = {**trainer.callback_metrics, **module.mean_losses()}
        figures = {name: float(value) for name, value in sorted(found.items())}
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
        scalars |= {name: value for name, value in row.items() if name.startswith(("lr_", "train_loss"))}
        scalars |= {f"recall/{score.name}": score.recall for score in module.class_scores}
        _logger(trainer).log_metrics(scalars, step=trainer.global_step)

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


def _logger(trainer: pl.Trainer) -> Logger:
    assert trainer.logger is not None  # machine.py gives one
    return trainer.logger


class Progress(TQDMProgressBar):
    """The progress bar of an epoch, with values that the host knows without waiting for the GPU: clips per second, wait
    for data, learning rates, memory; and log loss and weakest class of the last validation."""

    def __init__(self, run: RunFolder):
        super().__init__(leave=False)
        self.run = run

    def get_metrics(self, trainer: pl.Trainer, module: FineTuning) -> dict[str, int | str | float | dict[str, float]]:
        timing = self.run.timing(trainer)
        shown: dict[str, int | str | float | dict[str, float]] = {
            "clips/s": f"{timing['clips_per_second']:.1f}",
            "wait": f"{100 * timing['data_wait']:.0f} %",
        }
        shown |= {name: f"{rate:.1e}" for name, rate in highest_rates(trainer.optimizers[0]).items()}
        if timing["gpu_memory_gib"]:
            shown["GiB"] = f"{timing['gpu_memory_gib']:.1f}"
        if self.run.tables.metrics:
            row = self.run.tables.metrics[-1]
            shown |= {name: f"{row[name]:.3f}" for name in row if name.startswith("train_loss")}
            shown["validation"] = f"{row['validation_log_loss']:.3f}"
            shown["weakest"] = weakest([s._asdict() for s in module.class_scores], 1)
        return shown
