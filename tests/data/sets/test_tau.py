import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avsc_e2e.clip import SCENES
from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.data.sets.tau import read_evaluation, read_tau
from avsc_e2e.data.sets.taulayout import read_listing
from avsc_e2e.errors import AvscError

REAL = Path(__file__).parents[4] / "shared" / "data" / "tau_urban_audio_visual_scenes_2021"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real metadata is not in {REAL}")

HEADER = "filename_audio\tfilename_video\tscene_label\tidentifier"


def line(name, *columns):
    return "\t".join((f"audio/{name}.wav", f"video/{name}.mp4", *columns))


def make_tree(root, train=4, test=2, clips=3, scenes=("bus", "metro_station")):
    """A small set in the official layout: files are empty, since reading lists needs no media."""
    names = {"train": [], "test": []}
    for scene in scenes:
        for place in range(train + test):
            for segment in range(clips):
                part = "train" if place < train else "test"
                names[part].append((f"{scene}-lyon-{place}{scenes.index(scene)}-{segment}", scene))
    for folder in ("audio", "video", "evaluation_setup"):
        (root / folder).mkdir(parents=True)
    for name, _ in names["train"] + names["test"]:
        (root / "audio" / f"{name}.wav").touch()
        (root / "video" / f"{name}.mp4").touch()
    place = lambda name: "-".join(name.split("-")[1:3])  # noqa: E731
    write(root / "meta.csv", [HEADER, *(line(n, s, place(n)) for n, s in names["train"] + names["test"])])
    setup = root / "evaluation_setup"
    write(setup / "fold1_train.csv", [HEADER.rpartition("\t")[0], *(line(n, s) for n, s in names["train"])])
    write(setup / "fold1_evaluate.csv", [HEADER.rpartition("\t")[0], *(line(n, s) for n, s in names["test"])])
    write(setup / "fold1_test.csv", ["filename_audio\tfilename_video", *(line(n) for n, _ in names["test"])])
    return root


def write(path, lines, ending="\n"):
    path.write_bytes((ending.join(lines) + ending).encode())


def fails(match, read, *args, **options):
    with pytest.raises(AvscError, match=match) as caught:
        read(*args, **options)
    assert "\n" not in str(caught.value)


@needs_real
def test_real_metadata_counts():
    corpus = read_tau(REAL, verify=False)
    trained = corpus.train + corpus.validation
    assert corpus.classes == SCENES
    assert (len(trained), len(corpus.test)) == (8646, 3645)
    assert len({row.file for row in trained + corpus.test}) == 12291
    assert len({row.location for row in trained}) == 305
    assert len({row.location for row in corpus.test}) == 126
    assert {row.city for row in corpus.test} <= {"barcelona", "helsinki", "lisbon", "london", "lyon", "milan",
                                                 "paris", "prague", "stockholm", "vienna"}  # fmt: skip
    row = corpus.test[0]
    assert row.file == "airport-lisbon-1175-44106"
    assert (row.scene, row.location, row.city, row.duration) == ("airport", "lisbon-1175", "lisbon", 10)
    assert row.audio == str(REAL / "audio" / "airport-lisbon-1175-44106.wav")


@needs_real
def test_validation_part_is_whole_locations_of_every_class():
    parts = [read_tau(REAL, verify=False, seed=seed) for seed in (0, 0, 1)]
    assert parts[0] == parts[1]
    assert parts[0].validation != parts[2].validation
    for corpus in parts:
        assert not {row.location for row in corpus.train} & {row.location for row in corpus.validation}
        kept, held = (
            Counter(row.scene for row in corpus.train),
            Counter(row.scene for row in corpus.validation),
        )
        assert all(0.01 < held[scene] / (held[scene] + kept[scene]) <= 0.1 for scene in SCENES)
    assert read_tau(REAL, verify=False, validation=0).validation == ()


