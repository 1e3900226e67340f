"""The command line through its own entry points, and what it says to a mistaken user."""

import ast
import csv
import dataclasses
import inspect
import io
import itertools
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
import typing
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from PIL import Image
from support import AVSC, ZHANG, Malice, flat, real, run_commands, write_video, zhang

import avsc_e2e
from avsc_e2e.clip import SCENES
from avsc_e2e.training.recipe import Recipe


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """A video with sound, one without, a sound and a picture."""
    folder = tmp_path_factory.mktemp("media") / "mine"
    folder.mkdir()
    pictures = [flat(7 * index) for index in range(25)]
    sound = 0.2 * np.sin(np.arange(2 * 24_000) / 20).reshape(1, -1)
    write_video(folder / "both.mp4", pictures, rate=10, sound=sound.repeat(2, 0), sample_rate=24_000)
    write_video(folder / "mute.mkv", pictures, rate=10)
    soundfile.write(folder / "sound.wav", np.full((60_000, 2), 0.1), 48_000)
    Image.fromarray(flat(100)).save(folder / "still.jpg")
    (folder / "notes.txt").write_text("no media")
    return folder


# ------------------------------------------------------------------------------------------------- predict


@pytest.fixture(scope="module")
def predictions(trained, media):
    """The hybrid's timeline of the folder in all three formats."""
    checkpoint = trained.checkpoint("hybrid")
    lines = [[AVSC, "predict", checkpoint, media, "--format", form] for form in ("table", "json", "csv")]
    done = run_commands(*lines)
    for command in done:
        assert (command.status, command.err) == (0, "")
    return [command.out for command in done]


def test_predict_table(predictions, media):
    lines = predictions[0].splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert [Path(line.split(": ")[0]).name for line in heads] == ["both.mp4", "mute.mkv", "sound.wav", "still.jpg"]
    used = ["audio and video", "video only", "audio only", "video only"]
    assert [line.split(", from ")[1] for line in heads] == used
    spans = [line.split(" s ")[0].split() for line in lines if line.startswith(" ")]
    assert [(float(a), float(b)) for a, _, b in spans[:2]] == [(0.0, 1.0), (1.0, 2.0)]  # as long as both last
    assert [(float(a), float(b)) for a, _, b in spans[2:5]] == [(0.0, 1.0), (1.0, 2.0), (1.5, 2.5)]


def test_predict_json(predictions, media):
    records = [json.loads(line) for line in predictions[1].splitlines()]
    names = ["both.mp4", "mute.mkv", "sound.wav", "still.jpg"]
    assert [record["file"] for record in records] == [str(media / name) for name in names]
    assert [record["modalities"] for record in records] == [["audio", "video"], ["video"], ["audio"], ["video"]]
    for record in records:
        assert list(record["probabilities"]) == list(SCENES)
        windows = [list(window["probabilities"].values()) for window in record["timeline"]]
        np.testing.assert_allclose(np.sum(windows, axis=1), 1, atol=1e-4)
        np.testing.assert_allclose(np.mean(windows, axis=0), list(record["probabilities"].values()), atol=1e-5)
        assert record["scene"] == max(record["probabilities"], key=record["probabilities"].get)
        assert record["timeline"][0]["start"] == 0.0
    assert [window["end"] for window in records[2]["timeline"]] == [1.0, 1.25]


def test_predict_csv(predictions):
    rows = list(csv.DictReader(io.StringIO(predictions[2]), delimiter="\t"))
    records = [json.loads(line) for line in predictions[1].splitlines()]
    windows = [(record, window) for record in records for window in record["timeline"]]
    assert len(rows) == len(windows)
    for row, (record, window) in zip(rows, windows, strict=True):
        assert (row["filename"], row["modalities"]) == (record["file"], "+".join(record["modalities"]))
        assert float(row["start"]) == pytest.approx(window["start"], abs=0.01)
        assert row["scene_label"] == window["scene"]
        assert [float(row[name]) for name in SCENES] == pytest.approx(list(window["probabilities"].values()), abs=2e-6)


