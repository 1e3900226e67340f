import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from support import click, flat, real, write_video

from avsc_e2e.clip import Row
from avsc_e2e.data import media
from avsc_e2e.data.check.check import check
from avsc_e2e.data.dataset import ClipDataset, Key, Sampling
from avsc_e2e.data.sets.corpus import read_corpus, read_evaluation_set
from avsc_e2e.data.store.layout import read_manifest
from avsc_e2e.data.store.prepare import Options, prepare
from avsc_e2e.data.store.reader import open_store
from avsc_e2e.data.store.shard import Task, write_shard
from avsc_e2e.data.store.tar import Checked, add_audio
from avsc_e2e.errors import AvscError, MediaError

SMALL = Options(short_side=64, rate=5)
SAMPLING = Sampling(sample_rate=48_000, short_side=64)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def city_store(toy_city, tmp_path_factory):
    store = tmp_path_factory.mktemp("store") / "city"
    done = prepare(toy_city, store, SMALL, workers=1, shard_size=2 << 20)
    assert (done.clips, done.decoded, done.bad, done.missing) == (30, 30, (), 0)
    return store


def test_rows_without_the_media(toy_city, city_store, tmp_path):
    """A store moved elsewhere gives the rows of its source, with the same parts, and nothing of the source is read."""
    direct = read_corpus(toy_city, validation=0.5, seed=3)
    assert read_corpus(city_store, validation=0.5, seed=3) == direct
    alone = read_corpus(city_store, validation=0.5, seed=3, modalities=("audio",))
    assert alone == read_corpus(toy_city, validation=0.5, seed=3, modalities=("audio",))
    moved = shutil.copytree(city_store, tmp_path / "moved")
    manifest = json.loads((moved / "store.json").read_text())
    (moved / "store.json").write_text(json.dumps({**manifest, "root": str(tmp_path / "gone")}))
    corpus = read_corpus(moved, validation=0.5, seed=3)
    assert [[row.file for row in part] for part in corpus[1:]] == [[row.file for row in part] for part in direct[1:]]
    clip = ClipDataset(corpus.test, corpus.classes, SAMPLING, store=open_store(moved))[0]
    assert clip.present.tolist() == [True, True]


@pytest.mark.parametrize("frames", [1, 5])
def test_evaluation_clips_are_those_of_the_media(toy_city, city_store, frames):
    """At 5 frames a second both 1 and 5 frames of a segment are stored to the frame: only JPEG lies between."""
    corpus, want = read_corpus(toy_city, validation=0.5), SAMPLING
    want = Sampling(sample_rate=48_000, short_side=64, frames=frames)
    direct = ClipDataset(corpus.test, corpus.classes, want)
    stored = ClipDataset(corpus.test, corpus.classes, want, store=open_store(city_store))
    assert len(direct) == len(stored) == 20
    for index in range(0, 20, 3):
        a, b = direct[index], stored[index]
        assert torch.equal(a.audio, b.audio)
        assert a.video.shape == b.video.shape
        assert (a.video.float() - b.video.float()).abs().mean() < 6  # tiny pictures, whose colours JPEG halves
        assert (a.target, a.file, a.start) == (b.target, b.file, b.start)
        assert torch.equal(a.present, b.present)


def test_training_clips_have_the_same_windows(toy_city, city_store):
    corpus = read_corpus(toy_city, validation=0.5)
    datasets = [
        ClipDataset(corpus.train, corpus.classes, SAMPLING, windows=3, seed=5, store=store)
        for store in (None, open_store(city_store))
    ]
    for epoch in range(2):
        for index in (0, 7, 29):
            a, b = (dataset[Key(epoch, index)] for dataset in datasets)
            assert a.start == b.start
            assert torch.equal(a.audio, b.audio)


