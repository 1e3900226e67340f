"""The engine: exact resume, the methods of fine-tuning, what makes it fast and what it says, on small real nets."""

import csv
import json
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import AVSC, ROOT, run_commands
from support import tiny_recipe as recipe

from avsc_e2e.clip import SCENES, Clip
from avsc_e2e.data.dataset import Key
from avsc_e2e.data.loader import loader
from avsc_e2e.data.sampler import KeyedSampler
from avsc_e2e.durable import replacing
from avsc_e2e.errors import AvscError
from avsc_e2e.evaluation import predict_training_part
from avsc_e2e.inference import evaluation_dataset, predict_rows, views_of
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.scenenet import SceneNet, keep_statistics
from avsc_e2e.models.trunk import Trunk
from avsc_e2e.models.weights.checkpoint import load_model, read_checkpoint, save_model
from avsc_e2e.models.zoo.own import tiny
from avsc_e2e.outputs.metrics import macro_log_loss
from avsc_e2e.outputs.output import read_output
from avsc_e2e.training.averaging import average_checkpoints, follow, pairs, shadow
from avsc_e2e.training.distillation import Teachers, as_seen_by, needs, soften
from avsc_e2e.training.initialisation import take_over
from avsc_e2e.training.losses import distilled_losses, head_losses, smooth
from avsc_e2e.training.optimiser import build_optimiser, freeze_still_parts, parameter_groups, rate_share, unfreeze
from avsc_e2e.training.recipe import Averaging, Data, Distil, Heads, Machine, Optim, Recipe
from avsc_e2e.training.run import corpus_of, model_file, train_dataset
from avsc_e2e.training.runlog import RunLog, class_scores
from avsc_e2e.training.strategy import WholeCheckpoints
from avsc_e2e.training.trainer import RunFolder, train
from avsc_e2e.transforms.augmentation import Augment
from avsc_e2e.transforms.batch import CutMix, Mixing, Mixup
from avsc_e2e.transforms.frames import Crops, RandAugment, TestTime

MODEL = replace(tiny(), size=32)


def everything(root: Path, runs: Path, name: str = "run") -> Recipe:
    """All methods that change what is learned, at once."""
    base = recipe(root, runs, name, epochs=3, smoothing=0.1, patience=3)
    return replace(
        base,
        data=replace(base.data, balance=1.0),
        augment=Augment(randaugment=RandAugment(2, 0.5), mixup=Mixup(0.3), cutmix=CutMix(1.0)),
        optim=replace(base.optim, layer_decay=0.7, unfreeze=2, accumulate=2),
        averaging=Averaging(decay=0.9, checkpoints=2),
        model=replace(base.model, drop_path=0.2),
    )


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def without_seconds(path: Path) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in table(path)]


def same_tensors(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def batch(count: int = 6, audio=(2, 8, 20), video=(1, 3, 16, 16), classes: int = 4) -> Clip:
    """A preprocessed batch in which clip b is b everywhere."""
    each = torch.arange(count, dtype=torch.float32)
    return Clip(
        each.reshape(-1, 1, 1, 1).expand(count, *audio).clone(),
        each.reshape(-1, 1, 1, 1, 1).expand(count, *video).clone(),
        torch.eye(classes)[torch.arange(count) % classes],
        torch.ones(count, 2, dtype=torch.bool),
        [""] * count,
        torch.zeros(count),
    )


# -------------------------------------------------------------------------------------------- exact resume


@pytest.fixture(scope="module")
def unbroken(toy_city, tmp_path_factory) -> Path:
    runs = tmp_path_factory.mktemp("unbroken")
    train(everything(toy_city, runs))
    return runs / "run"


@pytest.mark.parametrize(("epoch", "step"), [(1, 1), (2, 0)])
def test_broken_off_and_resumed_with_every_method_on(toy_city, unbroken, tmp_path, monkeypatch, epoch, step):
    plan, begin = everything(toy_city, tmp_path), RunFolder.on_train_batch_start

    def stop(self, trainer, module, clip, index):
        begin(self, trainer, module, clip, index)
        if (trainer.current_epoch, index) == (epoch, step):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "on_train_batch_start", stop)
        with pytest.raises(KeyboardInterrupt):
            train(plan)
    assert len(table(tmp_path / "run" / "metrics.csv")) == epoch
    torch.manual_seed(epoch)  # whatever was drawn before
    train(plan, resume=True)
    assert same_tensors(load_file(tmp_path / "run" / "model.safetensors"), load_file(unbroken / "model.safetensors"))
    assert without_seconds(tmp_path / "run" / "metrics.csv") == without_seconds(unbroken / "metrics.csv")
    assert (tmp_path / "run" / "classes.csv").read_text() == (unbroken / "classes.csv").read_text()
    last = [torch.load(folder / "last.ckpt", weights_only=True) for folder in (tmp_path / "run", unbroken)]
    assert same_tensors(last[0]["state_dict"], last[1]["state_dict"])
    assert any(name.startswith("average.") for name in last[0]["state_dict"])
    mine, theirs = (
        {
            name: (folder / "epochs" / name).read_bytes()
            for name in sorted(file.name for file in (folder / "epochs").iterdir())
        }
        for folder in (tmp_path / "run", unbroken)
    )
    assert list(mine) == list(theirs)
    assert len(mine) == 2


