"""Training: it learns, it can be broken off and resumed without a trace, and says what it does."""

import csv
import json
import logging
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from support import flat, run_commands, tiny_recipe, write_video, zhang

from avsc_e2e.challenge import external_data
from avsc_e2e.clip import SCENES, Clip
from avsc_e2e.errors import AvscError
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.checkpoint import load_model, save_model
from avsc_e2e.models.zoo.own import lite0_aisfx, tiny
from avsc_e2e.training.initialisation import initial_model
from avsc_e2e.training.losses import head_losses
from avsc_e2e.training.recipe import Data, Heads, Optim, Recipe
from avsc_e2e.training.run import corpus_of, epochs_of, model_file, train_dataset
from avsc_e2e.training.trainer import train
from avsc_e2e.transforms.augmentation import Augment
from avsc_e2e.transforms.batch import DropModality, Mixup, SpecAugment
from avsc_e2e.transforms.frames import ColourJitter, HorizontalFlip, RandomResizedCrop
from avsc_e2e.transforms.waveform import Waveform

NO_AUGMENT = Augment(
    crop=RandomResizedCrop(smallest=1.0),
    flip=HorizontalFlip(0.0),
    colour=ColourJitter(0.0, 0.0),
    waveform=Waveform(gain=0.0),
    spectrum=SpecAugment(0.0, 0.0),
    mixup=Mixup(0.0),
    drop=DropModality(0.0),
)

recipe = partial(tiny_recipe, name="hybrid")


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path)


@pytest.fixture(scope="module")
def signals(tmp_path_factory) -> Path:
    """Class folders of four videos each: the class is the brightness and the pitch."""
    root = tmp_path_factory.mktemp("signals") / "root"
    for index in range(4):
        folder = root / "abcd"[index]
        folder.mkdir(parents=True)
        tone = 0.3 * np.sin(2 * np.pi * 300 * 2**index * np.arange(24_000) / 24_000)
        for take in range(4):
            sound = np.stack([tone, (0.5 + 0.1 * take) * tone])
            pictures = [flat(30 + 60 * index + 5 * take, 40, 40)] * 6
            write_video(folder / f"take{take}.mp4", pictures, rate=6, sound=sound, sample_rate=24_000)
    return root


# ------------------------------------------------------------------------------------------------ it learns


def test_overfits_a_few_clips(signals, tmp_path):
    few = recipe(
        signals,
        tmp_path,
        augment=NO_AUGMENT,
        epochs=20,
        batch_size=8,  # batch norm of fewer clips than there are would never settle
        optim=Optim(lr=1e-2, audio_lr=1e-2, video_lr=1e-2, weight_decay=0.0),
    )
    few = replace(few, model=replace(few.model, dropout=0.0))
    path = train(few)
    assert path == model_file(few)
    rows = metrics(path.parent)
    assert float(rows[0]["train_loss"]) > 1.0
    assert float(rows[-1]["train_loss"]) < 0.1
    for head in ("audio", "video", "fusion"):
        assert float(rows[-1][f"train_loss_{head}"]) < 0.1
    assert load_model(path).architecture.classes == ("a", "b", "c", "d")


FIRST_LOSSES = {
    "train_loss": (3.878480, 3.811500),
    "train_loss_audio": (2.954733, 2.652935),
    "train_loss_video": (2.359622, 2.199806),
    "train_loss_fusion": (2.284174, 2.355678),
    "validation_log_loss": (2.292706, 2.291001),
}
"""Of a hybrid with random weights in its first two epochs, of two steps each, on the toy city."""


def test_first_losses_are_those_of_before(toy_city, tmp_path):
    """A change that moves these changes what users get from their recipes: it has to be meant."""
    augment = Augment(mixup=Mixup(0.2), drop=DropModality(0.2), waveform=Waveform(noise=0.5))
    rows = metrics(train(recipe(toy_city, tmp_path, epochs=2, augment=augment)).parent)
    for name, (first, second) in FIRST_LOSSES.items():
        assert float(rows[0][name]) == pytest.approx(first, rel=1e-2), name  # other processors round otherwise
        assert float(rows[1][name]) == pytest.approx(second, rel=3e-2), name