@needs_real
def test_official_validation_list():
    corpus = read_tau(REAL, verify=False, validation="baseline_validation.csv")
    assert (len(corpus.train), len(corpus.validation)) == (8646 - 739, 739)
    assert len({row.location for row in corpus.validation}) == 27
    assert not {row.location for row in corpus.train} & {row.location for row in corpus.validation}
    fails("no such validation list", read_tau, REAL, verify=False, validation="nowhere.csv")


@needs_real
def test_real_metadata_without_media_is_one_clear_line():
    fails(
        r"fold1_train.csv: line 2: audio/airport-helsinki-3-112.wav is absent .*and 24580 more",
        read_tau,
        REAL,
    )


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_endings_and_byte_order_mark(tmp_path, ending, mark):
    root = make_tree(tmp_path / "set")
    expected = read_tau(root)
    for csv in (root / "meta.csv", *(root / "evaluation_setup").iterdir()):
        csv.write_bytes(mark + csv.read_bytes().replace(b"\n", ending.encode()) + ending.encode())
    assert read_tau(root) == expected
    assert [entry.line for entry in read_listing(root / "meta.csv")][:2] == [2, 3]


def test_labels_of_the_unlabelled_test_list_come_from_meta(tmp_path):
    root = make_tree(tmp_path / "set")
    expected = read_tau(root)
    (root / "evaluation_setup" / "fold1_evaluate.csv").unlink()
    assert read_tau(root) == expected
    assert {row.scene for row in expected.test} == {"bus", "metro_station"}


def test_archive_folders_read_like_the_plain_layout(tmp_path):
    root = make_tree(tmp_path / "set")
    plain = read_tau(root)
    unpacked = tmp_path / "unpacked"
    name = "TAU-urban-audio-visual-scenes-2021-development"
    meta = unpacked / f"{name}.meta"
    meta.mkdir(parents=True)
    shutil.move(root / "meta.csv", meta)
    shutil.move(root / "evaluation_setup", meta)
    shutil.move(root / "video", unpacked / name / "video")  # a common first folder
    for number in (
        1,
        2,
    ):  # two archives, each in its own folder, one with audio/ above its files and one without
        (unpacked / f"{name}.audio.{number}" / ("audio" if number == 1 else "")).mkdir(parents=True)
    for index, file in enumerate(sorted((root / "audio").iterdir())):
        shutil.move(file, unpacked / (f"{name}.audio.1/audio" if index % 2 else f"{name}.audio.2"))
    found = read_corpus(unpacked)
    assert [row.file for row in found.train] == [row.file for row in plain.train]
    assert all(os.path.isfile(path) for row in found.train + found.test for path in (row.audio, row.video))


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd.wav", "../audio/x.wav", "audio/../../x.wav", "http://host/x.wav", "concat:a.wav|b.wav",
     "file:x.wav", "subfile,,start,0:x.wav", "C:\\x.wav", "audio\\x.wav", "audio//x.wav", "./x.wav", "-", "",
     "audio/.hidden.wav", "audio/x%03d.wav", "pipe:0.wav"],
)  # fmt: skip
def test_paths_that_leave_the_root_are_refused(tmp_path, path):
    root = make_tree(tmp_path / "set")
    csv = root / "evaluation_setup" / "fold1_train.csv"
    write(csv, [*csv.read_text().splitlines(), f"{path}\tvideo/x.mp4\tbus"])
    fails(r"fold1_train.csv: line 26: .* is not a plain path", read_tau, root)


def edit(csv, old, new):
    text = csv.read_text()
    assert old in text
    csv.write_text(text.replace(old, new, 1))


