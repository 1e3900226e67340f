"""Several processes train as one does: the same losses, every clip once, one log; and a model that is cut among them
(FSDP) as one that is not. Most processes here are of the fork server, with the environment that torchrun gives them;
the recipe is also started by torchrun itself, as two nodes on the loopback interface."""

import copy
import csv
import faulthandler
import logging
import multiprocessing
import os
import socket
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import ROOT, zhang
from torch.distributed.tensor import DTensor

from avsc_e2e import processes
from avsc_e2e.clip import Clip
from avsc_e2e.errors import AvscError
from avsc_e2e.evaluation import evaluate
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.checkpoint import load_model
from avsc_e2e.models.zoo.own import tiny
from avsc_e2e.training import callbacks
from avsc_e2e.training.acceleration import checkpoint_activations
from avsc_e2e.training.recipe import Averaging, Data, Heads, Machine, Optim, Recipe
from avsc_e2e.training.sharding import blocks, gather, release, shard, whole_tensors
from avsc_e2e.training.trainer import FineTuning, train
from avsc_e2e.transforms.augmentation import Augment
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


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def of_torchrun(rank: int, processes: int) -> dict[str, object]:
    """What torchrun tells a process of one machine."""
    return {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "GROUP_RANK": 0,
        "GROUP_WORLD_SIZE": 1, "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip


def of_slurm(rank: int, processes: int) -> dict[str, object]:
    """What `srun python recipe.py` tells a task, one a machine."""
    return {
        "SLURM_PROCID": rank, "SLURM_LOCALID": 0, "SLURM_NODEID": rank, "SLURM_NTASKS": processes,
        "SLURM_NNODES": processes, "SLURM_NTASKS_PER_NODE": 1, "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": 4321,
    }  # fmt: skip


def _work(folder: Path, job: Callable[[], None], rank: int, environment: dict[str, object]) -> None:
    os.environ |= {name: str(value) for name, value in environment.items()} | {"GLOO_SOCKET_IFNAME": "lo"}
    log = logging.FileHandler(folder / f"log.{rank}.txt")
    logging.getLogger("avsc_e2e").addHandler(log)
    logging.getLogger("avsc_e2e").setLevel(logging.INFO)
    faulthandler.dump_traceback_later(100, file=(folder / f"hang.{rank}.txt").open("w"))
    try:
        job()
    except BaseException:
        (folder / f"error.{rank}.txt").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)


