import csv
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avsc_e2e.clip import SCENES
from avsc_e2e.data.check.check import check
from avsc_e2e.data.check.official import PUBLISHED
from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.errors import AvscError
from avsc_e2e.toycity.city import ToyCity

DATA = Path(__file__).parents[3] / "shared" / "data"
REAL = DATA / "tau_urban_audio_visual_scenes_2021"
needs_real = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real data are not in {DATA}")


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("city") / "toy"
    ToyCity(train_locations=1, test_locations=1, duration=1, height=32, width=32).render(root, workers=1)
    return root


@pytest.fixture
def city(rendered, tmp_path):
    return Path(shutil.copytree(rendered, tmp_path / "city"))


def found(result, kind):
    return [(Path(problem.path).name, problem.reason) for problem in result.problems if problem.kind == kind]


@needs_real
def test_real_metadata_agree_with_what_is_published():
    result = check(REAL, fast=True)
    assert {problem.kind for problem in result.problems} == {"missing"}  # the media are not there, and only that
    assert len(result.problems) == 2 * 12291 - 1
    assert any("airport-lyon-1095-40158.mp4" in note for note in result.notes)
    assert [count.scene for count in result.counts] == list(SCENES)
    for count in result.counts:
        known = PUBLISHED[count.scene]
        assert count.minutes == pytest.approx(known.minutes, abs=0.18)  # bus: one clip fewer than the paper's
    total = result.table().splitlines()[-4].split()
    assert total == ["total", "8646", "3645", "12291", "12291", "305/126", "2048.5", "0.0", "2048.8"]
    assert sum(known.train for known in PUBLISHED.values()) == 8646
    assert sum(known.test for known in PUBLISHED.values()) == 3645


@needs_real
def test_metadata_that_differ_from_the_release_are_told(tmp_path):
    root = Path(shutil.copytree(REAL, tmp_path / "set", copy_function=shutil.copyfile))
    for name in ("meta.csv", *(f"evaluation_setup/fold1_{part}.csv" for part in ("test", "evaluate"))):
        lines = (root / name).read_text().splitlines(keepends=True)
        (root / name).write_text("".join(line for line in lines if "tram-vienna-285-8639" not in line))
    with open(root / "evaluation_setup" / "fold1_train.csv") as file:
        lines = file.readlines()
    (root / "evaluation_setup" / "fold1_train.csv").write_text("".join([*lines[:-1], lines[1].replace("112", "121")]))
    result = check(root, fast=True)
    assert ("tram", "307 test clips, the release has 308") in found(result, "count")
    assert [reason for _, reason in found(result, "list")] == ["line 8647: airport-helsinki-3-121 is not in meta.csv"]


def test_toy_city_is_compared_with_itself_only(city):
    for fast in (True, False):
        result = check(city, fast=fast)
        assert result.ok, result.problems
        assert "own set of 20 clips" in result.kind
        assert not result.published
        assert result.files == 40
        assert "release" not in result.table()
        assert result.size == sum(path.stat().st_size for path in (*city.glob("audio/*"), *city.glob("video/*")))


