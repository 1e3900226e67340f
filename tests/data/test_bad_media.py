"""What happens to media that cannot be read, and to loaders whose workers meet them."""

import csv
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from avsc_e2e.clip import Row
from avsc_e2e.data.badmedia import BadMedia, BadMediaLog
from avsc_e2e.data.dataset import ClipDataset, Key, Sampling
from avsc_e2e.data.loader import collate, loader
from avsc_e2e.data.media import probe, read_audio, read_frames
from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.data.store.prepare import Options, prepare
from avsc_e2e.data.store.reader import open_store
from avsc_e2e.errors import AvscError, MediaError

SAMPLING = Sampling(sample_rate=8000, channels=1, video=False)


def sounds(folder: Path, count: int, bad: tuple[int, ...] = ()) -> list[Row]:
    """Rows of two seconds, each of a level that tells its number; `bad` ones are no audio at all."""
    rows = []
    for number in range(count):
        path = folder / f"{number:03d}.wav"
        if number in bad:
            path.write_bytes(b"no audio at all")
        else:
            soundfile.write(path, np.full(16_000, number / 1000), 8000, subtype="FLOAT")
        rows.append(Row(path.stem, audio=str(path), scene="a", duration=2.0))
    return rows


def numbers(clip) -> list[int]:
    return (clip.audio[:, 0, 0] * 1000).round().int().tolist()


@pytest.fixture
def one_bad(tmp_path):
    return sounds(tmp_path, 20, bad=(7,))