def launch(processes: int, folder: Path, job: Callable[[], None], variables: Callable = of_torchrun) -> None:
    """Do a job in several processes; fails if one of them does. They are not forked from this one: decord's readers,
    where an earlier test left some, would wait in them for threads that they do not have."""
    folder.mkdir(parents=True, exist_ok=True)
    clean, meet = multiprocessing.get_context("forkserver"), {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    started = []
    for rank in range(processes):
        started.append(clean.Process(target=_work, args=(folder, job, rank, variables(rank, processes) | meet)))
        started[-1].start()
    for process in started:
        process.join(120)
        if process.exitcode != 0:
            for other in started:
                other.kill()
    errors = "\n".join(file.read_text() for file in sorted([*folder.glob("error.*.txt"), *folder.glob("hang.*.txt")]))
    assert all(process.exitcode == 0 for process in started), errors


def rows(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def equal(mine: Path, theirs: Path) -> list[dict[str, torch.Tensor]]:
    """Two runs' losses and weights, to rounding; returns the weights."""
    for row, other in zip(rows(mine / "metrics.csv"), rows(theirs / "metrics.csv"), strict=True):
        assert row.keys() == other.keys()
        for name, value in other.items():
            if name != "seconds":
                assert float(row[name]) == pytest.approx(float(value), rel=2e-4, abs=1e-6), name
    weights = [load_file(folder / "model.safetensors") for folder in (mine, theirs)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[1].items():
        torch.testing.assert_close(weights[0][name], value, rtol=1e-2, atol=2e-4)
    return weights


def train_and_evaluate(recipe: Recipe) -> None:
    train(recipe)
    evaluate(recipe)


@pytest.mark.parametrize("variables", [of_torchrun, of_slurm])
def test_two_processes_are_as_one(toy_city, tmp_path, variables):
    for count in (1, 2):
        recipe = plan(toy_city, tmp_path / str(count), count)
        launch(count, tmp_path / str(count), partial(train_and_evaluate, recipe), variables)
    one, two = (tmp_path / str(count) / "run" for count in (1, 2))
    equal(two, one)
    segments = [rows(folder / "evaluation" / "segments.csv", "\t") for folder in (one, two)]
    assert [(row["filename"], row["start"]) for row in segments[0]] == [
        (row["filename"], row["start"]) for row in segments[1]
    ]
    assert set(Counter((row["filename"], row["start"]) for row in segments[1]).values()) == {1}
    assert len(segments[1]) == 20
    speaker, silent = ((tmp_path / "2" / f"log.{rank}.txt").read_text() for rank in (0, 1))
    assert speaker.count("epoch 2/2") == 1
    assert silent == ""


def slow_to_write(recipe: Recipe) -> None:
    """The first process is slow to write the last epoch's file, which the others read right after training."""
    save = callbacks.save_model

    def late(model, path, *rest):
        if path.name == "0002.safetensors":
            time.sleep(2)
        return save(model, path, *rest)

    callbacks.save_model = late
    train(replace(recipe, heads=Heads(fit_decision=True)))


def test_nobody_reads_what_is_still_being_written(toy_city, tmp_path):
    launch(2, tmp_path, partial(slow_to_write, plan(toy_city, tmp_path, 2)))
    assert (tmp_path / "run" / "model.safetensors").is_file()


def statistics_of_all(recipe: Recipe) -> None:
    """Batch norms of both processes are the same when they validate, though each has seen clips of its own."""
    found, begin = [], FineTuning.on_validation_epoch_end

    def look(self):
        norms = [m for m in self.judged.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        values = torch.cat([norm.running_var for norm in norms])
        both = processes.gather(values)
        assert len(both) == 2
        assert torch.equal(*both)
        assert all(torch.equal(m.running_var, n.running_var) for m, n in zip(
            (m for m in self.model.modules() if isinstance(m, torch.nn.BatchNorm2d)), norms, strict=True
        ))  # fmt: skip
        found.append(values)
        begin(self)

    FineTuning.on_validation_epoch_end = look
    path = train(replace(recipe, heads=Heads(fit_decision=False)))
    assert len(found) == 2
    if not int(os.environ["RANK"]):
        saved = load_model(path)
        values = torch.cat([m.running_var for m in saved.modules() if isinstance(m, torch.nn.BatchNorm2d)])
        assert any(torch.equal(values, value) for value in found)


def test_processes_validate_and_save_the_statistics_of_all(toy_city, tmp_path):
    recipe = plan(toy_city, tmp_path, 2)
    model = replace(MODEL, audio="audio_test", video="test_efficientnet")
    launch(2, tmp_path, partial(statistics_of_all, replace(recipe, model=model, averaging=Averaging())))


def test_devices_that_training_itself_asks_for(toy_city, tmp_path, caplog):
    """--machine.devices 2 without torchrun: two processes with ranks of their own, one log, the losses of one process
    with the same global batch."""
    one, two = (plan(toy_city, tmp_path / str(count), count) for count in (1, 2))
    with caplog.at_level(logging.INFO, "avsc_e2e"):
        found = train(replace(two, machine=Machine(devices=2)))
    assert found == tmp_path / "2" / "run" / "model.safetensors"
    assert sum("epoch 2/2" in record.getMessage() for record in caplog.records) == 1
    train(one)
    equal(tmp_path / "2" / "run", tmp_path / "1" / "run")
    assert {row["clips"] for row in rows(tmp_path / "2" / "run" / "timing.csv")} == {"6"}


def test_devices_tell_in_one_line_what_is_wrong(toy_city, tmp_path):
    recipe = replace(plan(toy_city, tmp_path, 2), machine=Machine(devices=2), init=("nowhere",))
    with pytest.raises(AvscError, match=r"^init nowhere: .* train that stage first"):
        train(recipe)


def left_alone_in_its_second_epoch(recipe: Recipe) -> None:
    if os.environ["RANK"] == "1":
        FineTuning.on_train_epoch_start = lambda self: os._exit(0) if self.current_epoch else None
        train(recipe)
    with pytest.raises(AvscError, match=r"run: another process of this job has ended.*Go on with resume$"):
        train(recipe)


def test_the_other_processes_tell_in_one_line_that_one_is_gone(toy_city, tmp_path):
    recipe = plan(toy_city, tmp_path, 2)
    launch(2, tmp_path, partial(left_alone_in_its_second_epoch, recipe))
    assert (tmp_path / "run" / "last.ckpt").is_file()


# ------------------------------------------------------------------------------------------------ a model cut up (FSDP)


def cut_up(recipe: Recipe, shard_model: bool) -> Recipe:
    """With all that goes with it: clipping that bites, accumulation, a moving average."""
    return replace(
        recipe,
        optim=replace(recipe.optim, unfreeze=0, clip=0.5, accumulate=2, layer_decay=0.7),
        averaging=Averaging(decay=0.5),
        machine=Machine(shard_model=shard_model),
        heads=Heads(fit_decision=False),
    )


def held(module: torch.nn.Module) -> float:
    """Share of a module's parameters that this process holds."""
    whole = sum(p.numel() for p in module.parameters())
    return sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in module.parameters()) / whole


def killed_in_its_second_epoch(recipe: Recipe) -> None:
    def end(self):
        if self.current_epoch == 1:
            assert held(self.model) < 0.6
            assert held(self.average) < 0.6
            states = [value for state in self.optimizers().state.values() for value in state.values() if value.dim()]
            assert states
            assert all(isinstance(value, DTensor) for value in states)
            os._exit(0)

    FineTuning.on_train_epoch_start = end  # in this process, which lives for the job alone
    train(recipe)


def test_a_model_cut_among_processes_learns_as_a_whole_one(toy_city, tmp_path):
    """As under DDP, to rounding, although killed and resumed in between; checkpoints are whole."""
    parts, whole = (cut_up(plan(toy_city, tmp_path / name, 2), name == "parts") for name in ("parts", "whole"))
    launch(2, tmp_path / "parts", partial(killed_in_its_second_epoch, parts))
    assert not (tmp_path / "parts" / "run" / "metrics.csv").read_text().count("\n2,")
    launch(2, tmp_path / "parts", partial(train, parts, resume=True))
    launch(2, tmp_path / "whole", partial(train, whole))
    weights = equal(tmp_path / "parts" / "run", tmp_path / "whole" / "run")
    last = torch.load(tmp_path / "parts" / "run" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(last[f"average.{name}"].shape == value.shape for name, value in weights[0].items())


def as_uncut() -> None:
    """Trunks of several families, with and without activations kept: logits, gradients and what is put together."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    pairs = (("audio_test", "test_efficientnet"), ("test_convnext", "test_resnet"), ("audio_test", "test_vit"))
    for audio, video in pairs:
        arch = replace(MODEL, audio=audio, video=video, size=160 if video == "test_vit" else 32)
        torch.manual_seed(0)
        model = SceneNet(arch)
        model.video.requires_grad_(video != "test_resnet")  # a part that does not learn
        other = copy.deepcopy(model)
        if video == "test_vit":
            checkpoint_activations(model)
        assert len(blocks(model.video)) > 1
        shard(model, torch.device("cpu"))
        assert held(model) < 0.6
        draw = torch.Generator().manual_seed(1)
        sound = torch.rand(4, arch.input_channels, arch.sample_rate, generator=draw) - 0.5
        frames = torch.randint(256, (4, arch.frames, 3, arch.size, arch.size), generator=draw, dtype=torch.uint8)
        batch = Clip(sound, frames, torch.arange(4), torch.ones(4, 2, dtype=torch.bool), [""] * 4, torch.zeros(4))
        for net in (model, other):
            net.train()
            sum(values.square().mean() for values in net(net.preprocess(batch)).values()).backward()
        theirs = {name: p.grad for name, p in other.named_parameters() if p.grad is not None}
        mine = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            torch.testing.assert_close(mine[name].full_tensor(), value, rtol=1e-4, atol=1e-6)
        together = whole_tensors(model)
        assert together.keys() == (other.state_dict().keys() if not rank else set())
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in together.items())
        gather(model)
        with torch.no_grad():
            for _ in range(1 + rank):  # of a number of its own
                values = model.eval()(model.preprocess(batch))
            expected = other.eval()(other.preprocess(batch))
        release(model)
        assert held(model) < 0.6
        for name, value in expected.items():
            torch.testing.assert_close(values[name], value)


def test_trunks_cut_up_block_by_block(tmp_path):
    launch(2, tmp_path, as_uncut)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"optim": Optim(unfreeze=2)},
            r"^optim\.unfreeze and machine\.shard_model cannot be combined; leave one",
        ),
        ({"averaging": Averaging(checkpoints=2)}, r"^averaging\.checkpoints and machine\.shard_model cannot"),
        (
            {"heads": Heads(fit_decision=True)},
            r"^heads\.fit_decision \(off: heads\.fit_decision=False\) and machine\.shard_model cannot",
        ),
        (
            {"machine": Machine(shard_model=True, compile="eager")},
            r"^machine\.compile and machine\.shard_model cannot",
        ),
        (
            {"machine": Machine(shard_model=True, sync_batchnorm=True)},
            r"^machine\.sync_batchnorm and machine\.shard_model cannot",
        ),
        ({"precision": "fp16"}, r"^precision fp16 and machine\.shard_model cannot"),
        ({}, r"^machine\.shard_model needs several processes; start it with torchrun$"),
    ],
)
def test_what_does_not_go_with_a_cut_model(toy_city, tmp_path, change, match):
    recipe = replace(cut_up(plan(toy_city, tmp_path, 1), True), **change)
    with pytest.raises(AvscError, match=match):
        train(recipe)


# ------------------------------------------------------------------------------------------------ torchrun


def torchrun(nodes: int, each: int, line: list[object]) -> list[subprocess.CompletedProcess]:
    """Start a command as so many nodes of so many processes, and return how each node's agent ended."""
    port = free_port()
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    agents = []
    for node in range(nodes):
        where = f"--nnodes={nodes} --node-rank={node} --master-addr=127.0.0.1 --master-port={port}".split()
        command = [sys.executable, "-m", "torch.distributed.run", *where, f"--nproc-per-node={each}", *map(str, line)]
        agents.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
                                       env=environment))  # fmt: skip
    ends = [agent.communicate(timeout=300) for agent in agents]
    return [
        subprocess.CompletedProcess(agent.args, agent.returncode, *end) for agent, end in zip(agents, ends, strict=True)
    ]


def test_a_recipe_under_torchrun(toy_city, tmp_path):
    """Two nodes train it, two processes of one node evaluate it, as a user would."""
    first, second = torchrun(2, 1, zhang("train", "audio", toy_city, tmp_path, "--epochs", "1"))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert (first.stdout + first.stderr).count("epoch 1/1") == 1
    assert "epoch 1/1" not in second.stdout + second.stderr
    folder = tmp_path / "zhang_ioa" / "audio"
    assert len(rows(folder / "metrics.csv")) == 1
    (done,) = torchrun(1, 2, zhang("evaluate", "audio", toy_city, tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: ") == 1  # the first process speaks for both
    assert done.stdout.count("zhang_ioa/audio") == 2
    segments = rows(folder / "evaluation" / "segments.csv", "\t")
    assert set(Counter((row["filename"], row["start"]) for row in segments).values()) == {1}
    assert len(segments) == 20
