"""The toy city: the official layout, real media, the same bytes each time."""

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from avsc_e2e.clip import SCENES
from avsc_e2e.errors import AvscError
from avsc_e2e.toycity import audio as toyaudio
from avsc_e2e.toycity import city as toycity
from avsc_e2e.toycity import image as toyimage
from avsc_e2e.toycity.audio import synthesise
from avsc_e2e.toycity.city import CITIES, REFERENCE, ToyCity
from avsc_e2e.toycity.image import draw

SMALL = ToyCity(train_locations=2, test_locations=1, clips=2, duration=1.3, height=64, width=80, seed=3)


def rows(root: Path, name: str) -> list[dict[str, str]]:
    with (root / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def city(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("toy") / "city"
    SMALL.render(root, workers=1)
    return root


def test_layout(city):
    meta = rows(city, "meta.csv")
    train, test = rows(city, "evaluation_setup/fold1_train.csv"), rows(city, "evaluation_setup/fold1_test.csv")
    evaluate = rows(city, "evaluation_setup/fold1_evaluate.csv")
    assert (len(meta), len(train), len(test), len(evaluate)) == (60, 40, 20, 20)
    assert list(meta[0]) == ["filename_audio", "filename_video", "scene_label", "identifier"]
    assert list(train[0]) == list(evaluate[0]) == ["filename_audio", "filename_video", "scene_label"]
    assert list(test[0]) == ["filename_audio", "filename_video"]
    assert [row["filename_audio"] for row in test] == [row["filename_audio"] for row in evaluate]
    assert Counter(row["scene_label"] for row in meta) == dict.fromkeys(SCENES, 6)
    names = [row["filename_audio"] for row in meta] + [row["filename_video"] for row in meta]
    lists = ["meta.csv", "toycity.json"] + [f"evaluation_setup/fold1_{p}.csv" for p in ("train", "test", "evaluate")]
    assert files(city) == sorted(names + lists)
    for row in meta:
        folder, _, file = row["filename_audio"].partition("/")
        assert folder == "audio"
        scene, place, location, _segment = file.removesuffix(".wav").split("-")
        assert (scene, f"{place}-{location}") == (row["scene_label"], row["identifier"])
        assert place in CITIES
        assert row["filename_video"] == f"video/{file.removesuffix('.wav')}.mp4"


def test_locations_are_disjoint(city):
    def locations(name):
        return {row["filename_audio"].split("-")[2] for row in rows(city, f"evaluation_setup/fold1_{name}.csv")}

    assert len(locations("train")) == 20
    assert len(locations("test")) == 10
    assert not locations("train") & locations("test")
    assert len({row["identifier"].split("-")[0] for row in rows(city, "meta.csv")}) >= 5


def test_sound(city):
    for row in rows(city, "meta.csv"):
        path = city / row["filename_audio"]
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype, info.format) == (48_000, 2, "PCM_24", "WAV")
        assert info.frames == 62_400
        waveform = soundfile.read(path)[0]
        assert 0.005 < np.sqrt(np.mean(waveform**2)) < 0.3
        assert np.abs(waveform).max() < 1
        assert np.abs(waveform[:, 0] - waveform[:, 1]).max() > 1e-3  # the ears differ


def test_video(city):
    for row in rows(city, "meta.csv")[::5]:
        path = city / row["filename_video"]
        with av.open(str(path)) as container:
            assert [stream.type for stream in container.streams] == ["video"]
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert stream.average_rate == 10
        pictures = frames(path)
        assert pictures.shape == (13, 64, 80, 3)
        assert pictures.std() > 20
        change = np.abs(np.diff(pictures.astype(int), axis=0)).mean((1, 2, 3))
        assert (change > 0.05).any()  # something moves
        assert change.max() < 25  # over a still background


def test_clips_and_locations_differ(city):
    def sound(name):
        return soundfile.read(next((city / "audio").glob(name)))[0]

    clips = [sound("bus-*-1-2.wav"), sound("bus-*-1-3.wav"), sound("bus-*-11-22.wav")]
    assert not np.allclose(clips[0], clips[1], atol=1e-3)
    assert not np.allclose(clips[0], clips[2], atol=1e-3)


def test_the_same_bytes_with_more_processes(city, tmp_path):
    SMALL.render(tmp_path / "again", workers=2)
    assert files(tmp_path / "again") == files(city)
    for name in files(city):  # the videos too
        assert (tmp_path / "again" / name).read_bytes() == (city / name).read_bytes(), name


def test_encoding_repeats_itself(tmp_path):
    # Needs frames of some size and seconds of motion: x264's macroblock tree failed here in most of ten calls.
    settings = ToyCity(duration=4, seed=1)
    job = next(job for job in toycity._jobs(settings) if job.name == "metro-paris-2-2")
    pictures = list(draw(REFERENCE[job.scene].look, settings, *toycity._generators(settings, job, 1)))
    encoded = set()
    for size in range(10):
        _elsewhere = [bytes(1000 * (size + 1)) for _ in range(20)]  # other memory for the encoder
        toycity._write_video(tmp_path / "video.mp4", iter(pictures), settings)
        encoded.add((tmp_path / "video.mp4").read_bytes())
    assert len(encoded) == 1


def test_another_seed_is_another_city():
    settings = [ToyCity(duration=0.5, height=32, width=32, seed=seed) for seed in (0, 1)]
    job = toycity._jobs(settings[0])[0]
    a, b = (
        synthesise(REFERENCE[job.scene].audio, each.duration, *toycity._generators(each, job, 0)) for each in settings
    )
    assert np.abs(a - b).max() > 1e-3
    a, b = (
        next(draw(REFERENCE[job.scene].look, each, *toycity._generators(each, job, 1))).tobytes() for each in settings
    )
    assert a != b


def test_render_takes_the_settings_as_keywords(tmp_path):
    ToyCity(train_locations=1, test_locations=1, duration=0.5, height=32, width=32).render(tmp_path, workers=1)
    assert len(rows(tmp_path, "meta.csv")) == 20


def test_rendering_again_writes_nothing_and_mends_what_is_missing(city):
    before = {name: (city / name).stat().st_mtime_ns for name in files(city) if name[-3:] in ("wav", "mp4")}
    calls = []
    SMALL.render(city, progress=lambda *call: calls.append(call))
    assert calls == [(60, 60)]
    lost = sorted(before)[7]
    content = (city / lost).read_bytes()
    (city / lost).unlink()
    SMALL.render(city, progress=lambda *call: calls.append(call))
    assert calls[1:] == [(59, 60), (60, 60)]
    assert (city / lost).read_bytes() == content
    kept = [name for name in before if name.rpartition(".")[0][6:] != lost.rpartition(".")[0][6:]]
    assert all((city / name).stat().st_mtime_ns == before[name] for name in kept)


def test_scenes_are_told_apart_by_both_modalities_only():
    assert set(REFERENCE) == set(SCENES)
    assert len(set(REFERENCE.values())) == 10
    looks = Counter(appearance.look for appearance in REFERENCE.values())
    sounds = Counter(appearance.audio for appearance in REFERENCE.values())
    assert 5 <= len(looks) <= 7
    assert 5 <= len(sounds) <= 7
    assert set(looks) == set(toyimage.LOOKS)
    assert set(sounds) == set(toyaudio._KINDS)
    assert REFERENCE["bus"].look == REFERENCE["metro"].look == REFERENCE["tram"].look
    assert REFERENCE["park"].audio == REFERENCE["public_square"].audio == REFERENCE["street_pedestrian"].audio


def test_other_settings_are_refused(city):
    with pytest.raises(AvscError, match=r"other settings \(seed=3 there, 5 asked\); choose another folder or delete"):
        ToyCity(train_locations=2, test_locations=1, clips=2, duration=1.3, height=64, width=80, seed=5).render(city)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(AvscError, match="not empty and not a toy city"):
        SMALL.render(tmp_path)
    with pytest.raises(AvscError, match="is a file"):
        SMALL.render(tmp_path / "holiday.txt")
    (tmp_path / "toycity.json").write_text("[")
    with pytest.raises(AvscError, match=r"toycity\.json: is not the settings"):
        SMALL.render(tmp_path)
    assert files(tmp_path) == ["holiday.txt", "toycity.json"]


@pytest.mark.parametrize(
    "setting",
    [
        {"clips": 0},
        {"train_locations": 0},
        {"width": 33},
        {"height": 8},
        {"duration": 0},
        {"frame_rate": 0},
        {"seed": -1},
    ],
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(AvscError, match=next(iter(setting))):
        ToyCity(**setting)


def test_no_half_file_is_left_when_rendering_fails(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(toycity, "_write_video", fail)
    with pytest.raises(AvscError, match=r"cannot be written \(disk full\)"):
        SMALL.render(tmp_path / "city", workers=1)
    assert [name for name in files(tmp_path / "city") if "/" not in name] == ["toycity.json"]
    assert not list((tmp_path / "city" / "video").iterdir())
    assert not list(tmp_path.rglob(".*"))


def test_workers_stay_light():
    code = "import sys, avsc_e2e.toycity.city; print(*sorted({'torch', 'decord', 'cv2', 'scipy'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
