"""How a run starts and goes on: from other weights, on the machine's devices, from its checkpoint."""

import json
import logging
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import tiny_recipe as recipe

from avsc_e2e import devices
from avsc_e2e.cli import main
from avsc_e2e.data.store import prepare as prepare_module
from avsc_e2e.data.store.prepare import Options, prepare
from avsc_e2e.devices import autocast, resolved
from avsc_e2e.errors import AvscError
from avsc_e2e.inference import sampling
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.trunk import Trunk
from avsc_e2e.models.weights.checkpoint import load_model, save_model
from avsc_e2e.models.zoo.own import tiny
from avsc_e2e.training import initialisation, machine, trainer
from avsc_e2e.training.acceleration import compile_trunks
from avsc_e2e.training.callbacks import RunFolder
from avsc_e2e.training.initialisation import initial_model
from avsc_e2e.training.recipe import Averaging, Data, Machine, Optim, Recipe
from avsc_e2e.training.resume import check_recipe, write_recipe
from avsc_e2e.training.run import corpus_of, store_options
from avsc_e2e.training.trainer import train
from avsc_e2e.transforms.frames import TestTime

MODEL = replace(tiny(), size=32)


def same(one: Path, other: Path) -> bool:
    mine, theirs = load_file(one), load_file(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


# ------------------------------------------------------------------------------------------------ --init


def test_another_trunk_is_refused_by_the_names_of_both(toy_city, tmp_path):
    other = save_model(SceneNet(replace(MODEL, audio="", video="test_resnet")), tmp_path / "other.safetensors", {})
    plan = recipe(toy_city, tmp_path, init=(str(other),), model=replace(MODEL, audio=""))
    with pytest.raises(AvscError, match=r"init .*other.safetensors: its video trunk is test_resnet, and the model's "
                       r"is test_efficientnet"):  # fmt: skip
        initial_model(plan, corpus_of(plan))


def test_published_weights_come_first_and_then_what_matches(toy_city, tmp_path, monkeypatch):
    """A stage that fills its trunk but for one tensor leaves that one as published, not random."""
    loaded = []

    def publish(self, file="", flag=""):
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.fill_(0.5)
        self.trained = True
        loaded.append(self.name)
        return "published"

    monkeypatch.setattr(Trunk, "load_pretrained", publish)
    model = SceneNet(replace(MODEL, audio=""))
    names = [name for name, _ in model.named_parameters() if name.startswith("video.")]
    whole = save_model(model, tmp_path / "whole.safetensors", {})
    kept = {name: value for name, value in model.state_dict().items() if name != names[3]}
    part = save_model(model, tmp_path / "part.safetensors", {}, kept)
    plan = recipe(toy_city, tmp_path, model=replace(MODEL, audio=""), pretrained=True)
    for file, expected in ((whole, []), (part, ["test_efficientnet"])):
        loaded.clear()
        found = initial_model(replace(plan, init=(str(file),)), corpus_of(plan)).state_dict()
        assert loaded == expected  # nothing is fetched for a trunk that is replaced whole
        assert torch.equal(found[names[0]], model.state_dict()[names[0]])
        assert bool((found[names[3]] == 0.5).all()) == bool(expected)


# --------------------------------------------------------------------------------------- devices and precision


def test_auto_is_no_emulated_bf16(monkeypatch):
    gpu = torch.device("cuda")
    asked = []

    def supported(including_emulation=True):
        asked.append(including_emulation)
        return including_emulation  # as on a GPU older than Ampere

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert resolved("auto", gpu) == "fp16"
    assert asked == [False]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert resolved("auto", gpu) == "bf16"
    assert resolved("auto", torch.device("cpu")) == "fp32"
    assert resolved("fp32", gpu) == "fp32"


def test_inference_computes_in_the_asked_precision():
    layer, x = torch.nn.Linear(4, 4), torch.randn(2, 4)
    for precision, kind in (("fp32", torch.float32), ("auto", torch.float32), ("bf16", torch.bfloat16),
                            ("fp16", torch.float32)):  # fmt: skip
        with autocast(precision, torch.device("cpu")):
            assert layer(x).dtype is kind, precision


@pytest.mark.parametrize("gpus", [1, 4])
def test_one_device_unless_several_are_asked_for(monkeypatch, tmp_path, gpus):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    for name in ("LOCAL_WORLD_SIZE", "SLURM_NTASKS", "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)
    options = {}
    monkeypatch.setattr(machine.pl, "Trainer", lambda **given: options.update(given))
    plan = Recipe("r", model=MODEL, precision="fp32")
    machine.lightning_trainer(plan, tmp_path, RunFolder(plan, tmp_path))
    assert (options["devices"], options["num_nodes"], options["strategy"]) == (1, 1, "auto")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    machine.lightning_trainer(plan, tmp_path, RunFolder(plan, tmp_path))
    assert options["devices"] == 3


def test_deterministic_is_asked_of_torch(monkeypatch, tmp_path):
    options = {}
    monkeypatch.setattr(machine.pl, "Trainer", lambda **given: options.update(given))
    for wanted in (False, True):
        plan = Recipe("r", model=MODEL, machine=Machine(deterministic=wanted))
        machine.lightning_trainer(plan, tmp_path, RunFolder(plan, tmp_path))
        assert bool(options["deterministic"]) is wanted
        assert not (wanted and options["benchmark"])


def test_a_device_that_is_not_there():
    with pytest.raises(AvscError, match="device cuda:7: there is no such device"):
        devices.device("cuda:7")
    with pytest.raises(AvscError, match="device quantum"):
        devices.device("quantum")
    assert devices.device("cpu").type == "cpu"


class Layers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.BatchNorm1d(4) for _ in range(10))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_layers_that_begin_to_learn_stay_compiled():
    """Each choice of learning layers is compiled anew; torch would stop at eight and go on uncompiled."""
    calls = []

    def backend(graph, inputs):
        calls.append(0)
        return graph.forward

    torch._dynamo.reset()
    net = Layers()
    model = torch.nn.Module()
    model.architecture, model.video = replace(MODEL, audio=""), torch.nn.Module()
    model.video.net = net
    compile_trunks(model, backend, variants=10)
    for count in range(10):
        for index, layer in enumerate(net.layers):
            layer.requires_grad_(index >= 10 - count).train(index >= 10 - count)
        net(torch.randn(2, 4))
        assert len(calls) == count + 1
    torch._dynamo.reset()


# ------------------------------------------------------------------------------------------------ resume


def stopped(plan: Recipe, monkeypatch) -> None:
    """Train a recipe and break it off in its second epoch."""
    begin = RunFolder.on_train_batch_start

    def stop(self, trainer, module, clip, index):
        begin(self, trainer, module, clip, index)
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "on_train_batch_start", stop)
        with pytest.raises(KeyboardInterrupt):
            train(plan)