def test_what_a_run_leaves(unbroken):
    rows = table(unbroken / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert all(float(row["lr_video"]) > 0 for row in rows[:2])
    classes = table(unbroken / "classes.csv")
    assert {row["name"] for row in classes} == set(SCENES)
    of_first = [float(row["recall"]) for row in classes if row["epoch"] == "1"]
    assert np.mean(of_first) == pytest.approx(float(rows[0]["validation_accuracy"]))
    of_first = [float(row["log_loss"]) for row in classes if row["epoch"] == "1"]
    assert np.mean(of_first) == pytest.approx(float(rows[0]["validation_log_loss"]), rel=1e-6)
    timing = table(unbroken / "timing.csv")
    assert all(float(row["clips_per_second"]) > 0 and 0 <= float(row["data_wait"]) <= 1 for row in timing)
    assert not list(unbroken.rglob("*.partial"))


def test_a_file_is_replaced_or_as_it_was(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise ValueError("a defect of ours is no full disk")

    with pytest.raises(ValueError, match="of ours"):
        fail()
    assert path.read_text() == "old"
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "new"
    with pytest.raises(AvscError, match="No such file"), replacing(tmp_path / "nowhere" / "file") as partial:
        partial.write_text("x")


def test_a_full_disk_leaves_the_checkpoint_before(toy_city, tmp_path):
    """A limit on the size of files stands for the full disk: the system refuses in the middle of a write."""
    plan = recipe(toy_city, tmp_path, epochs=2, batch_size=10)
    train(plan)
    folder = tmp_path / "run"
    saved = load_model(folder / "model.safetensors")
    before = {name: (folder / name).read_bytes() for name in ("last.ckpt", "model.safetensors")}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for save in (
            lambda: WholeCheckpoints().save_checkpoint({"x": torch.randn(100_000)}, folder / "last.ckpt"),
            lambda: save_model(saved, folder / "model.safetensors"),
        ):
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
            with pytest.raises(AvscError, match=r"cannot be written .* the old file is unchanged") as caught:
                save()
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert "\n" not in str(caught.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert not list(folder.glob("*.partial"))


# ------------------------------------------------------------------------------------- groups, rates, layers


def test_layers_of_trunks():
    for name, options in (("test_efficientnet", {"planes": 3}), ("audio_resnet10", {"planes": 2, "bands": 64})):
        trunk = Trunk(name, **options)
        layers = trunk.layers()
        assert layers.keys() == {name for name, _ in trunk.named_parameters()}
        assert sorted(set(layers.values())) == list(range(max(layers.values()) + 1))
        first, *_, last = layers
        assert (layers[first], layers[last]) == (0, max(layers.values()))


def test_layer_decay():
    model = SceneNet(MODEL)
    flat = parameter_groups(model, Optim())
    assert sorted(group["name"] for group in flat) == sorted(
        f"{part}_{decays}" for part in ("audio", "video", "heads") for decays in (True, False)
    )
    groups = parameter_groups(model, Optim(layer_decay=0.5, weight_decay=0.1))
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    rate_of = {id(p): group["lr"] for group in groups for p in group["params"]}
    decay_of = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    layers = model.video.layers()
    for name, parameter in model.video.named_parameters():
        assert rate_of[id(parameter)] == pytest.approx(3e-4 * 0.5 ** (max(layers.values()) - layers[name]))
        assert decay_of[id(parameter)] == (0.1 if parameter.dim() > 1 else 0.0)
    assert {rate_of[id(p)] for p in model.heads.parameters()} == {1e-3}
    with pytest.raises(AvscError, match="nothing would learn"):
        parameter_groups(model, Optim(lr=0, audio_lr=0, video_lr=0))
    assert type(build_optimiser(flat, Optim(optimiser="sgd"))) is torch.optim.SGD


def test_rates_rise_fall_and_restart():
    optim = Optim(warmup=0.1, restarts=(5,), final=0.1)
    shares = [rate_share(optim, step, steps=100, epochs=10) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9] == shares[50] == pytest.approx(1.0)
    assert shares[49] == pytest.approx(0.1, abs=0.01)
    assert shares[99] == pytest.approx(0.1, abs=0.01)


def test_layers_begin_to_learn_from_the_end():
    model, optim = SceneNet(MODEL), Optim(unfreeze=2)
    assert unfreeze(model, optim, 0) == {"audio": 0.0, "video": 0.0}
    assert not any(p.requires_grad for p in model.video.parameters())
    assert not any(module.training for module in model.video.modules())
    assert all(p.requires_grad for p in model.heads.parameters())
    shares = unfreeze(model, optim, 1)
    layers = model.video.layers()
    learning = {layers[name] for name, p in model.video.named_parameters() if p.requires_grad}
    assert learning == set(range(max(layers.values()) + 1 - len(learning), max(layers.values()) + 1))
    assert shares["video"] == pytest.approx(0.5, abs=0.2)
    norms = [(layers[f"{n}.weight"] in learning, m.training) for n, m in model.video.named_modules()
             if isinstance(m, torch.nn.BatchNorm2d)]  # fmt: skip
    assert {learns for learns, _ in norms} == {True, False}
    assert all(learns == trains for learns, trains in norms)
    assert unfreeze(model, optim, 2) == unfreeze(model, optim, 9) == {"audio": 1.0, "video": 1.0}
    assert all(p.requires_grad for p in model.parameters())
    assert all(module.training for module in model.modules())


def test_only_the_last_layers_learn():
    model = SceneNet(MODEL)
    optim = Optim(layers=2)
    freeze_still_parts(model, optim)
    for again in (False, True):
        if again:
            model.train()
        for trunk in (model.audio, model.video):
            layer_of = trunk.layers()
            last = set(range(max(layer_of.values()) - 1, max(layer_of.values()) + 1))
            assert {layer_of[name] for name, p in trunk.named_parameters() if p.requires_grad} == last
            norms = [(layer_of[f"{name}.weight"] in last, module.training) for name, module in trunk.named_modules()
                     if isinstance(module, torch.nn.BatchNorm2d)]  # fmt: skip
            assert {learns for learns, _ in norms} == {True, False}
            assert all(learns == trains for learns, trains in norms)
    learning = {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for group in parameter_groups(model, optim) for p in group["params"]} == learning
    assert unfreeze(model, replace(optim, unfreeze=2), 2) == {"audio": 1.0, "video": 1.0}
    assert {id(p) for p in model.parameters() if p.requires_grad} == learning


def test_only_trained_trunks_keep_their_statistics(toy_city, tmp_path):
    model = SceneNet(MODEL)
    norms = {part: next(m for m in getattr(model, part).modules() if isinstance(m, torch.nn.BatchNorm2d))
             for part in ("audio", "video")}  # fmt: skip
    given = {name: value for name, value in SceneNet(MODEL).state_dict().items() if name.startswith("video.")}
    take_over(model, given, {"classes": MODEL.classes})
    keep_statistics(model.train())
    assert norms["audio"].training
    assert not norms["video"].training
    # From an earlier stage: what its batch norms know is what they know in the end.
    first = train(recipe(toy_city, tmp_path, "first"))
    optim = Optim(lr=1e-3, audio_lr=1e-3, video_lr=1e-3, keep_statistics=True)
    plan = recipe(toy_city, tmp_path, "second", init=(str(first),), optim=optim)
    before, after = load_file(first), load_file(train(plan))
    means = [name for name in before if name.endswith("running_mean") and not name.startswith("heads.")]
    assert means
    assert all(torch.equal(before[name], after[name]) for name in means)


def test_decision_weights_are_fitted_on_the_validation_part(toy_city, tmp_path):
    mean = replace(MODEL, decision_rule="mean")  # whose fit is exact
    plan = recipe(toy_city, tmp_path, epochs=2, heads=Heads(fit_decision=True), model=mean)
    fitted = load_model(train(plan))
    decision = fitted.architecture.decision
    assert sum(decision) == pytest.approx(1, abs=0.01)
    assert min(decision) >= 0.001
    assert decision != pytest.approx(np.array(MODEL.decision) / sum(MODEL.decision), abs=1e-3)
    clips = list(loader(evaluation_dataset(fitted, corpus_of(plan).validation), 10, shuffle=False))
    truth = torch.cat([clip.target for clip in clips]).numpy()

    def validation_loss(decision: tuple[float, ...]) -> float:
        fitted.architecture = replace(fitted.architecture, decision=decision)
        with torch.inference_mode():
            found = [fitted.decide(fitted(fitted.preprocess(clip)), clip.present) for clip in clips]
        return macro_log_loss(torch.cat(found).double().numpy(), truth)

    least = validation_loss(decision)
    for other in (MODEL.decision, (1.0, 1e-3, 1e-3), (1e-3, 1.0, 1e-3), (1e-3, 1e-3, 1.0)):
        assert least <= validation_loss(other) + 1e-4
    assert json.loads(read_checkpoint(model_file(plan))[1]["recipe"])["heads"]["fit_decision"]


def test_a_frozen_trunk_has_no_backward_pass():
    model = SceneNet(MODEL)
    freeze_still_parts(model, Optim(video_lr=0.0))
    model.train()
    branches = model.branches(batch(2, audio=(2, 32, 48), video=(1, 3, 32, 32)))
    assert not branches["video"].embedding.requires_grad
    assert branches["audio"].embedding.requires_grad


# ----------------------------------------------------------------------------------------- means of weights


def test_moving_average_follows_the_model():
    model = SceneNet(MODEL)
    average = shadow(model)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(1)
    follow(pairs(average, model), 0.99, step=10_000)
    for name, value in average.state_dict().items():
        moved = 1 if not value.is_floating_point() else 0.01
        torch.testing.assert_close(value, start[name] + torch.tensor(moved, dtype=value.dtype))
    follow(pairs(average, model), 0.99, step=1)  # early on it forgets its start sooner
    name = "heads.video.1.weight"
    expected = start[name] + 1 - 0.99 * 2 / 11
    torch.testing.assert_close(average.state_dict()[name], expected)
    assert not any(p.requires_grad for p in average.parameters())


def test_mean_of_checkpoints(tmp_path):
    models = [SceneNet(MODEL) for _ in range(3)]
    paths = [save_model(model, tmp_path / f"{index}.safetensors") for index, model in enumerate(models)]
    tensors, _ = average_checkpoints(paths)
    name = "heads.fusion.head.0.weight"
    torch.testing.assert_close(tensors[name], sum(model.state_dict()[name] for model in models) / 3)
    other = save_model(SceneNet(replace(MODEL, hidden=8)), tmp_path / "other.safetensors")
    with pytest.raises(AvscError, match="its model is not that of"):
        average_checkpoints([*paths, other])
    save_model(models[0], paths[0], {"recipe": "{}", "validation": "{}", "calibration": "{}"})
    out = tmp_path / "mean.safetensors"
    done = run_commands([AVSC, "average", *paths, "--out", out], [AVSC, "average", paths[0], "--out", out])
    assert done[0].status == 0
    torch.testing.assert_close(load_model(out).state_dict()[name], tensors[name])
    assert set(read_checkpoint(out)[1]) == {"architecture", "avsc_e2e", "recipe", "averaged"}
    assert "two or more" in done[1].err


# ------------------------------------------------------------------------------------ targets and transforms


def test_smooth_targets_and_their_loss():
    target = smooth(torch.eye(4), 0.2)
    torch.testing.assert_close(target, 0.8 * torch.eye(4) + 0.05)
    assert smooth(torch.eye(4), 0.0).equal(torch.eye(4))


def test_distilled_loss_is_that_of_its_definition():
    torch.manual_seed(0)
    logits, truth, taught = torch.randn(5, 4), torch.eye(4)[[0, 1, 2, 3, 0]], torch.rand(5, 4).softmax(1)
    clip = batch(5)._replace(target=torch.cat([truth, taught], dim=1))
    found = distilled_losses({"fusion": logits}, clip, 0.3, 2.0)["fusion"]
    own = -(truth * logits.log_softmax(1)).sum(1).mean()
    teacher = -(taught * (logits / 2).log_softmax(1)).sum(1).mean() * 4
    torch.testing.assert_close(found, 0.7 * own + 0.3 * teacher)
    torch.testing.assert_close(head_losses({"fusion": logits}, clip._replace(target=truth))["fusion"], own)


def test_cutmix_puts_the_same_share_of_sound_pictures_and_target():
    torch.manual_seed(3)
    clip = batch()
    cut = CutMix(1.0)(clip)
    foreign = 0
    for index in range(6):
        pictures, sound = cut.video[index, 0, 0], cut.audio[index, 0, 0]
        others = set(pictures.unique().tolist()) | set(sound.unique().tolist())
        assert len(others - {float(index)}) <= 1
        share = float((pictures != index).float().mean())
        assert float((sound != index).float().mean()) == pytest.approx(share, abs=0.5 / 20 + 1e-6)
        rows, columns = (pictures != index).any(1).nonzero(), (pictures != index).any(0).nonzero()
        if share:
            foreign += 1
            height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
            assert float(height * width) / 256 == pytest.approx(share)  # one box
            other = int((others - {float(index)}).pop())
            expected = (1 - share) * clip.target[index] + share * clip.target[other]
            torch.testing.assert_close(cut.target[index], expected.expand(2, -1))
    assert foreign >= 3
    assert cut.video.shape == clip.video.shape


def test_cutmix_where_a_modality_is_missing():
    clip = batch(2)
    clip = clip._replace(present=torch.tensor([[True, False], [True, True]]))
    for seed in range(20):
        torch.manual_seed(seed)
        cut = CutMix(1.0)(clip)
        if not cut.present[0, 1]:
            continue  # it drew itself
        assert (cut.video[0] == 1).all()  # the other's pictures stand alone
        assert (cut.video[1] == 1).all()  # and are not dimmed by nothing
        return
    pytest.fail("never drew another clip")


def test_mixing_draws_one_of_the_two():
    clip, mixing = batch(), Mixing(Mixup(1.0), CutMix(1.0, 0.5))
    kinds = set()
    for seed in range(12):
        torch.manual_seed(seed)
        values = mixing(clip).video.unique()
        kinds.add("cut" if (values == values.round()).all() else "blend")
    assert kinds == {"cut", "blend"}
    torch.manual_seed(5)
    alone = Mixup(1.0)(clip)
    torch.manual_seed(5)
    off = Mixing(Mixup(1.0), CutMix())(clip)  # off, it draws nothing
    assert torch.equal(alone.video, off.video)


def test_randaugment_changes_all_frames_alike():
    import random

    picture = torch.randint(0, 255, (1, 3, 40, 48), dtype=torch.uint8).expand(3, -1, -1, -1)
    clip = Clip(torch.zeros(2, 10), picture, torch.tensor(0), torch.ones(2, dtype=torch.bool), "", 0.0)
    assert RandAugment()(clip) is clip
    changed = set()
    for seed in range(8):
        random.seed(seed)
        found = RandAugment(2, 0.8)(clip).video
        random.seed(seed)
        assert torch.equal(found, RandAugment(2, 0.8)(clip).video)
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], found[2])
        assert found.shape == picture.shape
        changed.add(int((found[0] != picture[0]).sum()))
    assert len(changed) > 4


def test_balanced_classes():
    scenes = ["a"] * 70 + ["b"] * 20 + ["c"] * 10
    for balance, expected in ((1.0, (33, 33, 33)), (0.5, (52.3, 28.0, 19.8)), (0.0, (70, 20, 10))):
        keys = list(KeyedSampler(100, shuffle=True, classes=scenes, balance=balance, seed=1))
        counts = [sum(scenes[key.index] == name for key in keys) for name in "abc"]
        assert counts == pytest.approx(expected, abs=1.5)
        assert len(set(keys)) == len(keys) == 100  # the same clip again is another draw of it
    uneven = {"shuffle": True, "classes": scenes, "balance": 0.7}
    halves = [list(KeyedSampler(100, **uneven, rank=rank, replicas=2)) for rank in (0, 1)]
    whole = list(KeyedSampler(100, **uneven))
    assert [key for pair in zip(*halves, strict=True) for key in pair] == whole


def test_the_same_clip_again_is_another_window(toy_city, tmp_path):
    plan = recipe(toy_city, tmp_path)
    dataset = train_dataset(plan, corpus_of(plan))
    first, again = dataset[Key(0, 1)], dataset[Key(0, 1, 1)]
    assert first.file == again.file
    assert first.start != again.start
    assert torch.equal(again.video, dataset[Key(0, 1, 1)].video)


# ------------------------------------------------------------------------------------------------ distillation


def test_teachers(toy_city, unbroken, tmp_path):
    """A student that only hears learns from a model, and from what that model wrote of the training set."""
    taught = everything(toy_city, unbroken.parent)
    output = predict_training_part(replace(taught, test_time=TestTime()))
    corpus = corpus_of(taught)
    assert set(read_output(output).files) == {row.file for row in corpus.train}
    student = recipe(toy_city, tmp_path, "student", model=replace(MODEL, video="", classes=SCENES))
    losses = {}
    for kind, teachers in (("model", unbroken / "model.safetensors"), ("file", output), ("none", None)):
        distil = Distil((str(teachers),), 0.5, 1.0) if teachers else Distil()
        path = train(replace(student, name=kind, distil=distil))
        assert not any(name.startswith(("video", "_teachers")) for name in load_file(path))
        losses[kind] = float(table(path.parent / "metrics.csv")[0]["train_loss"])
    assert len(set(losses.values())) == 3
    # Both teachers say about the same; the file knows whole seconds only.
    assert losses["model"] == pytest.approx(losses["file"], abs=0.15)

    both = Teachers([unbroken / "model.safetensors", output], SCENES)
    want, size = needs(student.model, [both.models[0].architecture])
    assert (want.video, want.audio, size) == (True, True, 32)
    dataset = train_dataset(replace(student, distil=Distil(("x",), 0.5)), corpus, both)
    clips = next(iter(loader(dataset, 4, shuffle=False)))
    found = both.probabilities(clips, both.look_up(clips), 2.0)
    model = load_model(unbroken / "model.safetensors")
    clip = model.preprocess(clips)
    with torch.no_grad():
        of_model = model.decide(model(clip), clip.present)
    rows = read_output(output)
    nearest = []
    for file, at in zip(clips.file, clips.start, strict=True):
        distance = np.where(np.array(rows.files) == file, np.abs(rows.start - float(at)), np.inf)
        nearest.append(int(distance.argmin()))
    of_file = torch.from_numpy(rows.probabilities[nearest]).float()
    torch.testing.assert_close(found, (soften(of_model, 2.0) + soften(of_file, 2.0)) / 2, atol=1e-5, rtol=1e-4)


def test_what_a_student_sees_of_the_teachers_clip():
    clip = Clip(
        torch.randn(3, 2, 100),
        torch.randint(0, 255, (3, 4, 3, 64, 64), dtype=torch.uint8),
        torch.zeros(3),
        torch.ones(3, 2, dtype=torch.bool),
        [""] * 3,
        torch.zeros(3),
    )
    small = Architecture(audio="audio_test", channels="mono", video="test_efficientnet", size=32, frames=2)
    seen = as_seen_by(clip, small)
    assert seen.video.shape == (3, 2, 3, 32, 32)
    assert seen.video.dtype == torch.uint8
    torch.testing.assert_close(seen.audio, clip.audio.mean(1, keepdim=True))
    deaf = as_seen_by(clip, replace(small, audio=""))
    assert not deaf.present[:, 0].any()
    for changes, message in (({"window": 2.0}, "their window is not"), ({"sample_rate": 16_000}, "sample rates"),
                             ({"frames": 3}, "numbers of frames")):  # fmt: skip
        with pytest.raises(AvscError, match=message):
            needs(small, [replace(small, **changes)])


def test_teachers_that_cannot_teach(toy_city, unbroken, tmp_path):
    for paths, message in (
        (("nowhere",), "distil.teachers nowhere: .* train that stage first"),
        (
            (str(save_model(SceneNet(replace(MODEL, classes=("a", "b"))), tmp_path / "m.safetensors")),),
            "its classes are not those of the data",
        ),
    ):
        with pytest.raises(AvscError, match=message):
            train(recipe(toy_city, tmp_path, distil=Distil(paths, 0.5)))
    with pytest.raises(AvscError, match="go together"):
        Distil(("x",))


# ---------------------------------------------------------------------------------------- views of a clip


def test_crops_lie_where_they_should():
    ramp = torch.arange(80, dtype=torch.uint8).expand(1, 3, 40, 80)
    clip = Clip(torch.zeros(2, 10), ramp, torch.tensor(0), torch.ones(2, dtype=torch.bool), "", 0.0)
    three = Crops(40, 3)(clip).video
    assert three.shape == (3, 3, 40, 40)
    assert [int(crop[0, 0, 0]) for crop in three] == [0, 20, 40]
    assert Crops(35, 5)(clip).video.shape == (5, 3, 35, 35)
    with pytest.raises(AvscError, match=r"test_time.views 0"):
        TestTime(views=0)


def test_views_are_averaged(toy_city, unbroken):
    plan = everything(toy_city, unbroken.parent)
    model, rows = load_model(unbroken / "model.safetensors"), corpus_of(plan).test[:4]
    whole = TestTime(flip=True, crops=3, views=2)
    clip = next(iter(loader(evaluation_dataset(model, rows, test_time=whole), 4, shuffle=False)))
    assert clip.video.shape[1] == 6
    views = list(views_of(clip, model.architecture, whole))
    assert len(views) == 12
    assert torch.equal(views[1].video, views[0].video.flip(-1))
    assert torch.equal(views[1].audio, views[0].audio.flip(1))
    found = predict_rows(model, evaluation_dataset(model, rows, test_time=whole), test_time=whole)["decision"]
    with torch.no_grad():
        each = []
        for view in views:
            view = model.preprocess(view)
            each.append(model.decide(model(view), view.present))
    np.testing.assert_allclose(found.probabilities[:4], torch.stack(each).mean(0).numpy(), rtol=1e-4)
    one = predict_rows(model, evaluation_dataset(model, rows))["decision"]
    assert not np.allclose(one.probabilities, found.probabilities)
    # Of an odd number of sets of frames the middle one is that of a single set.
    three = evaluation_dataset(model, rows, test_time=TestTime(views=3))
    assert torch.equal(three[0].video[1], evaluation_dataset(model, rows)[0].video[0])


# --------------------------------------------------------------------------- compiled, recomputed, profiled


def test_compiled_trunks_learn_the_same(toy_city, tmp_path):
    plain = train(recipe(toy_city, tmp_path, "plain"))
    compiled = train(recipe(toy_city, tmp_path, "compiled", machine=Machine(compile="eager")))
    assert load_file(plain).keys() == load_file(compiled).keys()
    losses = [float(table(path.parent / "metrics.csv")[0]["train_loss"]) for path in (plain, compiled)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_activations_computed_anew_give_the_same_gradients():
    from avsc_e2e.training.acceleration import checkpoint_activations

    clip = batch(3, audio=(2, 32, 48), video=(1, 3, 32, 32))
    torch.manual_seed(0)
    model = SceneNet(replace(MODEL, dropout=0.0))
    found = []
    for recompute in (False, True):
        if recompute:
            assert checkpoint_activations(model) == ["video"]
        model.zero_grad()
        model(clip)["fusion"].sum().backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-3, atol=1e-4)
    with pytest.raises(AvscError, match="audio_test cannot recompute activations"):
        checkpoint_activations(SceneNet(replace(MODEL, video="")))


def test_profile_and_summary(toy_city, tmp_path, caplog):
    with caplog.at_level("INFO", "avsc_e2e"):
        plan = recipe(toy_city, tmp_path, epochs=3, machine=Machine(checkpoint_activations=True))
        train(plan, profile=True)
    events = json.loads((tmp_path / "run" / "profile" / "trace.json").read_text())["traceEvents"]
    names = {event.get("name") for event in events}
    assert {"front end", "batch transforms", "forward", "losses", "backward", "optimiser", "wait for data"} <= names
    shares = [
        float(line.split()[-2]) for line in (tmp_path / "run" / "profile" / "where.txt").read_text().split("\n")[1:8]
    ]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    (summary,) = [r.getMessage() for r in caplog.records if "weakest classes" in r.getMessage()]
    assert "3 epochs, 2 steps each" in summary
    assert "clips/s" in summary
    assert "waiting for data" in summary
    assert "model.safetensors" in summary


def test_ends_without_gain(toy_city, tmp_path):
    still = Optim(lr=1e-12, audio_lr=1e-12, video_lr=1e-12, weight_decay=0.0)
    plan = recipe(toy_city, tmp_path, epochs=9, patience=1, optim=still, averaging=Averaging(decay=0.5))
    train(plan)
    rows = table(tmp_path / "run" / "metrics.csv")
    best = min(range(len(rows)), key=lambda index: float(rows[index]["validation_log_loss"]))
    assert len(rows) == best + 2 < 9
    before = (tmp_path / "run" / "metrics.csv").read_bytes()
    train(plan, resume=True)  # killed after its last epoch, it has nothing left to do
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == before


@pytest.mark.parametrize(("keep", "epoch"), [("best", 1), ("last", 2)])
def test_the_epoch_that_is_kept(toy_city, tmp_path, keep, epoch):
    still = Optim(lr=1e-12, audio_lr=0.0, weight_decay=0.0)
    model = replace(MODEL, video="")
    checkpoint = train(recipe(toy_city, tmp_path, epochs=2, optim=still, model=model, keep=keep))
    assert json.loads(read_checkpoint(checkpoint)[1]["validation"])["epoch"] == epoch


def test_scores_of_classes():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]])
    scores = class_scores(probabilities, np.array([0, 1, 1]), ("a", "b", "c"))
    assert [score[:3] for score in scores] == [("a", 1, 1.0), ("b", 2, 0.5)]
    assert scores[1].log_loss == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)
    assert RunLog(Path()).without_gain == 0