def test_time_decides_the_frame(tmp_path):
    """Frame k stands for the k-th span of 1 / rate seconds, and is the picture in its middle."""
    (tmp_path / "set" / "a").mkdir(parents=True)
    write_video(tmp_path / "set" / "a" / "dawn.mp4", [flat(10 + 4 * i) for i in range(50)], rate=25)
    prepare(tmp_path / "set", tmp_path / "store", Options(short_side=48, rate=5), workers=1)
    store = open_store(tmp_path / "store")
    row = store.rows()[""][0]
    assert len(store.recordings[row.file].frames) == 10
    for time_asked, middle in ((0.0, 0.1), (0.19, 0.1), (0.2, 0.3), (0.5, 0.5), (1.99, 1.9), (2.3, 1.9)):
        seen = store.read_frames(row, [time_asked], 48).mean()
        assert seen == pytest.approx(10 + 4 * int(middle * 25), abs=1.6)
        assert seen == pytest.approx(media.read_frames(row.video, [middle], 48).mean(), abs=1)
    with pytest.raises(MediaError, match=r"no frame at 2\.60 s"):
        store.read_frames(row, [2.6], 48)


@pytest.mark.parametrize(
    ("suffix", "kind", "bits"),
    [
        *(("wav", "PCM_16", 16), ("wav", "PCM_24", 24), ("wav", "PCM_U8", 16), ("wav", "FLOAT", 32)),
        *(("flac", "PCM_16", 16), ("flac", "PCM_24", 24)),
    ],
)
def test_sound_to_the_bit(tmp_path, suffix, kind, bits):
    folder = tmp_path / "set" / "a"
    folder.mkdir(parents=True)
    sound = np.random.default_rng(0).uniform(-1, 1, (44_101, 2))
    sound[:4] = [[1, -1], [0.999999, -0.999999], [2**-23, -(2**-23)], [0, 0]]
    soundfile.write(folder / f"s.{suffix}", sound, 44_100, subtype=kind)
    prepare(tmp_path / "set", tmp_path / "store", SMALL, workers=1)
    store = open_store(tmp_path / "store")
    row = store.rows()[""][0]
    assert store.recordings[row.file].audio[1:] == [44_101, 2, 44_100, bits]
    for rate in (44_100, 32_000):
        for start, duration in ((0.0, 1.0), (0.25, 0.5), (0.7, 0.5)):
            direct = media.read_audio(row.audio, start, duration, rate)
            assert np.array_equal(direct, store.read_audio(row, start, duration, rate))
    with pytest.raises(MediaError, match=r"no audio at 2\.00 s"):
        store.read_audio(row, 1.0, 1.0, 44_100)
    with tarfile.open(tmp_path / "store" / "shard-000000.tar") as tar:  # and to any other reader of WAV
        other, rate = soundfile.read(tar.extractfile("a/s.wav"), dtype="float32")
    assert rate == 44_100
    assert np.array_equal(other, soundfile.read(folder / f"s.{suffix}", dtype="float32")[0])


def test_sound_of_a_video(tmp_path):
    """Late sound stays late, and compressed sound loses nothing more."""
    (tmp_path / "set" / "a").mkdir(parents=True)
    path = tmp_path / "set" / "a" / "late.mp4"
    write_video(path, [flat(9)] * 50, sound=click(0.5, 1.5), sound_start=0.4)
    prepare(tmp_path / "set", tmp_path / "store", SMALL, workers=1)
    store = open_store(tmp_path / "store")
    row = store.rows()[""][0]
    for start in (0.0, 0.5):
        direct = media.read_audio(row.audio, start, 1.0, 48_000)
        assert np.abs(direct).max() > 0.3
        assert np.abs(direct - store.read_audio(row, start, 1.0, 48_000)).max() < 1e-6