def test_predict_with_one_branch_and_on_real_media(trained, media):
    clip, wav = real("real_clips/lyon1029_40200_md.mp4"), real("real_audio/bus-prague-1102-41514.wav")
    done = run_commands(
        [AVSC, "predict", trained.checkpoint("audio"), media / "both.mp4"],
        [AVSC, "predict", trained.checkpoint("video"), media / "both.mp4"],
        [AVSC, "predict", trained.checkpoint("audio"), media / "mute.mkv"],
        [AVSC, "predict", trained.checkpoint("hybrid"), clip, wav, "--format", "json"],
    )
    assert [command.status for command in done] == [0, 0, 2, 0]
    assert "from audio only" in done[0].out
    assert "from video only" in done[1].out
    assert done[2].err == f"error: {media / 'mute.mkv'}: has only pictures, and the model wants sound\n"
    records = [json.loads(line) for line in done[3].out.splitlines()]
    assert [record["modalities"] for record in records] == [["audio", "video"], ["audio"]]
    assert [len(record["timeline"]) for record in records] == [10, 10]


# --------------------------------------------------------------------------------------- the other commands


def test_commands_that_answer_at_once(tmp_path, trained, toy_city):
    city = tmp_path / "city"
    output = trained.folder("hybrid") / "evaluation" / "segments.csv"
    done = run_commands(
        [AVSC, "--version"],
        [AVSC],
        [AVSC, "data"],
        [AVSC, "models", "*ioa*"],
        [AVSC, "data", "render", city, "--train-locations", 1, "--test-locations", 1, "--duration", 0.5],
        [AVSC, "data", "check", city, "--fast"],
        [AVSC, "score", output, toy_city / "evaluation_setup" / "fold1_evaluate.csv"],
        [ZHANG],
        [ZHANG, "show", "hybrid", "--optim.lr", "0.5"],
        [ZHANG, "train", "--help"],
    )
    version, overview, group, models, render, check, score, recipe, show, verb = done
    assert version.out == f"avsc_e2e {avsc_e2e.__version__}\n"
    for command in ("avsc demo", "avsc data render", "avsc predict", "avsc score"):
        assert command in overview.out
    assert "avsc data check" in group.out
    assert "avsc predict" not in group.out
    (line,) = [line for line in models.out.splitlines() if line.startswith("zhang_ioa ")]
    assert "tf_efficientnet_b5" in line
    count = int(re.search(r"([\d,]+) parameters", line).group(1).replace(",", ""))
    assert count == 44_803_662 == sum(p.numel() for p in avsc_e2e.create_model("zhang_ioa").parameters())
    assert render.out == f"{city}: 20 recordings of 0.5 s\n"
    assert len(list(city.glob("video/*.mp4"))) == 20
    scores = json.loads((output.parent / "scores.json").read_text())["decision"]["1 s segments"]
    assert f"log loss {scores['log_loss']:.4f}" in score.out
    assert "{show,train,evaluate" in recipe.out
    assert "Zhang_IOA_3" in recipe.out
    assert "    lr = 0.5" in show.out
    assert "epochs = 10" in show.out
    assert verb.out.startswith("usage: zhang_ioa.py")
    assert "problems: none" in check.out
    for command in done:
        assert command.status == 0, command
        assert not command.err, command.err


