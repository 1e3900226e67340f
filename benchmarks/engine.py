"""The engine's methods of fine-tuning on against off, for the same processor time: the toy city, several seeds.

    python benchmarks/engine.py [--seeds 3] [--seconds 60] [--locations 8] [--each] [--small] [--jobs 2] [--out DIR]

Each arm fine-tunes the same hybrid from the same weights on the same clips with as many epochs as fit into --seconds of
the processor, validation included; what an epoch of each arm costs is measured first. Time is counted in seconds of the
processor, all threads, since on a machine that others use too the wall's would favour one arm or the other; the arms of
one seed run side by side. Shown is the macro log loss and accuracy of the test set (locations unseen in training,
segments of 1 s) of every seed, their mean and standard deviation, and the mean of the seeds' differences.

`off` is the plain recipe: crop, flip, SpecAugment and mixup. `on` adds to it, together, what a user who reads the flags
would switch on for a short fine-tuning: layer decay, a moving average of weights, label smoothing, stochastic depth,
CutMix beside mixup, RandAugment, the mean of the best epochs, and the mirrored view at test time, all of them weak, as
few steps ask for. --each adds an arm for each method alone. A toy city is synthetic and easy: this shows what the
methods cost and whether they do harm, not what they bring on real recordings.
"""

import argparse
import multiprocessing
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from avsc_e2e.data.store.prepare import prepare
from avsc_e2e.inference import evaluation_dataset, predict_rows
from avsc_e2e.models.weights.checkpoint import load_model
from avsc_e2e.models.zoo.own import lite0, tiny
from avsc_e2e.outputs.metrics import macro_log_loss
from avsc_e2e.toycity.city import ToyCity
from avsc_e2e.training import trainer as training
from avsc_e2e.training.recipe import Averaging, Data, Optim, Recipe
from avsc_e2e.training.run import corpus_of, model_file, store_of
from avsc_e2e.training.trainer import train
from avsc_e2e.transforms.augmentation import Augment
from avsc_e2e.transforms.batch import CutMix, Mixup, SpecAugment
from avsc_e2e.transforms.frames import RandAugment, TestTime


class Found(NamedTuple):
    """Of one run, on the test set."""

    log_loss: float
    accuracy: float
    seconds: float
    """Of the processor, for the training."""


def methods(plain: Recipe) -> dict[str, dict]:
    """What each method changes in a recipe."""
    augment = plain.augment
    return {
        "layer decay 0.9": {"optim": replace(plain.optim, layer_decay=0.9)},
        # A tenth of the steps of a short run is what it looks back on.
        "moving average 0.95": {"averaging": Averaging(decay=0.95)},
        "mean of 3 epochs": {"averaging": Averaging(checkpoints=3)},
        "label smoothing 0.05": {"smoothing": 0.05},
        "stochastic depth 0.05": {"model": replace(plain.model, drop_path=0.05)},
        "CutMix 0.3": {"augment": replace(augment, cutmix=CutMix(1.0, 0.3))},
        "RandAugment 1": {"augment": replace(augment, randaugment=RandAugment(1, 0.3))},
        "mirrored view": {"test_time": TestTime(flip=True)},
    }


def arms(plain: Recipe, each: bool) -> dict[str, Recipe]:
    """None, all, and each alone."""
    single = methods(plain)
    together = {name: value for change in single.values() for name, value in change.items()} | {
        "augment": replace(plain.augment, cutmix=CutMix(1.0, 0.3), randaugment=RandAugment(1, 0.3)),
        "averaging": Averaging(decay=0.95, checkpoints=3),
    }
    found = {"off": plain, "on": replace(plain, **together)}
    return found | ({name: replace(plain, **change) for name, change in single.items()} if each else {})


class TimedRun(training.RunFolder):
    """The engine's own callback, which notes when epochs end, in seconds of the processor."""

    ends: list[float] = []  # noqa: RUF012, of the process

    def on_train_epoch_end(self, trainer, module) -> None:
        super().on_train_epoch_end(trainer, module)
        self.ends.append(time.process_time())


def seconds_of_an_epoch(recipe: Recipe, threads: int) -> float:
    """Its second and third one, validation and checkpoints included."""
    torch.set_num_threads(threads)
    training.RunFolder = TimedRun
    train(recipe)
    return (TimedRun.ends[-1] - TimedRun.ends[-3]) / 2


