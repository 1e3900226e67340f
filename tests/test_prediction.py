"""Prediction of any media: what is bad costs itself alone, files share batches, timelines are smoothed and merged."""

import csv
import io
import json
import os
import signal
import subprocess
import sys

import av
import fsspec
import numpy as np
import pytest
import soundfile
import torch
from support import click, flat, write_video

import avsc_e2e
from avsc_e2e import inference
from avsc_e2e.cli import main
from avsc_e2e.clip import Row
from avsc_e2e.data.media import read_audio, read_frames
from avsc_e2e.errors import AvscError, MediaError
from avsc_e2e.models.weights.checkpoint import load_model, save_model
from avsc_e2e.models.zoo.catalogue import create_model
from avsc_e2e.prediction import SceneStream, predictor, reading, recordings, timeline
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
def test_files_share_batches_and_are_as_alone(folder, batch_size, monkeypatch):
    sizes, put_together = [], predictor.collate
    monkeypatch.setattr(predictor, "collate", lambda clips: (sizes.append(len(clips)), put_together(clips))[1])
    found = avsc_e2e.predict(folder / "model.safetensors", folder / "media", batch_size=batch_size)
    assert [p.path[-5:] for p in found] == ["a.mp4", "b.mp4", "c.wav", "d.mp4"]
    assert sizes == {1: [1] * 7, 4: [4, 3], 64: [7]}[batch_size]  # of 3, 3 and 1 windows
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
    decode = recordings.decode_windows

    def spoilt(path, **options):
        for window in decode(path, **options):
            yield window._replace(frames=MediaError(str(path), "damaged")) if window.start == 1.0 else window

    monkeypatch.setattr(recordings, "decode_windows", spoilt)
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
        assert told(form, "--out", str(out)) == f"output: {out} (3 recordings)\n"
        rows = list(csv.DictReader(io.StringIO(out.read_text()), delimiter=delimiter))
        assert len(rows) == sum(len(line["timeline"]) for line in lines)
        assert rows[0]["scene_label"] == lines[0]["timeline"][0]["scene"]


def test_the_recipes_precision_is_that_of_prediction(folder, tmp_path, monkeypatch):
    """Evaluation and prediction compute as the recipe says, not in fp32 whatever it says, and note no gradients."""
    path = save_model(
        load_model(folder / "model.safetensors"), tmp_path / "m.safetensors", {"recipe": '{"precision": "bf16"}'}
    )
    asked, whole = [], inference.head_probabilities

    def look(model, batch, views):
        asked.append((torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled()))
        return whole(model, batch, views)

    monkeypatch.setattr(predictor, "head_probabilities", look)
    monkeypatch.setattr(inference, "head_probabilities", look)
    low = avsc_e2e.predict(path, folder / "media" / "a.mp4")[0].windows[0].probabilities
    full = avsc_e2e.predict(path, folder / "media" / "a.mp4", precision="fp32")[0].windows[0].probabilities
    rows = [Row("a", *[str(folder / "media" / "a.mp4")] * 2, duration=2.5)]
    model = load_model(path)
    inference.predict_rows(model, inference.evaluation_dataset(model, rows), precision="bf16")
    assert asked == [(True, True), (False, True), (True, True)]
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


@pytest.fixture(scope="module")
def real_video(folder):
    """A clip whose frames have the size that the model asks for, with audio of another rate than the model's."""
    side = inference.sampling(load_model(folder / "model.safetensors").architecture).short_side
    draw = np.random.default_rng(0)
    frames = [draw.integers(0, 256, (side, side + 8, 3), np.uint8) for _ in range(37)]
    sound = draw.normal(0, 0.1, (2, round(3.7 * 44_100))).astype(np.float32)
    return write_video(folder / "real.mkv", frames, rate=10, sound=sound, sample_rate=44_100)


@pytest.mark.parametrize("as_they_come", ["arrays", "frames of PyAV"])
@pytest.mark.parametrize("hop", [0.0, 0.4])
def test_a_stream_is_decided_as_its_file_is(folder, real_video, hop, as_they_come):
    (whole,) = avsc_e2e.predict(folder / "model.safetensors", real_video, hop=hop)
    stream = SceneStream(folder / "model.safetensors", sample_rate=44_100, hop=hop)
    found, firsts = [], []
    sound = read_audio(real_video, 0.0, 3.7, 44_100)
    if as_they_come == "arrays":
        shown = enumerate(read_frames(real_video, [(i + 0.5) / 10 for i in range(37)]))
        frames = [(frame, number / 10) for number, frame in shown]
    else:
        container = av.open(str(real_video))
        frames = [(frame, frame.time) for frame in container.decode(video=0)]
    for number, (frame, time) in enumerate(frames):
        found += stream.hear(sound[:, number * 4410 : (number + 1) * 4410])
        found += stream.see(frame, time)
        firsts.append(len(found))
    assert firsts[9:12] == [0, 1, 1] or firsts[9:13] == [0, 0, 1, 1]  # as soon as it is over, and not at the end
    found += stream.close(whole.windows[-1].end)
    assert [w[:3] for w in found] == [w[:3] for w in whole.windows]
    np.testing.assert_allclose([w.probabilities for w in found], [w.probabilities for w in whole.windows], atol=1e-5)


