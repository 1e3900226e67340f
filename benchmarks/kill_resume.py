"""Runs killed at random instants and resumed, against one unbroken run: are weights and logs the same, bit for bit?

    python benchmarks/kill_resume.py [--kills 30] [--workers 0] [--root ROOT] [--out DIR]

A stage with every method of fine-tuning on is trained unbroken once. Then runs of it are killed with SIGKILL, each
resumed until it ends (killed before its first checkpoint, it is started again), and compared with the unbroken one: the
tensors of model.safetensors and last.ckpt, metrics.csv but for its column `seconds`, and classes.csv. After each kill
the checkpoint has to be whole and to hold every epoch whose checkpoint was written before, so that no more than the
epoch in progress is lost, and no process of the run may be left. Two kills of three fall at an instant drawn from the
time that the whole run takes; every third is aimed at the writing of files, which is short, at an instant drawn from
what that takes. Instants are those of the run's own processor time, so other load does not move them. Runs are forked
from this process, since importing the library takes longer than training. ROOT is a data set; by default a small toy
city.
"""

import argparse
import csv
import importlib
import logging
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # bits are promised on the CPU; a GPU adds in an order of its own

import torch
from safetensors.torch import load_file

from avsc_e2e.data.loader import PRELOADED
from avsc_e2e.models.zoo.own import tiny
from avsc_e2e.toycity.city import ToyCity
from avsc_e2e.training import strategy
from avsc_e2e.training import trainer as training
from avsc_e2e.training.recipe import Averaging, Data, Optim, Recipe
from avsc_e2e.training.trainer import train
from avsc_e2e.transforms.augmentation import Augment
from avsc_e2e.transforms.batch import CutMix, DropModality, Mixup
from avsc_e2e.transforms.frames import RandAugment

PHASES = (
    "starting", "training", "validating", "writing tables and model", "writing last.ckpt", "averaging at the end",
)  # fmt: skip
"""What a run is at."""
STARTING, TRAINING, VALIDATING, WRITING_MODEL, WRITING_CHECKPOINT, AVERAGING = range(len(PHASES))


class Board:
    """Memory in which a run, in a process of its own, notes what it is at."""

    def __init__(self):
        self.now = multiprocessing.RawValue("i", STARTING)
        self.begun = multiprocessing.RawArray("i", len(PHASES))
        """How often each phase was begun."""
        self.seconds = multiprocessing.RawArray("d", len(PHASES))
        self.saved = multiprocessing.RawValue("i", 0)
        """Epochs whose checkpoint was written for good."""
        self.used = multiprocessing.RawValue("d", 0.0)
        """Seconds of the processor that a whole run took."""

    def clear(self) -> None:
        self.now.value = STARTING
        for phase in range(len(PHASES)):
            self.begun[phase], self.seconds[phase] = 0, 0.0

    def follow(self, owner, name: str, phase: int) -> None:
        """Let a function say that it is being run."""
        plain = getattr(owner, name)

        def noted(*args, **kwargs):
            before, began = self.now.value, time.monotonic()
            self.now.value = phase
            self.begun[phase] += 1
            found = plain(*args, **kwargs)
            self.seconds[phase] += time.monotonic() - began
            if phase == WRITING_CHECKPOINT:
                self.saved.value = args[1]["epoch"] + 1
            # Training goes on until something else begins.
            self.now.value = TRAINING if phase == TRAINING else before
            return found

        setattr(owner, name, noted)


def plan(root: Path, runs: Path, workers: int) -> Recipe:
    return Recipe(
        "run",
        model=replace(tiny(), size=32),
        data=Data(root=str(root), balance=1.0, windows=2, workers=workers),
        augment=Augment(randaugment=RandAugment(1), mixup=Mixup(0.3), cutmix=CutMix(1.0, 0.3), drop=DropModality(0.2)),
        optim=Optim(lr=3e-3, audio_lr=3e-3, video_lr=3e-3, layer_decay=0.8, unfreeze=1, accumulate=2),
        averaging=Averaging(decay=0.9, checkpoints=2),
        smoothing=0.1,
        epochs=6,
        batch_size=5,
        pretrained=False,
        precision="fp32",
        runs=str(runs),
    )


def work(recipe: Recipe, resume: bool, log: Path, board: Board) -> None:
    """In a process, and a session, of its own."""
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    board.follow(training.RunFolder, "on_train_epoch_start", TRAINING)
    board.follow(training.FineTuning, "validation_step", VALIDATING)
    board.follow(training.FineTuning, "on_validation_epoch_end", VALIDATING)
    board.follow(training.RunFolder, "_save", WRITING_MODEL)
    board.follow(strategy.WholeCheckpoints, "save_checkpoint", WRITING_CHECKPOINT)
    board.follow(training, "_average", AVERAGING)
    train(recipe, resume=resume)
    board.used.value = time.process_time()


