"""A run of a recipe: its folder and files, its data, and how they are loaded."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
from pathlib import Path

import torch

from avsc_e2e import processes
from avsc_e2e.clip import Corpus
from avsc_e2e.data.dataset import ClipDataset
from avsc_e2e.data.sampler import Streaming
from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.data.store.cache import ShardCache
from avsc_e2e.data.store.layout import is_store
from avsc_e2e.data.store.reader import Store, open_store
from avsc_e2e.data.store.remote import RemoteFolder
from avsc_e2e.data.store.shard import DEFAULT, Options
from avsc_e2e.errors import AvscError
from avsc_e2e.inference import sampling
from avsc_e2e.models.trunk import settled
from avsc_e2e.training.distillation import Teachers, needs
from avsc_e2e.training.recipe import Recipe
from avsc_e2e.transforms import Compose

log = logging.getLogger(__name__)


def run_folder(recipe: Recipe) -> Path:
    """The folder of all files of a run. Raises AvscError for a value that is not a Recipe, such as its name."""
    if not isinstance(recipe, Recipe):
        raise AvscError(f"{recipe!r:.80}: give a Recipe, such as avsc_e2e.recipes.zhang_ioa.audio")
    return Path(recipe.runs) / recipe.name


def model_file(recipe: Recipe) -> Path:
    """The checkpoint of the epoch with the lowest macro log loss on the validation set, or of the last epoch if the
    recipe keeps that."""
    return run_folder(recipe) / "model.safetensors"


def corpus_of(recipe: Recipe) -> Corpus:
    """The training, validation and test rows of a recipe. Raises AvscError."""
    data = recipe.data
    root = data.source
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
        group=data.group,
        groups=data.groups,
        modalities=recipe.model.modalities,
        lenient=data.on_bad != "raise",
    )


def store_of(recipe: Recipe) -> Store | None:
    """The store that a recipe reads frames and audio from; None if it reads media files. Raises AvscError."""
    path = recipe.data.store or (recipe.data.root if recipe.data.root and is_store(recipe.data.root) else "")
    return open_store(path) if path else None


def bad_media_file(recipe: Recipe) -> Path:
    """The file that lists media which a run could not read."""
    return run_folder(recipe) / "bad_media.csv"


def stage_file(recipe: Recipe, name: str, flag: str = "--init") -> Path:
    """A checkpoint file, or that of a stage by its name. Raises AvscError, naming `flag`, if the stage has none."""
    path = Path(name)
    if path.suffix in (".safetensors", ".csv") or path.is_file():
        return path
    path = model_file(dataclasses.replace(recipe, name=name))
    if not path.is_file():
        raise AvscError(f"{flag} {name}: {path} is not there; train that stage first, or name a checkpoint file")
    return path


def short_side(recipe: Recipe) -> int:
    """Shorter side of the frames, pixels: the recipe's value, or its model's. If the frames of a store are smaller than
    that, but not smaller than the model's input, it is theirs. Raises AvscError."""
    want = sampling(recipe.model, recipe.data.short_side)
    store = store_of(recipe) if want.video else None
    if store and settled(recipe.model).size <= store.short_side < want.short_side:
        log.warning(
            "%s: the shorter side of its frames has %d pixels, the recipe asks for %d; %d are used",
            *(store.path, store.short_side, want.short_side, store.short_side),
        )
        return store.short_side
    return want.short_side


def store_options(recipe: Recipe, quality: int = DEFAULT.quality) -> Options:
    """The options of a store for a recipe. Its frames have the size that the model takes, at exactly the times of
    evaluation: an odd multiple of the model's frames per second, at least the default. For a model without video, the
    defaults. Raises AvscError."""
    want = sampling(recipe.model, recipe.data.short_side)
    if not want.video:
        return DEFAULT._replace(quality=quality)
    frames = want.frames / want.window
    times = next(odd for odd in itertools.count(1, 2) if odd * frames >= DEFAULT.rate)
    return Options(want.short_side, times * frames, quality)


def train_dataset(recipe: Recipe, corpus: Corpus, teachers: Teachers | None = None) -> ClipDataset:
    """Random windows of the training set with the recipe's per-clip augmentation; clips also serve the teachers, if
    there are any."""
    arch, augment = settled(recipe.model), recipe.augment
    side = short_side(recipe)
    want, size = sampling(arch, side), arch.size
    if teachers:
        want, size = needs(arch, [model.architecture for model in teachers.models], side)
    want = dataclasses.replace(want, window=recipe.data.window or want.window)
    return ClipDataset(
        corpus.train,
        arch.classes,
        want,
        Compose(
            (
                dataclasses.replace(augment.crop, size=size, share=arch.crop),
                augment.flip,
                augment.colour,
                augment.randaugment,
                dataclasses.replace(augment.waveform, sample_rate=want.sample_rate),
            )
        ),
        windows=recipe.data.windows,
        by_length=recipe.data.by_length,
        seed=recipe.seed,
        store=store_of(recipe),
        on_bad=recipe.data.on_bad or "skip",
        bad_media=bad_media_file(recipe),
        decoder=recipe.data.decoder,
    )


def streaming_of(recipe: Recipe, dataset: ClipDataset) -> Streaming | None:
    """How an epoch goes through the shards of a dataset's store, which it reads from a cache then where it is behind a
    URL; None for a random order. Raises AvscError where there is no store."""
    if recipe.data.order == "random":
        return None
    store = dataset.store
    if not store:
        raise AvscError("--data.order stream: reads the shards of a store: give --data.store (`avsc data prepare`)")
    if not isinstance(store.shards, RemoteFolder):
        return Streaming(dataset.shards(), recipe.data.buffer)
    cache = ShardCache(
        store.shards, [str(url) for url in store.recordings.shards], recipe.data.cache, recipe.data.cache_size * 1e9
    )
    dataset.store = dataclasses.replace(store, shards=cache)
    return Streaming(dataset.shards(), recipe.data.buffer, cache.fetch)


def epochs_of(recipe: Recipe, corpus: Corpus) -> int:
    """Number of passes over the training set that make `steps` steps, at most `epochs`."""
    if not recipe.steps:
        return recipe.epochs
    clips = recipe.batch_size * processes.count() * recipe.optim.accumulate
    return min(recipe.epochs, max(round(recipe.steps * clips / len(train_dataset(recipe, corpus))), 2))


def workers(recipe: Recipe) -> int:
    """Loader processes of each process of a run; by default none without a GPU, because training then needs the
    cores."""
    if recipe.data.workers >= 0:
        return recipe.data.workers
    if not torch.cuda.is_available():
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", torch.cuda.device_count()))  # a process for each
    return min(max(cores // max(devices, 1) - 1, 1), 16)
