"""The engine's methods of fine-tuning on against off, in the same time: the toy city, several seeds.

    python benchmarks/engine.py [--seeds 3] [--minutes 3] [--small] [--out DIR]

Each arm trains the same hybrid from the same weights on the same clips for about the same time on the wall: the epochs
that fit into --minutes are measured with one epoch of each arm first. Shown is the macro log loss and accuracy of the
test part (locations unseen in training, 1 s segments), of every seed, their mean and standard deviation. `off` is the
plain recipe; `on` adds layer decay, a moving average of weights, label smoothing, CutMix, RandAugment, an average of
the best epochs, and views at test time; the arms between add one each. A toy city is easy: this shows whether a method
does harm and what it costs, not what it brings on real recordings.
"""

import argparse
import csv
import shutil
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

from avsc_e2e.data.toycity import ToyCity
from avsc_e2e.evaluation import evaluate
from avsc_e2e.models.systems import lite0, tiny
from avsc_e2e.recipe import Augment, Averaging, Data, Optim, Recipe, TestTime
from avsc_e2e.training import run_folder, train
from avsc_e2e.transforms.batch import CutMix, Mixup, SpecAugment
from avsc_e2e.transforms.frames import RandAugment


def arms(plain: Recipe) -> dict[str, Recipe]:
    """One method each, and all of them."""
    augment = plain.augment
    found = {
        "off": plain,
        "layer decay 0.8": replace(plain, optim=replace(plain.optim, layer_decay=0.8)),
        "moving average 0.95": replace(plain, averaging=Averaging(decay=0.95)),
        "mean of 3 epochs": replace(plain, averaging=Averaging(checkpoints=3)),
        "label smoothing 0.05": replace(plain, smoothing=0.05),
        "CutMix and RandAugment": replace(
            plain, augment=replace(augment, cutmix=CutMix(1.0, 0.5), pictures=RandAugment(2, 0.3))
        ),
        "views at test time": replace(plain, test_time=TestTime(flip=True, crops=3, views=2)),
    }
    everything = plain
    for arm in found.values():
        changed = {
            name: getattr(arm, name)
            for name in ("augment", "smoothing", "test_time")
            if getattr(arm, name) != getattr(plain, name)
        }
        everything = replace(everything, **changed)
    everything = replace(
        everything, optim=replace(plain.optim, layer_decay=0.8), averaging=Averaging(decay=0.95, checkpoints=3)
    )
    return {**found, "on": everything}


def seconds_of(recipe: Recipe) -> float:
    """Of the last epoch of a run, validation included."""
    with open(run_folder(recipe) / "timing.csv", newline="") as file:
        return float(list(csv.DictReader(file))[-1]["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=3.0, help="of training on the wall, for each run")
    parser.add_argument("--small", action="store_true", help="tiny nets on a small city")
    parser.add_argument("--only", nargs="*", help="arms; by default all")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    out = chosen.out or Path(tempfile.mkdtemp())
    city = ToyCity(train_locations=4 if chosen.small else 8, test_locations=3, duration=4.0, seed=5)
    city.render(out / "city")
    plain = Recipe(
        "plain",
        model=replace(tiny() if chosen.small else lite0(), size=48 if chosen.small else 112),
        data=Data(root=str(out / "city"), validation="0.25", windows=4),
        augment=Augment(mixup=Mixup(0.2), spectrum=SpecAugment(0.1, 0.1)),
        optim=Optim(lr=2e-3, audio_lr=2e-3, video_lr=3e-4 if not chosen.small else 2e-3),
        batch_size=16,
        pretrained=not chosen.small,
        runs=str(out / "runs"),
    )
    wanted = {name: arm for name, arm in arms(plain).items() if not chosen.only or name in chosen.only}
    shutil.rmtree(out / "runs", ignore_errors=True)
    epochs = {}
    for name, arm in wanted.items():
        trial = replace(arm, name=f"trial/{name}", epochs=2, averaging=replace(arm.averaging, checkpoints=0))
        train(trial)
        epochs[name] = max(round(60 * chosen.minutes / seconds_of(trial)), 3)
    print(f"{'':<26}{'epochs':>7}{'log loss':>22}{'accuracy':>22}   every seed's log loss")
    for name, arm in wanted.items():
        losses, accuracies = [], []
        for seed in range(chosen.seeds):
            run = replace(arm, name=f"{name}/{seed}", seed=seed, epochs=epochs[name])
            train(run)
            scores = evaluate(run).scores["decision"]
            segments = next(iter(scores.values()))
            losses.append(segments.log_loss)
            accuracies.append(100 * segments.accuracy)
        spread = [statistics.stdev(values) if len(values) > 1 else float("nan") for values in (losses, accuracies)]
        print(
            f"{name:<26}{epochs[name]:>7}{statistics.mean(losses):>13.3f} ± {spread[0]:<6.3f}"
            f"{statistics.mean(accuracies):>12.1f} ± {spread[1]:<4.1f} %   {' '.join(f'{x:.3f}' for x in losses)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
