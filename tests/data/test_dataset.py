"""From rows to batches: the same clips whoever reads them, all of every recording, nothing twice."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from support import flat, real, write_video

import avsc_e2e.data.loader as loader_module
from avsc_e2e.clip import Row
from avsc_e2e.data.dataset import ClipDataset, Key, Sampling, fixed_segments
from avsc_e2e.data.loader import collate, loader
from avsc_e2e.data.media import probe
from avsc_e2e.data.sampler import KeyedSampler
from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.errors import AvscError, MediaError
from avsc_e2e.models.zoo.catalogue import create_model
from avsc_e2e.transforms import Compose
from avsc_e2e.transforms.frames import ColourJitter, HorizontalFlip, RandomResizedCrop
from avsc_e2e.transforms.waveform import Waveform

SMALL = Sampling(sample_rate=8000, short_side=48, frames=2)
AUGMENT = Compose((RandomResizedCrop(size=32), HorizontalFlip(), ColourJitter(), Waveform(sample_rate=8000)))


def same(a, b) -> bool:
    return all(
        torch.equal(x, y) and x.dtype == y.dtype if isinstance(x, torch.Tensor) else x == y
        for x, y in zip(a, b, strict=True)
    )


@pytest.fixture(scope="module")
def corpus(toy_city):
    return read_corpus(toy_city)


@pytest.fixture(scope="module")
def training(corpus) -> ClipDataset:
    return ClipDataset(corpus.train, corpus.classes, SMALL, AUGMENT, windows=2, seed=7)


def epochs(dataset, workers: int, count: int = 2) -> list:
    batches = loader(dataset, 6, shuffle=True, workers=workers, seed=7)
    found = []
    for epoch in range(count):
        batches.sampler.set_epoch(epoch)
        found.append(list(batches))
    return found


@pytest.fixture(scope="module")
def alone(training):
    return epochs(training, 0)


@pytest.mark.parametrize("workers", [1, 4])
def test_same_clips_for_any_number_of_workers(training, alone, workers):
    for mine, theirs in zip(alone, epochs(training, workers), strict=True):
        assert len(mine) == len(theirs) == 3
        assert all(same(a, b) for a, b in zip(mine, theirs, strict=True))


def test_epochs_differ_and_repeat(training, alone):
    first, second = alone
    assert [batch.file for batch in first] != [batch.file for batch in second]
    assert not same(training[Key(0, 3)], training[Key(1, 3)])
    assert not torch.equal(training[Key(0, 3)].audio, training[Key(1, 3)].audio)
    assert not torch.equal(training[Key(0, 3)].video, training[Key(1, 3)].video)
    assert same(training[Key(1, 3)], training[Key(1, 3)])
    assert same(training[Key(0, 3)], training[3])
    other = ClipDataset(training.rows, training.classes, SMALL, AUGMENT, windows=2, seed=8)
    assert not same(training[Key(0, 3)], other[Key(0, 3)])


def test_a_clip_does_not_depend_on_what_was_drawn_before(training):
    expected = training[Key(0, 5)]
    torch.rand(3)
    np.random.rand(3)
    training[Key(0, 9)]
    assert same(training[Key(0, 5)], expected)


def test_reading_leaves_the_generators_alone(training):
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    a = torch.rand(1)
    training[Key(0, 1)]
    assert torch.equal(torch.cat([a, torch.rand(1)]), expected)


def test_order_is_keyed():
    def order(epoch=0, **options):
        sampler = KeyedSampler(50, shuffle=True, **options)
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {key.epoch for key in keys} == {epoch}
        return [key.index for key in keys]

    assert order() == order()
    assert order() != order(epoch=1)
    assert order() != order(seed=1)
    assert sorted(order(epoch=4)) == list(range(50))


@pytest.mark.parametrize(("length", "replicas"), [(10, 1), (10, 2), (11, 2), (7, 3), (2, 3)])
def test_replicas_share_the_work(length, replicas):
    for shuffle in (True, False):
        samplers = [KeyedSampler(length, shuffle=shuffle, rank=rank, replicas=replicas) for rank in range(replicas)]
        parts = [[key.index for key in sampler] for sampler in samplers]
        assert [len(part) for part in parts] == [len(sampler) for sampler in samplers]
        flat_parts = [index for part in parts for index in part]
        assert len(set(flat_parts)) == len(flat_parts)
        if shuffle:  # every process takes as many steps
            assert len({len(part) for part in parts}) == 1
            assert length - len(flat_parts) < replicas
        else:
            assert sorted(flat_parts) == list(range(length))


def test_frames_are_drawn_within_their_spans_by_epoch(monkeypatch):
    """In training each of three frames has a time of its own in its third of the window; in evaluation its middle."""
    asked: list[np.ndarray] = []

    def read(path, times, side, decoder="auto"):
        asked.append(np.array(times))
        return np.zeros((len(times), side, side, 3), np.uint8)

    monkeypatch.setattr("avsc_e2e.data.dataset.read_frames", read)
    row = Row("x", video="x.mp4", scene="a", duration=8.0)
    want = Sampling(audio=False, frames=3, window=1.5, short_side=8)
    training = ClipDataset([row], ["a", "b"], want, windows=1)
    places = []  # how far into its span each frame lies
    for epoch in range(40):
        clip = training[Key(epoch, 0)]
        places.append((asked.pop() - clip.start) / 0.5 - np.arange(3))
    places = np.array(places)
    assert 0 <= places.min() < 0.05
    assert 0.95 < places.max() < 1
    assert (places.std(axis=0) > 0.2).all()  # uniform: 0.29
    assert (np.abs(np.corrcoef(places.T))[np.triu_indices(3, 1)] < 0.5).all()  # each drawn alone
    ClipDataset([row], ["a", "b"], want)[1]
    assert asked.pop() == pytest.approx([1.75, 2.25, 2.75])


def test_random_windows_reach_all_parts(tmp_path):
    """The sound is a ramp of the time, so a clip tells where it was cut."""
    rate, seconds = 1000, 10
    ramp = np.arange(rate * seconds) / (rate * seconds)
    soundfile.write(tmp_path / "ramp.wav", ramp, rate, subtype="FLOAT")
    row = Row("ramp", audio=str(tmp_path / "ramp.wav"), scene="a", duration=seconds)
    want = Sampling(sample_rate=rate, channels=1, video=False)
    dataset = ClipDataset([row], ["a", "b"], want, windows=3)
    assert len(dataset) == 3
    starts = np.zeros((200, 3))
    for epoch in range(200):
        for index in range(3):
            clip = dataset[Key(epoch, index)]
            assert clip.audio.shape == (1, rate)
            assert float(clip.audio[0, 0]) * seconds == pytest.approx(clip.start, abs=2e-3)
            assert bool((clip.audio.diff() > 0).all())  # nothing padded: the window lies inside
            starts[epoch, index] = clip.start
    assert starts.min() >= 0
    assert starts.max() <= 9
    for index in range(3):  # each window in its own third
        assert 3 * index <= starts[:, index].min() < 3 * index + 0.3
        assert 3 * index + 2.7 < starts[:, index].max() <= 3 * index + 3


@pytest.mark.parametrize("windows", [1, 2])
def test_windows_by_length(tmp_path, windows):
    """As many as a recording counts in evaluation, times `windows`, in order and each in its own part."""
    rows = []
    for name, seconds in (("long", 5.0), ("short", 0.5), ("middle", 2.0)):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(round(1000 * seconds)), 1000, subtype="FLOAT")
        rows.append(Row(name, audio=str(tmp_path / f"{name}.wav"), scene="a", duration=seconds))
    want = Sampling(sample_rate=1000, channels=1, video=False)
    dataset = ClipDataset(rows, ["a"], want, windows=windows, by_length=True)
    assert len(dataset) == 8 * windows
    clips = [dataset[Key(0, index)] for index in range(len(dataset))]
    assert [clip.file for clip in clips] == ["long"] * 5 * windows + ["short"] * windows + ["middle"] * 2 * windows
    assert [clip.file for clip in clips] == [dataset.row(index).file for index in range(len(dataset))]
    parts = 4 * np.arange(5 * windows + 1) / (5 * windows)
    for clip, low, high in zip(clips, parts[:-1], parts[1:], strict=False):
        assert low <= clip.start <= high
    assert clips[5 * windows].start == 0


@pytest.mark.parametrize(
    ("duration", "expected"),
    [(10.0, 10), (479_999 / 48_000, 10), (480_001 / 48_000, 10), (9.5, 9), (1.0, 1), (0.4, 1), (0.0, 1), (2.98, 2)],
)
def test_fixed_windows(duration, expected):
    segments = fixed_segments(Row("r", duration=duration))
    assert [segment.start for segment in segments] == list(range(expected))
    assert all(segment.duration == 1.0 for segment in segments)


def test_fixed_windows_of_real_sounds():
    rows = []
    for path in sorted(real("real_audio").glob("*.wav")):
        rows.append(Row(path.stem, audio=str(path), duration=probe(path).duration))
    dataset = ClipDataset(rows, ["a", "b"], Sampling(sample_rate=16_000, video=False))
    assert len(dataset) == 10 * len(rows)
    last = dataset[9]
    assert (last.start, last.audio.shape, int(last.target)) == (9.0, (2, 16_000), -1)
    assert last.present.tolist() == [True, False]


def test_evaluation_clips(corpus):
    dataset = ClipDataset(corpus.test, corpus.classes, SMALL)
    batches = list(loader(dataset, 7, shuffle=False))
    files = [file for batch in batches for file in batch.file]
    starts = torch.cat([batch.start for batch in batches]).tolist()
    assert list(zip(files, starts, strict=True)) == [(row.file, s) for row in corpus.test for s in (0.0, 1.0)]
    targets = torch.cat([batch.target for batch in batches]).tolist()
    assert [corpus.classes[t] for t in targets] == [row.scene for row in corpus.test for _ in range(2)]
    batch = batches[0]
    assert (batch.audio.shape, batch.audio.dtype) == ((7, 2, 8000), torch.float32)
    assert (batch.video.shape, batch.video.dtype) == ((7, 2, 3, 48, 60), torch.uint8)
    assert (batch.present.shape, batch.present.dtype) == ((7, 2), torch.bool)
    assert bool(batch.present.all())
    assert float(batch.audio.abs().max()) <= 1


def test_one_start_for_picture_and_sound(tmp_path):
    """Brightness and loudness tell the time of the recording, and agree in every random window."""
    seconds, rate = 6, 8000
    path = write_video(tmp_path / "dawn.mp4", [flat(10 + 4 * i) for i in range(10 * seconds)], rate=10)
    soundfile.write(tmp_path / "dawn.wav", np.arange(seconds * rate) / (seconds * rate), rate, subtype="FLOAT")
    row = Row("dawn", audio=str(tmp_path / "dawn.wav"), video=str(path), scene="a", duration=seconds)
    dataset = ClipDataset([row], ["a", "b"], replace(SMALL, frames=4, channels=1), windows=1)
    for epoch in range(20):
        clip = dataset[Key(epoch, 0)]
        heard = clip.audio[0] * seconds
        assert float(heard[0]) == pytest.approx(clip.start, abs=1e-3)
        seen = (clip.video.float().mean(dim=(1, 2, 3)) - 10) / 40
        for part, time in enumerate(seen.tolist()):  # frame t lies in the t-th quarter of the window
            assert clip.start + part / 4 - 0.11 <= time <= clip.start + (part + 1) / 4 + 0.02


def test_missing_modalities(corpus):
    whole, silent, blind = corpus.test[0], corpus.test[1]._replace(audio=""), corpus.test[2]._replace(video="")
    dataset = ClipDataset([whole, silent, blind], corpus.classes, replace(SMALL, short_side=64))
    square = Compose((RandomResizedCrop(smallest=1.0, size=32),))
    dataset.transform = square
    batch = collate([dataset[index] for index in (0, 2, 4)])
    assert batch.present.tolist() == [[True, True], [False, True], [True, False]]
    assert not batch.audio[1].any()
    assert not batch.video[2].any()
    assert batch.audio[0].any()
    assert batch.audio[2].any()
    assert batch.video[1].any()
    for change, index in (({"audio": False}, 0), ({"video": False}, 1)):
        clip = ClipDataset([whole], corpus.classes, replace(SMALL, **change))[0]
        assert clip.present.tolist() == [index == 1, index == 0]
        assert clip[index].numel() == 0


def test_unknown_class(corpus):
    with pytest.raises(AvscError, match=r"unknown class 'zoo'; the model's classes are airport, bus"):
        ClipDataset([corpus.test[0]._replace(scene="zoo")], corpus.classes, SMALL)


def test_a_file_that_breaks_is_named_from_a_worker(corpus, tmp_path):
    rows = list(corpus.test[:2])
    (tmp_path / "broken.mp4").write_text("no video")
    rows[1] = rows[1]._replace(video=str(tmp_path / "broken.mp4"))
    batches = loader(ClipDataset(rows, corpus.classes, SMALL), 2, shuffle=False, workers=1)
    with pytest.raises(MediaError, match=r"broken\.mp4: is not a media file") as caught:
        list(batches)
    assert caught.value.path == str(tmp_path / "broken.mp4")
    assert "\n" not in str(caught.value)


def test_a_last_batch_of_few_is_left_out_in_training_only(training, corpus):
    assert len(loader(training, 16, shuffle=True)) == 1  # of 20 clips
    assert len(loader(training, 64, shuffle=True)) == 1
    assert len(loader(ClipDataset(corpus.test, corpus.classes, SMALL), 16, shuffle=False)) == 2


def test_a_batch_keeps_the_frames_as_they_lie(training):
    """(T, H, W, 3) in memory from the decoder to the device: neither collate nor the network turns them around."""
    clips = [training[Key(0, index)] for index in range(3)]
    batch = collate(clips)
    assert batch.video.shape == (3, *clips[0].video.shape)
    assert batch.video.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    for clip, video in zip(clips, batch.video, strict=True):
        assert torch.equal(video, clip.video)


@pytest.mark.parametrize(
    ("text", "size", "told"),
    [
        (
            "Caught RuntimeError\nunable to allocate shared memory(shm) for file </torch_1>: Success (0)",
            8,
            True,
        ),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. ", 64 << 20, True),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. ", 64 << 30, False),
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", 64 << 20, False),
    ],
)
def test_too_little_shared_memory_names_the_way_out(training, monkeypatch, text, size, told):
    monkeypatch.setattr(loader_module.shutil, "disk_usage", lambda path: SimpleNamespace(total=size))
    batches = loader(training, 2, shuffle=False, workers=0)
    batches.reading = torch.zeros(0, 2)
    with pytest.raises((AvscError, RuntimeError)) as found:
        batches._judge(RuntimeError(text), 0.0)
    words = ("--shm-size", "data.workers", "/dev/shm")
    assert [word in str(found.value) for word in words] == [told] * 3


def test_audio_of_16_bits_crosses_as_16_bits_and_nothing_is_lost(tmp_path):
    draw = np.random.default_rng(0)
    for name, subtype in (("low", "PCM_16"), ("high", "PCM_24")):
        soundfile.write(tmp_path / f"{name}.wav", draw.uniform(-1, 1, (48_000, 2)), 48_000, subtype=subtype)
    want = Sampling(video=False)
    rows = {name: Row(name, audio=str(tmp_path / f"{name}.wav"), duration=1.0) for name in ("low", "high")}
    datasets = {name: ClipDataset([row], ("a",), want) for name, row in rows.items()}
    [whole], [small], [high] = (
        list(loader(datasets[name], 2, shuffle=False, small=small))
        for name, small in (("low", False), ("low", True), ("high", True))
    )
    assert small.audio.dtype == torch.int16
    assert 2 * small.audio.nbytes == whole.audio.nbytes == 384_000
    assert high.audio.dtype == torch.float32
    model = create_model("tiny", video="", fusion="", sample_rate=48_000).eval()
    assert torch.equal(model.preprocess(small).audio, model.preprocess(whole).audio)
    assert model.preprocess(high).audio.isfinite().all()
