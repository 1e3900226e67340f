"""A recipe: all that a training run is, as Python values without behaviour. The command line shows and sets every
field under its own name, with the text below it as help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.transforms.batch import DropModality, Mixup, SpecAugment
from avsc_e2e.transforms.frames import ColourJitter, HorizontalFlip, RandomResizedCrop
from avsc_e2e.transforms.waveform import Waveform


@dataclass(frozen=True)
class Data:
    """What to learn from."""

    root: str = ""
    """Folder of the data set: TAU Urban Audio-Visual Scenes 2021, anything in its layout, class folders, or a store."""
    store: str = ""
    """Store of the data set (`avsc data prepare`) to read pictures and sound from; the root may then be left out."""
    fold: int = 1
    """Fold of the official set-up."""
    validation: str = "0.1"
    """Share of the training part to validate on, cut by whole locations; or a CSV that lists it."""
    test: float = 0.2
    """Share of the recordings to test on, for class folders without a test folder."""
    evaluation: str = ""
    """Folder of the unlabelled evaluation set that `submit` predicts; empty: the test part."""
    windows: int = 1
    """Random windows that an epoch draws from each training recording."""
    short_side: int = 0
    """Pixels of a frame's shorter side as decoded; 0: 8/7 of what the video trunk sees."""
    on_bad: Literal["", "raise", "skip", "mask"] = ""
    """What to do with media that cannot be read: stop, take another clip in training and leave it out of evaluation, or
    go on with the modality that can be read; empty: skip in training, raise in evaluation."""
    workers: int = -1
    """Processes that load; 0: none, -1: all cores but one with a GPU, none without."""

    def __post_init__(self):
        if self.windows < 1:
            raise AvscError(f"--data.windows {self.windows}: at least one window is needed from each recording")


@dataclass(frozen=True)
class Augment:
    """Random changes of training clips. Each is off at strength 0 (a crop at 1)."""

    crop: RandomResizedCrop = RandomResizedCrop()
    flip: HorizontalFlip = HorizontalFlip()
    colour: ColourJitter = ColourJitter()
    waveform: Waveform = Waveform()
    spectrum: SpecAugment = SpecAugment()
    mixup: Mixup = Mixup()
    drop: DropModality = DropModality()


@dataclass(frozen=True)
class Optim:
    """Optimiser and learning rates, which change by steps; by default AdamW (Loshchilov and Hutter, 2019) with a linear
    warm-up and a cosine to zero."""

    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    """adam and sgd, with a momentum of 0.9, take weight decay as an L2 penalty."""
    lr: float = 1e-3
    """Highest learning rate of the heads."""
    audio_lr: float = 1e-3
    """Highest learning rate of the audio trunk; 0 freezes it."""
    video_lr: float = 3e-4
    """Highest learning rate of the video trunk; 0 freezes it."""
    weight_decay: float = 0.05
    """Of weights with two axes or more; biases and norms have none."""
    warmup: float = 0.1
    """Share of the steps in which the rates rise."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What the rates do then."""
    restarts: tuple[int, ...] = ()
    """Epochs after which the cosine starts again from the highest rates (Loshchilov and Hutter, 2017)."""
    final: float = 0.0
    """Share of the highest rates in which the cosine ends."""
    clip: float = 5.0
    """Largest norm of the gradient; 0: no limit."""
    keep_statistics: bool = False
    """Batch norms of the video trunk keep the means and variances of its published weights; their scales still learn.
    With few recordings that is worth much."""


@dataclass(frozen=True)
class Heads:
    """Weights of the heads' cross-entropies in the loss."""

    audio: float = 0.3
    """Of the audio head."""
    video: float = 0.3
    """Of the video head."""
    fusion: float = 1.0
    """Of the fusion head."""


@dataclass(frozen=True)
class Recipe:
    """One stage of training, from data to checkpoint."""

    name: str
    """Of the stage, such as zhang_ioa/hybrid; its folder below `runs`."""
    model: Architecture = field(default_factory=Architecture)
    data: Data = Data()
    augment: Augment = Augment()
    optim: Optim = Optim()
    heads: Heads = Heads()
    epochs: int = 20
    """Passes over the training part; 0: only put the stages of `init` together."""
    batch_size: int = 32
    """Clips of a step, on each device."""
    pretrained: bool = True
    """Start trunks from published weights, where no earlier stage gives any. Audio trunks of which none are published
    start at random."""
    audio_weights: str = ""
    """File with weights of the audio trunk, or name of a source (`avsc models`); empty: the trunk's own source."""
    video_weights: str = ""
    """The same for the video trunk."""
    init: tuple[str, ...] = ()
    """Earlier stages, or checkpoint files, whose tensors the model starts from; later ones win."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Arithmetic of trunks and heads; auto: bf16 where the GPU has it, else fp32."""
    seed: int = 0
    """Of all random draws: weights, order, windows, augmentation."""
    runs: str = "runs"
    """Folder that all runs lie in."""

    def __post_init__(self):
        if self.epochs < 0 or (not self.epochs and not self.init):
            raise AvscError(f"--epochs {self.epochs}: at least one is needed; 0 is for joining the stages of --init")
        if self.batch_size < 2:
            raise AvscError(f"--batch-size {self.batch_size}: batch norm needs at least two clips")
