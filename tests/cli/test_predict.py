"""avsc predict: the timeline in all formats, of media of all kinds."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from support import AVSC, real, run_commands

from avsc_e2e.clip import SCENES


@pytest.fixture(scope="module")
def predictions(trained, media):
    """The hybrid's timeline of the folder as a table, as objects and as rows."""
    checkpoint = trained.folder("hybrid")  # a folder of a run stands for its checkpoint
    lines = [[AVSC, "predict", checkpoint, media, "--format", form] for form in ("table", "jsonl", "tsv")]
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
    spans = [line.split(" s ")[0].split() for line in lines if line.startswith(" ") and "scenes: " not in line]
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
        [AVSC, "predict", trained.checkpoint("hybrid"), clip, wav, "--format", "jsonl"],
    )
    assert [command.status for command in done] == [0, 0, 2, 0]
    assert "from audio only" in done[0].out
    assert "from video only" in done[1].out
    assert done[2].err == f"error: {media / 'mute.mkv'}: has only video, and the model wants audio\n"
    records = [json.loads(line) for line in done[3].out.splitlines()]
    assert [record["modalities"] for record in records] == [["audio", "video"], ["audio"]]
    assert [len(record["timeline"]) for record in records] == [10, 10]