def test_real_clips(tmp_path):
    folder = tmp_path / "set" / "street_traffic"
    folder.mkdir(parents=True)
    for name in ("lyon1029_40200_md.mp4", "rivera0922_00_0_md.mp4"):
        (folder / name).symlink_to(real("real_clips") / name)
    prepare(tmp_path / "set", tmp_path / "store", Options(), workers=1)
    store = open_store(tmp_path / "store")
    for row in store.rows()[""]:
        for start in (0.0, 4.0, 9.0):
            times = [start + 0.5]
            a, b = media.read_frames(row.video, times, 256).astype(float), store.read_frames(row, times, 256)
            assert 10 * np.log10(255**2 / ((a - b) ** 2).mean()) > 36
            # The decoder of MP3 leans on what came before, by far less than a bit of 16.
            sound = media.read_audio(row.audio, start, 1.0, 44_100)
            assert np.abs(sound - store.read_audio(row, start, 1.0, 44_100)).max() < 2**-17


def test_smaller_frames_are_made_larger_ones_refused(toy_city, city_store):
    corpus, store = read_corpus(toy_city, validation=0.5), open_store(city_store)
    small = Sampling(short_side=40)
    clip = ClipDataset(corpus.test, corpus.classes, small, store=store)[4]
    direct = ClipDataset(corpus.test, corpus.classes, small)[4]
    assert clip.video.shape == direct.video.shape == (1, 3, 40, 50)
    assert (clip.video.float() - direct.video.float()).abs().mean() < 6
    with pytest.raises(AvscError, match=r"its frames have 64 pixels, 96 are wanted: give data.short_side 64, or"):
        ClipDataset(corpus.test, corpus.classes, Sampling(short_side=96), store=store)
    ClipDataset(corpus.test, corpus.classes, Sampling(short_side=96, video=False), store=store)


def test_bytes_do_not_depend_on_who_wrote_them(toy_city, city_store, tmp_path):
    prepare(toy_city, tmp_path / "two", SMALL, workers=2, shard_size=2 << 20)
    assert contents(tmp_path / "two") == contents(city_store)
    first = prepare(toy_city, tmp_path / "ranks", SMALL, workers=1, shard_size=2 << 20, rank=1, world=2)
    assert first.missing > 0
    assert first.clips < 30
    with pytest.raises(AvscError, match=r"shards are not finished: run `avsc data prepare .* again"):
        open_store(tmp_path / "ranks")
    second = prepare(toy_city, tmp_path / "ranks", SMALL, workers=1, shard_size=2 << 20, rank=0, world=2)
    assert second.missing == 0
    assert first.clips + second.clips == 30
    assert contents(tmp_path / "ranks") == contents(city_store)


def test_plain_tar_and_webdataset_naming(city_store):
    """Members of a recording lie side by side under one key: what WebDataset groups into a sample."""
    seen = []
    for shard in sorted(city_store.glob("*.tar")):
        listing = subprocess.run(["tar", "tf", shard], check=True, capture_output=True, text=True).stdout.split()
        keys = [name.split(".")[0] for name in listing]
        order = list(dict.fromkeys(keys))
        assert keys == [key for key in order for _ in range(keys.count(key))]
        seen += order
        kinds = [name.split(".", 1)[1] for name in listing if name.startswith(order[0] + ".")]
        assert kinds == [*(f"{n:04d}.jpg" for n in range(10)), "wav", "json"]
    assert len(seen) == len(set(seen)) == 30