def trained(recipe: Recipe, threads: int) -> Found:
    torch.set_num_threads(threads)
    began = time.process_time()
    train(recipe)
    seconds = time.process_time() - began
    model, rows = load_model(model_file(recipe)), corpus_of(recipe).test
    dataset = evaluation_dataset(model, rows, store=store_of(recipe), test_time=recipe.test_time)
    output = predict_rows(model, dataset, test_time=recipe.test_time)["decision"]
    scene = {row.file: output.classes.index(row.scene) for row in rows}
    truth = np.array([scene[file] for file in output.files])
    right = float((output.probabilities.argmax(axis=1) == truth).mean())
    return Found(macro_log_loss(output.probabilities, truth), 100 * right, seconds)


def spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the processor, for the training of each run")
    parser.add_argument("--locations", type=int, default=8, help="of each scene in the training set")
    parser.add_argument("--each", action="store_true", help="an arm for each method too")
    parser.add_argument("--small", action="store_true", help="tiny nets from random weights")
    parser.add_argument("--size", type=int, default=96, help="pixels that the video trunk sees")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    out = chosen.out or Path(tempfile.mkdtemp())
    city = ToyCity(train_locations=chosen.locations, test_locations=3, duration=4.0, height=112, width=150, seed=5)
    city.render(out / "city")
    prepare(out / "city", out / "store")
    plain = Recipe(
        "plain",
        model=replace(tiny() if chosen.small else lite0(), size=48 if chosen.small else chosen.size),
        data=Data(store=str(out / "store"), validation="0.25", windows=2, workers=0),
        augment=Augment(mixup=Mixup(0.2), spectrum=SpecAugment(0.1, 0.1)),
        optim=Optim(lr=2e-3, audio_lr=2e-3, video_lr=2e-3 if chosen.small else 3e-4, keep_statistics=not chosen.small),
        batch_size=16,
        pretrained=not chosen.small,
        runs=str(out / "runs"),
    )
    wanted = arms(plain, chosen.each)
    shutil.rmtree(out / "runs", ignore_errors=True)
    trials = [replace(arm, name=f"trial/{name}", epochs=3) for name, arm in wanted.items()]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["avsc_e2e.training.trainer", "avsc_e2e.inference"])
    # A process for each run: what one leaves in memory does not speed up the next.
    with context.Pool(chosen.jobs, maxtasksperchild=1) as pool:
        costs = pool.map(partial(seconds_of_an_epoch, threads=chosen.threads), trials, chunksize=1)
        epochs = {name: max(round(chosen.seconds / cost), 3) for name, cost in zip(wanted, costs, strict=True)}
        runs = {
            (name, seed): replace(arm, name=f"{name}/{seed}", seed=seed, epochs=epochs[name])
            for seed in range(chosen.seeds)
            for name, arm in wanted.items()
        }
        found = pool.map(partial(trained, threads=chosen.threads), runs.values(), chunksize=1)
    results = dict(zip(runs, found, strict=True))
    print(f"{plain.model.name} at {plain.model.size} pixels, {len(corpus_of(plain).train)} recordings, "
          f"{chosen.seconds:g} s of the processor for each run, {chosen.threads} threads")  # fmt: skip
    print(f"{'':<24}{'epochs':>7}{'seconds':>9}{'log loss':>18}{'accuracy':>18}   every seed's log loss")
    for name in wanted:
        found = [results[name, seed] for seed in range(chosen.seeds)]
        losses, accuracies, seconds = ([getattr(one, field) for one in found] for field in Found._fields)
        print(
            f"{name:<24}{epochs[name]:>7}{statistics.mean(seconds):>9.0f}"
            f"{statistics.mean(losses):>10.3f} ± {spread(losses):.3f}"
            f"{statistics.mean(accuracies):>9.1f} ± {spread(accuracies):.1f} %"
            f"   {' '.join(f'{loss:.3f}' for loss in losses)}"
        )
    for name in list(wanted)[1:]:
        pairs = [(results[name, seed], results["off", seed]) for seed in range(chosen.seeds)]
        losses = [mine.log_loss - off.log_loss for mine, off in pairs]
        accuracies = [mine.accuracy - off.accuracy for mine, off in pairs]
        print(
            f"{name} - off: log loss {statistics.mean(losses):+.3f} ± {spread(losses):.3f}, "
            f"accuracy {statistics.mean(accuracies):+.1f} ± {spread(accuracies):.1f} points"
        )


if __name__ == "__main__":
    main()
