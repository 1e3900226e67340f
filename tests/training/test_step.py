"""What a step learns from and what it says: targets of mixed clips, losses that are not finite, logged losses."""

import csv
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from support import flat, write_video
from support import tiny_recipe as recipe

from avsc_e2e.clip import Clip
from avsc_e2e.errors import AvscError
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.zoo.own import tiny
from avsc_e2e.training import module
from avsc_e2e.training.losses import head_losses, target_of
from avsc_e2e.training.optimiser import parameter_groups, rate_share
from avsc_e2e.training.recipe import Averaging, Data, Optim
from avsc_e2e.training.run import corpus_of
from avsc_e2e.training.trainer import train
from avsc_e2e.transforms.augmentation import Augment
from avsc_e2e.transforms.batch import CutMix, Mixup

MODEL = replace(tiny(), size=32)
PRESENT = torch.tensor([[True, False], [True, True], [False, True], [True, True]])


def batch() -> Clip:
    """Four preprocessed clips; everything of clip b is b + 1, zeros where a modality is missing, and its class is b."""
    each = torch.arange(1.0, 5.0)
    return Clip(
        (each * PRESENT[:, 0]).reshape(-1, 1, 1, 1).expand(4, 2, 8, 20).clone(),
        (each * PRESENT[:, 1]).reshape(-1, 1, 1, 1, 1).expand(4, 1, 3, 16, 16).clone(),
        torch.eye(4),
        PRESENT,
        list("abcd"),
        torch.zeros(4),
    )


@pytest.mark.parametrize("mix", [Mixup(0.6), CutMix(1.0)], ids=["mixup", "cutmix"])
def test_the_target_of_each_head_is_what_its_input_shows(mix):
    """Shares of the clips are read from the values that are mixed: 1, 2, 3 and 4 are the four classes."""
    lone = {"audio": 0, "video": 0}
    for seed in range(20):
        torch.manual_seed(seed)
        mixed = mix(batch())
        for index, head in enumerate(("audio", "video")):
            target = target_of(head, mixed)
            values = getattr(mixed, head).flatten(1)
            for b in range(4):
                if not mixed.present[b, index]:
                    continue
                assert float(target[b].sum()) == pytest.approx(1, abs=1e-5)
                # The mean of what is seen is the mean of the classes in the target (a box of whole pixels for CutMix).
                shown, told = float(values[b].mean()), float((target[b] * torch.arange(1.0, 5.0)).sum())
                assert shown == pytest.approx(told, abs=1e-4 if isinstance(mix, Mixup) else 0.16), (seed, head, b)
                lone[head] += bool((target[b] > 0.999).any()) and int(target[b].argmax()) != b
        fusion, parts = target_of("fusion", mixed), [target_of(head, mixed) for head in ("audio", "video")]
        for b in range(4):
            there = [part[b] for part, present in zip(parts, mixed.present[b], strict=True) if present]
            torch.testing.assert_close(fusion[b], torch.stack(there).mean(0))
    assert min(lone.values()) > 0  # a clip without a modality took its partner's whole, target and all


def test_targets_of_whole_clips_are_as_before():
    torch.manual_seed(0)
    mixed = Mixup(0.5)(batch()._replace(present=torch.ones(4, 2, dtype=torch.bool)))
    assert torch.equal(target_of("audio", mixed), target_of("video", mixed))
    assert torch.equal(target_of("fusion", mixed), target_of("video", mixed))
    logits = {"fusion": torch.randn(4, 4)}
    of_mixed = head_losses(logits, mixed)["fusion"]
    assert torch.equal(of_mixed, head_losses(logits, mixed._replace(target=mixed.target[:, 0]))["fusion"])


