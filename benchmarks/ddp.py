"""One, two and four processes, two nodes, and a model cut among two processes (FSDP) against one process with the same
global batch: the same losses?

    python benchmarks/ddp.py [--epochs 2] [--batch-size 32] [--root ROOT] [--out DIR]

Each set-up is started by torchrun as a user would: one process, two and four on one machine, and two agents on the
loopback interface for two nodes. The nets normalise by layers, since batch norm outside of GPUs takes its statistics
from each process's own part; mixup, masks and dropout, whose draws are keyed by process, are off; crops, flips and
windows, whose draws are keyed by clip, are on. Shown: training losses of every epoch, the macro log loss on validation
and test set, whether every test clip is predicted exactly once, clips/s of the last epoch and how many times those of
one process, which has one thread, that is; and processor milliseconds a clip of the epochs, in all processes together,
which tell the cost of working together also where other work is on the cores.
"""

import argparse
import csv
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from avsc_e2e.models.zoo.own import tiny
from avsc_e2e.training.recipe import Data, Machine, Optim, Recipe
from avsc_e2e.transforms.augmentation import Augment
from avsc_e2e.transforms.batch import Mixup, SpecAugment


def plan(root: Path, runs: Path, name: str, batch: int, processes: int, epochs: int) -> Recipe:
    """The global batch is the same for any number of processes."""
    model = replace(
        tiny(),
        audio="test_convnext",
        video="test_convnext",
        fusion="gated",
        dropout=0.0,
        size=32,
    )
    return Recipe(
        name,
        model=model,
        data=Data(root=str(root), workers=0, windows=8),
        augment=Augment(spectrum=SpecAugment(0.0, 0.0), mixup=Mixup(0.0)),
        optim=Optim(lr=1e-3, audio_lr=1e-3, video_lr=1e-3),
        epochs=epochs,
        batch_size=batch // processes,
        pretrained=False,
        precision="fp32",
        machine=Machine(shard_model="FSDP" in name),
        runs=str(runs),
    )


def work(chosen: argparse.Namespace) -> None:
    """What each process does."""
    import torch

    from avsc_e2e.evaluation import evaluate
    from avsc_e2e.training import trainer as training
    from avsc_e2e.training.trainer import FineTuning, train

    class Timed(FineTuning):
        def on_train_start(self) -> None:
            self.began = time.process_time()

        def on_train_end(self) -> None:
            seconds = torch.tensor(time.process_time() - self.began, device=self.device)
            if torch.distributed.is_initialized():
                torch.distributed.all_reduce(seconds)
            (chosen.out / f"{chosen.work}.seconds").write_text(str(float(seconds)))

    training.FineTuning = Timed
    torch.set_num_threads(1)
    processes = int(os.environ["WORLD_SIZE"])
    recipe = plan(chosen.root, chosen.out / "runs", chosen.work, chosen.batch_size, processes, chosen.epochs)
    train(recipe)
    evaluate(recipe)


def launch(chosen: argparse.Namespace, name: str, nodes: int, each: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    agents = []
    for node in range(nodes):
        where = f"--nnodes={nodes} --node-rank={node} --master-addr=127.0.0.1 --master-port={port}".split()
        line = [sys.executable, "-m", "torch.distributed.run", *where, f"--nproc-per-node={each}", __file__]
        line += ["--work", name, "--root", str(chosen.root), "--out", str(chosen.out)]
        line += ["--batch-size", str(chosen.batch_size), "--epochs", str(chosen.epochs)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        with open(chosen.out / f"{name}.{node}.txt", "w") as log:
            agents.append(subprocess.Popen(line, stdout=log, stderr=log, env=environment))
    statuses = [agent.wait() for agent in agents]
    if any(statuses):
        raise SystemExit((chosen.out / f"{name}.0.txt").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32, help="clips of a step in all processes together")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--work", default="", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.work:
        work(chosen)
        return
    chosen.out = chosen.out or Path(tempfile.mkdtemp())
    chosen.out.mkdir(parents=True, exist_ok=True)
    if not chosen.root:
        from avsc_e2e.toycity.city import ToyCity

        chosen.root = chosen.out / "city"
        city = ToyCity(train_locations=2, test_locations=1, duration=1.0, height=48, width=64, seed=1)
        city.render(chosen.root, workers=1)
    setups = {"1 process": (1, 1), "2 processes": (1, 2), "4 processes": (1, 4), "2 nodes of 1": (2, 1)}
    setups |= {"2 with FSDP": (1, 2)}
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; largest difference from one process is relative")
    heads = f"{'validation':>12}{'test':>12}{'difference':>12}{'clips/s':>9}{'scaling':>9}{'ms/clip':>9}  test clips"
    print(f"{'':<14}{'training losses':<{9 * chosen.epochs + 8}}{heads}")
    first = None
    for name, (nodes, each) in setups.items():
        label = name.replace(" ", "_")
        launch(chosen, label, nodes, each)
        folder = chosen.out / "runs" / label
        with open(folder / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        with open(folder / "timing.csv", newline="") as file:
            timing = list(csv.DictReader(file))
        rate = float(timing[-1]["clips_per_second"])
        each_clip = float((chosen.out / f"{label}.seconds").read_text()) / sum(int(row["clips"]) for row in timing)
        with open(folder / "evaluation" / "segments.csv", newline="") as file:
            segments = list(csv.DictReader(file, delimiter="\t"))
        with open(folder / "evaluation" / "reference.csv", newline="") as file:
            truth = {row["filename"]: row["scene_label"] for row in csv.DictReader(file, delimiter="\t")}
        counts = Counter((row["filename"], row["start"]) for row in segments)
        test = macro_log_loss_of(segments, truth)
        losses = [float(row["train_loss"]) for row in rows]
        found = (*losses, float(rows[-1]["validation_log_loss"]), test)
        once = f"{len(counts)}, each once" if set(counts.values()) == {1} else "NOT each once"
        first = first or (found, rate)
        difference = max(abs(a / b - 1) for a, b in zip(found, first[0], strict=True))
        print(
            f"{name:<14}{' '.join(f'{x:.6f}' for x in losses):<{9 * chosen.epochs + 8}}{found[-2]:>12.6f}{test:>12.6f}"
            f"{difference:>12.1e}{rate:>9.1f}{rate / first[1]:>9.2f}{1000 * each_clip:>9.1f}  {once}",
            flush=True,
        )


def macro_log_loss_of(segments: list[dict], truth: dict[str, str]) -> float:
    """The challenge's definition, on the file that was written."""
    import math

    each: dict[str, list[float]] = {}
    for row in segments:
        scene = truth[row["filename"]]
        each.setdefault(scene, []).append(-math.log(max(float(row[scene]), 1e-15)))
    return sum(sum(losses) / len(losses) for losses in each.values()) / len(each)


if __name__ == "__main__":
    main()