def test_installed_command():
    done = subprocess.run([AVSC, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"avsc_e2e {avsc_e2e.__version__}\n", "")


def test_output_cut_off_by_its_reader():
    line = f"{AVSC} models --no-count | head -1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


# --------------------------------------------------------------------------------------------------- help


def dataclasses_below(kind: type) -> list[type]:
    found = [kind]
    for hint in typing.get_type_hints(kind).values():
        if dataclasses.is_dataclass(hint):
            found += dataclasses_below(hint)
    return found


@pytest.mark.parametrize("kind", dataclasses_below(Recipe), ids=lambda kind: kind.__name__)
def test_every_field_is_explained(kind):
    """An attribute docstring, which `--help` prints; a field that holds fields is explained by its class."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body
    explained = set()
    for field, text in itertools.pairwise(body):
        is_text = isinstance(text, ast.Expr) and isinstance(getattr(text.value, "value", None), str)
        if isinstance(field, ast.AnnAssign) and is_text:
            explained.add(field.target.id)
    hints = typing.get_type_hints(kind)
    plain = {field.name for field in dataclasses.fields(kind) if not dataclasses.is_dataclass(hints[field.name])}
    assert plain <= explained, f"{kind.__name__}: {sorted(plain - explained)} without a text"
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}(")


def test_help_prints_it():
    environment = {**os.environ, "COLUMNS": "80"}
    line = [sys.executable, ZHANG, "train", "hybrid", "--help-all"]
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    for flag, text in (
        ("--optim.audio-lr", "Highest learning rate of the audio trunk"),
        ("--model.sample-rate", "Hz"),
        ("--augment.waveform.gain", "change of level in dB"),
        ("--augment.flip.probability", "mirror"),
        ("--heads.fusion", "fusion head"),
        ("--batch-size", "Clips of a step"),
        ("--resume", "Continue an interrupted run"),
    ):
        at = re.search(f" {flag}[ ,]", done.stdout).start()
        assert text.lower() in done.stdout[at : at + 400].lower(), flag
    assert "(default: zhang_ioa/audio zhang_ioa/video)" in done.stdout
    assert "under construction" not in done.stdout


# ------------------------------------------------------------------------------------------------ mistakes


def assert_refused(cases: list[tuple[list, list[str]]]) -> None:
    """Each command line ends with status 2 and one line on stderr that has these words."""
    wrong = []
    for (line, words), done in zip(cases, run_commands(*(line for line, _ in cases)), strict=True):
        one_line = done.err.startswith("error: ") and done.err.endswith("\n") and done.err.count("\n") == 1
        if not one_line or done.status != 2 or done.out or not all(word in done.err for word in words):
            wrong.append((" ".join(map(str, line)), words, done))
    assert not wrong, "\n".join(map(str, wrong))


def test_mistyped_words():
    cases = [
        ([AVSC, "predcit"], ["unknown command 'predcit': did you mean predict?"]),
        ([AVSC, "xyz"], ["known are demo, data render"]),
        ([AVSC, "data", "chekc"], ["unknown command 'data chekc': did you mean data check?"]),
        ([AVSC, "models", "*zhnag*"], ["no entry matches '*zhnag*'"]),
        ([AVSC, "models", "--cuont"], ["--count"]),
        ([AVSC, "predict"], ["avsc predict"]),
        ([AVSC, "predict", "model.safetensors", "a.mp4", "--format", "xml"], ["--format"]),
        ([AVSC, "data", "render", "x", "--duration", "long"], ["--duration"]),
        ([ZHANG, "tarin", "audio"], ["unknown verb 'tarin': did you mean train?"]),
        ([ZHANG, "train"], ["name a stage: places, audio"]),
        ([ZHANG, "train", "hybird"], ["unknown stage 'hybird': did you mean hybrid?"]),
        ([ZHANG, "train", "hybrid", "--epohcs", "3"], ["--epochs"]),
        ([ZHANG, "train", "hybrid", "--optim.video-lrr", "3"], ["--optim.video-lr"]),
        ([ZHANG, "train", "hybrid", "--modle.size", "64"], ["--model.size"]),
        ([ZHANG, "train", "hybrid", "--epochs", "three"], ["--epochs"]),
        ([ZHANG, "train", "hybrid", "--epochs", "-1"], ["--epochs -1"]),
        ([ZHANG, "train", "hybrid", "--model.channels", "quad"], ["--model.channels"]),
        ([ZHANG, "train", "hybrid", "--model.audio", "", "--model.video", ""], ["--model.audio and --model.video"]),
        ([ZHANG, "train", "hybrid"], ["--data.root is not given"]),
    ]
    assert_refused(cases)


def test_bad_files(trained, toy_city, media, tmp_path):
    """Roots, media and checkpoints that are not what they should be."""

    def city(name: str) -> Path:
        return Path(shutil.copytree(toy_city, tmp_path / name))

    absent, cut, unknown = city("absent"), city("cut"), city("unknown")
    gone = sorted(absent.glob("audio/*.wav"))[0]
    gone.unlink()
    for video in cut.glob("video/*.mp4"):
        video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    for name in ("evaluation_setup/fold1_train.csv", "meta.csv"):
        path = unknown / name
        path.write_text(path.read_text().replace("\tpark", "\tzoo", 1))
    (tmp_path / "empty").mkdir()
    runs = tmp_path / "runs"
    # checkpoints
    text, pickled, foreign, other = (tmp_path / f"{name}.safetensors" for name in ("text", "pickle", "foreign", "torn"))
    text.write_text("This is no checkpoint.")
    touched = tmp_path / "touched"
    pickled.write_bytes(pickle.dumps(Malice(touched)))
    safetensors.torch.save_file({"weight": torch.zeros(2)}, foreign)
    other.write_bytes(trained.checkpoint("audio").read_bytes()[:-100])
    # media
    (tmp_path / "text.wav").write_text("This is no sound.")
    (tmp_path / "empty.mp4").touch()
    whole = (media / "both.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    good = trained.checkpoint("hybrid")
    weights = tmp_path / "weights.pth"
    weights.write_bytes(pickle.dumps(Malice(touched)))
    start = ["--video-weights", weights]

    cases = [
        (zhang("train", "audio", tmp_path / "nowhere", runs), [str(tmp_path / "nowhere")]),
        (zhang("train", "audio", tmp_path / "empty", runs), [str(tmp_path / "empty")]),
        (zhang("train", "audio", absent, runs), [gone.name]),
        (zhang("train", "video", cut, runs, "--data.on-bad", "raise"), [".mp4", "cut off"]),
        (zhang("train", "audio", unknown, runs), ["zoo"]),
        (zhang("train", "video", toy_city, runs, "--model.video", "efficientnet_lit0"), ["efficientnet_lite0"]),
        (zhang("train", "hybrid", toy_city, runs), ["zhang_ioa/audio", "train that stage first"]),
        (zhang("train", "video", toy_city, runs, *start), ["weights.pth"]),
        (zhang("evaluate", "audio", toy_city, runs), ["train zhang_ioa/audio first"]),
        (zhang("train", "audio", toy_city, runs, "--resume"), ["nothing to resume"]),
        (zhang("train", "video", toy_city, trained.runs), ["holds an earlier run"]),
        (zhang("train", "video", toy_city, trained.runs, "--resume", "--seed", 1), ["another recipe", "seed"]),
        ([AVSC, "predict", tmp_path / "no.safetensors", media], ["no such checkpoint"]),
        ([AVSC, "predict", text, media], ["is not a checkpoint"]),
        ([AVSC, "predict", pickled, media], ["is not a checkpoint"]),
        ([AVSC, "predict", foreign, media], ["is not a checkpoint"]),
        ([AVSC, "predict", other, media], ["cut off"]),
        ([AVSC, "predict", tmp_path, media], ["no model.safetensors in this folder"]),
        ([AVSC, "predict", "https://host/m.safetensors", media], ["https://host/m.safetensors: is a URL"]),
        ([AVSC, "predict", good, "https://host/a.mp4"], ["https://host/a.mp4: is a URL"]),
        ([AVSC, "predict", media / "sound.wav", media], ["is not a checkpoint"]),
        ([AVSC, "predict", good], ["no media given"]),
        ([AVSC, "predict", good, tmp_path / "text.wav"], ["text.wav", "is not a sound file"]),
        ([AVSC, "predict", good, tmp_path / "cut.mp4"], ["cut.mp4", "cut off"]),
        ([AVSC, "predict", good, tmp_path / "empty.mp4"], ["is empty"]),
        ([AVSC, "predict", good, tmp_path / "none.mp4"], ["none.mp4", "no such file"]),
        ([AVSC, "predict", good, tmp_path / "empty"], ["no media file in this folder"]),
        ([AVSC, "predict", good, media / "notes.txt"], ["notes.txt"]),
        ([AVSC, "score", media / "notes.txt", media / "notes.txt"], ["notes.txt"]),
        ([AVSC, "data", "check", tmp_path / "nowhere"], ["nowhere"]),
        ([AVSC, "data", "render", media], ["not empty"]),
    ]
    assert_refused(cases)
    assert not touched.exists()
    assert not runs.exists() or not list(runs.rglob("*.safetensors"))
