"""Training a recipe on pytorch_lightning, the only file that knows it."""

from __future__ import annotations

import csv
import dataclasses
import difflib
import io
import json
import logging
import math
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
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot

from avsc_e2e.clip import MODALITIES, Clip, Corpus
from avsc_e2e.data.corpus import read_corpus
from avsc_e2e.data.dataset import ClipDataset, Key, collate, loader
from avsc_e2e.data.store import Store, is_store, open_store
from avsc_e2e.errors import AvscError
from avsc_e2e.inference import evaluation_dataset, sampling
from avsc_e2e.memory import keep_freed_memory
from avsc_e2e.metrics import macro_accuracy, macro_log_loss
from avsc_e2e.models.checkpoint import read_checkpoint, save_model
from avsc_e2e.models.scenenet import SceneNet, freeze, keep_statistics
from avsc_e2e.models.weights import sources
from avsc_e2e.randomness import keyed
from avsc_e2e.recipe import Optim, Recipe
from avsc_e2e.transforms.compose import Compose
from avsc_e2e.transforms.frames import CentreCrop

log = logging.getLogger(__name__)

FIT_CLIPS = 256
"""Training clips that the front end's statistics are taken from."""
CLIP_KEY, BATCH_KEY, EPOCH_KEY, WEIGHTS_KEY = range(4)
"""What a draw is for; the second word of its key, so that no two purposes share their randomness."""


def run_folder(recipe: Recipe) -> Path:
    return Path(recipe.runs) / recipe.name


def model_file(recipe: Recipe) -> Path:
    """The checkpoint of the epoch with the lowest macro log loss on the validation part."""
    return run_folder(recipe) / "model.safetensors"


def corpus_of(recipe: Recipe) -> Corpus:
    """The rows that a recipe trains, validates and tests on. Raises AvscError."""
    data = recipe.data
    root = data.root or data.store
    if not root:
        raise AvscError(
            "--data.root is not given: name the folder of the data set (`avsc data render` makes a small one)"
        )
    try:
        validation: float | str = float(data.validation)
    except ValueError:
        validation = data.validation
    return read_corpus(
        root,
        fold=data.fold,
        validation=validation,
        test=data.test,
        seed=recipe.seed,
        modalities=recipe.model.modalities,
        lenient=data.on_bad != "raise",
    )


def store_of(recipe: Recipe) -> Store | None:
    """The store that a recipe reads pictures and sound from; None where it reads media files. Raises AvscError."""
    path = recipe.data.store or (recipe.data.root if recipe.data.root and is_store(recipe.data.root) else "")
    return open_store(path) if path else None


def bad_media_file(recipe: Recipe) -> Path:
    """Lists what could not be read in a run."""
    return run_folder(recipe) / "bad_media.csv"


def train(recipe: Recipe, *, resume: bool = False) -> Path:
    """Train a stage and return its checkpoint. The run's folder also holds recipe.json, metrics.csv, TensorBoard's
    events and last.ckpt, from which `resume` goes on. Raises AvscError."""
    folder = run_folder(recipe)
    corpus = corpus_of(recipe)
    if not corpus.train or not corpus.validation:
        empty = "training" if not corpus.train else "validation"
        raise AvscError(
            f"{recipe.data.root}: its {empty} part is empty; give more recordings or another --data.validation"
        )
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
    if not resume:
        (folder / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=2) + "\n")
    if not recipe.epochs:
        return save_model(model, model_file(recipe), {"recipe": json.dumps(dataclasses.asdict(recipe))})
    if recipe.optim.keep_statistics and recipe.model.video:
        keep_statistics(model.video)
    tuning = FineTuning(recipe, model, corpus)
    trainer = _trainer(recipe, folder)
    try:
        trainer.fit(tuning, ckpt_path=str(last) if resume else None, weights_only=False if resume else None)
    except SystemExit:  # so Lightning answers Ctrl-C
        raise KeyboardInterrupt from None
    return model_file(recipe)