def test_resumed_with_other_workers_root_patience_and_machine(toy_city, tmp_path, monkeypatch):
    """What cannot matter may change: the run ends as the unbroken one, bit for bit."""
    plan = recipe(toy_city, tmp_path, epochs=2)
    whole = train(replace(plan, name="whole"))
    stopped(plan, monkeypatch)
    moved = tmp_path / "moved"
    shutil.copytree(toy_city, moved)
    other = replace(
        plan, patience=7, data=replace(plan.data, root=str(moved), workers=1), machine=Machine(deterministic=True)
    )
    assert same(train(other, resume=True), whole)
    assert not torch.are_deterministic_algorithms_enabled()
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["data"]["root"] == str(moved)


def test_what_does_not_change_what_is_learned_may_change(tmp_path):
    plan = Recipe("run", model=MODEL)
    write_recipe(plan, file := tmp_path / "recipe.json")
    data = replace(plan.data, root="b", store="c", workers=3, evaluation="d", cache="e", cache_size=1.0)
    here = Machine(compile="inductor", checkpoint_activations=True, devices=2, deterministic=True)
    check_recipe(
        replace(plan, data=data, machine=here, runs="f", patience=2, save_every=5, test_time=TestTime(flip=True)), file
    )
    for other, flag in (
        (replace(plan, batch_size=7), "batch_size was 32 and is 7"),
        (replace(plan, data=replace(data, short_side=99)), "data.short_side was 0 and is 99"),
        (replace(plan, optim=Optim(lr=0.1)), "optim.lr was 0.001 and is 0.1"),
        (replace(plan, machine=Machine(sync_batchnorm=True)), "machine.sync_batchnorm was False and is True"),
        (replace(plan, model=replace(MODEL, dropout=0.9)), "model.dropout was"),
    ):
        with pytest.raises(AvscError, match=f"another recipe: {flag}"):
            check_recipe(other, file)


def test_a_field_that_an_upgrade_added_does_not_stop_a_resume(toy_city, tmp_path, monkeypatch):
    plan = recipe(toy_city, tmp_path, epochs=2)
    stopped(plan, monkeypatch)
    file = tmp_path / "run" / "recipe.json"
    values = json.loads(file.read_text())
    del values["smoothing"], values["model"]["drop_path"], values["machine"]
    file.write_text(json.dumps({**values, "gone": 1}))
    with pytest.raises(AvscError, match=r"smoothing was 0.0 and is 0.2"):
        train(replace(plan, smoothing=0.2), resume=True)
    train(plan, resume=True)


