"""The Lightning module of a recipe: losses, optimiser and validation of a SceneNet."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.profiler import record_function

from avsc_e2e.clip import Clip, Corpus
from avsc_e2e.data.loader import loader
from avsc_e2e.data.sampler import Position
from avsc_e2e.errors import AvscError
from avsc_e2e.inference import evaluation_dataset
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.scenenet import SceneNet, keep_statistics
from avsc_e2e.outputs.metrics import macro_accuracy, macro_log_loss
from avsc_e2e.randomness import BATCH_KEY, STEP_KEY, keyed
from avsc_e2e.training.acceleration import checkpoint_activations, compile_trunks
from avsc_e2e.training.averaging import Pairs, follow, pairs, shadow
from avsc_e2e.training.batchnorm import share_statistics
from avsc_e2e.training.distillation import Teachers, as_seen_by
from avsc_e2e.training.losses import distilled_losses, head_losses, smooth
from avsc_e2e.training.optimiser import build_optimiser, freeze_still_parts, parameter_groups, schedule, unfreeze
from avsc_e2e.training.recipe import Recipe
from avsc_e2e.training.resume import in_batches
from avsc_e2e.training.run import bad_media_file, short_side, stage_file, store_of, streaming_of, train_dataset, workers
from avsc_e2e.training.runlog import ClassScore, class_scores
from avsc_e2e.training.sharding import gather, release
from avsc_e2e.training.validation import Validated, fitted, gathered
from avsc_e2e.transforms.batch import Mixing

log = logging.getLogger(__name__)


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
        self._teachers = (teachers,)  # in a tuple, so that checkpoints do not contain them
        self._given: Tensor | None = None
        self._validation: list[Validated] = []
        self._fitted_on: tuple[dict[str, Tensor], Tensor, list[str]] = ({}, torch.zeros(0), [])
        self.class_scores: list[ClassScore] = []
        self.losses = torch.zeros(0)
        """Losses of the last step, first the total, then each head's; on the device, without gradients."""
        self._pairs: Pairs | None = None
        self._sums: Tensor | None = None
        self._clips = 0
        self._position: Position | None = None
        """Where a resumed run goes on within an epoch."""
        self._place: Position | None = None
        """Of the checkpoint that is being written within an epoch."""
        if recipe.machine.checkpoint_activations:
            checkpoint_activations(model)
        if recipe.machine.compile:
            compile_trunks(model, recipe.machine.compile, variants=recipe.optim.unfreeze + 1)

    @property
    def judged(self) -> SceneNet:
        """The model that is validated and saved: the moving average if there is one."""
        return self.model if self.average is None else self.average

    @property
    def teachers(self) -> Teachers | None:
        return self._teachers[0]

    def train_dataloader(self):
        dataset = train_dataset(self.recipe, self.corpus, self.teachers)
        return loader(
            dataset,
            self.recipe.batch_size,
            shuffle=True,
            workers=workers(self.recipe),
            seed=self.recipe.seed,
            rank=self.trainer.global_rank,
            replicas=self.trainer.world_size,
            balance=self.recipe.data.balance,
            small=torch.cuda.is_available() and not self.teachers,
            streaming=streaming_of(self.recipe, dataset),
            position=self._position,
        )

    def val_dataloader(self):
        data = self.recipe.data
        dataset = evaluation_dataset(
            self.model,
            self.corpus.validation,
            short_side(self.recipe),
            store=store_of(self.recipe),
            on_bad=data.on_bad or "skip",
            bad_media=bad_media_file(self.recipe),
            decoder=data.decoder,
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
            small=torch.cuda.is_available(),
        )

    def on_fit_start(self) -> None:
        if self.teachers:
            self.teachers.to(self.device)

    def on_train_start(self) -> None:
        if self.average is not None and not self.recipe.machine.shard_model:
            self._pairs = pairs(self.average, self.model)
        if self._position:  # within an epoch, whose start is not called again
            self._unfreeze()

    def save_amid(self, path: Path) -> None:
        """Write a checkpoint within an epoch, from which a run goes on with the next batch."""
        taken = self.trainer.train_dataloader.taken * self.recipe.batch_size  # type: ignore[union-attr]
        here = self._position if self._position and self._position.epoch == self.current_epoch else None
        self._place = (here or Position(self.current_epoch, ())).with_more(self.trainer.world_size, taken)
        try:
            self.trainer.save_checkpoint(path)
        finally:
            self._place = None

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        if self._place:
            checkpoint["amid"] = {"epoch": self._place.epoch, "taken": self._place.taken, "losses": self._totals()}
        checkpoint["trained"] = [m for m in self.model.architecture.modalities if getattr(self.model, m).trained]

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        if "amid" in checkpoint:
            amid = checkpoint["amid"]
            self._position = Position(amid["epoch"], tuple((int(n), int(clips)) for n, clips in amid["taken"]))
            if self.trainer.is_global_zero:  # the sums are those of all processes
                *sums, self._clips = amid["losses"]
                self._sums = torch.tensor(sums, dtype=torch.float64)
            in_batches(checkpoint, self._position, self.recipe.batch_size, self.trainer.world_size)
        for modality in checkpoint["trained"]:
            getattr(self.model, modality).trained = True
        if self.recipe.optim.keep_statistics:
            keep_statistics(self.model)

    def on_train_epoch_start(self) -> None:
        self._sums, self._clips = None, 0
        self._unfreeze()

    def _unfreeze(self) -> None:
        if self.recipe.optim.unfreeze:
            shares = unfreeze(self.model, self.recipe.optim, self.current_epoch)
            if self.recipe.optim.keep_statistics:
                keep_statistics(self.model)  # `unfreeze` sets the mode of each layer
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
            target = torch.cat([target, taught], dim=-1)  # mixup also mixes the teachers' probabilities
        clip = clip._replace(target=target)
        with record_function("batch transforms"), keyed(recipe.seed, BATCH_KEY, *place):
            clip = augment.drop(self.mixing(augment.spectrum(clip)))
        # Dropout and stochastic depth draw from the global generators: seeded by the step, they do not depend on where
        # a run resumed.
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
        self.losses = torch.stack([loss.detach(), *(losses[name].detach() for name in self.model.architecture.heads)])
        weighted = self.losses * len(batch.file)
        self._sums = weighted.double() if self._sums is None else self._sums.to(weighted.device) + weighted
        self._clips += len(batch.file)
        return loss

    def optimizer_step(self, *args, **kwargs) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            tensors = self._pairs or pairs(self.average, self.model)
            follow(tensors, self.recipe.averaging.decay, self.trainer.global_step + 1)

    @property
    def loss_names(self) -> list[str]:
        """Names of `losses`."""
        return ["train_loss", *(f"train_loss_{name}" for name in self.model.architecture.heads)]

    def mean_losses(self) -> dict[str, float]:
        """Mean losses over the clips of all processes in this epoch. It waits for the device."""
        if self._sums is None:
            return {}
        *sums, clips = self._totals()
        return {name: value / clips for name, value in zip(self.loss_names, sums, strict=True)}

    def _totals(self) -> list[float]:
        """Sums of the losses of this epoch's clips, and their number, over all processes."""
        sums = torch.zeros(len(self.loss_names)) if self._sums is None else self._sums
        total = torch.cat([sums, sums.new_tensor([self._clips])])
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(total)
        return total.tolist()

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        # Lightning refuses fused optimisers under autocast, although bf16 does not scale gradients.
        if gradient_clip_val:
            self.trainer.precision_plugin.clip_grad_by_norm(optimizer, gradient_clip_val)

    def on_validation_start(self) -> None:
        if self.recipe.machine.shard_model:
            gather(self.judged)
        elif self.trainer.world_size > 1 and not self.recipe.machine.sync_batchnorm:
            for model in {self.model, self.judged}:
                share_statistics(model)

    def on_validation_end(self) -> None:
        if self.recipe.machine.shard_model:
            release(self.judged)

    def validation_step(self, batch: Clip, index: int) -> None:
        model = self.judged
        clip = model.preprocess(batch)
        logits = model(clip)
        heads = {name: values.float().softmax(dim=1) for name, values in logits.items()}
        heads["decision"] = model.decide(logits, clip.present)
        self._validation.append((batch.target, batch.present.all(dim=1), list(batch.file), heads))

    def on_validation_epoch_end(self) -> None:
        targets, both, files, heads = gathered(self._validation, self.trainer.world_size)
        self._validation.clear()
        broken = [name for name, values in heads.items() if not bool(torch.isfinite(values).all())]
        if broken:
            raise AvscError(
                f"epoch {self.current_epoch + 1}: on the validation set the model's {broken[0]} probabilities are not "
                "finite, though the losses of training were: lower the learning rates, or use --precision fp32"
            )
        kept = [name for name, there in zip(files, both.tolist(), strict=True) if there]
        self._fitted_on = {n: v[both] for n, v in heads.items() if n != "decision"}, targets[both], kept
        truth = targets.cpu().numpy()
        for name, values in heads.items():
            found = values.cpu().double().numpy()
            suffix = "" if name == "decision" else f"_{name}"
            # Computed from all clips, so it is equal in every process.
            self.log(f"validation_log_loss{suffix}", macro_log_loss(found, truth))
            self.log(f"validation_accuracy{suffix}", macro_accuracy(found.argmax(axis=1), truth))
        decision = heads["decision"].cpu().double().numpy()
        self.class_scores = class_scores(decision, truth, self.model.architecture.classes)

    def fitted_decision(self) -> Architecture | None:
        """The model's architecture with the decision fitted on the last validation's clips with both modalities; None
        if there are none."""
        probabilities, targets, files = self._fitted_on
        if not len(targets):
            return None
        return fitted(self.model.architecture, probabilities, targets, files, self.corpus.validation)

    def configure_optimizers(self):
        recipe = self.recipe
        # Lightning cannot clip gradients in a fused step with scaled losses.
        fused = self.device.type == "cuda" and not (recipe.precision == "fp16" and recipe.optim.clip)
        optimiser = build_optimiser(parameter_groups(self.model, recipe.optim), recipe.optim, fused=fused)
        steps = max(int(self.trainer.estimated_stepping_batches), 1)
        return {"optimizer": optimiser, "lr_scheduler": schedule(optimiser, recipe.optim, steps, recipe.epochs)}
