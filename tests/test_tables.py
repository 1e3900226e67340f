"""Recordings from, and results to, pandas tables and Hugging Face datasets."""

import numpy as np
import pytest
import soundfile

from avsc_e2e.clip import Corpus, Row
from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.errors import AvscError
from avsc_e2e.outputs.output import SystemOutput
from avsc_e2e.segments import Prediction, SceneSegment
from avsc_e2e.tables import rows_from_dataset, to_pandas


@pytest.fixture
def sounds(tmp_path):
    paths = []
    for name in ("a", "b"):
        paths.append(str(tmp_path / f"{name}.wav"))
        soundfile.write(paths[-1], np.random.default_rng(ord(name)).normal(0, 0.1, 4000), 8000)
    return paths


def test_a_corpus_becomes_a_table_that_is_read_back(sounds, tmp_path):
    pytest.importorskip("pandas")
    one, two = (
        Row(path, path, "", scene, f"place {scene}", duration=0.5) for path, scene in zip(sounds, "xy", strict=True)
    )
    both = Row("c", sounds[0], str(tmp_path / "c.mp4"), "x")
    frame = to_pandas(Corpus(("x", "y"), (one,), (), (two,)))
    assert frame.columns.tolist() == ["file", "audio", "label", "group", "duration", "split"]
    assert frame.split.tolist() == ["train", "test"]
    assert to_pandas([both]).loc[0, ["file", "audio"]].tolist() == [both.video, both.audio]
    (tmp_path / "split.csv").write_text(frame.assign(split="train").to_csv(index=False))
    rows = read_corpus(tmp_path / "split.csv", validation=0).train
    assert [(row.audio, row.scene, row.location, row.duration) for row in rows] == [
        (sounds[0], "x", "place x", 0.5),
        (sounds[1], "y", "place y", 0.5),
    ]


def test_predictions_and_outputs_as_tables():
    pytest.importorskip("pandas")
    good = Prediction("a.mp4", [], [SceneSegment(0.0, 2.0, "x", 0.9), SceneSegment(2.0, 3.0, "y", 0.6)])
    frame = to_pandas([good, Prediction("b.mp4", [], [], "b.mp4: cut off")])
    assert frame.path.tolist() == ["a.mp4", "a.mp4", "b.mp4"]
    assert frame.scene.tolist()[:2] == ["x", "y"]
    assert frame.end.tolist()[:2] == [2.0, 3.0]
    assert frame.error.tolist() == ["", "", "b.mp4: cut off"]
    assert len(to_pandas(good)) == 2
    output = SystemOutput(("a",), ("x", "y"), np.array([[0.25, 0.75]]), np.array([3.0]))
    assert to_pandas(output).loc[0].tolist() == ["a", 3.0, 0.25, 0.75]


def test_rows_of_a_dataset_of_paths_and_of_bytes(sounds, tmp_path):
    datasets = pytest.importorskip("datasets")
    inside = {"path": None, "bytes": open(sounds[1], "rb").read()}  # noqa: SIM115
    table = datasets.Dataset.from_dict({"sound": [{"path": sounds[0], "bytes": None}, inside], "scene": [1, 0]})
    table = table.cast_column("sound", datasets.Audio())
    table = table.cast_column("scene", datasets.ClassLabel(names=["street", "park"]))
    first, second = rows_from_dataset(table, tmp_path / "media", label="scene")
    assert (first.audio, first.video, first.scene) == (sounds[0], "", "park")
    assert second.scene == "street"
    np.testing.assert_array_equal(soundfile.read(second.audio)[0], soundfile.read(sounds[1])[0])
    with pytest.raises(AvscError, match=r"no column 'label'.*sound, scene"):
        rows_from_dataset(table, tmp_path / "media")
    with pytest.raises(AvscError, match="none of the columns scene is of videos or audio"):
        rows_from_dataset(table.remove_columns("sound"), tmp_path / "media", label="scene")
    videos = datasets.Dataset.from_dict({"clip": ["x.mp4"], "label": ["beach"]}).cast_column("clip", datasets.Video())
    (row,) = rows_from_dataset(videos, tmp_path / "media")
    assert row.video.endswith("/x.mp4")
    assert row.scene == "beach"
