"""Training a recipe: the run from its first file to its kept checkpoint."""

from __future__ import annotations

import dataclasses
import json
import logging
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch

from avsc_e2e import processes
from avsc_e2e.clip import Corpus
from avsc_e2e.durable import alone, refusal
from avsc_e2e.errors import AvscError
from avsc_e2e.memory import keep_freed_memory
from avsc_e2e.models.scenenet import SceneNet, keep_statistics
from avsc_e2e.models.trunk import settled
from avsc_e2e.models.weights.checkpoint import read_checkpoint, save_model
from avsc_e2e.training.averaging import average_checkpoints, between
from avsc_e2e.training.batchnorm import synchronise
from avsc_e2e.training.callbacks import RunFolder
from avsc_e2e.training.initialisation import initial_model
from avsc_e2e.training.launch import launch, launched
from avsc_e2e.training.machine import lightning_trainer, quiet
from avsc_e2e.training.module import FineTuning
from avsc_e2e.training.profiling import StepProfile
from avsc_e2e.training.recipe import Recipe
from avsc_e2e.training.resume import check_recipe, fingerprint, write_recipe
from avsc_e2e.training.run import corpus_of, epochs_of, model_file, run_folder, short_side
from avsc_e2e.training.sharding import check_sharding

log = logging.getLogger(__name__)

SHARES = (0.0, 0.1, 0.2, 0.3, 0.5)
"""Candidate shares of the initial weights; the validation set chooses one."""


def train(recipe: Recipe, *, resume: bool = False, requeue: bool = False, profile: bool = False) -> Path:
    """Train a stage and return its checkpoint. The run's folder also holds recipe.json, metrics.csv, classes.csv,
    timing.csv, TensorBoard's events and last.ckpt, from which `resume` continues, and `requeue` if it is there;
    with `profile` also a trace of some steps and a table of their time. Raises AvscError."""
    folder = run_folder(recipe)
    if recipe.machine.devices > 1 and not launched():
        launch(partial(train, recipe, resume=resume, requeue=requeue, profile=profile), recipe.machine.devices)
        return model_file(recipe)
    corpus = corpus_of(recipe)
    if not corpus.train or not corpus.validation:
        empty = "training" if not corpus.train else "validation"
        raise AvscError(
            f"{recipe.data.root}: its {empty} set is empty; give more recordings or another --data.validation"
        )
    check_sharding(recipe)
    recipe = dataclasses.replace(recipe, model=settled(dataclasses.replace(recipe.model, classes=corpus.classes)))
    if recipe.model.video:
        recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, short_side=short_side(recipe)))
    recipe = dataclasses.replace(recipe, epochs=epochs_of(recipe, corpus))
    last = folder / "last.ckpt"
    resume = resume or (requeue and last.is_file())
    if resume and not last.is_file():
        raise AvscError(f"{folder}: nothing to resume, there is no last.ckpt in it; leave --resume out to start")
    if not resume and last.is_file():
        raise AvscError(
            f"{folder}: holds an earlier run; continue it with --resume, delete it, or choose another --name"
        )
    quiet()
    if not torch.cuda.is_available():
        keep_freed_memory()
    with nullcontext() if processes.rank() else alone(folder):
        if resume:
            check_recipe(recipe, folder / "recipe.json")
        return _learnt(recipe, corpus, resume, profile)


def _learnt(recipe: Recipe, corpus: Corpus, resume: bool, profile: bool) -> Path:
    """`train` for a completed recipe, in its folder."""
    folder = run_folder(recipe)
    last = folder / "last.ckpt"
    # The checkpoint has all tensors, so published weights and earlier stages are not needed again.
    model = SceneNet(recipe.model) if resume else initial_model(recipe, corpus)
    if not processes.rank():
        write_recipe(recipe, folder / "recipe.json")
    if not recipe.epochs:
        return save_model(model, model_file(recipe), {"recipe": json.dumps(dataclasses.asdict(recipe))})
    tuning = FineTuning(recipe, prepared(recipe, model), corpus)
    run = RunFolder(recipe, folder, StepProfile(folder / "profile") if profile else None, fingerprint(corpus))
    exact = torch.are_deterministic_algorithms_enabled()
    trainer = lightning_trainer(recipe, folder, run)
    processes.leave_at_exit()
    try:
        trainer.fit(tuning, ckpt_path=str(last) if resume else None, weights_only=True if resume else None)
        processes.meet()  # the first process may still be writing files that the others read next
        if recipe.averaging.checkpoints:
            _average(recipe, run, trainer, tuning)
            processes.meet()
        if recipe.averaging.start:
            _mix_with_start(recipe, corpus, trainer, tuning)
            processes.meet()
        if recipe.heads.fit_decision and len(model.architecture.heads) > 1:
            _fit_decision(recipe, trainer, tuning)
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise KeyboardInterrupt from None
    except RuntimeError as error:  # a failed collective operation: gloo has no error type of its own
        if trainer.world_size == 1 or not (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
            raise
        raise AvscError(
            f"{folder}: another process of this job has ended, or cannot be reached; what it said tells why. "
            "Go on with --resume"
        ) from error
    except OSError as error:
        raise AvscError(f"{folder}: cannot be written ({refusal(error)}); make room and go on with --resume") from error
    finally:
        torch.use_deterministic_algorithms(exact)  # Lightning may have changed it for the whole process
    if trainer.is_global_zero:
        kept = "; the last one is kept" if recipe.keep == "last" else ""
        log.info(run.tables.summary(recipe.name, model_file(recipe), run.ended + kept))
    return model_file(recipe)


def prepared(recipe: Recipe, model: SceneNet) -> SceneNet:
    """A model with batch norms as the recipe asks for."""
    if recipe.machine.sync_batchnorm:
        model = synchronise(model)
    if recipe.optim.keep_statistics:
        keep_statistics(model)
    return model


def _average(recipe: Recipe, run: RunFolder, trainer: pl.Trainer, tuning: FineTuning) -> None:
    """Replace the best epoch's weights by the mean of those of the best epochs if it is better on the validation
    set."""
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
    """Keep the interpolation between the kept and the initial model that has the lowest validation log loss."""
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
    """Fit the decision of the kept model to the validation set, for the lowest macro log loss."""
    tensors, metadata = read_checkpoint(model_file(recipe))
    tuning.judged.load_state_dict(tensors)
    trainer.validate(tuning, verbose=False)
    fitted = tuning.fitted_decision()
    if fitted is None:
        log.warning(
            "%s: no validation clip has audio and video, so the weights of the decision are not fitted", recipe.name
        )
        return
    tuning.judged.architecture = fitted
    if trainer.is_global_zero:
        told = ", ".join(f"{n} {w:.3f}" for n, w in zip(("audio", "video", "fusion"), fitted.decision, strict=True))
        sharp = f", sharpness {fitted.sharpness:.2f}" if fitted.decision_rule == "product" else ""
        log.info("%s: %s of its heads, weights %s%s", recipe.name, fitted.decision_rule, told, sharp)
        kept = {name: text for name, text in metadata.items() if name in ("recipe", "validation")}
        save_model(tuning.judged, model_file(recipe), kept)