def test_every_fault_of_a_set_is_found(city, tmp_path):
    sounds, videos = (sorted((city / folder).iterdir()) for folder in ("audio", "video"))
    sounds[0].unlink()
    sounds[1].write_bytes(b"")
    sounds[2].write_text("not a sound")
    soundfile.write(sounds[3], np.zeros((48000, 1)), 48000)
    soundfile.write(sounds[4], np.zeros((12000, 2)), 16000)
    videos[5].write_bytes(videos[5].read_bytes()[:400])
    ToyCity(train_locations=1, test_locations=1, duration=2, height=32, width=48).render(tmp_path / "other", workers=1)
    shutil.copy(tmp_path / "other" / "video" / videos[6].name, videos[6])
    (city / "audio" / "left-over.wav").touch()
    (city / "video" / ".hidden").touch()
    ticks = []
    result = check(city, fast=True, progress=lambda done, of: ticks.append((done, of)))
    assert found(result, "missing") == [(sounds[0].name, "listed in meta.csv, line 2")]
    assert found(result, "extra") == [("left-over.wav", "not listed in meta.csv")]
    assert found(result, "empty") == [(sounds[1].name, "is empty")]
    assert [name for name, _ in found(result, "unreadable")] == [sounds[2].name, videos[5].name]
    assert found(result, "format") == [
        (sounds[3].name, "1 channels, not 2"),
        (sounds[4].name, "lasts 0.750 s, not 1; 16000 Hz, not 48000"),
        (videos[6].name, "lasts 2.000 s, not 1; 48 x 32 pixels, most have 32 x 32; 20 frames, most have 10"),
    ]
    assert len(result.problems) == 8
    assert ticks[-1] == (39, 39)
    assert result.problem_list(3).splitlines()[0] == f"missing: {sounds[0]}: listed in meta.csv, line 2"
    assert result.problem_list(3).splitlines()[3:] == ["and 5 more problems"]
    assert len(result.problem_list().splitlines()) == 8
    result.write_problems(tmp_path / "problems.csv")
    with open(tmp_path / "problems.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["kind", "path", "reason"]
    assert len(rows) == 9


def test_what_only_decoding_finds(city):
    video = sorted((city / "video").iterdir())[0]
    data = video.read_bytes()
    start = data.index(b"mdat") + 4
    video.write_bytes(data[:start] + bytes(len(data[start:]) // 2) + data[start + len(data[start:]) // 2 :])
    fast, slow = (check(city, fast=fast) for fast in (True, False))
    assert [name for name, _ in found(slow, "unreadable")] == [video.name]
    assert len(slow.problems) >= len(fast.problems)


def test_parts_that_share_clips_or_places(city):
    setup = city / "evaluation_setup"
    train = (setup / "fold1_train.csv").read_text().splitlines()
    test = (setup / "fold1_evaluate.csv").read_text().splitlines()
    (setup / "fold1_evaluate.csv").write_text("\n".join([*test[:-1], train[1]]))
    result = check(city, fast=True)
    reasons = [reason for _, reason in found(result, "split")]
    assert reasons[0] == "lists other clips than fold1_evaluate.csv"
    assert "is in the training and in the test set" in reasons
    assert "is in neither part" in reasons
    assert "this location is in the training and in the test set" in reasons
    (setup / "fold1_train.csv").unlink()
    assert ("fold1_train.csv", "is absent") in found(check(city, fast=True, part="development"), "list")


@needs_real
def test_class_folders(tmp_path):
    result = check(DATA / "real_actions", fast=True)
    assert result.ok
    assert result.parts == ("train", "test")
    assert {(*count.clips.values(),) for count in result.counts} == {(24, 12)}
    assert all(3 > count.minutes > 1.5 for count in result.counts)
    source = DATA / "real_actions" / "test" / "Archery"
    files = sorted(source.iterdir())[:3]
    for scene in ("a", "b"):
        (tmp_path / "own" / scene).mkdir(parents=True)
        for file in files:
            shutil.copyfile(file, tmp_path / "own" / scene / file.name)
    (tmp_path / "own" / "a" / "cut.mp4").write_bytes(files[0].read_bytes()[:-9000])
    (tmp_path / "own" / "a" / "empty.mp4").touch()
    soundfile.write(tmp_path / "own" / "b" / "click.wav", np.zeros(100), 8000)
    result = check(tmp_path / "own")
    copies = found(result, "split")
    assert sorted(name for name, _ in copies) == sorted(file.name for file in files)
    assert all("is the same recording as a/" in reason and "in another class" in reason for _, reason in copies)
    assert [name for name, _ in found(result, "unreadable")] == ["cut.mp4"]
    assert [name for name, _ in found(result, "empty")] == ["empty.mp4"]
    assert found(result, "format") == [("click.wav", "lasts 0.01 s, less than a clip of 1 s: remove it")]
    assert result.parts == ("all",)


def make_evaluation(city, root, count=4):
    for folder in ("audio", "video"):
        (root / folder).mkdir(parents=True)
        for number, path in enumerate(sorted((city / folder).iterdir())[:count]):
            shutil.copy(path, root / folder / f"{number}{path.suffix}")
    return root


def test_evaluation_set(city, tmp_path):
    root = make_evaluation(city, tmp_path / "evaluation")
    result = check(root)
    assert result.ok, result.problems
    assert "own set of 4 files in the layout of the evaluation set" in result.kind
    (root / "audio" / "1.wav").unlink()
    (root / "video" / "1.mp4").unlink()
    (root / "audio" / "2.txt").touch()
    result = check(root, fast=True)
    assert found(result, "missing") == [("1", "no file of this number")]
    assert found(result, "extra") == [("2.txt", "not a file of the evaluation set")]


def test_what_cannot_be_checked_is_one_line(tmp_path):
    for root, part, match in (
        (tmp_path / "nowhere", "", "no such folder"),
        (tmp_path, "", "neither meta.csv"),
        (tmp_path, "training", "give development or evaluation"),
        (tmp_path, "development", "no meta.csv"),
        (tmp_path, "evaluation", "give the root of the evaluation set"),
    ):
        with pytest.raises(AvscError, match=match):
            check(root, part=part)


def test_table_of_a_set_that_is_nearly_the_release(city):
    result = check(city, fast=True)
    table = replace(result, published=PUBLISHED).table().splitlines()
    assert table[1].split()[-2:] == ["min", "paper"]
    assert len({len(line) for line in table[1:13]}) == 1


def test_all_faults_of_a_messy_folder_at_once(tmp_path):
    """Each with its mend, and training refuses or leaves out nothing that is not told."""
    draw = np.random.default_rng(0)

    def sound(name, seconds=1.5):
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, draw.uniform(-0.5, 0.5, int(8000 * seconds)), 8000)

    for name in "uvwxyz":
        sound(f"a/{name}.wav")
    sound("alone/only.wav")
    sound("stray.wav")
    sound("a/twice.wav")
    sound("a/twice.flac")
    sound("a/line\nbreak.wav")
    sound("a/short.wav", 0.1)
    (tmp_path / "own" / "empty").mkdir()
    (tmp_path / "own" / "a" / "loop").symlink_to(tmp_path / "own" / "a", target_is_directory=True)
    (tmp_path / "own" / "a" / "again.wav").symlink_to(tmp_path / "own" / "a" / "u.wav")
    (tmp_path / "own" / "a" / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (tmp_path / "own" / "a" / "cover.jpg").touch()
    os.mkfifo(tmp_path / "own" / "a" / "pipe.wav")
    (tmp_path / "own" / "a" / "readme.txt").touch()
    result = check(tmp_path / "own", fast=True)
    assert [name for name, _ in found(result, "empty")] == ["cover.jpg"]
    told = result.problem_list(99)
    for words in ("empty: no video or audio in this class: remove the folder", "twice.wav: twice.flac beside it",
                  "alone: 1 recordings of 1 sources, such as", "--data.group", "short.wav: lasts 0.10 s",
                  "line\\nbreak.wav: its name has characters that are not printable: rename it"):  # fmt: skip
        assert words in told, words
    table = result.table()
    assert table.splitlines()[1].split() == ["class", "recordings", "sources", "minutes"]
    for words in (
        "stray.wav: lies in the root",
        "again.wav: is a link to",
        "gone.wav: cannot be read",
        "loop: is a link",
    ):
        assert words in table, words
    assert "readme.txt" in table or "more ignored files" in table
    assert "no recording has video" in table or "have no video" in table
    with pytest.raises(AvscError, match=r"and \d more faults: `avsc data check` lists all"):
        read_corpus(tmp_path / "own")
