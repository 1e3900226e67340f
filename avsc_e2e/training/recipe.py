"""A recipe: all that a training run is, as Python values without behaviour. The command line shows and sets every
field under its own name, with the text below it as help."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.transforms.batch import CutMix, DropModality, Mixup, SpecAugment
from avsc_e2e.transforms.frames import ColourJitter, HorizontalFlip, RandAugment, RandomResizedCrop, TestTime
from avsc_e2e.transforms.waveform import Waveform

HIGHEST_RATE = 10.0
"""No optimiser here learns anything with more."""


def within(flag: str, value: float, least: float, most: float = math.inf, note: str = "") -> None:
    """Raises AvscError for a number outside of its range, or for none."""
    if not least <= value <= most or math.isnan(value):
        span = f"{least:g} or more" if math.isinf(most) else f"from {least:g} to {most:g}"
        raise AvscError(f"{flag} {value:g}: give {span}{f' ({note})' if note else ''}")


@dataclass(frozen=True)
class Data:
    """What to learn from."""

    root: str = ""
    """Folder of the data set: TAU Urban Audio-Visual Scenes 2021, anything in its layout, class folders,
    FILES.csv with the columns file and label, or a store; or the URL of a store."""
    store: str = ""
    """Store of the data set (`avsc data prepare`) to read pictures and sound from, a folder or a URL (s3://, gs://,
    https://); the root may then be left out."""
    fold: int = 1
    """Fold of the official set-up."""
    validation: str = "0.1"
    """Share of the training part to validate on, cut by whole locations; or a CSV that lists it."""
    test: float = 0.2
    """Share of the recordings to test on, for class folders without a test folder."""
    group: str = ""
    """Regular expression whose one group, matched against a file's name without extension, is the source recording of
    class folders that no split divides: '(.+)_\\d+'. Empty: the names tell it."""
    groups: str = ""
    """CSV with the columns file and group that lists the source recording of every file, in place of a rule."""
    evaluation: str = ""
    """Folder of the unlabelled evaluation set that `submit` predicts; empty: the test part."""
    windows: int = 1
    """Random windows that an epoch draws from each training recording."""
    window: float = 0.0
    """Seconds of such a window; 0: as long as those that the model is evaluated on."""
    statistics: int = 256
    """Training clips that the means and deviations which a model standardises by are taken from; 0: all of an epoch."""
    by_length: bool = False
    """Draw that many for each segment of a recording's length: recordings and classes then weigh in training what they
    weigh where segments are evaluated."""
    balance: float = 0.0
    """How far an epoch draws all classes equally often, from 0, every recording once, to 1, every class the same."""
    short_side: int = 0
    """Pixels of a frame's shorter side as decoded; 0: 8/7 of what the video trunk sees."""
    on_bad: Literal["", "raise", "skip", "mask"] = ""
    """What to do with media that cannot be read: stop, take another clip in training and leave it out of evaluation, or
    go on with the modality that can be read; empty: skip in training, raise in evaluation."""
    decoder: Literal["auto", "pyav", "decord"] = "auto"
    """What decodes frames of media files. pyav: the right frame of every file; decord: wrong frames of many files, for
    comparison; auto: pyav, since decord was faster on no file."""
    workers: int = -1
    """Processes that load, for each device; 0: none, -1: its share of the cores but one with GPUs, none without."""

    def __post_init__(self):
        within("--data.short-side", self.short_side, 0)
        within("--data.workers", self.workers, -1)
        within("--data.test", self.test, 0, 1, "it is a share of the recordings")
        if self.windows < 1:
            raise AvscError(f"--data.windows {self.windows}: at least one window is needed from each recording")
        if self.window < 0 or self.statistics < 0:
            raise AvscError("--data.window and --data.statistics: they are at least 0")
        if not 0 <= self.balance <= 1:
            raise AvscError(f"--data.balance {self.balance}: it is a share from 0 to 1")


@dataclass(frozen=True)
class Augment:
    """Random changes of training clips. Each is off at strength 0 (a crop at 1)."""

    crop: RandomResizedCrop = RandomResizedCrop()
    flip: HorizontalFlip = HorizontalFlip()
    colour: ColourJitter = ColourJitter()
    pictures: RandAugment = RandAugment()
    waveform: Waveform = Waveform()
    spectrum: SpecAugment = SpecAugment()
    mixup: Mixup = Mixup()
    cutmix: CutMix = CutMix()
    drop: DropModality = DropModality()


UNCHANGED = Augment(
    crop=RandomResizedCrop(1.0),
    flip=HorizontalFlip(0.0),
    colour=ColourJitter(0.0, 0.0),
    waveform=Waveform(gain=0.0),
    spectrum=SpecAugment(0.0, 0.0),
    mixup=Mixup(0.0),
)
"""Training clips as they are: what recipes of published systems start from."""


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
    schedule: Literal["cosine", "constant", "steps", "plateau"] = "cosine"
    """What the rates do then. steps: they fall by `factor` after every `every` epochs; plateau: after `every` epochs in
    which the validation log loss did not fall by 1e-4."""
    factor: float = 0.5
    """By which the rates are multiplied then."""
    every: int = 20
    """Epochs."""
    restarts: tuple[int, ...] = ()
    """Epochs after which the cosine starts again from the highest rates (Loshchilov and Hutter, 2017)."""
    final: float = 0.0
    """Share of the highest rates in which the cosine ends."""
    clip: float = 5.0
    """Largest norm of the gradient; 0: no limit."""
    keep_statistics: bool = False
    """Batch norms of trunks that start from published weights or an earlier stage keep their means and variances; their
    scales still learn. With few recordings that is worth much."""
    accumulate: int = 1
    """Batches whose gradients make one step."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each layer of a trunk to the one before it; 1 is off."""
    layers: int = 0
    """Layers of each trunk, counted from its end, that learn; those below are frozen and cost no backward pass. 0: all
    of them."""
    unfreeze: int = 0
    """Epochs in which the layers of the trunks begin to learn, the last ones first; in the first epoch only the heads
    learn. 0 is off."""

    def __post_init__(self):
        for name in ("lr", "audio_lr", "video_lr"):
            within(f"--optim.{name.replace('_', '-')}", getattr(self, name), 0, HIGHEST_RATE, "0 freezes the part")
        within("--optim.weight-decay", self.weight_decay, 0, 10)
        within("--optim.warmup", self.warmup, 0, 1, "it is a share of the steps")
        within("--optim.final", self.final, 0, 1, "it is a share of the highest rates")
        within("--optim.clip", self.clip, 0)
        within("--optim.unfreeze", self.unfreeze, 0)
        within("--optim.accumulate", self.accumulate, 1, note="a step needs at least one batch")
        within("--optim.layers", self.layers, 0, note="0 is all of them")
        if self.schedule == "plateau" and self.warmup:
            raise AvscError("--optim.schedule plateau knows no warm-up: add --optim.warmup 0")
        if not 0 < self.factor <= 1 or self.every < 1:
            raise AvscError("--optim.factor is a factor above 0 and up to 1, --optim.every at least one epoch")
        if not 0 < self.layer_decay <= 1:
            raise AvscError(f"--optim.layer-decay {self.layer_decay}: it is a factor above 0 and up to 1")


@dataclass(frozen=True)
class Heads:
    """Weights of the heads' cross-entropies in the loss."""

    audio: float = 0.3
    """Of the audio head."""
    video: float = 0.3
    """Of the video head."""
    fusion: float = 1.0
    """Of the fusion head."""
    fit_decision: bool = True
    """Fit the decision over several heads on the validation part at the end, in place of the model's weights."""

    def __post_init__(self):
        for name in ("audio", "video", "fusion"):
            within(f"--heads.{name}", getattr(self, name), 0)


@dataclass(frozen=True)
class Averaging:
    """Means of weights, which err less than the last ones."""

    decay: float = 0.0
    """Of a moving average over the steps, such as 0.999; it is what is evaluated and saved. 0 is off."""
    checkpoints: int = 0
    """Best epochs whose weights are averaged at the end, and saved where that is better than the best one; 0 is off."""
    start: bool = False
    """Mix the kept weights with those that training started from, in the share with the lowest validation log loss
    (WiSE-FT, Wortsman et al., 2022)."""

    def __post_init__(self):
        if not 0 <= self.decay < 1:
            raise AvscError(f"--averaging.decay {self.decay}: it is a share from 0 to below 1")
        if self.checkpoints < 0 or self.checkpoints == 1:
            raise AvscError(f"--averaging.checkpoints {self.checkpoints}: give two or more; 0 is off")


@dataclass(frozen=True)
class Distil:
    """Learning from teachers: their probabilities for the same clips are targets too (Hinton et al., 2015)."""

    teachers: tuple[str, ...] = ()
    """Stages, checkpoint files, or system outputs (.csv) of the training part; the mean of their probabilities."""
    weight: float = 0.0
    """Of the teachers in the loss, from 0 to 1; the truth has the rest. 0 is off."""
    temperature: float = 2.0
    """That probabilities of teachers and student are softened by; 1 leaves them."""

    def __post_init__(self):
        if not 0 <= self.weight <= 1:
            raise AvscError(f"--distil.weight {self.weight}: it is a share from 0 to 1")
        if bool(self.teachers) != (self.weight > 0):
            raise AvscError("--distil.teachers and --distil.weight go together: set both, or neither")
        if self.temperature <= 0:
            raise AvscError(f"--distil.temperature {self.temperature}: it is above 0")


@dataclass(frozen=True)
class Machine:
    """How the work is done; what is learned does not depend on it, but for rounding."""

    compile: Literal["", "inductor", "aot_eager", "eager", "cudagraphs"] = ""
    """Backend of torch.compile for the trunks; inductor is the fast one, eager only traces. Empty is off."""
    checkpoint_activations: bool = False
    """Compute the activations of large trunks twice instead of keeping them: less memory, about a third more time."""
    shard_model: bool = False
    """Cut weights, gradients and optimiser state among the processes of torchrun, for models that are too large for one
    device: memory for them falls with the number of processes, and each step sends the weights about (FSDP)."""
    sync_batchnorm: bool = False
    """Batch norm takes its statistics from the batches of all devices (GPUs alone)."""
    devices: int = 0
    """GPUs that training uses, a process for each (without a GPU: processes); 0: one, or as torchrun or SLURM started
    the job. --batch-size is for each."""
    deterministic: bool = False
    """Use only algorithms that give the same bits on the same GPU each time, where PyTorch has them, and warn where it
    has not. Slower; without a GPU training is exact anyway."""

    def __post_init__(self):
        within("--machine.devices", self.devices, 0, 1024)


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
    averaging: Averaging = Averaging()
    distil: Distil = Distil()
    test_time: TestTime = TestTime()
    machine: Machine = Machine()
    smoothing: float = 0.0
    """Share of a target that is spread over all classes; 0 is off."""
    patience: int = 0
    """Epochs without a lower macro log loss on the validation part after which training ends; 0 is off."""
    keep: Literal["best", "last"] = "best"
    """Epoch whose model is kept: that with the lowest macro log loss on the validation part, or the last one, for where
    validation recordings are too few to choose by."""
    epochs: int = 20
    """Passes over the training part; 0: only put the stages of `init` together."""
    steps: int = 0
    """Optimiser steps that are enough: on a larger training part there are fewer epochs than `epochs`, but at least
    two. 0 is off."""
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
    """Arithmetic of trunks and heads, in training and evaluation; auto: bf16 on a GPU that has it, fp16 on others, fp32
    without one."""
    seed: int = 0
    """Of all random draws: weights, order, windows, augmentation."""
    runs: str = "runs"
    """Folder that all runs lie in."""

    def __post_init__(self):
        within("--patience", self.patience, 0)
        within("--steps", self.steps, 0)
        if self.epochs < 0 or (not self.epochs and not self.init):
            raise AvscError(f"--epochs {self.epochs}: at least one is needed; 0 is for joining the stages of --init")
        if self.batch_size < 2:
            raise AvscError(f"--batch-size {self.batch_size}: batch norm needs at least two clips")
        if not 0 <= self.smoothing < 1:
            raise AvscError(f"--smoothing {self.smoothing}: it is a share from 0 to below 1")