def test_going_on(toy_city, tmp_path):
    """What was finished before a kill is not decoded again, whatever the kill left behind; bytes come out the same."""
    whole = tmp_path / "whole"
    prepare(toy_city, whole, SMALL, workers=1, shard_size=64 << 20)
    shard = (whole / "shard-000000.tar").read_bytes()
    lines = (whole / "shard-000000.jsonl").read_bytes().splitlines(keepends=True)
    ends = [json.loads(line)["next"] for line in lines]
    expected = contents(whole)
    damaged = shard[: ends[4] - 510] + bytes(9) + shard[ends[4] - 501 :]
    for number, (tar, index, fresh) in enumerate(
        (
            (shard[: ends[11]], b"".join(lines[:12]), 18),
            (shard[: ends[11] + 1000], b"".join(lines[:12]), 18),  # in the midst of a recording
            (shard[: ends[12]], b"".join(lines[:12]) + lines[12][:30], 18),  # in the midst of its line
            (shard[: ends[10]], b"".join(lines[:12]), 19),  # the index ahead, as after a power cut
            (damaged, b"".join(lines), 26),  # the disk lost a few bytes of the fifth
            (shard, b"".join(lines), 0),  # before the last rename
        )
    ):
        store = tmp_path / str(number)
        store.mkdir()
        shutil.copyfile(whole / "store.json", store / "store.json")
        (store / "shard-000000.tar.partial").write_bytes(tar)
        (store / "shard-000000.jsonl").write_bytes(index)
        done = prepare(toy_city, store, SMALL, workers=1, shard_size=64 << 20)
        assert done.decoded == fresh
        assert contents(store) == expected
    assert prepare(toy_city, whole, SMALL, workers=1).decoded == 0


def test_killed(toy_city, city_store, tmp_path):
    store = tmp_path / "store"
    code = (
        "import sys; from avsc_e2e.data.prepare import Options, prepare\n"
        "if __name__ == '__main__':\n"
        "    print('go', flush=True)\n"
        "    prepare(sys.argv[1], sys.argv[2], Options(64, 5), workers=1, shard_size=2 << 20)\n"
    )
    draw = random.Random(1)
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", code, toy_city, store], stdout=subprocess.PIPE)
        process.stdout.readline()
        while process.poll() is None and not list(store.glob("shard-*.jsonl")):
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    prepare(toy_city, store, SMALL, workers=1, shard_size=2 << 20)
    assert contents(store) == contents(city_store)


def test_changed_sources(toy_city, tmp_path):
    root, store = shutil.copytree(toy_city, tmp_path / "city"), tmp_path / "store"
    prepare(root, store, SMALL, workers=1, shard_size=2 << 20)
    corpus = read_corpus(root, validation=0.5)
    os.utime(corpus.test[0].video, ns=(1, 1))
    with pytest.raises(AvscError, match=r"\.mp4: has changed since it was prepared \(1 files have\): run `avsc data"):
        ClipDataset(corpus.test, corpus.classes, SAMPLING, store=open_store(store))
    assert 0 < prepare(root, store, SMALL, workers=1, shard_size=2 << 20).decoded < 30  # its shard alone
    ClipDataset(corpus.test, corpus.classes, SAMPLING, store=open_store(store))
    head, *lines = (root / "meta.csv").read_text().splitlines(keepends=True)
    file, scene = corpus.test[1].file, corpus.test[1].scene
    lines = [line.replace(f"\t{scene}\t", "\ttram\t") if f"{file}.wav" in line else line for line in lines]
    (root / "meta.csv").write_text(head + "".join(lines))  # a label that was wrong
    assert 0 < prepare(root, store, SMALL, workers=1, shard_size=2 << 20).decoded < 30
    assert [row.scene for row in open_store(store).rows()[""] if row.file == file] == ["tram"] != [scene]
    with pytest.raises(AvscError, match=r"was prepared with rate 5, and 7 is asked for"):
        prepare(root, store, SMALL._replace(rate=7), workers=1)


