"""Several processes train as one does: the same losses, every clip once, one log. benchmarks/ddp.py does it with
torchrun; here the processes are forked, with the environment that torchrun gives them."""

import csv
import logging
import multiprocessing
import os
import socket
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from avsc_e2e.evaluation import evaluate
from avsc_e2e.models.systems import tiny
from avsc_e2e.recipe import Augment, Averaging, Data, Optim, Recipe
from avsc_e2e.training import train
from avsc_e2e.transforms.batch import Mixup, SpecAugment

MODEL = replace(tiny(), audio="test_convnext", video="test_convnext", fusion="gated", dropout=0.0, size=32, hidden=16)


def plan(root: Path, runs: Path, processes: int) -> Recipe:
    """The global batch is the same for any number of processes. Nothing takes statistics of, or draws for, the clips
    of one process alone."""
    return Recipe(
        "run",
        model=MODEL,
        data=Data(root=str(root), workers=0, balance=0.5),
        augment=Augment(spectrum=SpecAugment(0.0, 0.0), mixup=Mixup(0.0)),
        optim=Optim(lr=1e-3, audio_lr=1e-3, video_lr=1e-3, unfreeze=1),
        averaging=Averaging(decay=0.5, checkpoints=2),
        epochs=2,
        batch_size=6 // processes,
        pretrained=False,
        precision="fp32",
        runs=str(runs),
    )


def _work(rank: int, processes: int, port: int, root: Path, runs: Path) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
        "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    log = logging.FileHandler(runs / f"log.{rank}.txt")
    logging.getLogger("avsc_e2e").addHandler(log)
    logging.getLogger("avsc_e2e").setLevel(logging.INFO)
    try:
        recipe = plan(root, runs, processes)
        train(recipe)
        evaluate(recipe)
    except BaseException:
        (runs / f"error.{rank}.txt").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)


def launch(processes: int, root: Path, runs: Path) -> Path:
    runs.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=_work, args=(rank, processes, port, root, runs)) for rank in range(processes)]
    for process in started:
        process.start()
    for process in started:
        process.join(300)
        if process.exitcode != 0:
            for other in started:
                other.kill()
    errors = "\n".join(file.read_text() for file in sorted(runs.glob("error.*.txt")))
    assert all(process.exitcode == 0 for process in started), errors
    return runs / "run"


def rows(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


@pytest.mark.skipif(torch.cuda.is_available(), reason="compares processes on the CPU")
def test_two_processes_are_as_one(toy_city, tmp_path):
    one, two = (launch(count, toy_city, tmp_path / str(count)) for count in (1, 2))
    for mine, theirs in zip(rows(two / "metrics.csv"), rows(one / "metrics.csv"), strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            if name != "seconds":
                assert float(mine[name]) == pytest.approx(float(value), rel=2e-4, abs=1e-6), name
    weights = [load_file(folder / "model.safetensors") for folder in (one, two)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-2, atol=2e-4)
    segments = [rows(folder / "evaluation" / "segments.csv", "\t") for folder in (one, two)]
    assert [(row["filename"], row["start"]) for row in segments[0]] == [
        (row["filename"], row["start"]) for row in segments[1]
    ]
    assert set(Counter((row["filename"], row["start"]) for row in segments[1]).values()) == {1}
    assert len(segments[1]) == 20
    speaker, silent = ((tmp_path / "2" / f"log.{rank}.txt").read_text() for rank in (0, 1))
    assert speaker.count("epoch 2/2") == 1
    assert silent == ""
