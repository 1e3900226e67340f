"""Runs killed at random instants and resumed, against one unbroken run: are weights and logs the same, bit for bit?

    python benchmarks/kill_resume.py [--kills 30] [--root ROOT] [--out DIR]

A stage with every method of fine-tuning on is trained unbroken once. Then runs of it are killed with SIGKILL at random
instants, each resumed until it ends (killed before its first checkpoint, it is started again), and compared with the
unbroken one: the tensors of model.safetensors and last.ckpt, metrics.csv but for its column `seconds`, and classes.csv.
After each kill the checkpoint has to be whole, and no more than the epoch in progress may be lost. Runs are forked from
this process, since importing the library takes longer than training. ROOT is a data set; by default a small toy city.
"""

import argparse
import csv
import logging
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from avsc_e2e.data.toycity import ToyCity
from avsc_e2e.models.systems import tiny
from avsc_e2e.recipe import Augment, Averaging, Data, Optim, Recipe
from avsc_e2e.training import train
from avsc_e2e.transforms.batch import CutMix, DropModality, Mixup
from avsc_e2e.transforms.frames import RandAugment


def plan(root: Path, runs: Path, workers: int) -> Recipe:
    return Recipe(
        "run",
        model=replace(tiny(), size=32),
        data=Data(root=str(root), balance=1.0, workers=workers),
        augment=Augment(pictures=RandAugment(1), mixup=Mixup(0.3), cutmix=CutMix(1.0, 0.3), drop=DropModality(0.2)),
        optim=Optim(lr=3e-3, audio_lr=3e-3, video_lr=3e-3, layer_decay=0.8, unfreeze=1, accumulate=2),
        averaging=Averaging(decay=0.9, checkpoints=2),
        smoothing=0.1,
        epochs=4,
        batch_size=5,
        pretrained=False,
        precision="fp32",
        runs=str(runs),
    )


def work(recipe: Recipe, resume: bool, log: Path) -> None:
    """In a process of its own."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    train(recipe, resume=resume)


def contents(folder: Path) -> dict:
    """All of a run that has to be the same."""
    with open(folder / "metrics.csv", newline="") as file:
        rows = [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    last = torch.load(folder / "last.ckpt", weights_only=True)
    tensors = {"model.safetensors": load_file(folder / "model.safetensors"), "last.ckpt": last["state_dict"]}
    bits = {file: {name: value.numpy().tobytes() for name, value in of.items()} for file, of in tensors.items()}
    return {"metrics.csv": rows, "classes.csv": (folder / "classes.csv").read_text(), **bits}


def epochs_of(folder: Path) -> tuple[int, int]:
    """Epochs in the log and in the checkpoint after a kill; the checkpoint has to be whole."""
    logged = 0
    if (folder / "metrics.csv").exists():
        with open(folder / "metrics.csv", newline="") as file:
            logged = len(list(csv.DictReader(file)))
    saved = torch.load(folder / "last.ckpt", weights_only=True)["epoch"] + 1 if (folder / "last.ckpt").exists() else 0
    return logged, saved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--workers", type=int, default=0, help="processes that load")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    out = chosen.out or Path(tempfile.mkdtemp())
    root = chosen.root or out / "city"
    if not chosen.root:
        city = ToyCity(train_locations=2, test_locations=1, duration=1.0, height=48, width=64, seed=1)
        city.render(root, workers=1)
    fork, draw = multiprocessing.get_context("fork"), random.Random(chosen.seed)

    def start(recipe: Recipe, resume: bool) -> multiprocessing.Process:
        process = fork.Process(target=work, args=(recipe, resume, out / "log.txt"))
        process.start()
        return process

    shutil.rmtree(out / "unbroken", ignore_errors=True)
    unbroken = plan(root, out / "unbroken", chosen.workers)
    began = time.monotonic()
    process = start(unbroken, False)
    process.join()
    seconds = time.monotonic() - began
    assert process.exitcode == 0, (out / "log.txt").read_text()
    expected = contents(out / "unbroken" / "run")
    kills, runs, lost, where = 0, 0, 0, Counter()
    different: list[str] = []
    while kills < chosen.kills:
        shutil.rmtree(out / "killed", ignore_errors=True)
        recipe, folder, runs = plan(root, out / "killed", chosen.workers), out / "killed" / "run", runs + 1
        while True:
            process = start(recipe, (folder / "last.ckpt").exists())
            if kills < chosen.kills:
                process.join(draw.uniform(0.02, 0.8) * seconds)
            else:
                process.join()
            if process.exitcode is not None:
                assert process.exitcode == 0, (out / "log.txt").read_text()
                break
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            logged, saved = epochs_of(folder)
            where[f"with {saved} of {recipe.epochs} epochs saved"] += 1
            lost += logged > saved + 1  # an epoch is logged before it is saved; none may be missing but that one
        found = contents(folder)
        different += [f"run {runs}: {name}" for name in expected if found[name] != expected[name]]
        print(f"run {runs}: {kills} kills so far, {'different' if different else 'identical'}", flush=True)
    print(f"\nunbroken run: {seconds:.1f} s, {recipe.epochs} epochs, {chosen.workers} loader processes")
    for name, count in sorted(where.items()):
        print(f"  {count:3d} kills {name}")
    wrong = {line.split(":")[0] for line in different}
    print(f"{runs - len(wrong)} of {runs} runs identical to the unbroken one after {kills} kills")
    print(f"{lost} kills lost more than the epoch in progress")
    for line in different:
        print(line)
    if different or lost:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