def test_bytes_are_on_the_disk_before_they_have_their_names(tmp_path, monkeypatch):
    """Shard and index before the shard's name, then the folder; the plan before its name."""
    (tmp_path / "set" / "a").mkdir(parents=True)
    soundfile.write(tmp_path / "set" / "a" / "one.wav", np.zeros(800), 800)
    calls: list[str] = []
    originals = {name: getattr(os, name) for name in ("fsync", "rename", "replace")}

    def noted(name):
        def call(*arguments):
            of = [os.readlink(f"/proc/self/fd/{a}") if isinstance(a, int) else str(a) for a in arguments]
            calls.append(" ".join([name, *(os.path.basename(path) for path in of)]))
            return originals[name](*arguments)

        return call

    for name in originals:
        monkeypatch.setattr(os, name, noted(name))

    def here(function, tasks, workers, **_):
        return ((at, value) for at, task in enumerate(tasks) for value in function(task))

    monkeypatch.setattr("avsc_e2e.data.store.prepare.apart", here)  # else another process writes the shard
    prepare(tmp_path / "set", tmp_path / "store", SMALL, workers=1)
    assert calls[:2] == ["fsync store.json.0.partial", "replace store.json.0.partial store.json"]
    calls.clear()
    names = ("audio", "video", "scene", "location", "city", "part")
    row = {"file": "a/one", **dict.fromkeys(names, ""), "audio": "a/one.wav", "scene": "a"}
    shard = "shard-000007.tar"
    assert list(write_shard(Task(tmp_path / "store" / shard, tmp_path / "set", (row,), SMALL))) == [True]
    assert calls == [
        f"fsync {shard}.partial",
        "fsync shard-000007.jsonl",
        f"rename {shard}.partial {shard}",
        "fsync store",
    ]


def test_a_shard_goes_on_behind_its_last_whole_recording(tmp_path):
    """In this process; the bytes are those of a shard that was written at once."""
    names, rest = ("one", "two", "three", "four"), dict.fromkeys(("video", "location", "city", "part"), "")
    for number, name in enumerate(names):
        soundfile.write(tmp_path / f"{name}.wav", np.full(800 * (number + 1), 0.1), 8000)
    rows = tuple({"file": name, "audio": f"{name}.wav", "scene": "a"} | rest for name in names)
    whole, broken = (Task(tmp_path / kind / "shard-000000.tar", tmp_path, rows, SMALL) for kind in ("whole", "broken"))
    for task in (whole, broken):
        task.shard.parent.mkdir()
    assert list(write_shard(whole)) == [True] * 4
    lines = whole.shard.with_suffix(".jsonl").read_bytes().splitlines(keepends=True)
    end = json.loads(lines[2])["next"]
    broken.shard.with_name(f"{broken.shard.name}.partial").write_bytes(whole.shard.read_bytes()[: end + 700])
    broken.shard.with_suffix(".jsonl").write_bytes(b"".join(lines[:3]))
    assert list(write_shard(broken)) == [False, False, False, True]
    assert contents(broken.shard.parent) == contents(whole.shard.parent)


def test_the_samples_of_a_member_begin_where_it_says(tmp_path):
    samples = np.arange(-400, 400, dtype=np.int16).reshape(-1, 2)
    soundfile.write(tmp_path / "a.wav", samples, 8000)
    with open(tmp_path / "shard", "w+b") as file:
        offset, *rest = add_audio(Checked(file), "a.wav", tmp_path / "a.wav", tmp_path)
        file.seek(offset)
        assert file.read(samples.nbytes) == samples.tobytes()
    assert rest == [400, 2, 8000, 16]


def test_new_recordings_go_into_new_shards(tmp_path):
    (tmp_path / "set" / "a").mkdir(parents=True)
    for name in ("one", "two"):
        soundfile.write(tmp_path / "set" / "a" / f"{name}.wav", np.zeros(8000), 8000)
    prepare(tmp_path / "set", tmp_path / "store", SMALL, workers=1)
    corpus = read_corpus(tmp_path / "set", validation=0, test=0)
    soundfile.write(tmp_path / "set" / "a" / "more.v2 (1).wav", np.zeros(8000), 8000)
    grown = read_corpus(tmp_path / "set", validation=0, test=0)
    with pytest.raises(AvscError, match=r"1 of 3 recordings are not in this store, such as a/more\.v2 \(1\)"):
        ClipDataset(grown.train, grown.classes, SAMPLING, store=open_store(tmp_path / "store"))
    assert prepare(tmp_path / "set", tmp_path / "store", SMALL, workers=1).decoded == 1
    again = read_corpus(tmp_path / "store", validation=0, test=0)
    assert again == grown
    assert len(corpus.train) == 2
    with tarfile.open(tmp_path / "store" / "shard-000001.tar") as tar:
        names = tar.getnames()
    assert names == ["a/more%2Ev2%20%281%29.wav", "a/more%2Ev2%20%281%29.json"]


