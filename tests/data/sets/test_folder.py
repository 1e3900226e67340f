import logging
import struct
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.data.sets.folder import read_folder
from avsc_e2e.data.sets.listing import scan
from avsc_e2e.errors import AvscError, MediaError

REAL = Path(__file__).parents[4] / "shared" / "data" / "real_actions"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the real class folders are not in {REAL}")


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """The bytes of a half-second sound, a video without and one with sound of 0.4 s."""
    folder = tmp_path_factory.mktemp("media")
    soundfile.write(folder / "sound.wav", np.zeros(4000), 8000)
    for name, sounding in (("mute", False), ("video", True)):
        with av.open(str(folder / f"{name}.mp4"), "w") as container:
            pictures = container.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
            sound = container.add_stream("aac", rate=8000, layout="mono") if sounding else None
            for _ in range(4):
                container.mux(pictures.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
            container.mux(pictures.encode())
            if sound:
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 3200), np.float32), "fltp", "mono")
                frame.sample_rate = 8000
                container.mux(sound.encode(frame))
                container.mux(sound.encode())
    return {path.stem: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def make(tmp_path, media):
    def make(names, kind="sound"):
        for name in names:
            path = tmp_path / "own" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # Bytes that no reader looks at: files of one content are copies, which count as one source.
            mark = name.encode()
            mark = mark if name.endswith(".wav") else struct.pack(">I", len(mark) + 8) + b"free" + mark
            path.write_bytes(media[kind] + mark if kind in media else kind.encode())
        return tmp_path / "own"

    return make


def fails(match, *args, **options):
    with pytest.raises(AvscError, match=match) as caught:
        read_folder(*args, **options)
    assert "\n" not in str(caught.value)


@needs_real
def test_real_actions_as_given():
    corpus = read_corpus(REAL)
    assert corpus.classes == ("Archery", "BandMarching", "BasketballDunk", "PlayingCello", "Surfing")
    trained = corpus.train + corpus.validation
    assert set(Counter(row.scene for row in trained).values()) == {24}
    assert set(Counter(row.scene for row in corpus.test).values()) == {12}
    groups = [{row.location for row in part} for part in corpus[1:]]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    assert {row.scene for row in corpus.validation} == set(corpus.classes)
    row = next(row for row in trained if row.file == "train/Archery/v_Archery_g12_c01")
    assert row.location == "v_Archery_g12"
    assert row.audio == row.video == str(REAL / "train" / "Archery" / "v_Archery_g12_c01.mp4")
    assert row.duration == pytest.approx(5, abs=0.1)
    assert len({row.file for row in trained + corpus.test}) == 180


@needs_real
def test_real_actions_cut_from_class_folders():
    parts = [read_folder(REAL / "train", seed=seed) for seed in (0, 0, 1)]
    assert parts[0] == parts[1]
    assert parts[0].test != parts[2].test
    for corpus in parts:
        groups = [{row.location for row in part} for part in corpus[1:]]
        assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
        for part in corpus[1:]:
            assert {row.scene for row in part} == set(corpus.classes)
        assert sum(map(len, corpus[1:])) == 120
        assert len(corpus.test) <= 24


def test_what_a_row_holds_depends_on_the_files(make, caplog):
    make(["a/x_1.wav", "a/pair.wav", "a/deep/down/x_1.wav"])
    make(["a/pair.mp4", "a/mute.mp4"], "mute")
    root = make(["a/both.mp4", "b/only.MP4"], "video")
    corpus = read_folder(root, validation=0, test=0)
    rows = {row.file: row for row in corpus.train}
    has = {name: tuple(Path(path).suffix for path in (row.audio, row.video)) for name, row in rows.items()}
    assert has == {
        "a/x_1": (".wav", ""),
        "a/deep/down/x_1": (".wav", ""),
        "a/pair": (".wav", ".mp4"),
        "a/mute": ("", ".mp4"),
        "a/both": (".mp4", ".mp4"),
        "b/only": (".MP4", ".MP4"),
    }
    assert rows["a/x_1"].duration == 0.5
    assert rows["a/pair"].duration == pytest.approx(0.4, abs=0.02)  # what picture and sound share
    assert rows["a/deep/down/x_1"].location == "deep/down/x"
    heard = read_folder(root, validation=0, test=0, modalities=("audio",))
    assert {row.file for row in heard.train} == set(rows) - {"a/mute"}
    assert not any(row.video for row in heard.train)
    assert "1 recordings have no audio and are left out, such as a/mute" in caplog.text
    make(["c/silent.mp4"], "mute")
    fails("class 'c' has no training recording with audio", root, validation=0, test=0, modalities=("audio",))


def test_files_of_one_source_stay_together(make):
    sources = {"holiday-3", "holiday-4", "walk", "GX01", "2021-05-06 trip"}
    names = [f"{scene}/{source}_{part:03d}.wav" for scene in "ab" for source in sources for part in range(4)]
    corpus = read_folder(make(names), validation=0.25, test=0.25)
    found = [{row.location for row in part} for part in corpus[1:]]
    assert set.union(*found) == sources
    assert sum(map(len, found)) == 5  # over both classes
    assert all(Counter(row.scene for row in part)["a"] >= 4 for part in corpus[1:])


def test_a_rule_of_your_own(make):
    root = make([f"{scene}/cam{camera}_{day}_{part}.wav" for scene in "ab" for camera in range(3)
                 for day in range(2) for part in range(2)])  # fmt: skip
    corpus = read_folder(root, group=r"(cam\d).*", validation=0, test=0.3)
    assert {row.location for row in corpus.train} | {row.location for row in corpus.test} == {
        "cam0",
        "cam1",
        "cam2",
    }
    assert not {row.location for row in corpus.train} & {row.location for row in corpus.test}
    assert read_folder(root, group=r"(CAM\d).*", validation=0, test=0.3) == corpus  # case is ignored
    fails("exactly one pair of round brackets", root, group="cam")
    fails("not a regular expression", root, group="(cam")
    fails("does not match data.group", root, group="(dog).*")


def test_part_folders(make, caplog):
    names = [f"{part}/{scene}/{part}{n}_1.wav" for part in ("train", "val", "test") for scene in "ab" for n in "xyz"]
    corpus = read_folder(make(names))
    assert [len(part) for part in corpus[1:]] == [6, 6, 6]
    assert all(row.file.startswith("val/") for row in corpus.validation)
    assert not caplog.records
    root = make(["test/b/trainx_2.wav"])
    assert len(read_folder(root).test) == 7
    assert "1 source recordings are in both the training and the test set, for example trainx" in caplog.text
    caplog.clear()
    make(["val/b/trainy_2.wav", "val/a/trainz_3.wav"])
    assert len(read_folder(root).validation) == 8
    assert "2 source recordings are in both the training and the validation set, for example trainy" in caplog.text
    make(["test/c/new.wav"])
    fails("class 'c' is in the test set only", root)
    make(["d/x.wav"])
    fails("own/d: neither train, validation nor test", root)


def test_train_folder_alone_gets_no_test_part_cut(make):
    root = make([f"train/{scene}/{name}.wav" for scene in "ab" for name in "uvwxyz"])
    corpus = read_folder(root, validation=0.2)
    assert [len(part) for part in corpus[1:]] == [10, 2, 0]


def test_ignored_files_are_told(make, caplog):
    make(["a/x.wav", "a/y.wav", "b/x.wav", "b/z.wav"])
    root = make(["a/notes.txt", "a/.hidden.wav", "a/.git/x.wav", "thumbs.db"], "text")
    with caplog.at_level(logging.INFO):
        corpus = read_folder(root, validation=0, test=0)
    assert len(corpus.train) == 4
    assert "1 files ignored" in caplog.text
    assert "a/notes.txt" in caplog.text


def test_unrelated_files_with_numbers_for_names(make):
    """Sources are shared over classes by name, so few numbers in one class must not starve it."""
    root = make([f"a/{n}.wav" for n in range(30)] + [f"b/{n}.wav" for n in range(4)])
    for seed in range(10):
        corpus = read_folder(root, seed=seed)
        assert all({row.scene for row in part} == {"a", "b"} for part in corpus[1:])


def test_every_fault_of_a_folder_is_one_line(make, tmp_path):
    fails("no such folder", tmp_path / "nowhere")
    (tmp_path / "own").mkdir()
    fails("neither meta.csv .* nor a sub-folder per class", tmp_path / "own")
    root = make(["a/x_clip1.wav", "a/x_clip2.wav", "b/x.wav", "b/y.wav", "b/z.wav"])
    fails(r"class 'a' has one location or source recording, 'x', .*test set.*data\.group '\(\.\+\)'", root)
    assert len(read_folder(root, group="(.+)", validation=0).test) >= 2
    fails("a test set of 1: give a share", root, test=1)
    make(["b/x.flac"])
    fails("x.wav: x.flac beside it has the same name", root)
    (root / "b" / "x.flac").unlink()
    (root / "c").mkdir()
    fails("own/c: no video or audio in this class", root)
    (root / "c").rmdir()
    make(["b/broken.mp4"], "no video at all")
    with pytest.raises(MediaError, match=r"broken\.mp4"):
        read_folder(root, group="(.+)", validation=0)


def test_spaces_at_the_ends_of_names(tmp_path):
    """Tables do not keep them: a file goes without, a class has to be renamed."""
    for name in ("a/x .wav", "a/y.wav", "b/z.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = scan(tmp_path)
    assert [row.file for row in found.parts[""]] == ["a/x", "a/y", "b/z"]
    assert found.parts[""][0].audio.endswith("/x .wav")
    (tmp_path / "b").rename(tmp_path / "b ")
    [fault] = scan(tmp_path).faults
    assert fault.reason.startswith("its name begins or ends with a space")
    assert fault.mend == "rename it"
