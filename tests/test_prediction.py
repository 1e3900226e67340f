"""Prediction of any media: what is bad costs itself alone, files share batches, timelines are smoothed and merged."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from support import click, flat, write_video

import avsc_e2e
from avsc_e2e import inference, prediction
from avsc_e2e.cli import main
from avsc_e2e.clip import Row
from avsc_e2e.errors import AvscError, MediaError
from avsc_e2e.inference import timeline
from avsc_e2e.models.weights.checkpoint import load_model, save_model
from avsc_e2e.models.zoo.catalogue import create_model
from avsc_e2e.segments import merged, smoothed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, and a folder of two videos, audio alone, and a file that is no media."""
    root = tmp_path_factory.mktemp("prediction")
    save_model(create_model("tiny").eval(), root / "model.safetensors", {"recipe": "{}"})
    (root / "media").mkdir()
    for name, level in (("a", 40), ("b", 200)):
        frames = [flat(level + i) for i in range(25)]
        write_video(root / "media" / f"{name}.mp4", frames, rate=10, sound=click(0.5, 2.5))
    soundfile.write(root / "media" / "c.wav", np.full(48_000, 0.1), 48_000)
    (root / "media" / "d.mp4").write_bytes(b"no video")
    return root


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_files_share_batches_and_are_as_alone(folder, batch_size):
    found = avsc_e2e.predict(folder / "model.safetensors", folder / "media", batch_size=batch_size)
    assert [p.path[-5:] for p in found] == ["a.mp4", "b.mp4", "c.wav", "d.mp4"]
    model = load_model(folder / "model.safetensors")
    for one in found[:3]:
        alone = timeline(model, one.path)
        assert [w[:3] for w in one.windows] == [w[:3] for w in alone]
        np.testing.assert_allclose(
            [w.probabilities for w in one.windows], [w.probabilities for w in alone], rtol=1e-4, atol=1e-6
        )
        assert (one.error, one.segments[0].start, one.segments[-1].end) == ("", 0.0, alone[-1].end)
    assert not found[3].windows
    assert "d.mp4" in found[3].error


def test_a_file_without_what_the_model_wants_costs_that_file(folder):
    model = create_model("tiny", audio="", fusion="").eval()
    found = avsc_e2e.predict(model, folder / "media")
    assert [bool(p.windows) for p in found] == [True, True, False, False]
    assert "has only audio" in found[2].error
    predictor = avsc_e2e.Predictor(model)
    assert len(predictor(folder / "media" / "a.mp4").windows) == 3
    with pytest.raises(AvscError, match="has only audio"):
        predictor(folder / "media" / "c.wav")


@pytest.mark.parametrize(("on_bad", "starts"), [("skip", [0.0, 1.5]), ("mask", [0.0, 1.0, 1.5])])
def test_one_bad_second_costs_that_second(folder, monkeypatch, on_bad, starts):
    decode = prediction.decode_windows

    def spoilt(path, **options):
        for window in decode(path, **options):
            yield window._replace(frames=MediaError(str(path), "damaged")) if window.start == 1.0 else window

    monkeypatch.setattr(prediction, "decode_windows", spoilt)
    (found,) = avsc_e2e.predict(folder / "model.safetensors", folder / "media" / "a.mp4", on_bad=on_bad)
    assert [window.start for window in found.windows] == starts
    assert "damaged" in found.error
    if on_bad == "mask":
        assert found.windows[1].modalities == ("audio",)
    with pytest.raises(AvscError, match="damaged"):
        avsc_e2e.predict(folder / "model.safetensors", folder / "media" / "a.mp4", on_bad="raise")


def test_hop(folder):
    (found,) = avsc_e2e.predict(folder / "model.safetensors", folder / "media" / "a.mp4", hop=0.5)
    assert [window.start for window in found.windows] == [0.0, 0.5, 1.0, 1.5]


