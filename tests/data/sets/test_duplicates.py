"""Copies of one recording stay together, however they were made; what only resembles does not."""

import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from avsc_e2e.data.sets import duplicates
from avsc_e2e.data.sets.duplicates import find_copies
from avsc_e2e.data.sets.folder import read_folder, read_rows
from avsc_e2e.data.sets.grouping import group_rows
from avsc_e2e.data.sets.rows import measure


def scene(seed, frames=50):
    """Drifting patches and noise with a melody, 2 s at 25 frames a second and 44.1 kHz."""
    draw = np.random.default_rng(seed)
    base = np.kron(draw.integers(0, 255, (6, 8, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    images = [np.roll(base, shift, axis=1) for shift in range(frames)]
    time = np.arange(88200) / 44100
    notes = np.repeat(draw.uniform(200, 2000, 20), 4410)
    sound = 0.2 * np.sin(2 * np.pi * notes * time) + 0.05 * draw.standard_normal(88200)
    return images, sound.astype(np.float32)


def encode(path, images, sound, codec="libx264", size=(160, 120), rate=25, audio="aac", quality="23"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=rate, width=size[0], height=size[1], pix_fmt="yuv420p")
        video.options = {"crf": quality}
        track = container.add_stream(audio, rate=44100, layout="mono") if sound is not None else None
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(*size, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if track:
            fifo = av.AudioFifo()
            frame = av.AudioFrame.from_ndarray(sound[None], "fltp", "mono")
            frame.sample_rate, frame.pts = 44100, 0
            fifo.write(frame)
            while block := fifo.read(track.codec_context.frame_size or 1024, partial=True):
                container.mux(track.encode(block))
            container.mux(track.encode())


def pairs(root):
    found = {part: measure(rows, lenient=True) for part, rows in read_rows(root).items()}
    rows = [row for rows in group_rows(found, group="(.+)").values() for row in rows]
    return {(*sorted((pair.first.file, pair.second.file)), pair.exact) for pair in find_copies(rows)}


def test_copies_are_found_and_others_are_not(tmp_path):
    for number in range(6):
        encode(tmp_path / "a" / f"x{number}.mp4", *scene(number))
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / "a" / "x0.mp4", tmp_path / "b" / "same.mp4")
    encode(tmp_path / "b" / "small.mkv", *scene(1), "mpeg4", (80, 60), audio="libmp3lame")
    encode(
        tmp_path / "b" / "poor.avi",
        *scene(2),
        "mpeg4",
        audio="libmp3lame",
    )
    encode(tmp_path / "b" / "other_audio.mp4", scene(3)[0], scene(30)[1])  # the same camera at another time
    encode(tmp_path / "b" / "other_video.mp4", scene(40)[0], scene(4)[1])  # the same music
    encode(tmp_path / "b" / "mute.mp4", scene(5)[0], None)
    assert pairs(tmp_path) == {
        ("a/x0", "b/same", True), ("a/x1", "b/small", False), ("a/x2", "b/poor", False),
    }  # fmt: skip


def test_frames_are_decoded_only_where_the_audio_agrees(tmp_path, monkeypatch):
    """Decoding a frame takes most of the time: 1,700 clips of ten seconds took a minute and a half for theirs."""
    for number in range(4):
        encode(tmp_path / "a" / f"x{number}.mp4", *scene(number))
    encode(tmp_path / "b" / "copy.mkv", *scene(1), "mpeg4", audio="libmp3lame")
    opened = set()
    read = duplicates.read_frames
    monkeypatch.setattr(duplicates, "read_frames", lambda path, *rest: opened.add(Path(path).name) or read(path, *rest))
    assert pairs(tmp_path) == {("a/x1", "b/copy", False)}
    assert opened == {"x1.mp4", "copy.mkv"}


def test_one_equal_frame_without_audio_is_no_evidence(tmp_path):
    """A camera that stands still shows the same place at other times; a copy shows the same everywhere."""
    images = scene(0)[0]
    later = [*reversed(scene(1)[0][:22]), *images[22:28], *scene(1)[0][28:]]
    encode(tmp_path / "a" / "x.mp4", images, None)
    encode(tmp_path / "a" / "copy.avi", images, None, "mpeg4", (80, 60))
    encode(tmp_path / "b" / "later.mp4", later, None)
    assert pairs(tmp_path) == {("a/copy", "a/x", False)}


def test_silent_and_black_middles_are_no_evidence(tmp_path):
    black = [np.zeros((120, 160, 3), np.uint8)] * 50
    for number in range(3):
        encode(
            tmp_path / "a" / f"x{number}.mp4",
            black,
            np.zeros(88200, np.float32) + 1e-6 * number,
            quality=str(20 + number),
        )
    (tmp_path / "b").mkdir()
    noise = [np.random.default_rng(seed).uniform(-0.5, 0.5, 16000) for seed in range(3)]
    for number in range(3):  # steady noise of one spectrum
        soundfile.write(tmp_path / "b" / f"y{number}.wav", noise[number], 8000)
    assert {pair for pair in pairs(tmp_path) if not pair[2]} == set()
    soundfile.write(tmp_path / "b" / "z.flac", 0.5 * noise[0], 8000)
    assert pairs(tmp_path) == {("b/y0", "b/z", False)}


def test_copies_keep_their_sources_together(tmp_path, caplog):
    draw = np.random.default_rng(0)
    for name in (f"{scene}/{source}{n}" for scene in "ab" for source in "xyz" for n in range(2)):
        path = tmp_path / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, draw.uniform(-0.5, 0.5, 16000), 8000)
    shutil.copy(tmp_path / "a" / "x0.wav", tmp_path / "a" / "later.wav")
    shutil.copy(tmp_path / "a" / "x0.wav", tmp_path / "b" / "again.wav")
    corpus = read_folder(tmp_path, group=r"(\w+?)\d?", validation=0)
    place = {row.file: row.location for part in corpus[1:] for row in part}
    assert place["a/later"] == place["b/again"] == place["a/x0"] == place["a/x1"] == place["b/x0"]
    assert len(set(place.values())) == 3
    assert "2 recordings occur under more than one name, such as a/" in caplog.text
    assert not {row.location for row in corpus.train} & {row.location for row in corpus.test}
    for part in ("train", "test"):
        shutil.copytree(tmp_path / "a", tmp_path / "parts" / part / "a")
    shutil.rmtree(tmp_path / "parts" / "test" / "a")
    (tmp_path / "parts" / "test" / "a").mkdir()
    shutil.copy(tmp_path / "a" / "y0.wav", tmp_path / "parts" / "test" / "a" / "new_name.wav")
    caplog.clear()
    read_folder(tmp_path / "parts", validation=0)
    assert "1 source recordings are in both the training and the test set" in caplog.text


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_parts_do_not_depend_on_the_modality(tmp_path, modality):
    for number in range(8):
        images, sound = scene(number, 25)
        encode(tmp_path / "a" / f"x{number}.mp4", images, sound[:44100] if number % 4 else None)
    whole, one = (read_folder(tmp_path, modalities=m) for m in (("audio", "video"), (modality,)))
    for of_whole, of_one in zip(whole[1:], one[1:], strict=True):
        assert {row.file for row in of_one} <= {row.file for row in of_whole}
    assert sum(map(len, one[1:])) == (6 if modality == "audio" else 8)
