"""The decoder that is asked for is the one that reads, from a recipe, prediction and `prepare` to each file."""

from dataclasses import replace

import numpy as np
import pytest
from numbered import RECIPES, numbers, write

import avsc_e2e
from avsc_e2e.cli import main
from avsc_e2e.data.media import decode_frames, decode_windows, read_frames
from avsc_e2e.data.store.prepare import prepare
from avsc_e2e.data.store.reader import open_store
from avsc_e2e.data.store.shard import Options
from avsc_e2e.errors import AvscError
from avsc_e2e.evaluation import evaluate
from avsc_e2e.models.weights.checkpoint import save_model
from avsc_e2e.models.zoo.catalogue import create_model
from avsc_e2e.models.zoo.own import tiny
from avsc_e2e.training.recipe import Data, Heads, Recipe
from avsc_e2e.training.run import corpus_of, model_file, train_dataset

REFUSED = "its video ends at -"
"""What decord's refusal of a video becomes."""


def recipe_file(folder, name):
    return write(folder, next(recipe for recipe in RECIPES if recipe.name == name), 75)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of one video each, which decord refuses because it has no time stamps."""
    root = tmp_path_factory.mktemp("decoder") / "set"
    for part in ("train", "test"):
        for scene in ("a", "b"):
            (root / part / scene).mkdir(parents=True)
            recipe_file(root / part / scene, "h264_no_times.avi").rename(root / part / scene / f"{part}_{scene}.avi")
    return root


def test_one_pass_through_decord_is_its_random_reading(tmp_path):
    path = recipe_file(tmp_path, "h264.mp4")
    times = [0.1, 0.5, 0.9, 1.1, 1.5, 1.9, 2.1, 2.5, 2.9]
    for decoder in ("auto", "pyav", "decord"):
        assert numbers(read_frames(path, times[::-1], 96, decoder)) == [72, 62, 52, 47, 37, 27, 22, 12, 2]
        windows = list(decode_windows(path, frames=(0.1, 0.5, 0.9), short_side=96, audio=False, decoder=decoder))
        assert numbers(np.concatenate([window.frames for window in windows])) == [2, 12, 22, 27, 37, 47, 52, 62, 72]
        found = [(numbers([frame])[0], spans) for frame, spans, _ in decode_frames(path, 50.0, 96, decoder)]
        assert found == [(number, 2) for number in range(75)]


@pytest.mark.parametrize(("decoder", "read"), [("auto", True), ("pyav", True), ("decord", False)])
def test_the_decoder_travels(folder, tmp_path, decoder, read):
    stage = Recipe(
        "stage", model=replace(tiny(), audio="", fusion="", classes=("a", "b")), heads=Heads(video=1.0),
        data=Data(root=str(folder), validation="0", on_bad="skip", workers=0, decoder=decoder), pretrained=False,
        runs=str(tmp_path / "runs"),
    )  # fmt: skip
    attempt = train_dataset(stage, corpus_of(stage)).attempt(0)
    assert (attempt.clip is not None, any(REFUSED in bad.reason for bad in attempt.bad)) == (read, not read)
    model = create_model("tiny", audio="", fusion="", classes=("a", "b")).eval()
    model_file(stage).parent.mkdir(parents=True)
    save_model(model, model_file(stage), {})
    if read:
        assert len(evaluate(stage).outputs["decision"].files) == 4  # of 2.96 s
    else:
        with pytest.raises(AvscError, match="segments cannot be read"):
            evaluate(stage)
    predictor = avsc_e2e.Predictor(model, decoder=decoder)
    (found,) = predictor.all([folder / "train" / "a" / "train_a.avi"])
    assert (len(found.windows), REFUSED in found.error) == ((3, False) if read else (0, True))
    done = prepare(folder, tmp_path / "store", Options(64, 5.0, 90, decoder), workers=1)
    assert [REFUSED in reason for *_, reason in done.bad] == [True] * (0 if read else 4)
    if decoder == "auto":
        with pytest.raises(AvscError, match="was prepared with decoder auto, and decord is asked for"):
            prepare(folder, tmp_path / "store", Options(64, 5.0, 90, "decord"), workers=1)
        assert len(open_store(tmp_path / "store").recordings) == 4


def test_the_flag(folder, tmp_path, capsys):
    model = create_model("tiny", audio="", fusion="", classes=("a", "b")).eval()
    save_model(model, tmp_path / "model.safetensors", {})
    line = ["predict", str(tmp_path / "model.safetensors"), str(folder / "test" / "a")]
    for words, status in (((), 0), (("--decoder", "decord"), 2)):
        with pytest.raises(SystemExit) as ended:
            main([*line, *words])
        assert ended.value.code == status
    assert REFUSED in capsys.readouterr().err