def test_metrics_of_a_run(trained):
    for stage, heads in (("audio", []), ("video", []), ("hybrid", ["audio", "video", "fusion"])):
        rows = metrics(trained.folder(stage))
        assert [(row["epoch"], row["step"]) for row in rows] == [("1", "2"), ("2", "4")]
        best = min(float(row["validation_log_loss"]) for row in rows)
        with safetensors.safe_open(trained.checkpoint(stage), "pt") as file:
            notes = file.metadata()
        assert json.loads(notes["validation"])["validation_log_loss"] == pytest.approx(best)
        assert json.loads(notes["recipe"]) == json.loads((trained.folder(stage) / "recipe.json").read_text())
        assert tuple(json.loads(notes["architecture"])["classes"]) == SCENES
        for head in heads:
            assert all(float(row[f"train_loss_{head}"]) > 0 for row in rows)
            assert all(float(row[f"validation_log_loss_{head}"]) > 0 for row in rows)
        assert any((trained.folder(stage) / "tensorboard").iterdir())


def test_loss_hears_only_of_what_is_there():
    logits = {
        "audio": torch.tensor([[2.0, 0.0], [0.0, 1.0]]),
        "video": torch.tensor([[0.0, 3.0], [5.0, 0.0]]),
        "fusion": torch.tensor([[1.0, 0.0], [0.0, 0.0]]),
    }
    target = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    present = torch.tensor([[True, False], [True, True]])
    losses = head_losses(logits, Clip(torch.empty(0), torch.empty(0), target, present, "", 0.0))

    def entropy(row, weights):
        return -float((torch.tensor(weights) * torch.tensor(row).log_softmax(0)).sum())

    assert float(losses["audio"]) == pytest.approx((entropy([2.0, 0], [1.0, 0]) + entropy([0, 1.0], [0.25, 0.75])) / 2)
    assert float(losses["video"]) == pytest.approx(entropy([5.0, 0], [0.25, 0.75]))
    assert float(losses["fusion"]) == pytest.approx((entropy([1.0, 0], [1.0, 0]) + np.log(2)) / 2)


def test_frozen_trunk_does_not_change(toy_city, tmp_path):
    frozen = recipe(toy_city, tmp_path, optim=Optim(video_lr=0.0, audio_lr=1e-3), batch_size=10)
    frozen = replace(frozen, model=replace(frozen.model, classes=SCENES))
    before = initial_model(frozen, corpus_of(frozen)).state_dict()
    after = tensors(train(frozen))
    assert sorted(before) == sorted(after)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if name.startswith("video.")} <= same
    changed = set(before) - same
    assert {name.split(".")[0] for name in changed} == {"audio", "heads"}
    assert any("running_mean" in name for name in changed)


def test_a_modality_that_is_missing_in_places(signals, tmp_path):
    """Among the videos of a class lies a recording of audio only, and one of frames only."""
    root = tmp_path / "mixed"
    for folder in signals.iterdir():
        (root / folder.name).mkdir(parents=True)
        for file in folder.iterdir():
            (root / folder.name / file.name).symlink_to(file)
        soundfile.write(root / folder.name / "sound_9.wav", np.full(24_000, 0.1), 24_000)
        write_video(root / folder.name / "silent_8.mp4", [flat(99)] * 6, rate=6)
    path = train(recipe(root, tmp_path, batch_size=6))
    (row,) = metrics(path.parent)
    assert all(np.isfinite(float(value)) for value in row.values())


# ------------------------------------------------------------------------- broken off, resumed, refused