# ------------------------------------------------------------------------------------------------ the flags

FLAGS = {
    "--data.by-length": "segment", "--data.balance": "class", "--augment.randaugment.operations": "",
    "--augment.randaugment.magnitude": "0 to 1",
    "--augment.cutmix.alpha": "Beta", "--augment.cutmix.probability": "batch", "--optim.accumulate": "Batches",
    "--optim.layer-decay": "factor", "--optim.layers": "last layers", "--optim.unfreeze": "epochs",
    "--optim.clip": "norm", "--heads.fit-decision": "validation set",
    "--averaging.decay": "steps", "--averaging.checkpoints": "epochs", "--distil.teachers": "checkpoint",
    "--distil.weight": "0 to 1", "--distil.temperature": "softens", "--test-time.flip": "mirrored",
    "--test-time.crops": "Square crops", "--test-time.views": "sets of frames", "--machine.compile": "torch.compile",
    "--machine.checkpoint-activations": "memory", "--machine.sync-batchnorm": "devices", "--smoothing": "share",
    "--machine.shard-model": "memory", "--patience": "epochs", "--keep": "lowest", "--precision": "bf16",
    "--profile": "milliseconds", "--resume": "interrupted",
}  # fmt: skip
"""Every flag of the engine, and a word of what its help says of its meaning or unit."""