def initial_model(recipe: Recipe, corpus: Corpus) -> SceneNet:
    """The model that training starts from: random weights keyed by the seed, then published ones, then those of
    earlier stages, each reported."""
    with keyed(recipe.seed, WEIGHTS_KEY):
        model = recipe.model.build()
    missing = [name for name in model.architecture.heads if getattr(recipe.heads, name) <= 0]
    if missing:
        raise AvscError(
            f"--heads.{missing[0]} is 0, so the head would not learn, yet --model.decision gives it a vote: "
            "set one of the two"
        )
    stages = [_stage_file(recipe, name) for name in recipe.init]
    given = [read_checkpoint(path) for path in stages]
    fitted = any("frontend.mean" in tensors for tensors, _ in given)
    for modality in recipe.model.modalities:
        trunk, file = getattr(model, modality), getattr(recipe, f"{modality}_weights")
        if any(name.startswith(f"{modality}.") for tensors, _ in given for name in tensors):
            continue
        if file or (recipe.pretrained and (modality == "video" or sources(trunk.name))):
            log.info("%s trunk: %s", modality, trunk.load_pretrained(file, f"--{modality}-weights"))
    for path, (tensors, metadata) in zip(stages, given, strict=True):
        log.info("%s: %s", path, take_over(model, tensors, json.loads(metadata["architecture"])["classes"]))
    if (recipe.model.audio and not fitted) or not model.embeddings_fitted:
        _fit_statistics(recipe, model, corpus)
    return model


def take_over(model: SceneNet, tensors: dict[str, Tensor], classes: list[str]) -> str:
    """Copy the tensors whose name and shape the model has, and say what was matched. Heads whose classes are others
    are left as they are. Raises AvscError where nothing fits."""
    own = model.state_dict()
    same_classes = tuple(classes) == model.architecture.classes
    usable = {
        name: value
        for name, value in tensors.items()
        if name in own and own[name].shape == value.shape and (same_classes or not name.startswith("heads."))
    }
    if not usable:
        raise AvscError("--init: none of the checkpoint's tensors fits the model; are the trunks the same?")
    model.load_state_dict(usable, strict=False)
    parts = {name.split(".")[0] for name in usable}
    left = [name for name in tensors if name not in usable]
    text = f"{len(usable)} of its {len(tensors)} tensors matched ({', '.join(sorted(parts))})"
    if left:
        text += f", {len(left)} left out ({', '.join(sorted({'.'.join(name.split('.')[:2]) for name in left}))})"
    fresh = sorted({".".join(name.split(".")[:2]) for name in own if name not in usable})
    return text + (f"; from elsewhere: {', '.join(fresh)}" if fresh else "")


def _stage_file(recipe: Recipe, name: str) -> Path:
    """A checkpoint file, or that of a stage by its name."""
    path = Path(name)
    if path.suffix == ".safetensors" or path.is_file():
        return path
    path = Path(recipe.runs) / name / "model.safetensors"
    if not path.is_file():
        raise AvscError(f"--init {name}: {path} is not there; train that stage first, or name a checkpoint file")
    return path


def _fit_statistics(recipe: Recipe, model: SceneNet, corpus: Corpus) -> None:
    dataset = train_dataset(recipe, corpus)
    # Pictures matter only to a head that standardises embeddings.
    dataset.transform = CentreCrop(recipe.model.size) if model.standardises_embeddings else None
    dataset.sampling = dataclasses.replace(
        dataset.sampling, video=dataset.sampling.video and model.standardises_embeddings
    )
    rows = np.random.default_rng((recipe.seed, WEIGHTS_KEY)).permutation(len(dataset))[:FIT_CLIPS]
    clips = [dataset[Key(0, int(index))] for index in rows]
    if recipe.model.audio and not any(clip.present[0] for clip in clips):
        raise AvscError(f"{recipe.data.root}: no training recording has sound; use --model.audio '' for pictures alone")
    model.fit(collate(clips[at : at + 32]) for at in range(0, len(clips), 32))


def train_dataset(recipe: Recipe, corpus: Corpus) -> ClipDataset:
    """Random windows of the training part with the recipe's per-clip augmentation."""
    arch, augment = recipe.model, recipe.augment
    return ClipDataset(
        corpus.train,
        arch.classes,
        sampling(arch, recipe.data.short_side),
        Compose(
            (
                dataclasses.replace(augment.crop, size=arch.size),
                augment.flip,
                augment.colour,
                dataclasses.replace(augment.waveform, sample_rate=arch.sample_rate),
            )
        ),
        windows=recipe.data.windows,
        seed=recipe.seed,
        store=store_of(recipe),
        on_bad=recipe.data.on_bad or "skip",
        bad_media=bad_media_file(recipe),
    )


