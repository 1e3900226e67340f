"""The scikit-learn face, on tones that log-mel bands tell apart."""

import pickle

import numpy as np
import pytest
import soundfile
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GroupKFold, cross_val_score

from avsc_e2e.classifier import SceneClassifier
from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.data.sets.table import write_table
from avsc_e2e.errors import AvscError
from avsc_e2e.learner import run as learner
from avsc_e2e.learner.embeddings import members_at_hand


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """Paths, labels (numbers that sort otherwise as text) and groups of tones of two pitches."""
    folder, paths, labels, groups = tmp_path_factory.mktemp("tones"), [], [], []
    for label, pitch in ((9, 2000), (10, 300)):
        for source in range(6):
            time = np.arange(12000) / 8000
            draw = np.random.default_rng((label, source))
            path = folder / f"{label}_{source}.wav"
            soundfile.write(path, 0.2 * np.sin(2 * np.pi * pitch * time) + 0.05 * draw.normal(size=12000), 8000)
            paths.append(path)
            labels.append(label)
            groups.append(f"place {source}")
    return paths, np.array(labels), groups


@pytest.fixture(autouse=True)
def bands_alone(monkeypatch):
    members = [member for member in members_at_hand() if member.name == "log-mel"]
    monkeypatch.setattr(learner, "members_at_hand", lambda: members)


@pytest.fixture(scope="module")
def fitted(tones):
    paths, labels, groups = tones
    members = [member for member in members_at_hand() if member.name == "log-mel"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner, "members_at_hand", lambda: members)
        return SceneClassifier(minutes=1).fit(paths, labels, groups)


def test_labels_and_probabilities(fitted, tones):
    paths, labels, _ = tones
    assert fitted.classes_.tolist() == [9, 10]
    assert fitted.predict([*paths[::-1], paths[0]]).tolist() == [10] * 6 + [9] * 7
    probabilities = fitted.predict_proba(paths)
    assert probabilities.shape == (12, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (probabilities.argmax(axis=1) == (labels == 10)).all()
    assert fitted.score(paths, labels) == 1.0
    assert fitted.score(paths, 19 - labels) == 0.0
    assert fitted.predict_proba([]).shape == (0, 2)


def test_rows_of_a_corpus_and_tables_are_recordings_too(fitted, tones, tmp_path):
    paths, labels, groups = tones
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"file": paths, "label": labels, "group": groups})
    expected = fitted.predict_proba(paths)
    np.testing.assert_array_equal(fitted.predict_proba(frame), expected)
    np.testing.assert_array_equal(fitted.predict_proba(frame.file), expected)
    frame.to_csv(tmp_path / "files.csv", index=False)
    rows = read_corpus(tmp_path / "files.csv", validation=0, test=0).train
    assert {row.location for row in rows} == set(groups)
    np.testing.assert_array_equal(fitted.predict_proba(rows), expected)


def test_pickled_as_safetensors(fitted, tones):
    expected = fitted.predict_proba(tones[0])
    data = pickle.dumps(fitted)
    assert b"torch" not in data.replace(fitted.checkpoint_, b"")
    again = pickle.loads(data)
    np.testing.assert_array_equal(again.predict_proba(tones[0]), expected)
    assert again.get_params() == fitted.get_params()


def test_clone_is_not_fitted(fitted, tones):
    again = clone(fitted.set_params(seed=0))
    assert again.get_params() == {"minutes": 1, "out": None, "recipe": None, "seed": 0}
    with pytest.raises(NotFittedError):
        again.predict(tones[0])


def test_grouped_cross_validation(tones):
    paths, labels, groups = tones
    scores = cross_val_score(SceneClassifier(minutes=1), paths, labels, groups=groups, cv=GroupKFold(3))
    assert scores.tolist() == [1.0, 1.0, 1.0]


def test_a_recipe_in_place_of_the_learner(tones, tmp_path):
    from dataclasses import replace

    from avsc_e2e.models.zoo.own import tiny
    from avsc_e2e.training.recipe import Data, Recipe

    paths, labels, groups = tones
    model = replace(tiny(), video="", fusion="", bands=32)
    stage = Recipe("one", model=model, data=Data(validation="0.25"), epochs=1, batch_size=4, pretrained=False)
    found = SceneClassifier(recipe=[stage], out=tmp_path).fit(paths, labels, groups)
    assert (tmp_path / "one" / "recipe.json").is_file()
    assert found.predict_proba(paths).shape == (12, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, y[:-1]), "12 recordings and 11 labels: give one for each"),
        (lambda x, y: ([*x[:-1], "absent.wav"], y), r"recording 11: .*absent\.wav: no such file"),
        (lambda x, y: (np.zeros((12, 2)), y), "recording 0: .* is no path"),
        (lambda x, y: (x[0], y), r"X .*: give a list"),
        (lambda x, y: (x, None), "recording 0 has the label ''"),
    ],
)
def test_what_cannot_be_learnt_from_is_one_line(tones, change, message):
    with pytest.raises(AvscError, match=message) as error:
        SceneClassifier(minutes=1).fit(*change(*tones[:2]))
    assert "\n" not in str(error.value)


def test_what_cannot_be_read_is_named(fitted, tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(AvscError, match=r"text\.wav"):
        fitted.predict([tmp_path / "text.wav"])


def test_a_table_keeps_audio_and_groups(tones, tmp_path):
    from avsc_e2e.clip import Row

    paths = [str(path) for path in tones[0]]
    rows = [Row("a", paths[0], paths[1], "x", "here"), Row("b", paths[2], "", "y")]
    assert write_table(tmp_path / "files.csv", rows).read_text().splitlines() == [
        "file,label,audio,group",
        f"{paths[1]},x,{paths[0]},here",
        f"{paths[2]},y,,",
    ]
