import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avsc_e2e.data.dataset import ClipDataset, Sampling
from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.data.sets.places import read_places
from avsc_e2e.errors import AvscError

CATEGORIES = [
    *("/a/airfield", "/a/apartment_building/outdoor", "/b/bazaar/indoor"),
    *(f"/z/zoo{n:03d}" for n in range(362)),
]


def picture(path, colour, size=(40, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), colour, np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    """A few pictures in the standard layout, each of a grey that tells its category."""
    root = tmp_path / "places"
    lines = {"train_standard": [], "val": []}
    for index, category in enumerate(CATEGORIES[:3]):
        for number in (1, 2):
            name = f"{category}/{number:08d}.jpg"
            lines["train_standard"].append(f"{name} {index}")
            picture(root / "data_256_standard" / name[1:], 50 * index)
        name = f"Places365_val_{index:08d}.jpg"
        lines["val"].append(f"{name} {index}")
        picture(root / "val_256" / name, 50 * index)
    (root / "categories_places365.txt").write_text("".join(f"{name} {n}\n" for n, name in enumerate(CATEGORIES)))
    for part, of_part in lines.items():
        (root / f"places365_{part}.txt").write_text("\n".join(of_part) + "\n")
    return root


def test_rows_of_the_standard_layout(root, caplog):
    with caplog.at_level(logging.WARNING):
        corpus = read_places(root)
    assert len(corpus.classes) == 365
    assert corpus.classes[:4] == ("airfield", "apartment_building/outdoor", "bazaar/indoor", "zoo000")
    assert [len(part) for part in corpus[1:]] == [6, 3, 0]
    row = corpus.train[3]
    assert row.file == "data_256_standard/a/apartment_building/outdoor/00000002"
    assert (row.scene, row.audio, row.duration) == ("apartment_building/outdoor", "", 0.0)
    assert Path(row.video).is_file()
    assert len({row.location for row in corpus.train}) == 6
    assert corpus.validation[2].scene == "bazaar/indoor"
    assert "places365_val.txt is not the published list" in caplog.text
    assert read_corpus(root) == corpus


def test_pictures_become_clips_of_one_frame(root):
    corpus = read_places(root)
    dataset = ClipDataset(corpus.train, corpus.classes, Sampling(audio=False, frames=1, short_side=16))
    assert len(dataset) == 6
    clip = dataset[4]
    assert clip.video.shape == (1, 3, 16, 20)
    assert abs(int(clip.video.float().mean()) - 100) <= 2
    assert int(clip.target) == 2
    assert clip.present.tolist() == [False, True]


def test_large_pictures_where_the_small_are_absent(root):
    (root / "data_256_standard").rename(root / "data_large_standard")
    assert read_places(root).train[0].file.startswith("data_large_standard/")
    (root / "data_large_standard").rename(root / "elsewhere")
    with pytest.raises(AvscError, match="neither data_256_standard nor data_large_standard"):
        read_places(root)


def test_the_challenge_list(root):
    (root / "places365_train_standard.txt").rename(root / "places365_train_challenge.txt")
    (root / "data_256_standard").rename(root / "data_256_challenge")
    assert len(read_places(root).train) == 6


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("/../../etc/passwd.jpg 0", "line 7: .* is not a plain path"),
        ("/a/airfield/00000003.jpg 400", "line 7: category 400 is not in"),
        ("/a/airfield/00000003.jpg nought", "not a list of images"),
    ],
)
def test_faults_of_a_list(root, line, match):
    with open(root / "places365_train_standard.txt", "a") as file:
        file.write(line + "\n")
    with pytest.raises(AvscError, match=match):
        read_places(root)


def test_what_is_absent(root, tmp_path):
    picture = root / "data_256_standard" / "a" / "airfield" / "00000001.jpg"
    picture.rename(tmp_path / "kept.jpg")
    with pytest.raises(AvscError, match=r"line 1: .*00000001\.jpg is absent"):
        read_places(root)
    (tmp_path / "kept.jpg").rename(picture)
    (root / "places365_val.txt").unlink()
    with pytest.raises(AvscError, match=r"places365_val\.txt: is absent"):
        read_places(root)
    with pytest.raises(AvscError, match=r"no categories_places365\.txt"):
        read_places(tmp_path)