def dataset(rows, **options) -> ClipDataset:
    return ClipDataset(rows, ["a", "b"], SAMPLING, **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_raise(one_bad, tmp_path, workers):
    clips = dataset(one_bad, bad_media=tmp_path / "run" / "bad_media.csv")
    with pytest.raises(MediaError, match=r"007\.wav: is not a media file") as caught:
        list(loader(clips, 8, shuffle=False, workers=workers))
    assert "\n" not in str(caught.value)
    with pytest.raises(MediaError, match=r"007\.wav: is not a media file"):
        clips[14]
    assert "007.wav" in (tmp_path / "run" / "bad_media.csv").read_text()


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_leaves_out_what_is_skipped(one_bad, tmp_path, workers):
    listed = tmp_path / "run" / "bad_media.csv"
    clips = dataset(one_bad, on_bad="skip", bad_media=listed)
    batches = list(loader(clips, 8, shuffle=False, workers=workers))
    assert [len(batch.file) for batch in batches] == [8, 6, 8, 8, 8]
    assert sorted(n for batch in batches for n in numbers(batch)) == sorted([n for n in range(20) if n != 7] * 2)
    with open(listed) as file:
        occurrences = list(csv.DictReader(file))
    assert [(o["file"], o["path"], o["start"]) for o in occurrences] == [
        ("007", one_bad[7].audio, "0.000"),
        ("007", one_bad[7].audio, "1.000"),
    ]
    assert occurrences[0]["reason"].startswith("is not a media file")


def test_training_draws_another(one_bad):
    """Batches stay whole; the clips that could be read are those of a run without a bad one; the stand-in is keyed."""
    clips = dataset(one_bad, on_bad="skip", windows=2, seed=4)
    orders = []
    for workers in (0, 2):
        batches = loader(clips, 8, shuffle=True, workers=workers, seed=4)
        batches.sampler.set_epoch(3)
        orders.append([(batch.file, batch.start.tolist()) for batch in batches])
        assert all(len(files) == 8 for files, _ in orders[-1])
        assert all("007" not in files for files, _ in orders[-1])
        assert set(batches.bad.files) == {"007"}
        del batches
    assert orders[0] == orders[1]
    for index in range(len(clips)):
        clip = clips[Key(3, index)]
        assert (clip.file == f"{index // 2:03d}") == (index // 2 != 7)
    assert clips[Key(3, 14)].file != clips[Key(3, 15)].file or clips[Key(3, 14)].start != clips[Key(3, 15)].start
    assert clips[Key(4, 14)].start != clips[Key(3, 14)].start


def test_mask(toy_city, tmp_path):
    corpus = read_corpus(toy_city, validation=0)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    rows = [row._replace(video=str(broken)) if n == 2 else row for n, row in enumerate(corpus.test)]
    rows[5] = rows[5]._replace(audio=str(tmp_path / "gone.wav"))
    want = Sampling(sample_rate=8000, short_side=32)
    whole = ClipDataset(corpus.test, corpus.classes, want)
    masked = ClipDataset(rows, corpus.classes, want, on_bad="mask", bad_media=tmp_path / "bad_media.csv")
    for index, present in ((3, [True, True]), (4, [True, False]), (11, [False, True])):
        clip = masked[index]
        assert clip.present.tolist() == present
        for name, there in zip(("audio", "video"), present, strict=True):
            value = getattr(clip, name)
            assert torch.equal(value, getattr(whole[index], name)) if there else not value.any()
    with pytest.raises(AvscError, match=r"\d+ of 20 segments cannot be read, of 2 recordings, .*bad_media\.csv"):
        list(loader(masked, 1, shuffle=False))
    rows[2] = rows[2]._replace(audio=str(tmp_path / "gone.wav"))
    both = ClipDataset(rows, corpus.classes, want, on_bad="mask")
    assert both.attempt(4).clip is None  # nothing is left to see or hear
    assert [Path(bad.path).name for bad in both.attempt(4).bad] == ["gone.wav", "broken.mp4"]


def test_too_many(tmp_path):
    """One recording alone never stops a run; more than one of a hundred segments does, with a summary in one line."""
    log = BadMediaLog(tmp_path / "bad_media.csv", total=300)
    for number in range(3):
        for _ in range(2):  # the same second once more, of another epoch
            log.add(BadMedia(f"r{number}", f"/set/r{number}.wav", 0.5, "is empty"))
            log.judge()
    log.add(BadMedia("r2", "/set/r2.wav", 1.0, "is empty"))
    with pytest.raises(AvscError, match=r"^4 of 300 segments cannot be read, of 3 recordings, more than 1 %, such as"):
        log.judge()
    assert len((tmp_path / "bad_media.csv").read_text().splitlines()) == 1 + 7
    lonely = BadMediaLog(None, total=10)
    for start in range(9):
        lonely.add(BadMedia("r", "/set/r.wav", float(start), "is empty"))
        lonely.judge()


def test_nothing_but_bad(tmp_path):
    clips = dataset(sounds(tmp_path, 4, bad=(0, 1, 2, 3)), on_bad="skip", windows=1)
    assert clips.attempt(Key(0, 0)).clip is None
    with pytest.raises(AvscError, match="of 4 recordings, more than 1 %"):
        list(loader(clips, 2, shuffle=True))


def test_bad_media_of_a_store(tmp_path):
    """What could not be decoded when the store was prepared is dealt with as if it were read now."""
    (tmp_path / "set" / "a").mkdir(parents=True)
    sounds(tmp_path / "set" / "a", 10, bad=(3,))
    prepare(tmp_path / "set", tmp_path / "store", Options(), workers=1)
    store = open_store(tmp_path / "store")
    rows = [row._replace(scene="a", duration=2.0) for row in store.rows()[""]]
    clips = ClipDataset(rows, ["a"], SAMPLING, store=store, on_bad="skip")
    assert sum(len(batch.file) for batch in loader(clips, 4, shuffle=False)) == 18
    clips.on_bad = "raise"
    with pytest.raises(MediaError, match=r"003\.wav: is not a media file.*when the store was prepared"):
        list(loader(clips, 4, shuffle=False))


class Stumbling:
    """A transform that sleeps, or ends its process, over one recording."""

    def __init__(self, file: str, dies: bool):
        self.file, self.dies = file, dies

    def __call__(self, clip):
        if clip.file == self.file:
            if self.dies:
                os._exit(1)
            time.sleep(60)
        return clip


@pytest.mark.parametrize(
    ("dies", "told"),
    [
        (False, r"005\.wav: reading it takes more than 2 s"),
        (True, r"005\.wav: the process that read it died"),
    ],
)
def test_the_file_over_which_a_worker_stops_is_named(tmp_path, dies, told):
    clips = dataset(sounds(tmp_path, 8), transform=Stumbling("005", dies))
    batches = loader(clips, 2, shuffle=False, workers=2, patience=2.0)
    with pytest.raises(MediaError, match=told):
        list(batches)
    workers = batches._iterator._workers if batches._iterator else []
    for worker in workers:
        worker.terminate()


@pytest.mark.parametrize(
    "path",
    [
        *("http://127.0.0.1:9/clip.mp4", "https://example.org/clip.wav", "rtsp://127.0.0.1/live", "file:///etc/hosts"),
        *("concat:a.mp4|b.mp4", "pipe:0", "data:audio/wav;base64,UklGRg==", "subfile,,start,0,end,9,,:a.mp4"),
        *("async:a.mp4", "crypto:a.mp4", "lavfi:testsrc", "/dev/zero", "/dev/stdin", "tcp://127.0.0.1:9"),
    ],
)
def test_urls_and_protocols_are_not_opened(path):
    for read in (
        lambda: probe(path),
        lambda: read_frames(path, [0.0]),
        lambda: read_audio(path, 0.0, 1.0, 8000),
    ):
        with pytest.raises(MediaError, match=r"no such file|is a folder|is a pipe|[Nn]ot a directory"):
            read()


def test_claims_that_would_fill_the_memory(tmp_path):
    """A header may claim any sample rate and any shape; a second, or a frame, of it would be gigabytes."""
    soundfile.write(tmp_path / "fast.wav", np.zeros(8000), 8000)
    data = bytearray((tmp_path / "fast.wav").read_bytes())
    data[24:28] = (2_000_000_000).to_bytes(4, "little")
    (tmp_path / "fast.wav").write_bytes(data)
    with pytest.raises(MediaError, match=r"fast\.wav: is not a media file.*: its audio has 2000000000 Hz"):
        read_audio(tmp_path / "fast.wav", 0.0, 1.0, 48_000)
    Image.new("RGB", (30_000, 1)).save(tmp_path / "line.png")
    with pytest.raises(MediaError, match=r"line\.png: .*frames of 30000 x 1 square pixels"):
        read_frames(tmp_path / "line.png", [0.0], 256)


def test_lists_that_lead_elsewhere_are_not_followed(tmp_path):
    """A playlist in a media file's clothes must not have other files or addresses opened."""
    soundfile.write(tmp_path / "secret.wav", np.zeros(8000), 8000)
    for name, text in (
        ("list.mp4", "ffconcat version 1.0\nfile secret.wav\n"),
        ("list.mkv", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n"),
        ("live.ts", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"),
        ("session.mp4", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(MediaError):
            read_audio(tmp_path / name, 0.0, 0.5, 8000)
        with pytest.raises(MediaError):
            read_frames(tmp_path / name, [0.0])


def test_collate_is_as_before(tmp_path):
    clips = dataset(sounds(tmp_path, 2))
    batch = next(iter(loader(clips, 4, shuffle=False)))
    assert batch.file == ["000", "000", "001", "001"]
    assert torch.equal(batch.audio, collate([clips[index] for index in range(4)]).audio)
    assert isinstance(batch.start, torch.Tensor)


def test_recipes_take_the_policy(toy_city, tmp_path):
    """One bad video of twenty: training goes on and lists it, evaluation stops unless told to go on."""
    from avsc_e2e.evaluation import evaluate
    from avsc_e2e.models.zoo.own import tiny
    from avsc_e2e.training.recipe import Data, Heads, Optim, Recipe
    from avsc_e2e.training.trainer import train

    root = shutil.copytree(toy_city, tmp_path / "city")
    corpus = read_corpus(root, validation=0.5)
    for row in (corpus.train[0], corpus.test[0]):
        Path(row.video).write_bytes(b"no video at all")
    recipe = Recipe(
        "stage",
        model=replace(tiny(), size=32),
        data=Data(root=str(root), validation="0.5", workers=0),
        heads=Heads(1.0, 1.0, 1.0),
        optim=Optim(warmup=0.0),
        epochs=1,
        batch_size=5,
        pretrained=False,
        runs=str(tmp_path / "runs"),
    )
    train(recipe)
    listed = tmp_path / "runs" / "stage" / "bad_media.csv"
    assert {line["path"] for line in csv.DictReader(listed.read_text().splitlines())} == {corpus.train[0].video}
    with pytest.raises(MediaError, match="is not a media file"):
        evaluate(recipe)
    found = evaluate(replace(recipe, data=replace(recipe.data, on_bad="mask"))).outputs["decision"]
    assert len(found.files) == 20
    found = evaluate(replace(recipe, data=replace(recipe.data, on_bad="skip"))).outputs["decision"]
    assert len(found.files) == 18
    assert corpus.test[0].video in listed.read_text()


def test_workers_end_with_a_killed_main_process(tmp_path):
    sounds(tmp_path, 8)
    script = tmp_path / "main.py"
    script.write_text(
        "import sys\n"
        "from avsc_e2e.clip import Row\n"
        "from avsc_e2e.data.dataset import ClipDataset, Sampling\nfrom avsc_e2e.data.loader import loader\n"
        "if __name__ == '__main__':\n"
        "    rows = [Row(str(n), f'{sys.argv[1]}/{n:03d}.wav', '', 'a', '', '', 2.0) for n in range(8)]\n"
        "    clips = ClipDataset(rows, ['a'], Sampling(sample_rate=8000, video=False))\n"
        "    batches = loader(clips, 2, shuffle=False, workers=2)\n"
        "    iterator = iter(batches)\n"
        "    next(iterator)\n"
        "    print(*[worker.pid for worker in batches._iterator._workers], flush=True)\n"
        "    sys.stdin.read()\n"
    )
    main = subprocess.Popen([sys.executable, script, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    workers = [int(word) for word in main.stdout.readline().split()]
    assert len(workers) == 2
    main.kill()
    main.communicate()
    for _ in range(300):
        left = [pid for pid in workers if Path(f"/proc/{pid}/stat").exists()]
        left = [pid for pid in left if Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"]
        if not left:
            return
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, 9)
    pytest.fail(f"{len(left)} workers outlived the main process by 30 s")