class FineTuning(pl.LightningModule):
    """Losses, optimiser and validation of a SceneNet for Lightning."""

    def __init__(self, recipe: Recipe, model: SceneNet, corpus: Corpus):
        super().__init__()
        self.recipe, self.model, self.corpus = recipe, model, corpus
        self._validation: list[tuple[Tensor, dict[str, Tensor]]] = []

    def train_dataloader(self):
        dataset = train_dataset(self.recipe, self.corpus)
        return loader(
            dataset,
            self.recipe.batch_size,
            shuffle=True,
            workers=workers(self.recipe),
            seed=self.recipe.seed,
            rank=self.trainer.global_rank,
            replicas=self.trainer.world_size,
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
        return loader(
            dataset,
            self.recipe.batch_size,
            shuffle=False,
            workers=workers(self.recipe),
            rank=self.trainer.global_rank,
            replicas=self.trainer.world_size,
        )

    def on_train_epoch_start(self) -> None:
        # Dropout draws from the global generator: keyed by the epoch, a resumed run draws what an unbroken one does.
        key = np.random.SeedSequence((self.recipe.seed, EPOCH_KEY, self.current_epoch, self.global_rank))
        torch.manual_seed(int(key.generate_state(1)[0]))

    def training_step(self, batch: Clip, index: int) -> Tensor:
        augment, classes = self.recipe.augment, len(self.model.architecture.classes)
        clip = self.model.preprocess(batch)
        clip = clip._replace(target=one_hot(clip.target, classes).float())
        with keyed(self.recipe.seed, BATCH_KEY, self.current_epoch, index, self.global_rank):
            clip = augment.drop(augment.mixup(augment.spectrum(clip)))
        losses = head_losses(self.model(clip), clip)
        weights = self.recipe.heads
        loss = sum(getattr(weights, name) * value for name, value in losses.items())
        for name, value in {"": loss, **losses}.items():
            self.log(
                "train_loss" + f"_{name}" * bool(name),
                value.detach(),
                on_epoch=True,
                on_step=False,
                batch_size=len(batch.file),
            )
        return loss

    def validation_step(self, batch: Clip, index: int) -> None:
        clip = self.model.preprocess(batch)
        logits = self.model(clip)
        heads = {name: values.float().softmax(dim=1) for name, values in logits.items()}
        heads["decision"] = self.model.decide(logits, clip.present)
        self._validation.append((batch.target, heads))

    def on_validation_epoch_end(self) -> None:
        targets = torch.cat([target for target, _ in self._validation])
        heads = {name: torch.cat([values[name] for _, values in self._validation]) for name in self._validation[0][1]}
        self._validation.clear()
        if self.trainer.world_size > 1:  # parts of unequal length: as objects, each clip exactly once
            gathered = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(gathered, (targets.cpu(), {n: v.cpu() for n, v in heads.items()}))
            targets = torch.cat([target for target, _ in gathered])
            heads = {name: torch.cat([values[name] for _, values in gathered]) for name in heads}
        truth = targets.cpu().numpy()
        for name, values in heads.items():
            found = values.cpu().double().numpy()
            suffix = "" if name == "decision" else f"_{name}"
            self.log(f"validation_log_loss{suffix}", macro_log_loss(found, truth))
            self.log(f"validation_accuracy{suffix}", macro_accuracy(found.argmax(axis=1), truth))

    def configure_optimizers(self):
        recipe, model = self.recipe, self.model
        rates = {"audio": recipe.optim.audio_lr, "video": recipe.optim.video_lr}
        groups = []
        for part, rate in {**rates, "heads": recipe.optim.lr}.items():
            module = getattr(model, part, None)
            if module is None:
                continue
            if rate <= 0:
                freeze(module)
                continue
            parameters = [p for p in module.parameters() if p.requires_grad]
            for decay in (True, False):
                chosen = [p for p in parameters if (p.dim() > 1) == decay]
                if chosen:
                    weight_decay = recipe.optim.weight_decay if decay else 0.0
                    groups.append(
                        {"params": chosen, "lr": rate, "weight_decay": weight_decay, "name": f"{part}_{decay}"}
                    )
        kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": partial(torch.optim.SGD, momentum=0.9)}
        optimiser = kind[recipe.optim.optimiser](groups)
        steps = max(int(self.trainer.estimated_stepping_batches), 1)
        share = partial(rate_share, recipe.optim, steps=steps, epochs=recipe.epochs)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def rate_share(optim: Optim, step: int, *, steps: int, epochs: int) -> float:
    """Share of the highest learning rates in a step, of all steps of a run's epochs."""
    rising = max(round(optim.warmup * steps), 1)
    if step < rising:
        return (step + 1) / rising
    if optim.schedule == "constant":
        return 1.0
    restarts = [round(epoch * steps / epochs) for epoch in optim.restarts if epoch < epochs]
    first = max([rising, *(start for start in restarts if start <= step)])
    last = min([steps, *(start for start in restarts if start > step)])
    done = min((step - first) / max(last - first, 1), 1.0)
    return optim.final + (1 - optim.final) * 0.5 * (1 + math.cos(math.pi * done))


def head_losses(logits: dict[str, Tensor], clip: Clip) -> dict[str, Tensor]:
    """Cross-entropy of each head with targets (B, K); a modality's head hears only of the clips that have it."""
    losses = {}
    for name, values in logits.items():
        each = -(clip.target * log_softmax(values.float(), dim=1)).sum(dim=1)
        if name == "fusion":
            losses[name] = each.mean()
        else:
            has = clip.present[:, MODALITIES.index(name)].float()
            losses[name] = (each * has).sum() / has.sum().clamp(min=1.0)
    return losses


def workers(recipe: Recipe) -> int:
    """Loader processes of a run; by default none on a machine without a GPU, where training needs the cores."""
    if recipe.data.workers >= 0:
        return recipe.data.workers
    return min(max((os.cpu_count() or 1) - 1, 1), 16) if torch.cuda.is_available() else 0


class RunFolder(Callback):
    """Writes metrics.csv, a row an epoch, keeps the best model, and says how an epoch went."""

    def __init__(self, recipe: Recipe, folder: Path):
        self.recipe, self.folder = recipe, folder
        self.best, self.rows = math.inf, []
        self.began = 0.0

    def state_dict(self) -> dict:
        return {"best": self.best, "rows": self.rows}

    def load_state_dict(self, state: dict) -> None:
        self.best, self.rows = state["best"], list(state["rows"])

    def on_train_epoch_start(self, trainer: pl.Trainer, module: FineTuning) -> None:
        self.began = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: FineTuning) -> None:
        """Lightning calls it after the epoch's validation."""
        seconds = time.monotonic() - self.began
        figures = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        rates = {f"lr_{group['name'].split('_')[0]}": group["lr"] for group in trainer.optimizers[0].param_groups}
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            **figures,
            **rates,
            "seconds": round(seconds, 2),
        }
        self.rows.append(row)
        better = row["validation_log_loss"] < self.best
        self.best = min(self.best, row["validation_log_loss"])
        if not trainer.is_global_zero:
            return
        _write_atomically(self.folder / "metrics.csv", _as_csv(self.rows))
        if better:
            notes = {
                "recipe": json.dumps(dataclasses.asdict(self.recipe)),
                "validation": json.dumps(
                    {key: row[key] for key in ("epoch", "validation_log_loss", "validation_accuracy")}
                ),
            }
            save_model(module.model, self.folder / "model.safetensors", notes)
        log.info(
            "%s epoch %d/%d: loss %.3f, validation log loss %.3f, accuracy %.1f %%%s, %.0f s",
            self.recipe.name,
            row["epoch"],
            self.recipe.epochs,
            row["train_loss"],
            row["validation_log_loss"],
            100 * row["validation_accuracy"],
            " (best)" if better else "",
            seconds,
        )