def test_every_flag_is_explained():
    (done,) = run_commands([ROOT / "recipes" / "distil_audio.py", "train", "student", "--help-all"])
    text = " ".join(done.out.replace("│", " ").split())
    for flag, word in FLAGS.items():
        assert flag in text, flag
        assert word in text[text.index(flag) : text.index(flag) + 700], flag


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Data(balance=2), "data.balance"),
        (lambda: Optim(accumulate=0), "optim.accumulate"),
        (lambda: Optim(layer_decay=0), "optim.layer_decay"),
        (lambda: Averaging(decay=1), "averaging.decay"),
        (lambda: Averaging(checkpoints=1), "averaging.checkpoints"),
        (lambda: Distil(weight=2), "distil.weight"),
        (lambda: Distil(temperature=0), "distil.temperature"),
        (lambda: Recipe("r", smoothing=1), "smoothing"),
    ],
)
def test_values_that_make_no_sense(make, name):
    with pytest.raises(AvscError, match=f"^{name} "):
        make()


def test_sync_batchnorm_needs_gpus(toy_city, tmp_path):
    with pytest.raises(AvscError, match=r"machine.sync_batchnorm needs GPUs"):
        train(recipe(toy_city, tmp_path, machine=Machine(sync_batchnorm=True)))


def test_killed_by_the_system_at_some_instants(toy_city, tmp_path):
    """One real kill; benchmarks/kill_resume.py does thirty."""
    line = [sys.executable, ROOT / "benchmarks" / "kill_resume.py", "--root", toy_city, "--kills", "1"]
    done = subprocess.run([*map(str, line), "--out", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 runs identical" in done.stdout