def test_lists_are_read_once_and_again_when_the_store_has_changed(tmp_path, monkeypatch):
    (tmp_path / "set" / "a").mkdir(parents=True)
    soundfile.write(tmp_path / "set" / "a" / "one.wav", np.zeros(8000), 8000)
    store = tmp_path / "store"
    prepare(tmp_path / "set", store, SMALL, workers=1)
    read = []
    monkeypatch.setattr(
        "avsc_e2e.data.store.reader.read_manifest", lambda path: read.append(path) or read_manifest(path)
    )
    assert len(open_store(store).recordings) == len(open_store(store).recordings) == 1
    assert len(read) == 1
    soundfile.write(tmp_path / "set" / "a" / "two.wav", np.zeros(8000), 8000)
    prepare(tmp_path / "set", store, SMALL, workers=1)
    assert len(open_store(store).recordings) == 2


def test_part_folders_and_missing_modalities(tmp_path):
    for part in ("train", "test"):
        for scene in ("a", "b"):
            folder = tmp_path / "set" / part / scene
            folder.mkdir(parents=True)
            write_video(folder / "dumb.mp4", [flat(99)] * 30)
            write_video(folder / "both.mkv", [flat(50)] * 30, sound=click(0.1, 1.2))
            soundfile.write(folder / "blind.wav", np.zeros(16_000), 8000)
    prepare(tmp_path / "set", tmp_path / "store", SMALL, workers=1)
    direct = read_corpus(tmp_path / "set", validation=0.3)
    assert read_corpus(tmp_path / "store", validation=0.3) == direct
    dataset = ClipDataset(direct.test, direct.classes, SAMPLING, store=open_store(tmp_path / "store"))
    present = {clip.file: clip.present.tolist() for clip in (dataset[index] for index in range(len(dataset)))}
    assert present == {
        f"test/{scene}/{name}": have
        for scene in ("a", "b")
        for name, have in (("dumb", [False, True]), ("both", [True, True]), ("blind", [True, False]))
    }


def test_evaluation_set(toy_city, tmp_path):
    corpus = read_corpus(toy_city, validation=0.5)
    for number, row in ((0, corpus.test[0]), (2, corpus.test[1]), (10, corpus.test[2])):
        for kind, path in (("audio", row.audio), ("video", row.video)):
            (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, tmp_path / "set" / kind / f"{number}{Path(path).suffix}")
    prepare(tmp_path / "set", tmp_path / "store", SMALL, workers=1)
    direct = read_evaluation_set(tmp_path / "set")
    assert [row.file for row in direct] == ["0", "2", "10"]
    assert read_evaluation_set(tmp_path / "store") == direct
    with pytest.raises(AvscError, match="a store of the evaluation set, which has no labels"):
        read_corpus(tmp_path / "store")


def test_bad_media_are_noted(tmp_path):
    folder = tmp_path / "set" / "a"
    folder.mkdir(parents=True)
    soundfile.write(folder / "good.wav", np.zeros(8000), 8000)
    soundfile.write(folder / "half.wav", np.zeros(8000), 8000)
    (folder / "half.mp4").write_bytes(b"no video at all")
    done = prepare(tmp_path / "set", tmp_path / "store", SMALL, workers=1)
    assert [(file, modality) for file, modality, _ in done.bad] == [("a/half", "video")]
    store = open_store(tmp_path / "store")
    row = Row("a/half", str(folder / "half.wav"), str(folder / "half.mp4"), "a", duration=1.0)
    assert store.read_audio(row, 0, 1, 8000).shape == (1, 8000)
    with pytest.raises(MediaError, match=r"half\.mp4: is not a media file.*\(found when the store was prepared\)"):
        store.read_frames(row, [0.5], 64)


