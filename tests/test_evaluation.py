"""A checkpoint on its test set: as recorded, and without a modality, with noise, in the dark."""

import json

import pytest

from avsc_e2e import evaluation
from avsc_e2e.cli import main
from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.errors import AvscError
from avsc_e2e.evaluation import evaluate_checkpoint
from avsc_e2e.inference import evaluation_dataset, predict_rows
from avsc_e2e.models.ensemble import Ensemble, Member
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.checkpoint import load_model, save_model
from avsc_e2e.models.zoo.own import tiny
from avsc_e2e.outputs.protocols import scores_of
from avsc_e2e.training.recipe import Recipe
from avsc_e2e.transforms.disturbance import Disturbances


@pytest.fixture(scope="module")
def found(trained, tmp_path_factory):
    asked = Disturbances(("audio", "video"), (20.0, 0.0), (0.5,))
    return evaluate_checkpoint(trained.folder("hybrid"), out=tmp_path_factory.mktemp("out"), disturbances=asked)


def test_as_recorded_is_what_the_stage_said(found, trained):
    before = json.loads((trained.folder("hybrid") / "evaluation" / "scores.json").read_text())
    now = json.loads((found.folder / "scores.json").read_text())
    assert now.keys() == before.keys()
    for head, protocols in now.items():
        for protocol, figures in protocols.items():
            assert figures["log_loss"] == pytest.approx(before[head][protocol]["log_loss"], abs=1e-5)
    for curve in found.robustness:
        assert curve.log_loss["decision"][0] == found.scores["decision"]["1 s segments"].log_loss


def test_without_a_modality_is_as_recordings_that_lack_it(found, trained, toy_city):
    missing = found.robustness[0]
    assert missing.levels == ("as recorded", "without audio", "without video")
    rows = [row._replace(audio="") for row in read_corpus(toy_city).test]
    model = load_model(trained.folder("hybrid"))
    output = predict_rows(model, evaluation_dataset(model, rows))["decision"]
    scores = scores_of(output, {row.file: row.scene for row in rows}, rows)["1 s segments"]
    assert missing.log_loss["decision"][1] == pytest.approx(scores.log_loss, abs=1e-5)
    assert missing.accuracy["decision"][1] == scores.accuracy


def test_curves_are_printed_and_in_the_report(found):
    _, noise, dark = found.robustness
    assert noise.levels == ("as recorded", "20 dB", "0 dB")
    assert dark.levels == (0.0, 50.0)
    assert len({*noise.log_loss["decision"]}) == 3
    table, page = found.table("hybrid"), (found.folder / "report.html").read_text()
    for curve in (noise, dark):
        for loss in curve.log_loss["decision"]:
            assert f"{loss:8.3f}" in table
            assert f"<td>{loss:.3f}</td>" in page
    assert "White noise" in page


def test_ensemble_on_a_folder_without_a_test_part(toy_city, tmp_path):
    from dataclasses import replace

    arch = replace(tiny(), size=32, classes=("bus", "park"), audio="")
    path = save_model(Ensemble(arch.classes, [Member("eye", arch)], {"eye": ("eye",)}), tmp_path / "model.safetensors")
    with pytest.raises(AvscError, match="does not say what it was trained on; name recordings"):
        evaluate_checkpoint(path)
    for scene in arch.classes:
        for row in read_corpus(toy_city).test:
            if row.scene == scene:
                (tmp_path / "own" / scene).mkdir(parents=True)
                (tmp_path / "own" / scene / "one.mp4").symlink_to(row.video)
    found = evaluate_checkpoint(path, str(tmp_path / "own"), disturbances=Disturbances(dark=(1.0,)))
    assert found.folder == tmp_path / "evaluation"
    assert found.scores["decision"]["1 s segments"].log_loss == pytest.approx(0.6931, abs=1e-4)  # heads of zeros
    assert found.robustness[0].log_loss["decision"] == pytest.approx((0.6931, 0.6931), abs=1e-4)


def test_command(trained, tmp_path, capsys):
    checkpoint = str(trained.checkpoint("video"))
    lines = (["--dark", "0.5", "--out", str(tmp_path)], ["--noise-db", "10"])
    status, told = [], []
    for line in lines:
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", checkpoint, *line])
        status.append(ended.value.code)
        told.append(capsys.readouterr())
    assert status == [0, 2]
    assert "Darkness: log loss and accuracy of 1 s segments" in told[0].out
    assert (tmp_path / "report.html").is_file()
    assert told[1].err == "error: --noise-db: the model takes no audio; leave it out\n"


def test_a_stage_is_evaluated_as_it_was_trained(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(evaluation, "predict_rows", lambda model, dataset, **options: asked.update(options))
    plan = Recipe("stage", model=tiny(), precision="bf16", batch_size=7, runs=str(tmp_path))
    evaluation.predict_part(plan, SceneNet(tiny()), [], None)
    assert (asked["precision"], asked["batch_size"], asked["test_time"]) == ("bf16", 7, plan.test_time)