def test_killed_and_resumed_equals_unbroken(toy_city, trained, tmp_path):
    """The unbroken run is the video stage of the session's; this one is killed once it has saved its first epoch."""
    line = [str(word) for word in zhang("train", "video", toy_city, tmp_path / "runs")]
    folder = tmp_path / "runs" / "zhang_ioa" / "video"
    with subprocess.Popen(
        [sys.executable, *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and not (folder / "last.ckpt").exists():
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    if process.returncode == 0:
        pytest.skip("the run ended before it could be killed")
    assert len(metrics(folder)) >= 1
    (resumed,) = run_commands([*line, "--resume"])
    assert resumed.status == 0, resumed.err
    assert "epoch 1/2" not in resumed.err
    mine, theirs = tensors(folder / "model.safetensors"), tensors(trained.checkpoint("video"))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    rows = [metrics(f) for f in (folder, trained.folder("video"))]
    for row in (*rows[0], *rows[1]):
        del row["seconds"]
    assert rows[0] == rows[1]
    states = [torch.load(f / "last.ckpt", weights_only=False)["state_dict"] for f in (folder, trained.folder("video"))]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    assert not list(folder.glob("*.partial"))


def test_killed_while_saving(toy_city, tmp_path, monkeypatch):
    """The checkpoint of the epoch before is still whole; killed before the first, the run just starts again."""
    plan = recipe(toy_city, tmp_path, batch_size=10, epochs=2)
    save, saved = torch.save, []

    def torn(checkpoint, file, *rest):
        saved.append(file)
        if len(saved) == 2 - first_is_torn:
            file.write(b"half")
            raise KeyboardInterrupt
        return save(checkpoint, file, *rest)

    for first_is_torn in (True, False):
        saved.clear()
        with monkeypatch.context() as patch:
            patch.setattr(torch, "save", torn)
            with pytest.raises(KeyboardInterrupt):
                train(plan)
        if first_is_torn:
            with pytest.raises(AvscError, match="nothing to resume"):
                train(plan, resume=True)
    train(plan, resume=True)
    assert [row["epoch"] for row in metrics(tmp_path / "hybrid")] == ["1", "2"]


def test_what_is_refused(toy_city, tmp_path, caplog):
    with pytest.raises(AvscError, match="nothing to resume"):
        train(recipe(toy_city, tmp_path), resume=True)
    train(recipe(toy_city, tmp_path, batch_size=10))
    with pytest.raises(AvscError, match="holds an earlier run; continue it with resume"):
        train(recipe(toy_city, tmp_path, batch_size=10))
    other = recipe(toy_city, tmp_path, batch_size=10, seed=3, optim=Optim(lr=1.0, audio_lr=3e-3, video_lr=3e-3))
    with pytest.raises(AvscError, match="started with another recipe") as caught:
        train(other, resume=True)
    for part in ("optim.lr was 0.003 and is 1.0", "seed was 0 and is 3"):
        assert part in str(caught.value)
    assert "batch_size" not in str(caught.value)
    for wrong, message in (
        ({"init": ("audio",)}, "init audio: .*audio/model.safetensors is not there; train that stage first"),
        ({"heads": Heads(video=0.0)}, "heads.video is 0"),
        ({"data": Data()}, "data.root is not given"),
        ({"video_weights": "nowhere.pth"}, "nowhere.pth"),
    ):
        with pytest.raises(AvscError, match=message) as caught:
            train(recipe(toy_city, tmp_path / "new", **wrong))
        assert "\n" not in str(caught.value)
    with pytest.raises(AvscError, match="fp16 needs a GPU"):
        train(recipe(toy_city, tmp_path / "newer", precision="fp16"))


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 1}])
def test_recipe_that_makes_no_sense(wrong):
    with pytest.raises(AvscError, match=f"^{next(iter(wrong))} "):
        Recipe("r", **wrong)


# ------------------------------------------------------------------------------------------------ stages


def test_stages_of_the_recipe(trained):
    for stage in ("audio", "video", "hybrid"):
        done = trained.train[stage]
        assert done.out == f"checkpoint: {trained.checkpoint(stage)}\n"
        assert f"zhang_ioa/{stage} epoch 2/2: loss " in done.err
    report = trained.train["hybrid"].err
    for stage, parts in (("audio", "audio, frontend, heads"), ("video", "heads, video")):
        (line,) = [line for line in report.splitlines() if line.startswith(str(trained.checkpoint(stage)))]
        count = len(tensors(trained.checkpoint(stage)))
        assert f"{count} of its {count} tensors matched ({parts})" in line
        assert "heads.fusion" in line.split("from elsewhere:")[1]


def test_hybrid_starts_from_its_stages(toy_city, trained):
    model = replace(load_model(trained.checkpoint("hybrid")).architecture)
    init = tuple(str(trained.checkpoint(stage)) for stage in ("audio", "video"))
    start = recipe(toy_city, trained.runs, model=model, init=init)
    state = initial_model(start, corpus_of(start)).state_dict()
    for stage in ("audio", "video"):
        for name, value in tensors(trained.checkpoint(stage)).items():
            assert torch.equal(state[name], value), name


def test_other_classes_keep_their_own_heads(signals, trained, tmp_path, caplog):
    model = replace(load_model(trained.checkpoint("video")).architecture, classes=("a", "b", "c", "d"))
    start = recipe(signals, tmp_path, model=model, init=(str(trained.checkpoint("video")),))
    with caplog.at_level(logging.INFO, "avsc_e2e"):
        state = initial_model(start, corpus_of(start)).state_dict()
    given = tensors(trained.checkpoint("video"))
    trunk = {name for name in given if name.startswith("video.")}
    assert trunk
    assert all(torch.equal(state[name], given[name]) for name in trunk)
    heads = {name for name in given if name.startswith("heads.")}
    assert all(state[name].shape != given[name].shape for name in heads)
    assert f"{len(heads)} left out (heads.video)" in caplog.text


def test_nothing_in_common_is_refused(signals, trained, tmp_path):
    model = replace(tiny(), video="", classes=("a", "b", "c", "d"))
    start = recipe(signals, tmp_path, model=model, init=(str(trained.checkpoint("video")),))
    with pytest.raises(AvscError, match="none of the checkpoint's tensors fits"):
        initial_model(start, corpus_of(start))