def test_smoothing_and_merging():
    sure = np.tile([0.9, 0.1], (9, 1))
    sure[4] = [0.2, 0.8]
    sure[7:] = [0.05, 0.95]
    for how in ("median", "markov"):
        found = smoothed(sure, how)
        assert np.allclose(found.sum(1), 1)
        assert found[4].argmax() == 0, how  # one odd window is overruled
        assert found[8].argmax() == 1, how
    assert smoothed(sure, "none") is sure
    # Two windows by hand: of both paths that end in each scene.
    two = np.array([[0.6, 0.4], [0.3, 0.7]])
    paths = {(a, b): 0.5 * two[0, a] * (0.95 if a == b else 0.05) * two[1, b] for a in (0, 1) for b in (0, 1)}
    expected = np.array([[paths[0, 0] + paths[0, 1], paths[1, 0] + paths[1, 1]],
                         [paths[0, 0] + paths[1, 0], paths[0, 1] + paths[1, 1]]]) / sum(paths.values())  # fmt: skip
    np.testing.assert_allclose(smoothed(two, "markov"), expected)
    segments = merged([0.0, 0.5, 1.0], [1.0, 1.5, 2.0], np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]]), ("a", "b"))
    assert [tuple(s[:3]) for s in segments] == [(0.0, 1.0, "a"), (1.0, 2.0, "b")]
    assert segments[0].confidence == pytest.approx(0.8)


def test_formats(folder, capsys, tmp_path):
    def told(form, *more):
        with pytest.raises(SystemExit) as end:
            main(["predict", str(folder / "model.safetensors"), str(folder / "media"), "--format", form, *more])
        assert end.value.code == 2  # for d.mp4
        return capsys.readouterr().out

    array = json.loads(told("json", "--smooth", "median"))
    assert len(array) == 3
    assert {one["smoothing"] for one in array} == {"median"}
    assert array[0]["segments"][0]["start"] == 0.0
    lines = [json.loads(line) for line in told("jsonl").splitlines()]
    assert [line["file"] for line in lines] == [one["file"] for one in array]
    for form, delimiter in (("csv", ","), ("tsv", "\t")):
        out = tmp_path / f"out.{form}"
        assert told(form, "--out", str(out)) == ""
        rows = list(csv.DictReader(io.StringIO(out.read_text()), delimiter=delimiter))
        assert len(rows) == sum(len(line["timeline"]) for line in lines)
        assert rows[0]["scene_label"] == lines[0]["timeline"][0]["scene"]


def test_the_recipes_precision_is_that_of_prediction(folder, tmp_path, monkeypatch):
    """Evaluation and prediction compute as the recipe says, not in fp32 whatever it says."""
    path = save_model(
        load_model(folder / "model.safetensors"), tmp_path / "m.safetensors", {"recipe": '{"precision": "bf16"}'}
    )
    asked, whole = [], prediction.head_probabilities

    def look(model, batch, views):
        asked.append(torch.is_autocast_enabled("cpu"))
        return whole(model, batch, views)

    monkeypatch.setattr(prediction, "head_probabilities", look)
    monkeypatch.setattr(inference, "head_probabilities", look)
    low = avsc_e2e.predict(path, folder / "media" / "a.mp4")[0].windows[0].probabilities
    full = avsc_e2e.predict(path, folder / "media" / "a.mp4", precision="fp32")[0].windows[0].probabilities
    rows = [Row("a", *[str(folder / "media" / "a.mp4")] * 2, duration=2.5)]
    model = load_model(path)
    inference.predict_rows(model, inference.evaluation_dataset(model, rows), precision="bf16")
    assert asked == [True, False, True]
    assert not np.array_equal(low, full)
    np.testing.assert_allclose(low, full, atol=0.02)


def test_prediction_imports_what_it_needs_only(folder):
    """One short clip from a cold start is mostly imports: none of packages that fit, draw, train or augment."""
    code = f"""import sys
from avsc_e2e.cli import main
try:
    main(["predict", {str(folder / "model.safetensors")!r}, {str(folder / "media" / "a.mp4")!r}])
finally:
    print(sorted({{name.split(".")[0] for name in sys.modules}}))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    loaded = set(eval(done.stdout.splitlines()[-1]))
    assert {"torch", "timm", "av"} <= loaded, done.stderr
    idle = {
        "scipy",
        "sklearn",
        "albumentations",
        "audiomentations",
        "pytorch_lightning",
        "matplotlib",
        "jinja2",
        "pandas",
    }
    assert not loaded & idle
