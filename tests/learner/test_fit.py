"""`fit` from folders to a checkpoint, on audio alone, and one clear line for what cannot be learnt from."""

import csv

import numpy as np
import pytest
import soundfile

from avsc_e2e.errors import AvscError
from avsc_e2e.learner import run as learner
from avsc_e2e.learner.embeddings import embed, members_at_hand
from avsc_e2e.learner.fit import fit
from avsc_e2e.models.weights.checkpoint import load_model
from avsc_e2e.prediction import timeline

BANDS = [member for member in members_at_hand() if member.name == "log-mel"]


def test_audio_alone_ends_in_a_model(tmp_path, tones):
    root = tones(tmp_path / "data", "train")
    tones(tmp_path / "data", "test", sources=2)
    learned = fit(root, minutes=1, out=tmp_path / "run", members=BANDS)
    assert learned.test["1 s segments"][1] == 1.0
    with open(tmp_path / "run/ladder.csv") as file:
        rungs = list(csv.DictReader(file))
    assert rungs[0]["rung"] == "log-mel probe"
    assert [rung["rung"] for rung in rungs if rung["chosen"] == "1"] == [learned.ladder.chosen]
    page = learned.report.read_text()
    assert f"avsc train {root} --minutes 1 --seed 0" in page
    assert "trained on 20 recordings" in page
    model = load_model(learned.checkpoint)
    assert model.architecture.modalities == ("audio",)
    windows = timeline(model, root / "test/low/low_s0_0.wav")
    assert model.architecture.classes[windows[0].probabilities.argmax()] == "low"
    with pytest.raises(AvscError, match="resume"):
        fit(root, minutes=1, out=tmp_path / "run", members=BANDS)


def test_a_resumed_run_computes_no_embedding_twice_and_keeps_what_nothing_beats(tmp_path, monkeypatch, tones):
    root, seen = tones(tmp_path / "data"), []
    learned = fit(root, minutes=1, out=tmp_path / "run", members=BANDS)
    before = learned.checkpoint.read_bytes()

    def noted(towers, segments, *rest):
        seen.append(len(segments))
        return embed(towers, segments, *rest)

    monkeypatch.setattr(learner, "TRIAL", 5)
    monkeypatch.setattr(learner, "embed", noted)
    again = fit(root, minutes=1, out=tmp_path / "run", members=BANDS, resume=True)
    assert max(seen) < 20
    assert learned.checkpoint.read_bytes() == before
    assert again.ladder.chosen == learned.ladder.chosen
    assert [rung.name for rung in again.ladder.rungs] == [rung.name for rung in learned.ladder.rungs]
    soundfile.write(root / "low/low_s0_9.wav", np.zeros(16000) + 0.01, 16000)
    fit(root, minutes=1, out=tmp_path / "run", members=BANDS, resume=True)
    assert seen[-1] == 1
    with np.load(tmp_path / "run/embeddings.npz") as whole:
        merged = dict(whole)
    (tmp_path / "run/embeddings.npz").write_bytes(b"cut off")
    fit(root, minutes=1, out=tmp_path / "run", members=BANDS, resume=True)
    assert seen[-1] == 21
    with np.load(tmp_path / "run/embeddings.npz") as anew:
        for name in ("segments", "present", "log-mel"):
            np.testing.assert_array_equal(merged[name], anew[name])


def test_a_usable_checkpoint_lies_there_before_all_segments_are_looked_at(tmp_path, monkeypatch, tones):
    root, seen = tones(tmp_path / "data"), []

    def noted(towers, segments, *rest):
        seen.append((len(segments), (tmp_path / "run/model.safetensors").exists()))
        return embed(towers, segments, *rest)

    monkeypatch.setattr(learner, "TRIAL", 10)
    monkeypatch.setattr(learner, "embed", noted)
    learned = fit(root, minutes=1, out=tmp_path / "run", members=BANDS)
    assert seen[-1] == (20, True)
    assert [count for count, there in seen if not there][-1] == 10
    names = [rung.name for rung in learned.ladder.rungs]
    assert names.count("log-mel probe") == 1
    assert learned.ladder.chosen.startswith("probes")


def test_where_no_time_is_left_the_first_look_stays(tmp_path, monkeypatch, tones):
    root = tones(tmp_path / "data")
    monkeypatch.setattr(learner, "TRIAL", 10)
    monkeypatch.setattr(learner.Run, "ending", 60.0)
    monkeypatch.setattr(learner, "LEARNT", 0.0)
    learned = fit(root, minutes=1, out=tmp_path / "run", members=BANDS)
    assert learned.ladder.chosen == "first look: best head"
    assert load_model(learned.checkpoint).architecture.classes == ("high", "low")


@pytest.mark.parametrize(
    ("classes", "sources", "message"),
    [(("one",), 3, "two or more are needed"), (("one", "two"), 0, "one")],
)
def test_what_cannot_be_learnt_from_is_one_line(tmp_path, classes, sources, message, tones):
    with pytest.raises(AvscError, match=message) as error:
        fit(tones(tmp_path / "data", classes=classes, sources=sources), out=tmp_path / "run", members=BANDS)
    assert "\n" not in str(error.value)


def test_two_classes_of_one_source_each(tmp_path, tones):
    learned = fit(tones(tmp_path / "data", sources=1), minutes=1, out=tmp_path / "run", members=BANDS)
    assert load_model(learned.checkpoint).architecture.classes == ("high", "low")


def test_a_budget_is_above_zero(tmp_path):
    with pytest.raises(AvscError, match="minutes"):
        fit(tmp_path, minutes=0, out=tmp_path / "run")
