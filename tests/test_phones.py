"""A folder of recordings as phones, cameras and browsers write them is checked, prepared, trained on, evaluated and
predicted without losing a file."""

from dataclasses import replace

import pytest
from phones import write_phones

import avsc_e2e
from avsc_e2e.data.check.check import check
from avsc_e2e.data.store.prepare import prepare
from avsc_e2e.evaluation import evaluate
from avsc_e2e.models.zoo.own import tiny
from avsc_e2e.training.recipe import Data, Heads, Optim, Recipe
from avsc_e2e.training.run import corpus_of, model_file
from avsc_e2e.training.trainer import train


@pytest.fixture(scope="module")
def phones(tmp_path_factory):
    root = tmp_path_factory.mktemp("phones") / "set"
    return root, write_phones(root)


def test_no_file_is_lost(phones, tmp_path):
    root, files = phones
    found = check(root, test=0.25, validation=0.25)
    assert (found.problems, found.files) == ((), 16)
    assert any("2 of 16 recordings have no audio" in note for note in found.notes)
    done = prepare(root, tmp_path / "store", workers=1)
    assert (done.clips, done.bad) == (16, ())
    stage = Recipe(
        "stage", model=tiny(), data=Data(root=str(root), validation="0.25", test=0.25, windows=2, workers=0),
        heads=Heads(1.0, 1.0, 1.0), optim=Optim(warmup=0.0), epochs=1, batch_size=4, pretrained=False,
        runs=str(tmp_path / "runs"),
    )  # fmt: skip
    corpus = corpus_of(stage)
    assert [len(part) for part in (corpus.train, corpus.validation, corpus.test)] == [10, 2, 4]
    train(stage)
    assert not (model_file(stage).parent / "bad_media.csv").exists()
    outputs = evaluate(stage).outputs["decision"]
    assert set(outputs.files) == {row.file for row in corpus.test}
    predictions = avsc_e2e.predict(model_file(stage), root)
    assert sorted(one.path for one in predictions) == sorted(map(str, files))
    assert [one.error for one in predictions] == [""] * 16
    assert {len(one.windows) for one in predictions} == {2}
    with_audio = [one.path for one in predictions if "audio" in one.windows[0].modalities]
    assert len(with_audio) == 14
    video = replace(stage, name="video", model=replace(tiny(), audio="", fusion=""), heads=Heads(video=1.0),
                    data=replace(stage.data, store=str(tmp_path / "store")))  # fmt: skip
    train(video)
    assert set(evaluate(video).outputs["decision"].files) == {row.file for row in corpus_of(video).test}