def test_every_fault_of_a_set_is_one_line_with_its_place(tmp_path):
    root = make_tree(tmp_path / "set")
    setup = root / "evaluation_setup"
    fails("no such folder", read_tau, tmp_path / "nowhere")
    fails(r"no evaluation_setup/fold2_train.csv .*found: fold1_evaluate.csv", read_tau, root, fold=2)
    fails("give a share from 0 to below 1", read_tau, root, validation=1.0)

    def broken(match, csv, old, new):
        before = csv.read_text()
        edit(csv, old, new)
        fails(match, read_tau, root)
        csv.write_text(before)

    broken("meta.csv: line 1: no column filename_audio", root / "meta.csv", HEADER, HEADER.replace("\t", ","))
    broken("meta.csv: line 3: 3 columns, 4 expected", root / "meta.csv", "\tlyon-00\naudio/bus-lyon-00-2", "\naudio/bus-lyon-00-2")  # noqa: E501  # fmt: skip
    broken("meta.csv: line 2: no scene_label", root / "meta.csv", "\tbus\t", "\t\t")
    broken("meta.csv: line 3: bus-lyon-00-0 is already in line 2", root / "meta.csv", *(
        line(f"bus-lyon-00-{number}") for number in (1, 0)))  # fmt: skip
    broken("fold1_train.csv: line 2: bus-lyon-00-0 is 'tram' here", setup / "fold1_train.csv", "\tbus", "\ttram")
    broken("line 2: bus-lyon-99-0 is not in meta.csv", setup / "fold1_train.csv", *(
        line(f"bus-lyon-{place}-0") for place in ("00", "99")))  # fmt: skip
    broken("not of one recording", setup / "fold1_train.csv", "video/bus-lyon-00-0", "video/bus-lyon-00-1")
    broken("line 2: bus-lyon-00-0 is in .*fold1_train.csv too", setup / "fold1_evaluate.csv", *(
        line(f"bus-lyon-{place}-0") for place in ("40", "00")))  # fmt: skip
    (setup / "fold1_train.csv").write_bytes(b"\xff\xfef\x00")
    fails("fold1_train.csv: not UTF-8 text", read_tau, root)
    (root / "meta.csv").unlink()
    fails("no meta.csv", read_tau, root)


def test_absent_media_names_line_and_count(tmp_path):
    root = make_tree(tmp_path / "set")
    for name in ("bus-lyon-00-1", "bus-lyon-00-2"):
        (root / "video" / f"{name}.mp4").unlink()
    fails(r"fold1_train.csv: line 3: video/bus-lyon-00-1.mp4 is absent from .*and 1 more", read_tau, root)
    assert len(read_tau(root, verify=False).test) == 12
    sound = read_tau(root, modalities=("audio",))
    assert all(row.video == "" and row.audio for row in sound.train)


def test_a_file_absent_from_the_release_leaves_its_other_half(tmp_path, caplog):
    root = make_tree(tmp_path / "set")
    setup = root / "evaluation_setup"
    name = "airport-lyon-1095-40158"
    edit(root / "meta.csv", HEADER, f"{HEADER}\n{line(name, 'bus', 'lyon-1095')}")
    edit(setup / "fold1_train.csv", "scene_label", f"scene_label\n{line(name, 'bus')}")
    (root / "audio" / f"{name}.wav").touch()
    (row,) = (row for row in read_tau(root, validation=0).train if row.file == name)
    assert row.video == ""
    assert row.audio.endswith(f"{name}.wav")
    assert name in caplog.text


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_rows_of_one_modality_lack_the_other(tmp_path, modality):
    root = make_tree(tmp_path / "set")
    (root / ("video" if modality == "audio" else "audio")).rename(tmp_path / "elsewhere")
    corpus = read_tau(root, modalities=(modality,))
    for row in (*corpus.train, *corpus.validation, *corpus.test):
        assert bool(row.audio) is (modality == "audio")
        assert bool(row.video) is (modality == "video")


def test_a_class_of_one_location_has_no_validation_part(tmp_path):
    root = make_tree(tmp_path / "set", train=1)
    fails("class 'bus' has one location .*'lyon-00'.* ask for no validation set", read_tau, root)
    assert len(read_tau(root, validation=0).train) == 6


