"""A recipe: the complete configuration of a training run, as Python values without behaviour. The command line shows
and sets every field under its own name; the text below a field is its help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from avsc_e2e.arguments import checked_fields
from avsc_e2e.errors import AvscError, within
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.transforms.augmentation import Augment
from avsc_e2e.transforms.frames import TestTime

HIGHEST_RATE = 10.0
"""Higher learning rates cannot be meant."""


@dataclass(frozen=True)
class Data:
    """The data set, its split, and how its media are read."""

    root: str = ""
    """Folder of the data set: TAU Urban Audio-Visual Scenes 2021, anything in its layout, class folders,
    FILES.csv with the columns file and label, or a store; or the URL of a store."""
    store: str = ""
    """Store of the data set (`avsc data prepare`) to read frames and audio from, a folder or a URL (s3://, gs://,
    https://); the root may then be left out."""
    fold: int = 1
    """Fold of the official set-up."""
    validation: str = "0.1"
    """Share of the training set to validate on, in whole locations; or a CSV that lists the validation set."""
    test: float = 0.2
    """Share of the recordings to test on, where class folders have no test folder."""
    group: str = ""
    """Regular expression for class folders: its one group, in a file's name without extension, is the source recording,
    which no split divides, such as '(.+)_\\d+'. Empty: found from the names."""
    groups: str = ""
    """CSV with the columns file and group that lists the source recording of every file; replaces --data.group."""
    evaluation: str = ""
    """Folder of the unlabelled evaluation set that `submit` predicts; empty: the test set."""
    windows: int = 1
    """Random windows of each training recording in an epoch."""
    window: float = 0.0
    """Length of such a window, seconds; 0: the length of a segment in evaluation."""
    statistics: int = 256
    """Training clips from which the means and standard deviations for standardisation are estimated; 0: a whole
    epoch."""
    by_length: bool = False
    """Draw `windows` for each segment of a recording: recordings and classes then have the same weight in training as
    in an evaluation of segments."""
    balance: float = 0.0
    """Class balance of an epoch, from 0 (every recording once) to 1 (every class equally often)."""
    short_side: int = 0
    """Shorter side of a decoded frame, pixels; 0: 8/7 of the input of the video trunk."""
    on_bad: Literal["", "raise", "skip", "mask"] = ""
    """Media that cannot be read. raise: stop; skip: take another clip in training, leave it out of evaluation; mask:
    use the modality that can be read; empty: skip in training, raise in evaluation."""
    decoder: Literal["auto", "pyav", "decord"] = "auto"
    """Decoder of frames. pyav: exact frames; decord: wrong frames in many files, for comparison; auto: pyav, because
    decord was faster for no file."""
    order: Literal["random", "stream"] = "random"
    """Order of an epoch. stream: one shard of the store after the other, shuffled over --data.buffer clips, for stores
    behind a URL and on disks that read in sequence."""
    buffer: int = 2000
    """Clips over which the order stream shuffles, at least; always whole shards."""
    cache: str = ""
    """Folder for the shards that the order stream fetches from a URL; empty: the system's folder for temporary
    files."""
    cache_size: float = 16.0
    """Most that these shards take, GB for each device."""
    workers: int = -1
    """Loader processes for each device; 0: none, -1: its share of the cores minus one with a GPU, none without."""

    @property
    def source(self) -> str:
        """The root, or the store in its place. Raises AvscError where neither is given."""
        if not self.root and not self.store:
            raise AvscError(
                "--data.root is not given: name the folder of the data set (`avsc data render` makes a small one)"
            )
        return self.root or self.store

    def __post_init__(self):
        checked_fields(self, "--data.")
        within("--data.short-side", self.short_side, 0)
        within("--data.workers", self.workers, -1)
        within("--data.test", self.test, 0, 1, "it is a share of the recordings")
        within("--data.buffer", self.buffer, 1)
        within("--data.cache-size", self.cache_size, 0)
        if self.order == "stream" and self.balance:
            raise AvscError("--data.order stream reads every recording once: leave out --data.balance")
        if self.windows < 1:
            raise AvscError(f"--data.windows {self.windows}: at least one window is needed from each recording")
        if self.window < 0 or self.statistics < 0:
            raise AvscError("--data.window and --data.statistics: they are at least 0")
        if not 0 <= self.balance <= 1:
            raise AvscError(f"--data.balance {self.balance}: it is a share from 0 to 1")


@dataclass(frozen=True)
class Optim:
    """Optimiser and schedule of the learning rates over steps; by default AdamW (Loshchilov and Hutter, 2019) with a
    linear warm-up and a cosine to zero."""

    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    """adam and sgd (momentum 0.9) apply weight decay as an L2 penalty."""
    lr: float = 1e-3
    """Highest learning rate of the heads."""
    audio_lr: float = 1e-3
    """Highest learning rate of the audio trunk; 0 freezes it."""
    video_lr: float = 3e-4
    """Highest learning rate of the video trunk; 0 freezes it."""
    weight_decay: float = 0.05
    """Weight decay of weights with two or more axes; biases and norms have none."""
    warmup: float = 0.1
    """Share of the steps with rising rates."""
    schedule: Literal["cosine", "constant", "steps", "plateau"] = "cosine"
    """Rates after the warm-up. steps: multiplied by `factor` every `every` epochs; plateau: after `every` epochs in
    which the validation log loss did not fall by 1e-4."""
    factor: float = 0.5
    """Factor of the schedules steps and plateau."""
    every: int = 20
    """Epochs of the schedules steps and plateau."""
    restarts: tuple[int, ...] = ()
    """Epochs after which the cosine restarts at the highest rates (Loshchilov and Hutter, 2017)."""
    final: float = 0.0
    """End of the cosine, as a share of the highest rates."""
    clip: float = 5.0
    """Gradient clipping: largest norm; 0: no limit."""
    keep_statistics: bool = False
    """Freeze the running means and variances of batch norms in trunks that start from published weights or an earlier
    stage; their scales still learn. It helps much with few recordings."""
    accumulate: int = 1
    """Batches whose gradients are accumulated for one step."""
    layer_decay: float = 1.0
    """Layer-wise decay: factor of the learning rate from each layer of a trunk to the one before it; 1 is off."""
    layers: int = 0
    """Number of last layers of each trunk that learn; the layers below are frozen and cost no backward pass. 0: all."""
    unfreeze: int = 0
    """Gradual unfreezing: epochs over which the layers of the trunks begin to learn, the last ones first; in the first
    epoch only the heads learn. 0 is off."""

    def __post_init__(self):
        checked_fields(self, "--optim.")
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
            raise AvscError("--optim.schedule plateau has no warm-up: add --optim.warmup 0")
        if not 0 < self.factor <= 1 or self.every < 1:
            raise AvscError("--optim.factor is a factor above 0 and up to 1, --optim.every at least one epoch")
        if not 0 < self.layer_decay <= 1:
            raise AvscError(f"--optim.layer-decay {self.layer_decay}: it is a factor above 0 and up to 1")


@dataclass(frozen=True)
class Heads:
    """Weights of the heads' cross-entropies in the loss."""

    audio: float = 0.3
    """Weight of the audio head."""
    video: float = 0.3
    """Weight of the video head."""
    fusion: float = 1.0
    """Weight of the fusion head."""
    fit_decision: bool = True
    """Fit the decision over several heads on the validation set at the end, in place of the model's weights."""

    def __post_init__(self):
        checked_fields(self, "--heads.")
        for name in ("audio", "video", "fusion"):
            within(f"--heads.{name}", getattr(self, name), 0)


@dataclass(frozen=True)
class Averaging:
    """Averages of weights over steps or epochs."""

    decay: float = 0.0
    """Decay of a moving average of the weights over steps, such as 0.999, which is then evaluated and saved. 0 is
    off."""
    checkpoints: int = 0
    """Number of best epochs whose weights are averaged at the end; the average is saved if it is better than the best
    epoch. 0 is off."""
    start: bool = False
    """Interpolate the kept weights with the initial ones, at the share with the lowest validation log loss (WiSE-FT,
    Wortsman et al., 2022)."""

    def __post_init__(self):
        checked_fields(self, "--averaging.")
        if not 0 <= self.decay < 1:
            raise AvscError(f"--averaging.decay {self.decay}: it is a share from 0 to below 1")
        if self.checkpoints < 0 or self.checkpoints == 1:
            raise AvscError(f"--averaging.checkpoints {self.checkpoints}: give two or more; 0 is off")


@dataclass(frozen=True)
class Distil:
    """Distillation: the probabilities of teachers for the same clips are additional targets (Hinton et al., 2015)."""

    teachers: tuple[str, ...] = ()
    """Stages, checkpoint files, or system outputs (.csv) of the training set; their probabilities are averaged."""
    weight: float = 0.0
    """Weight of the teachers in the loss, from 0 to 1; the labels have the rest. 0 is off."""
    temperature: float = 2.0
    """Temperature that softens the probabilities of teachers and student; 1 does not change them."""

    def __post_init__(self):
        checked_fields(self, "--distil.")
        if not 0 <= self.weight <= 1:
            raise AvscError(f"--distil.weight {self.weight}: it is a share from 0 to 1")
        if bool(self.teachers) != (self.weight > 0):
            raise AvscError("--distil.teachers and --distil.weight go together: set both, or neither")
        if self.temperature <= 0:
            raise AvscError(f"--distil.temperature {self.temperature}: it is above 0")


@dataclass(frozen=True)
class Machine:
    """Devices and memory. They change results only by rounding."""

    compile: Literal["", "inductor", "aot_eager", "eager", "cudagraphs"] = ""
    """Backend of torch.compile for the trunks; inductor is the fast one, eager only traces. Empty is off."""
    checkpoint_activations: bool = False
    """Recompute the activations of large trunks in the backward pass: less memory, about a third more time."""
    shard_model: bool = False
    """Shard weights, gradients and optimiser state across the processes of torchrun (FSDP), for models too large for
    one device: they take less memory, and each step transfers the weights."""
    sync_batchnorm: bool = False
    """Batch norm computes its statistics over the batches of all devices (GPUs only)."""
    devices: int = 0
    """GPUs that training uses, a process for each (without a GPU: processes); 0: one, or as torchrun or SLURM started
    the job. --batch-size is for each."""
    deterministic: bool = False
    """Use deterministic algorithms on a GPU where PyTorch has them, and warn where it has none. Slower; training on a
    CPU is exact anyway."""

    def __post_init__(self):
        checked_fields(self, "--machine.")
        within("--machine.devices", self.devices, 0, 1024)


@dataclass(frozen=True)
class Recipe:
    """One stage of training, from data to checkpoint."""

    name: str
    """Name of the stage, such as zhang_ioa/hybrid, and of its folder in `runs`."""
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
    """Label smoothing: share of a target that is spread over all classes; 0 is off."""
    patience: int = 0
    """Early stopping: epochs without a lower macro log loss on the validation set; 0 is off."""
    keep: Literal["best", "last"] = "best"
    """Epoch to keep: best has the lowest macro log loss on the validation set; use last if the validation set is too
    small to choose by."""
    epochs: int = 20
    """Passes over the training set; 0: only combine the stages of `init`."""
    steps: int = 0
    """Limit of optimiser steps: a larger training set gets fewer epochs than `epochs`, but at least two. 0 is off."""
    save_every: int = 0
    """Steps after which last.ckpt is also written within an epoch, for epochs that last long; 0: after each epoch."""
    batch_size: int = 32
    """Clips in a batch, on each device."""
    pretrained: bool = True
    """Start trunks from published weights, unless an earlier stage initialises them. Audio trunks without published
    weights start at random."""
    audio_weights: str = ""
    """Weights of the audio trunk: a file, or the name of a source (`avsc models`); empty: the source of the trunk."""
    video_weights: str = ""
    """Weights of the video trunk, in the same way."""
    init: tuple[str, ...] = ()
    """Earlier stages, or checkpoint files, that initialise the model, in this order."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Arithmetic of trunks and heads, in training and evaluation; auto: bf16 on a GPU that has it, fp16 on others, fp32
    without one."""
    seed: int = 0
    """Seed of all random draws: weights, order, windows, augmentation."""
    runs: str = "runs"
    """Folder of all runs."""

    def __post_init__(self):
        checked_fields(self, "--")
        within("--patience", self.patience, 0)
        within("--steps", self.steps, 0)
        within("--save-every", self.save_every, 0)
        if self.epochs < 0 or (not self.epochs and not self.init):
            raise AvscError(f"--epochs {self.epochs}: at least one is needed; 0 combines the stages of --init")
        if self.batch_size < 2:
            raise AvscError(f"--batch-size {self.batch_size}: batch norm needs at least two clips")
        if not 0 <= self.smoothing < 1:
            raise AvscError(f"--smoothing {self.smoothing}: it is a share from 0 to below 1")
