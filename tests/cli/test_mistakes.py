"""What the commands say to a mistaken user: one line on stderr and exit status 2."""

import pickle
import shutil
from pathlib import Path

import safetensors.torch
import torch
from support import AVSC, ZHANG, Malice, run_commands, zhang


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
        ([AVSC, "xyz"], ["known are demo, doctor, data render"]),
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
        ([AVSC, "predict", good, "https://host/a.mp4"], ["https://host/a.mp4: no such file"]),
        ([AVSC, "predict", media / "sound.wav", media], ["is not a checkpoint"]),
        ([AVSC, "predict", good], ["no media given"]),
        ([AVSC, "predict", good, tmp_path / "text.wav"], ["text.wav", "is not a media file"]),
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