def test_a_stream_of_one_modality_and_of_nonsense(folder):
    stream = SceneStream(folder / "model.safetensors", sample_rate=48_000, video=False)
    found = stream.hear(np.zeros((1, 60_000), np.int16))
    assert [(w.start, w.modalities) for w in found] == [(0.0, ("audio",))]
    assert [(w.start, w.end) for w in stream.close()] == [(0.25, 1.25)]
    with pytest.raises(AvscError, match=r"give \(C, N\)"):
        stream.hear(np.zeros(100, np.float32))
    with pytest.raises(AvscError, match="has none of audio and video"):
        SceneStream(folder / "model.safetensors", video=False)
    seeing = SceneStream(folder / "model.safetensors")
    seeing.see(flat(1), 1.0)
    with pytest.raises(AvscError, match=r"a frame at 0\.500 s after one at 1\.000 s"):
        seeing.see(flat(1), 0.5)


def test_bytes_urls_and_arrays_are_predicted_as_their_file(folder, real_video):
    warm = avsc_e2e.Predictor(folder / "model.safetensors")
    expected = warm(real_video)
    fsspec.filesystem("memory").pipe("/bucket/real.mkv", real_video.read_bytes())
    frames = read_frames(real_video, [(i + 0.5) / 10 for i in range(37)])
    arrays = avsc_e2e.Recording(frames, 10.0, read_audio(real_video, 0.0, 3.7, 44_100), 44_100)
    names = ["recording 1", "memory://bucket/real.mkv", "recording"]
    found = list(warm.all([real_video.read_bytes(), "memory://bucket/real.mkv", arrays]))
    assert [one.path for one in found] == names
    for one in found:
        assert one.error == ""
        assert [w.start for w in one.windows] == pytest.approx([w.start for w in expected.windows], abs=0.02)
        np.testing.assert_allclose(
            [w.probabilities for w in one.windows[:3]], [w.probabilities for w in expected.windows[:3]], atol=1e-5
        )
    bad = list(warm.all([b"no media", "memory://bucket/absent.mp4", avsc_e2e.Recording()]))
    assert [one.error.split(" (")[0] for one in bad] == [
        "recording 1: is not a media file that can be read, or it is cut off",
        "memory://bucket/absent.mp4: no such file",
        "recording: holds neither frames nor samples",
    ]


def test_worker_processes_change_nothing_and_one_that_dies_costs_its_file(folder, monkeypatch):
    alone = avsc_e2e.predict(folder / "model.safetensors", folder / "media", hop=0.25)
    shown = []
    shared = list(
        avsc_e2e.Predictor(folder / "model.safetensors", hop=0.25, workers=2).all(
            [folder / "media", Killer("killer"), folder / "media" / "a.mp4"], lambda *told: shown.append(told)
        )
    )
    assert [p.path for p in shared] == [*(p.path for p in alone), "killer", alone[0].path]
    assert shared[4].error == f"killer: {reading.DIED}"
    for one, other in zip([*shared[:4], shared[5]], [*alone, alone[0]], strict=True):
        assert one.error == other.error
        assert [w[:3] for w in one.windows] == [w[:3] for w in other.windows]
        for mine, theirs in zip(one.windows, other.windows, strict=True):
            np.testing.assert_allclose(mine.probabilities, theirs.probabilities, rtol=1e-4, atol=1e-6)
    done, total, note = shown[-1]
    assert (done, note) == (total, "6 of 6 recordings")
    assert [told[0] for told in shown] == sorted(told[0] for told in shown)


class Killer(recordings.Recording):
    """A recording whose decoder crashes."""

    def __init__(self, name):
        super().__init__(name=name)

    def opened(self):
        os.kill(os.getpid(), signal.SIGKILL)


def test_windows_come_as_they_are_decided(folder):
    windows = avsc_e2e.Predictor(folder / "model.safetensors", batch_size=1).windows(folder / "media" / "a.mp4")
    assert next(windows).start == 0.0
    assert [w.start for w in windows] == [1.0, 1.5]
    assert len(timeline(load_model(folder / "model.safetensors"), folder / "media" / "a.mp4", hop=0.5)) == 4
    with pytest.raises(AvscError, match=r"d\.mp4"):
        next(avsc_e2e.Predictor(folder / "model.safetensors").windows(folder / "media" / "d.mp4"))
    with pytest.raises(AvscError, match="workers -1: give 0 or more"):
        avsc_e2e.Predictor(folder / "model.safetensors", workers=-1)
