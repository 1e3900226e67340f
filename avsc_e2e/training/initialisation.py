"""The model that training starts from: published weights, earlier stages, statistics of the training set."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor

from avsc_e2e.clip import Clip, Corpus
from avsc_e2e.data.dataset import Key
from avsc_e2e.data.loader import collate, loader
from avsc_e2e.devices import device
from avsc_e2e.errors import AvscError
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.checkpoint import read_checkpoint
from avsc_e2e.models.weights.sources import sources
from avsc_e2e.randomness import WEIGHTS_KEY, keyed
from avsc_e2e.training.recipe import Recipe
from avsc_e2e.training.run import stage_file, train_dataset, workers
from avsc_e2e.transforms.frames import CentreCrop

log = logging.getLogger(__name__)

LEAST_SHARE = 0.5
"""Share of a trunk's tensors that a checkpoint must have in order to initialise it."""


def initial_model(recipe: Recipe, corpus: Corpus) -> SceneNet:
    """The model that training starts from: random weights keyed by the seed, then published weights, then those of
    earlier stages; each is logged. Raises AvscError for missing stages and for weights that do not fit."""
    with keyed(recipe.seed, WEIGHTS_KEY):
        model = SceneNet(recipe.model)
    missing = [name for name in model.architecture.heads if getattr(recipe.heads, name) <= 0]
    if missing:
        raise AvscError(
            f"--heads.{missing[0]} is 0, so the head would not learn, but --model.decision gives it a "
            "weight: change one of the two"
        )
    stages = [stage_file(recipe, name) for name in recipe.init]
    given = [read_checkpoint(path) for path in stages]
    fitted = any("frontend.mean" in tensors for tensors, _ in given)
    for modality in recipe.model.modalities:
        trunk, file = getattr(model, modality), getattr(recipe, f"{modality}_weights")
        if any(_share(model, modality, tensors) == 1 for tensors, _ in given):
            continue  # an earlier stage initialises it
        if file or (recipe.pretrained and (modality == "video" or sources(trunk.name))):
            log.info("%s trunk: %s", modality, trunk.load_pretrained(file, f"--{modality}-weights"))
        elif recipe.pretrained:
            log.info("%s trunk: no weights of %s are published, so it starts at random", modality, trunk.name)
    for path, (tensors, metadata) in zip(stages, given, strict=True):
        log.info("%s: %s", path, take_over(model, tensors, json.loads(metadata["architecture"]), str(path)))
    if (recipe.model.audio and not fitted) or not model.embeddings_fitted:
        _fit_statistics(recipe, model, corpus)
    return model


def _share(model: SceneNet, modality: str, tensors: Mapping[str, Tensor]) -> float:
    """Share of the tensors of a model's trunk that a checkpoint has in the same shape."""
    own = {name: value for name, value in model.state_dict().items() if name.startswith(f"{modality}.")}
    same = sum(name in tensors and tensors[name].shape == value.shape for name, value in own.items())
    return same / max(len(own), 1)


def take_over(model: SceneNet, tensors: Mapping[str, Tensor], architecture: Mapping, path: str = "checkpoint") -> str:
    """Copy the tensors of a checkpoint that match the model by name and shape, and return a text on what matched.
    `architecture` is the checkpoint's, from its metadata. Heads for other classes are not changed. Raises AvscError if
    nothing matches, or if the trunks of a modality are different nets."""
    own = model.state_dict()
    same_classes = tuple(architecture["classes"]) == model.architecture.classes
    for modality in model.architecture.modalities:
        there = any(name.startswith(f"{modality}.") for name in tensors)
        if there and _share(model, modality, tensors) < LEAST_SHARE:
            raise AvscError(
                f"--init {path}: its {modality} trunk is {architecture.get(modality) or 'another'}, and the model's is "
                f"{getattr(model.architecture, modality)}, so almost none of its weights would be used: set "
                f"--model.{modality} to the checkpoint's, or leave it out of --init"
            )
    usable = {
        name: value
        for name, value in tensors.items()
        if name in own and own[name].shape == value.shape and (same_classes or not name.startswith("heads."))
    }
    if not usable:
        raise AvscError(f"--init {path}: none of the checkpoint's tensors fits the model; are the trunks the same?")
    model.load_state_dict(usable, strict=False)
    parts = {name.split(".")[0] for name in usable}
    for modality in parts & set(model.architecture.modalities):
        getattr(model, modality).trained = True
    left = [name for name in tensors if name not in usable]
    text = f"{len(usable)} of its {len(tensors)} tensors matched ({', '.join(sorted(parts))})"
    if left:
        text += f", {len(left)} left out ({', '.join(sorted({'.'.join(name.split('.')[:2]) for name in left}))})"
    fresh = sorted({".".join(name.split(".")[:2]) for name in own if name not in usable})
    return text + (f"; from elsewhere: {', '.join(fresh)}" if fresh else "")


def _fit_statistics(recipe: Recipe, model: SceneNet, corpus: Corpus) -> None:
    dataset = train_dataset(recipe, corpus)
    # Frames are only needed by a head that standardises embeddings.
    arch = model.architecture
    dataset.transform = CentreCrop(arch.size, arch.crop) if model.standardises_embeddings else None
    dataset.sampling = dataclasses.replace(
        dataset.sampling, video=dataset.sampling.video and model.standardises_embeddings
    )
    if recipe.data.statistics:
        draw = np.random.default_rng((recipe.seed, WEIGHTS_KEY))
        rows = draw.permutation(len(dataset))[: recipe.data.statistics]
        read = [dataset[Key(0, int(index))] for index in rows]
        clips: Iterable[Clip] = [collate(read[at : at + 32]) for at in range(0, len(read), 32)]
        if recipe.model.audio and not any(clip.present[0] for clip in read):
            raise AvscError(
                f"{recipe.data.root}: no training recording has audio; use --model.audio '' for a video-only model"
            )
    else:
        clips = loader(dataset, recipe.batch_size, shuffle=False, workers=workers(recipe))
        model.to(device())
    model.fit(clips)
    model.cpu()