@pytest.mark.parametrize("on_bad", ["skip", "mask"])
def test_class_folders_with_gaps_are_mixed_and_learned(tmp_path, on_bad):
    for scene, level in (("a", 40), ("b", 200)):
        folder = tmp_path / "set" / scene
        folder.mkdir(parents=True)
        for take in range(3):
            tone = np.sin(np.arange(24_000) * 0.02 * (1 + (scene == "b"))) * 0.3
            write_video(folder / f"both{take}.mp4", [flat(level)] * 6, rate=6, sound=tone[None], sample_rate=24_000)
            soundfile.write(folder / f"sound{take}.wav", tone, 24_000)
            write_video(folder / f"silent{take}.mp4", [flat(level)] * 6, rate=6)
    plan = recipe(
        tmp_path / "set", tmp_path, data=Data(root=str(tmp_path / "set"), on_bad=on_bad, workers=0),
        augment=Augment(mixup=Mixup(0.8), cutmix=CutMix(1.0)), batch_size=4,
    )  # fmt: skip
    with (train(plan).parent / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert all(np.isfinite(float(value)) for value in row.values())


# --------------------------------------------------------------------------------------- losses that are not finite


def test_a_loss_that_is_not_finite_ends_the_run_at_its_step(toy_city, tmp_path, monkeypatch):
    plan = recipe(toy_city, tmp_path, epochs=3)
    forward, calls = SceneNet.forward, []

    def spoilt(self, clip):
        logits = forward(self, clip)
        calls.append(self.training)
        return {n: v * float("nan") for n, v in logits.items()} if sum(calls) == 4 and self.training else logits

    monkeypatch.setattr(SceneNet, "forward", spoilt)
    with pytest.raises(AvscError) as caught:
        train(plan)
    text, folder = str(caught.value), tmp_path / "run"
    assert "\n" not in text
    assert "epoch 2, step 2" in text
    rate = 3e-3 * rate_share(plan.optim, 3, steps=6, epochs=3)
    for part in (f"lr_audio {rate:.2g}", "lr_video", "lr_heads", "audio head", "last.ckpt is of the last good epoch"):
        assert part in text
    files = (folder / "not_finite.txt").read_text().split()
    assert len(files) == 5
    assert files[0] in text
    assert sum(calls) == 4  # no step was learned after it
    kept = torch.load(folder / "last.ckpt", weights_only=True)
    assert kept["epoch"] == 0
    assert all(bool(torch.isfinite(value).all()) for value in kept["state_dict"].values())
    monkeypatch.undo()
    train(plan, resume=True)


def test_steps_are_logged(toy_city, tmp_path, monkeypatch):
    monkeypatch.setattr("avsc_e2e.training.callbacks.LOG_EVERY", 1)
    optim = Optim(lr=3e-3, audio_lr=3e-3, video_lr=3e-3, layer_decay=0.5)
    plan = recipe(toy_city, tmp_path, epochs=2, optim=optim)
    train(plan)
    with (tmp_path / "run" / "steps.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "1"), ("1", "2"), ("2", "3"), ("2", "4")]
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        epochs = list(csv.DictReader(file))
    for head in ("", "_audio", "_video", "_fusion"):
        for epoch in (0, 1):
            each = [float(row[f"train_loss{head}"]) for row in rows[2 * epoch : 2 * epoch + 2]]
            assert float(epochs[epoch][f"train_loss{head}"]) == pytest.approx(np.mean(each), rel=1e-5)
    groups = {group["name"] for group in parameter_groups(SceneNet(plan.model), optim)}
    assert {name.removeprefix("lr/") for name in rows[0] if name.startswith("lr/")} == groups
    events = b"".join(file.read_bytes() for file in (tmp_path / "run" / "tensorboard").iterdir())
    assert b"step/train_loss_video" in events


def test_steps_after_the_checkpoint_are_forgotten_on_resume(toy_city, tmp_path, monkeypatch):
    monkeypatch.setattr("avsc_e2e.training.callbacks.LOG_EVERY", 1)
    plan = recipe(toy_city, tmp_path, epochs=2)
    forward, calls = SceneNet.forward, []

    def stop(self, clip):
        calls.append(self.training)
        if sum(calls) == 4 and self.training:
            raise KeyboardInterrupt
        return forward(self, clip)

    with monkeypatch.context() as patch:
        patch.setattr(SceneNet, "forward", stop)
        with pytest.raises(KeyboardInterrupt):
            train(plan)
    train(plan, resume=True)
    with (tmp_path / "run" / "steps.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]


def test_audio_crosses_to_a_gpu_as_it_is_stored(toy_city, tmp_path, monkeypatch):
    plan = recipe(toy_city, tmp_path)
    tuning = module.FineTuning(plan, SceneNet(plan.model), corpus_of(plan))
    tuning._trainer = SimpleNamespace(global_rank=0, world_size=1)
    monkeypatch.setattr(module, "loader", lambda *_, **options: options["small"])
    for gpu in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        assert (tuning.train_dataloader(), tuning.val_dataloader()) == (gpu, gpu)


def test_a_step_logs_nothing_through_lightning(toy_city, tmp_path, monkeypatch):
    """Four calls of `self.log` a step cost more than all else that Lightning does."""
    from avsc_e2e.training.module import FineTuning

    inside, log = [], FineTuning.log
    spy = lambda self, *a, **k: (inside.append(self.trainer.training), log(self, *a, **k))  # noqa: E731
    monkeypatch.setattr(FineTuning, "log", spy)

    train(recipe(toy_city, tmp_path))
    assert inside
    assert not any(inside)


def test_the_moving_average_builds_no_state_dict_in_a_step(toy_city, tmp_path, monkeypatch):
    asked, state_dict = [], SceneNet.state_dict
    monkeypatch.setattr(SceneNet, "state_dict", lambda self, *a, **k: (asked.append(0), state_dict(self, *a, **k))[1])
    counts = []
    for epochs, batch_size in ((1, 10), (1, 2)):
        asked.clear()
        plan = recipe(toy_city, tmp_path / str(batch_size), epochs=epochs, batch_size=batch_size)
        train(replace(plan, averaging=Averaging(decay=0.9)))
        counts.append(len(asked))
    assert counts[0] == counts[1]  # of one step an epoch, and of several


# ------------------------------------------------------------------------------------------- values and parameters


def test_positions_and_class_tokens_do_not_decay():
    model = SceneNet(replace(MODEL, video="test_vit", size=160))
    groups = parameter_groups(model, Optim(weight_decay=0.1))
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    found = {name: decay[id(p)] for name, p in model.video.net.named_parameters()}
    spared = {"pos_embed", "cls_token", "reg_token"} & set(found)
    assert {"pos_embed", "cls_token"} <= spared
    assert {found[name] for name in spared} == {0.0}
    assert found["patch_embed.proj.weight"] == 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Optim(lr=-1e-3), r"optim.lr -0.001: give from 0 to 10"),
        (lambda: Optim(video_lr=1e9), r"optim.video_lr 1e\+09"),
        (lambda: Optim(audio_lr=float("nan")), r"optim.audio_lr nan"),
        (lambda: Optim(weight_decay=-1), r"optim.weight_decay -1"),
        (lambda: Optim(warmup=1.5), r"optim.warmup 1.5"),
        (lambda: replace(MODEL, size=1), r"model.size 1: give 8 or more"),
        (lambda: replace(MODEL, frames=0), r"model.frames 0"),
        (lambda: replace(MODEL, dropout=1.0), r"model.dropout 1.0"),
        (lambda: Data(workers=-2), r"data.workers -2"),
    ],
)
def test_values_that_cannot_be_meant(make, message):
    with pytest.raises(AvscError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