class WholeCheckpoints(TorchCheckpointIO):
    """Replaces a checkpoint at once: a run that is killed while it saves has the one before. (Lightning moves it from
    the system's temporary folder, which on another disk means copying it over the old one.)"""

    def save_checkpoint(self, checkpoint: dict, path: str | os.PathLike, storage_options: object = None) -> None:
        partial = f"{path}.partial"
        torch.save(checkpoint, partial)
        os.replace(partial, path)


def _trainer(recipe: Recipe, folder: Path) -> pl.Trainer:
    cuda = torch.cuda.is_available()
    precision = recipe.precision
    if precision == "auto":
        precision = "bf16" if cuda and torch.cuda.is_bf16_supported() else "fp32"
    if precision == "fp16" and not cuda:
        raise AvscError("--precision fp16 needs a GPU; use fp32 or bf16")
    # "auto" under torchrun on CPU would train separate copies.
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", torch.cuda.device_count() if cuda else 1))
    nodes = int(os.environ.get("GROUP_WORLD_SIZE", os.environ.get("SLURM_NNODES", 1)))
    last = ModelCheckpoint(dirpath=folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
    return pl.Trainer(
        max_epochs=recipe.epochs,
        accelerator="gpu" if cuda else "cpu",
        devices=devices,
        num_nodes=nodes,
        precision={"fp32": "32-true", "fp16": "16-mixed", "bf16": "bf16-mixed"}[precision],
        gradient_clip_val=recipe.optim.clip or None,
        callbacks=[RunFolder(recipe, folder), last, *([TQDMProgressBar(leave=False)] if sys.stderr.isatty() else [])],
        logger=TensorBoardLogger(folder, name="", version="tensorboard"),
        plugins=[WholeCheckpoints()],
        log_every_n_steps=10,
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
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


def _as_csv(rows: list[dict]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def _quiet() -> None:
    """Lightning's tips on hardware and workers are no news to a user of recipes."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