def test_scores_are_those_of_the_outputs(trained, toy_city):
    """The printed table, scores.json, and the challenge's own definition applied to the files that were written."""
    with (toy_city / "evaluation_setup" / "fold1_evaluate.csv").open(newline="") as file:
        listed = list(csv.DictReader(file, delimiter="\t"))
    truth = {Path(row["filename_audio"]).stem: row["scene_label"] for row in listed}
    for stage in ("audio", "video", "hybrid"):
        folder = trained.folder(stage) / "evaluation"
        scores = json.loads((folder / "scores.json").read_text())
        assert sorted(scores) == (["audio", "decision", "fusion", "video"] if stage == "hybrid" else ["decision"])
        table = trained.evaluate[stage].out
        for head, protocols in scores.items():
            suffix = "" if head == "decision" else f".{head}"
            figures = []
            for kind, count, protocol in (("segments", 20, "1 s segments"), ("clips", 10, "2 s clips")):
                with (folder / f"{kind}{suffix}.csv").open(newline="") as file:
                    rows = list(csv.DictReader(file, delimiter="\t"))
                assert len(rows) == count
                loss, right = {scene: [] for scene in SCENES}, {scene: [] for scene in SCENES}
                for row in rows:
                    scene = truth[Path(row["filename"]).stem]
                    values = {name: float(row[name]) for name in SCENES}
                    loss[scene].append(-np.log(max(values[scene], 1e-15)))
                    right[scene].append(max(values, key=values.get) == scene)
                expected = np.mean([np.mean(v) for v in loss.values()]), np.mean([np.mean(v) for v in right.values()])
                assert protocols[protocol]["log_loss"] == pytest.approx(expected[0], rel=1e-4)
                assert protocols[protocol]["accuracy"] == pytest.approx(expected[1])
                figures += [f"{expected[0]:.3f}", f"{100 * expected[1]:.1f}", "%"]
            name = f"zhang_ioa/{stage}" if head == "decision" else f"  {head} head"
            (line,) = [line for line in table.splitlines() if line.startswith(name)]
            printed = line.removeprefix(name).split()
            assert printed[1::3] == figures[1::3]
            assert [float(x) for x in printed[0::3]] == pytest.approx([float(x) for x in figures[0::3]], abs=2e-3)
        page = (folder / "report.html").read_text()
        assert f"zhang_ioa/{stage}" in page
        assert f"report: {folder / 'report.html'}" in table


def test_submissions_name_what_the_trunks_had_learned_from(tmp_path):
    def told(plan: Recipe) -> dict[str, str | None]:
        values = json.loads(json.dumps(asdict(plan)))
        return {data.name: data.url for data in external_data(values)}

    places = Recipe(
        "x/places", model=replace(tiny(), audio="", classes=tuple(map(str, range(365)))), runs=str(tmp_path)
    )
    save_model(SceneNet(places.model), model_file(places), {"recipe": json.dumps(asdict(places))})
    video = Recipe("x/video", model=replace(tiny(), video="tf_efficientnet_b5"), init=("x/places",), runs=str(tmp_path))
    found = told(video)
    assert found["Places365"] == "http://places2.csail.mit.edu"
    assert "tf_efficientnet_b5" in found["JFT-300M, ImageNet"]
    both = replace(video, model=lite0_aisfx(), init=())
    assert set(told(both)) == {"sound effects of nine libraries", "ImageNet"}
    assert not told(replace(both, pretrained=False))
    assert told(replace(both, pretrained=False, audio_weights="own.pth")) == {"those of own.pth": None}


def test_epochs_follow_from_steps(toy_city, tmp_path):
    """At most --epochs, so that `--epochs 1` is one epoch of any stage; at least two otherwise."""
    corpus = corpus_of(recipe(toy_city, tmp_path))
    clips = len(train_dataset(recipe(toy_city, tmp_path), corpus))

    def epochs(steps: int, most: int, batch: int = clips // 2, accumulate: int = 1) -> int:
        plan = recipe(
            toy_city, tmp_path, epochs=most, steps=steps, batch_size=batch, optim=Optim(accumulate=accumulate)
        )
        return epochs_of(plan, corpus)

    assert clips % 2 == 0
    assert epochs(40, 100) == 20
    assert epochs(40, 100, accumulate=2) == 40
    assert epochs(40, 7) == 7
    assert epochs(1, 100) == 2
    assert epochs(40, 1) == 1
    assert epochs(0, 100) == 100
