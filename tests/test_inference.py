"""A calibration that rides in a checkpoint acts where the checkpoint is used."""

import json

import numpy as np
import pytest
import torch
from support import AVSC, click, flat, run_commands, write_video

from avsc_e2e.clip import Corpus, Row
from avsc_e2e.data.dataset import Key
from avsc_e2e.data.store.prepare import prepare
from avsc_e2e.data.store.reader import open_store
from avsc_e2e.errors import AvscError
from avsc_e2e.inference import CALIBRATION, evaluation_dataset, predict_rows, stored_calibration
from avsc_e2e.models.weights.checkpoint import add_notes, load_model, save_model
from avsc_e2e.models.zoo.catalogue import create_model
from avsc_e2e.outputs.calibration import Calibration
from avsc_e2e.prediction import predict, recordings, timeline
from avsc_e2e.training.recipe import Data, Recipe
from avsc_e2e.training.run import train_dataset
from avsc_e2e.transforms.augmentation import UNCHANGED
from avsc_e2e.transforms.frames import TestTime


@pytest.fixture
def checkpoint(tmp_path):
    return save_model(create_model("tiny").eval(), tmp_path / "model.safetensors", {"recipe": "{}"})


def test_a_checkpoint_without_a_calibration_has_none(checkpoint):
    assert stored_calibration(checkpoint) is None


def test_a_stored_temperature_sharpens_the_timeline(checkpoint, tmp_path):
    video = write_video(tmp_path / "a.mp4", [flat(10 * i) for i in range(20)], rate=10, sound=click(0.5, 2.0))
    model = load_model(checkpoint)
    plain = timeline(model, video)
    classes = model.architecture.classes
    exponent = 2.5
    values = {"calibration": "temperature", "classes": list(classes), "weights": [[exponent] * 10], "bias": [0.0] * 10}
    Calibration.from_json(values)
    add_notes(checkpoint, {CALIBRATION: json.dumps(values)})
    rule = stored_calibration(checkpoint)
    sharp = timeline(load_model(checkpoint), video, calibration=rule)
    assert len(sharp) == len(plain) == 2
    for before, after in zip(plain, sharp, strict=True):
        expected = before.probabilities**exponent
        np.testing.assert_allclose(after.probabilities, expected / expected.sum(), rtol=1e-6)
        assert after.modalities == ("audio", "video")


def test_what_is_no_calibration_is_refused(checkpoint):
    add_notes(checkpoint, {CALIBRATION: json.dumps({"calibration": "magic"})})
    with pytest.raises(AvscError, match="calibration"):
        stored_calibration(checkpoint)


def test_a_store_is_predicted_like_its_media(checkpoint, tmp_path):
    (tmp_path / "set" / "scene").mkdir(parents=True)
    for name, first in (("a", 10), ("b", 120)):
        frames = [flat(first + 5 * i) for i in range(20)]
        for frame in frames:
            frame[:, :20] //= 3  # another frame when mirrored
        write_video(tmp_path / "set" / "scene" / f"{name}.mp4", frames, rate=10, sound=click(0.5, 2.0))
    prepare(tmp_path / "set", tmp_path / "store", workers=1)
    model = load_model(checkpoint)
    windows = [found.windows for found in predict(model, [tmp_path / "store", tmp_path / "set"])]
    assert [len(one) for one in windows] == [2] * 4
    for stored, direct in zip(windows[:2], windows[2:], strict=True):
        assert [w[:3] for w in stored] == [w[:3] for w in direct]
        assert stored[0].modalities == ("audio", "video")
        for one, other in zip(stored, direct, strict=True):
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=2e-3)  # of JPEGs
    views = TestTime(flip=True, crops=3)
    [predicted, _] = predict(checkpoint, tmp_path / "store", test_time=views)
    store = open_store(tmp_path / "store")
    rows = [store.measured(Row("scene/a"))]
    expected = predict_rows(
        model, evaluation_dataset(model, rows, store=store, test_time=views), test_time=views
    )["decision"]  # fmt: skip
    for one, other, plain in zip(predicted.windows, expected.probabilities, windows[0], strict=True):
        np.testing.assert_allclose(one.probabilities, other, atol=1e-6)
        assert np.abs(one.probabilities - plain.probabilities).max() > 1e-5