def test_resume_needs_neither_stages_nor_published_weights(toy_city, tmp_path, monkeypatch):
    first = train(recipe(toy_city, tmp_path, "first"))
    optim = Optim(lr=1e-3, audio_lr=1e-3, video_lr=1e-3, keep_statistics=True)
    plan = recipe(toy_city, tmp_path, epochs=2, init=("first",), optim=optim, averaging=Averaging(decay=0.5))
    whole = train(replace(plan, name="whole"))
    stopped(plan, monkeypatch)
    first.unlink()
    monkeypatch.setattr(initialisation, "read_checkpoint", None)
    assert same(train(plan, resume=True), whole)  # whose trunks keep their statistics, as those of trained ones do


def test_other_recordings_are_refused(toy_city, tmp_path, monkeypatch):
    plan = recipe(toy_city, tmp_path, epochs=2)
    stopped(plan, monkeypatch)
    corpus = corpus_of(plan)
    monkeypatch.setattr(trainer, "corpus_of", lambda recipe: corpus._replace(train=corpus.train[:-1]))
    with pytest.raises(AvscError, match=r"other recordings than data\.root has now"):
        train(plan, resume=True)


# ------------------------------------------------------------------------------------------- the size of frames


def test_a_store_a_little_smaller_than_wanted_is_trained_from(toy_city, tmp_path, caplog):
    """tiny() at 56 pixels wants 64; a store of 60 will do, one of 48 will not. The checkpoint knows."""
    for side in (60, 48):
        prepare(toy_city, tmp_path / f"store{side}", Options(side), workers=1)
    model = replace(MODEL, size=56)
    plan = recipe(toy_city, tmp_path, model=model, data=Data(store=str(tmp_path / "store60"), workers=0))
    assert sampling(model).short_side == 64
    with caplog.at_level(logging.WARNING, "avsc_e2e"):
        path = train(plan)
    (line,) = {r.getMessage() for r in caplog.records if "frames" in r.getMessage()}
    assert "has 60 pixels, the recipe asks for 64; 60 are used" in line
    trained = load_model(path)
    assert trained.architecture.short_side == 60
    assert sampling(trained.architecture).short_side == 60
    with pytest.raises(AvscError, match="its frames have 48 pixels"):
        train(replace(plan, name="small", data=Data(store=str(tmp_path / "store48"), workers=0)))


def test_the_short_side_travels_in_the_checkpoint(toy_city, tmp_path):
    plan = recipe(toy_city, tmp_path, data=Data(root=str(toy_city), workers=0, short_side=40))
    arch = load_model(train(plan)).architecture
    assert arch.short_side == 40
    assert sampling(arch).short_side == 40
    assert sampling(arch, 50).short_side == 50
    assert asdict(MODEL)["short_side"] == 0


@pytest.mark.parametrize(
    ("stage", "told", "options"),
    [
        ("zhang_ioa/hybrid", "frames of 522 pixels, 5 a second", Options(522, 5.0)),
        ("zhang_ioa/audio", "frames of 256 pixels, 5 a second", Options()),
        ("own_videos/video", "frames of 183 pixels, 5 a second", Options(183, 5.0)),
    ],
)
def test_a_store_is_prepared_for_a_stage(tmp_path, monkeypatch, capsys, stage, told, options):
    asked = []
    monkeypatch.setattr(prepare_module, "prepare", lambda root, store, options, **_: asked.append(options) or 1 / 0)
    for more in ([], ["--rate", "3", "--short-side", "99"]):
        with pytest.raises(ZeroDivisionError):
            main(["data", "prepare", str(tmp_path), str(tmp_path / "store"), "--for", stage, *more])
    assert asked == [options, options._replace(rate=3.0, short_side=99)]
    assert capsys.readouterr().out.splitlines()[0] == f"{stage}: {told}"
    with pytest.raises(SystemExit):
        main(["data", "prepare", str(tmp_path), str(tmp_path / "store"), "--for", str(tmp_path)])
    assert "is data; name a stage of a recipe" in capsys.readouterr().err


def test_a_store_for_a_stage_has_the_frames_that_evaluation_takes():
    """The middles of its frames' spans hold every time at which a frame is taken, whatever their number."""
    for frames, window in ((1, 1.0), (2, 1.0), (3, 1.0), (8, 1.0), (5, 2.0)):
        plan = Recipe("x", model=replace(MODEL, frames=frames, window=window))
        rate = store_options(plan).rate
        times = (np.arange(frames) + 0.5) * window / frames
        np.testing.assert_allclose((times * rate) % 1, 0.5, atol=1e-9)
        assert rate >= 5