def test_a_validation_list_in_the_set_is_used(tmp_path):
    root = make_tree(tmp_path / "set")
    write(
        root / "evaluation_setup" / "fold1_validate.csv",
        ["filename_audio\tfilename_video", line("bus-lyon-20-1")],
    )
    corpus = read_tau(root)
    assert [row.file for row in corpus.validation] == ["bus-lyon-20-1"]
    assert len(corpus.train) == 23
    none = read_tau(root, validation=0)  # asked for, so the list does not count
    assert (len(none.train), none.validation) == (24, ())
    write(root / "other.csv", ["filename_audio\tfilename_video", line("bus-lyon-40-1")])
    fails("other.csv: line 2: bus-lyon-40-1 is not in the training set", read_tau, root, validation="other.csv")


@pytest.mark.parametrize("part", ["training", "validation"])
def test_places_that_are_also_tested_on_are_told(tmp_path, caplog, part):
    root = make_tree(tmp_path / "set")
    meta = root / "meta.csv"
    meta.write_text(meta.read_text().replace("\tlyon-40\n", "\tlyon-00\n"))  # the place of three clips of the test set
    listed = "bus-lyon-00" if part == "validation" else "bus-lyon-10"
    lines = [line(f"{listed}-{segment}") for segment in range(3)]
    write(root / "evaluation_setup/fold1_validate.csv", ["filename_audio\tfilename_video", *lines])
    read_tau(root)
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"{root}: 1 locations are in both the {part} and the test set, for example lyon-00"]


def make_evaluation(root, numbers):
    for folder, suffix in (("audio", "wav"), ("video", "mp4")):
        (root / folder).mkdir(parents=True)
        for number in numbers:
            (root / folder / f"{number}.{suffix}").touch()
    return root


def test_evaluation_set_in_numeric_order(tmp_path):
    root = make_evaluation(tmp_path / "set", [10, 2, 0, 1])
    rows = read_evaluation(root)
    assert [row.file for row in rows] == ["0", "1", "2", "10"]
    assert rows[3][1:] == (str(root / "audio/10.wav"), str(root / "video/10.mp4"), "", "", "", 1.0)
    (root / "evaluation_setup").mkdir()
    header = "filename_audio\tfilename_video"
    write(root / "evaluation_setup" / "test.csv", [header, line(10), line(2)])
    assert [row.file for row in read_evaluation(root)] == ["2", "10"]
    write(root / "evaluation_setup" / "test.csv", [header, line(3)])
    fails(r"test.csv: line 2: audio/3.wav is absent .*and 1 more", read_evaluation, root)


def test_faults_of_the_evaluation_set(tmp_path):
    (tmp_path / "empty").mkdir()
    fails("give the root of the evaluation set", read_evaluation, tmp_path / "empty")
    fails("is not a number", read_evaluation, make_tree(tmp_path / "development"))
    root = make_evaluation(tmp_path / "set", [0, 1])
    (root / "video" / "1.mp4").unlink()
    fails("1 has no file in video/", read_evaluation, root)
    assert len(read_evaluation(root, modalities=("audio",))) == 2
    fails("neither meta.csv", read_corpus, root)


def test_recordings_of_another_length_are_measured(tmp_path):
    root = make_tree(tmp_path / "set")
    for seconds, path in zip((2, 3, *[2] * 34), sorted((root / "audio").iterdir()), strict=True):
        soundfile.write(path, np.zeros(seconds * 100), 100)
    corpus = read_tau(root, modalities=("audio",), validation=0)
    assert [row.duration for row in corpus.train[:3]] == [2, 3, 2]
    assert corpus.test[0].duration == 2
    soundfile.write(corpus.train[0].audio, np.zeros(999), 100)
    assert {row.duration for row in read_tau(root, modalities=("audio",)).train} == {10}