def test_options_hold_for_a_store_too(checkpoint, tmp_path):
    """Hop, a bad second and precision: a store is predicted as its media are."""
    (tmp_path / "set" / "scene").mkdir(parents=True)
    frames = [flat(100 + 5 * i) for i in range(30)]
    path = write_video(tmp_path / "set" / "scene" / "a.mp4", frames, rate=10, sound=click(0.5, 3.0))
    prepare(tmp_path / "set", tmp_path / "store", workers=1)
    [stored] = predict(checkpoint, tmp_path / "store", hop=0.5, smooth="median")
    [direct] = predict(checkpoint, path, hop=0.5, smooth="median")
    assert [w[:3] for w in stored.windows] == [w[:3] for w in direct.windows]
    assert [w.start for w in stored.windows] == [0.0, 0.5, 1.0, 1.5, 2.0]
    [low] = predict(checkpoint, tmp_path / "store", hop=0.5, precision="bf16")
    [full] = predict(checkpoint, tmp_path / "store", hop=0.5)
    assert not np.array_equal(low.windows[0].probabilities, full.windows[0].probabilities)
    store = recordings.opened_store(str(tmp_path / "store"))
    sizes = store.recordings["scene/a"].sizes
    sizes[len(sizes) // 2] = 0  # as where the frame at 1.5 s could not be decoded
    [skipped] = predict(checkpoint, tmp_path / "store")
    assert [w.start for w in skipped.windows] == [0.0, 2.0]
    assert "no frame at 1.50 s" in skipped.error
    [masked] = predict(checkpoint, tmp_path / "store", on_bad="mask")
    assert [w.modalities for w in masked.windows] == [("audio", "video"), ("audio",), ("audio", "video")]
    with pytest.raises(AvscError, match=r"no frame at 1\.50 s"):
        predict(checkpoint, tmp_path / "store", on_bad="raise")


def test_tasks_of_slurm_without_torchrun_predict_the_whole(checkpoint, tmp_path, monkeypatch):
    video = write_video(tmp_path / "a.mp4", [flat(10 * i) for i in range(20)], rate=10, sound=click(0.5, 2.0))
    model = load_model(checkpoint)
    rows = [Row("a", str(video), str(video), duration=2.0)]
    whole = predict_rows(model, evaluation_dataset(model, rows))["decision"]
    monkeypatch.setenv("SLURM_PROCID", "1")
    found = predict_rows(model, evaluation_dataset(model, rows))["decision"]
    assert found.files == whole.files == ("a", "a")
    np.testing.assert_array_equal(found.probabilities, whole.probabilities)


def test_views_are_averaged(checkpoint, tmp_path):
    half = np.concatenate([np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)], axis=1)
    video = write_video(tmp_path / "a.mp4", [half] * 20, rate=10, sound=click(0.5, 2.0))
    model = load_model(checkpoint)
    plain, flipped = (timeline(model, video, test_time=TestTime(flip=flip)) for flip in (False, True))
    assert not np.allclose(plain[0].probabilities, flipped[0].probabilities, atol=1e-6)
    [done] = run_commands([AVSC, "predict", checkpoint, video, "--format", "tsv", "--flip", "--views", "2"])
    row = done.out.splitlines()[1].split("\t")
    both = timeline(model, video, test_time=TestTime(flip=True, views=2))
    np.testing.assert_allclose([float(p) for p in row[5:]], both[0].probabilities, atol=1e-6)


@pytest.mark.parametrize(("crop", "same"), [(0.5, True), (1.0, False)])
def test_the_crop_of_a_model_holds_everywhere(tmp_path, crop, same):
    """Two recordings differ outside the centre of their frames, which training, evaluation, prediction and a store do
    not show a model with crop 0.5."""
    folder = tmp_path / "set" / "scene"
    folder.mkdir(parents=True)
    centre = np.random.default_rng(0).integers(60, 200, (5, 5, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    for name, border in (("a", 0), ("b", 255)):
        frame = np.full((64, 64, 3), border, np.uint8)
        frame[12:52, 12:52] = centre
        write_video(folder / f"{name}.mp4", [frame] * 10, rate=10, pixels="yuv444p")
    model = create_model("tiny", audio="", size=32, crop=crop).eval()
    with torch.no_grad():  # a random net sees little
        for weights in model.heads.parameters():
            weights.mul_(100)
    rows = tuple(Row(f"scene/{name}", scene="airport", video=folder / f"{name}.mp4", duration=1.0) for name in "ab")
    recipe = Recipe("custom/a", model.architecture, Data(str(tmp_path / "set")), UNCHANGED)
    corpus = Corpus(model.architecture.classes, rows, (), ())
    prepare(tmp_path / "set", tmp_path / "store", workers=1)
    store = open_store(tmp_path / "store")
    for dataset in (
        evaluation_dataset(model, rows),
        evaluation_dataset(model, rows, store=store),
        train_dataset(recipe, corpus),
    ):
        one, other = (dataset[Key(0, index)].video.int() for index in range(2))
        assert one.shape[-2:] == (32, 32)
        assert (float((one - other).abs().float().quantile(0.9)) < 12) == same
    for given in (folder, tmp_path / "store"):
        one, other = (found.windows[0].probabilities for found in predict(model, given))
        assert (np.abs(one - other).max() < 2e-3) == same


def test_training_windows_have_a_length_of_their_own(tmp_path):
    """`--data.window` is the length in training, `--model.window` that of evaluation."""
    path = write_video(tmp_path / "a.mp4", [flat(10 * i) for i in range(20)], rate=10, sound=click(0.5, 2.0))
    rows = (Row("a", audio=path, scene="airport", duration=2.0),)
    model = create_model("tiny", video="")
    recipe = Recipe("custom/a", model.architecture, Data(str(tmp_path), window=1.5), UNCHANGED)
    training = train_dataset(recipe, Corpus(model.architecture.classes, rows, (), ()))
    evaluation = evaluation_dataset(model, rows)
    assert [one[Key(0, 0)].audio.shape[-1] for one in (training, evaluation)] == [72_000, 48_000]
    assert (len(training), len(evaluation)) == (1, 2)