def contents(folder: Path) -> dict:
    """All of a run that has to be the same."""
    with open(folder / "metrics.csv", newline="") as file:
        rows = [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    last = torch.load(folder / "last.ckpt", weights_only=True)
    tensors = {"model.safetensors": load_file(folder / "model.safetensors"), "last.ckpt": last["state_dict"]}
    bits = {file: {name: value.numpy().tobytes() for name, value in of.items()} for file, of in tensors.items()}
    return {"metrics.csv": rows, "classes.csv": (folder / "classes.csv").read_text(), **bits}


def epochs_of(folder: Path) -> int:
    """Epochs in the checkpoint after a kill; it has to be whole."""
    return torch.load(folder / "last.ckpt", weights_only=True)["epoch"] + 1 if (folder / "last.ckpt").exists() else 0


def left_of(session: int) -> Iterator[int]:
    """Processes of a session that still run."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:  # it has just ended
                continue
            if int(fields[3]) == session and fields[0] not in "ZX":
                yield int(entry.name)


def processor_seconds(pid: int) -> float:
    """That a process has used; infinite once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return float("inf")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields[0] not in "ZX" else float("inf")


def wait_for_instant(process, draw: random.Random, instant: float) -> None:
    """Until so many seconds of the processor are used."""
    while processor_seconds(process.pid) < instant:
        time.sleep(0.001)
    time.sleep(draw.random() / os.sysconf("SC_CLK_TCK"))  # within the clock's tick


def wait_for_writing(process, board: Board, draw: random.Random, typical: list[float]) -> None:
    """Until a file of one of the next epochs is being written, and then some share of what that usually takes."""
    phase = draw.choice((WRITING_MODEL, WRITING_CHECKPOINT))
    wanted = draw.randint(1, 2)
    while process.is_alive() and board.begun[phase] < wanted:
        time.sleep(0.0005)
    time.sleep(draw.random() * typical[phase])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--workers", type=int, default=0, help="processes that load")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name in PRELOADED:
        importlib.import_module(name)
    out = chosen.out or Path(tempfile.mkdtemp())
    root = chosen.root or out / "city"
    if not chosen.root:
        city = ToyCity(train_locations=2, test_locations=1, duration=1.0, height=48, width=64, seed=1)
        city.render(root, workers=1)
    fork, draw, board = multiprocessing.get_context("fork"), random.Random(chosen.seed), Board()

    def start(recipe: Recipe, resume: bool) -> multiprocessing.Process:
        board.clear()
        process = fork.Process(target=work, args=(recipe, resume, out / "log.txt", board))
        process.start()
        return process

    shutil.rmtree(out / "unbroken", ignore_errors=True)
    unbroken = plan(root, out / "unbroken", chosen.workers)
    began = time.monotonic()
    process = start(unbroken, False)
    process.join()
    seconds = board.used.value
    assert process.exitcode == 0, (out / "log.txt").read_text()
    typical = [total / max(count, 1) for total, count in zip(board.seconds, board.begun, strict=True)]
    expected = contents(out / "unbroken" / "run")
    kills, runs, lost, left, early, halves, where = 0, 0, 0, 0, 0, 0, Counter()
    different: list[str] = []
    # Of a whole run's time: drawn at random, but one from each of as many equal parts as there are kills.
    shares = [0.95 * (part + draw.random()) / chosen.kills for part in range(chosen.kills)]
    draw.shuffle(shares)
    while kills < chosen.kills:
        shutil.rmtree(out / "killed", ignore_errors=True)
        recipe, folder, runs = plan(root, out / "killed", chosen.workers), out / "killed" / "run", runs + 1
        board.saved.value = 0
        while True:
            born, process = time.time(), start(recipe, (folder / "last.ckpt").exists())
            if kills < chosen.kills:
                if kills % 3 == 2:
                    wait_for_writing(process, board, draw, typical)
                else:
                    wait_for_instant(process, draw, shares[kills] * seconds)
                process.kill()  # that is SIGKILL; one that has ended takes no notice
            process.join()
            if process.exitcode != -signal.SIGKILL:
                assert process.exitcode == 0, (out / "log.txt").read_text()
                break
            kills += 1
            where[PHASES[board.now.value]] += 1
            saved = epochs_of(folder)
            early += not saved
            halves += any(file.stat().st_mtime >= born for file in folder.rglob("*.partial"))
            lost += saved < board.saved.value
            end = time.monotonic() + 20
            while any(left_of(process.pid)) and time.monotonic() < end:
                time.sleep(0.05)  # loaders end by themselves
            left += any(left_of(process.pid))
        found = contents(folder)
        different += [f"run {runs}: {name}" for name in expected if found[name] != expected[name]]
        print(f"run {runs}: {kills} kills so far, {'different' if different else 'identical'}", flush=True)
    print(
        f"\nunbroken run: {seconds:.1f} s of the processor, {unbroken.epochs} epochs, {chosen.workers} loader "
        f"processes; in all {time.monotonic() - began:.0f} s"
    )
    for name in PHASES:
        print(f"  {where[name]:3d} kills while {name}")
    print(f"  {early} of them before the first checkpoint was there, {halves} left a half-written file")
    wrong = {line.split(":")[0] for line in different}
    print(f"{runs - len(wrong)} of {runs} runs identical to the unbroken one after {kills} kills")
    print(f"{lost} kills lost more than the epoch in progress, {left} left a process")
    for line in different:
        print(line)
    if different or lost or left:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