def test_refusals(toy_city, city_store, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    for root, store, told in (
        (toy_city, tmp_path / "full", "is a folder with other files in it"),
        (city_store, tmp_path / "new", "is a store itself"),
        (tmp_path / "none", tmp_path / "new", "no such folder"),
    ):
        with pytest.raises(AvscError, match=told):
            prepare(root, store, SMALL, workers=1)
    with pytest.raises(AvscError, match="rate and short_side must be above 0"):
        prepare(toy_city, tmp_path / "new", SMALL._replace(rate=0), workers=1)
    with pytest.raises(AvscError, match=r"is not a store, there is no store\.json in it"):
        open_store(toy_city)
    (tmp_path / "full" / "store.json").write_text('{"format": 99}')
    with pytest.raises(AvscError, match=r"not of a store that this version reads"):
        open_store(tmp_path / "full")


def test_shards_are_closed_and_small_in_memory(city_store, monkeypatch):
    """More shards than may be open, and more bytes than may stay resident, are read all the same."""
    monkeypatch.setattr("avsc_e2e.data.store.reader.OPEN", 2)
    monkeypatch.setattr("avsc_e2e.data.store.reader.RESIDENT", 1 << 16)
    store = open_store(city_store)
    rows = store.rows()[""]
    first = [store.read_frames(row, [0.5, 1.5], 64) for row in rows]
    assert len(store.shards._maps) <= 2
    assert all(np.array_equal(a, store.read_frames(row, [0.5, 1.5], 64)) for a, row in zip(first, rows, strict=True))


def _damaged(store, kind):
    """One fault of a copy of a store: which shard, and what becomes of it."""
    shard = sorted(store.glob("*.tar"))[0]
    index = shard.with_suffix(".jsonl")
    if kind == "truncated":
        shard.write_bytes(shard.read_bytes()[:-5000])
    elif kind == "longer":
        shard.write_bytes(shard.read_bytes() + b"x")
    elif kind == "overwritten":
        data = bytearray(shard.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 1050] = bytes(1050)
        shard.write_bytes(data)
    elif kind == "index line":
        lines = index.read_bytes().splitlines(keepends=True)
        index.write_bytes(b"".join([lines[0], b"{damaged\n", *lines[2:]]))
    elif kind == "index line gone":
        lines = index.read_bytes().splitlines(keepends=True)
        index.write_bytes(b"".join(lines[:1] + lines[2:]))
    elif kind == "index gone":
        index.unlink()
    return shard


@pytest.mark.parametrize(
    "kind", ["truncated", "longer", "overwritten", "index line", "index line gone", "index gone"]
)  # fmt: skip
def test_a_damaged_store_is_told_and_mended(toy_city, city_store, tmp_path, kind):
    """Opening tells what sizes and names show, `data check` reads every checksum, and prepare mends both."""
    store = shutil.copytree(city_store, tmp_path / "store")
    shard = _damaged(store, kind)
    if kind == "overwritten":
        open_store(store)
    else:
        with pytest.raises(AvscError, match=rf"{shard.name}: is damaged \(.*data prepare"):
            open_store(store)
    result = check(store)
    assert not result.ok
    assert all(shard.name in problem.path for problem in result.problems)
    done = prepare(toy_city, store, SMALL, workers=1, shard_size=2 << 20)
    assert (done.decoded == 0) == (kind == "longer")
    assert contents(store) == contents(city_store)
    assert check(store).ok


@pytest.mark.parametrize(
    "text", ["{}", "[]", "null", '{"format": 1}', "[" * 5000, '{"format": 1, "options": 3, "root": 1}']
)
def test_a_manifest_that_is_none_is_one_line(city_store, tmp_path, text):
    store = shutil.copytree(city_store, tmp_path / "store")
    (store / "store.json").write_text(text)
    with pytest.raises(AvscError, match="not of a store that this version reads"):
        open_store(store)
