"""Every frame and every second the right one, in files whose frames bear their number (tests/numbered.py)."""

import os
from pathlib import Path

import av
import numpy as np
import pytest
from numbered import (
    AUDIO_RATE,
    GAP,
    RATE,
    RECIPES,
    encode_audio,
    frames_in_order,
    lag,
    noise,
    numbers,
    read,
    write,
    write_wav,
)
from PIL import Image

from avsc_e2e.data.media import (
    audio,
    audio_blocks,
    decode_frames,
    decode_windows,
    probe,
    read_audio,
    read_frames,
    sharing,
)
from avsc_e2e.errors import MediaError

SECONDS = 6
QUICK = {
    *("mpeg4_b.avi", "mpeg4_packed.avi", "h264.mp4", "h264_intra_refresh.mp4", "h264_pyramid.mkv", "h264_no_times.avi"),
    *("h264_no_times.mkv", "mpeg4_no_times.mkv"),
    *("h264_open_gop.ts", "h264_fragments.mp4", "h264_live.mkv", "h264_two_tracks.mp4", "h264_varying.mp4"),
    *("h264_cut.mp4", "h264_cut.ts", "h264_open_gop_cut.mp4", "h265_open_gop.mp4", "h265_cut.mkv", "vp8.webm"),
    *("vp9_live.webm", "mjpeg.avi", "mpeg2.mpg"),
}
"""Those that the tests read; benchmarks/media_exact.py reads all."""
EARLY = {"h264_fragments.mp4": 0.08, "mpeg2.mpg": 0.03}
"""Seconds by which the video of a file that cannot say so is late: its B frames are decoded two frames ahead."""


@pytest.fixture(scope="session")
def numbered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbered")
    return lambda recipe: write(folder, recipe, SECONDS * RATE)


def seconds_of(recipe) -> float:
    """How long a file's audio is."""
    return (recipe.times(SECONDS * RATE)[-1] if recipe.times else (SECONDS * RATE - 1) / RATE) + 1 / RATE


def shown(path) -> tuple[np.ndarray, list[int], list[float]]:
    """Seconds of the recording at which each frame is shown, its number, and a time within its stay."""
    truth = frames_in_order(path)
    starts = np.array([time for time, _ in truth]) - probe(path).origin
    stays = np.minimum(np.diff(starts, append=starts[-1] + 1 / RATE), 1.0)
    return starts, [number for _, number in truth], (starts + 0.45 * stays).tolist()


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if recipe.name in QUICK], ids=lambda r: r.name)
def test_every_frame_is_the_right_one(numbered, recipe):
    path = numbered(recipe)
    _, truth, times = shown(path)
    assert len(truth) >= 30
    assert np.diff(truth).tolist() == [1] * (len(truth) - 1)
    draw = np.random.default_rng(0)
    for place in draw.choice(len(truth), 12, replace=False).tolist():
        assert numbers(read_frames(path, [times[place]], 96)) == [truth[place]], f"at {times[place]:.3f} s"
    places = draw.integers(0, len(truth), 7).tolist()
    assert numbers(read_frames(path, [times[place] for place in places], 96)) == [truth[place] for place in places]
    if path.suffix == ".avi":  # those whose frames are counted too
        with pytest.raises(MediaError, match=r"no frame at 60\.00 s"):
            read_frames(path, [times[0], 60.0])


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if recipe.name in QUICK], ids=lambda r: r.name)
def test_one_pass_gives_the_same_as_random_reading(numbered, recipe):
    path = numbered(recipe)
    duration = probe(path).duration
    windows = list(
        decode_windows(path, window=1.0, hop=1.0, frames=(0.1, 0.5, 0.9), short_side=96, sample_rate=AUDIO_RATE)
    )
    assert len(windows) == max(int(np.ceil(duration - 0.05)), 1)
    assert windows[-1].start == pytest.approx(max(duration - 1.0, 0.0))
    for window in windows:
        times = [min(window.start + time, duration) for time in (0.1, 0.5, 0.9)]
        if isinstance(window.frames, MediaError):
            with pytest.raises(MediaError):
                read_frames(path, times, 96)
        else:
            assert np.array_equal(window.frames, read_frames(path, times, 96)), window.start
        if recipe.audio:
            direct = read_audio(path, window.start, 1.0, AUDIO_RATE)
            assert window.audio.shape == direct.shape
            if window.start:  # Matroska rounds the time stamps of Opus to a millisecond
                late = [lag(audio, window.start, seconds_of(recipe)) for audio in (window.audio, direct)]
                assert late[0] == pytest.approx(late[1], abs=0.0025)
        else:
            assert window.audio is None
    spans, end = [], 0.0
    for image, count, end in decode_frames(path, 5.0, 96):  # noqa: B007
        spans += [-2 if isinstance(image, MediaError) else read(image)] * count
    assert len(spans) == max(int(end * 5 + 0.5), 1)
    for span, number in enumerate(spans):
        if number >= 0:
            assert number == read(read_frames(path, [(span + 0.5) / 5], 96)[0])


def bytes_read() -> int:
    """That this process has asked the system for so far."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count the bytes that are read")
@pytest.mark.parametrize("name", ["h264.mp4", "h264_pyramid.mkv", "h264_open_gop.ts", "mpeg4_b.avi", "vp8.webm"])
def test_one_pass_reads_each_byte_once(numbered, monkeypatch, name):
    """Video and audio have a decoder each, for both of which the file is read once; what of it is kept, is bounded."""
    path = numbered(next(recipe for recipe in RECIPES if recipe.name == name))
    duration = probe(path).duration
    windows = lambda: list(decode_windows(path, frames=(0.1, 0.9), short_side=96))  # noqa: E731
    windows()  # imports
    before = bytes_read()
    found = windows()
    assert bytes_read() - before <= 1.1 * path.stat().st_size
    monkeypatch.setattr(sharing, "KEPT", 0)
    for window, again in zip(found, windows(), strict=True):
        times = [min(window.start + time, duration) for time in (0.1, 0.9)]
        assert np.array_equal(window.frames, read_frames(path, times, 96))
        assert np.array_equal(window.frames, again.frames)
        assert np.array_equal(window.audio, again.audio)


@pytest.mark.parametrize(
    "recipe", [r for r in RECIPES if r.name in QUICK and r.audio and "cut" not in r.name], ids=lambda r: r.name
)
def test_every_second_of_audio_is_the_right_one(numbered, recipe):
    path = numbered(recipe)
    length = seconds_of(recipe)
    duration = probe(path).duration
    for start in (0.4, 1.3, 2.71, duration - 1.2):
        late = lag(read_audio(path, start, 1.0, AUDIO_RATE), start, length)
        assert late == pytest.approx(-EARLY.get(recipe.name, 0.0), abs=0.05), f"at {start} s"


def test_a_gap_in_the_time_stamps_costs_nothing(numbered, tmp_path):
    """Ten seconds of content with fifty minutes of nothing between."""
    path = write(tmp_path, GAP)
    assert numbers(read_frames(path, [4.99, 3005.02, 3009.0], 96)) == [124, 125, 225]
    assert numbers(read_frames(path, [50.0], 96)) == [124]  # held, but not for ever
    with pytest.raises(MediaError, match=r"no frame at 100\.00 s: the one before is at 4\.96 s"):
        read_frames(path, [100.0], 96)
    parts = list(decode_frames(path, 5.0, 96))
    assert len(parts) < 60
    assert sum(count for _, count, _ in parts) == pytest.approx(3010 * 5, abs=3)
    lost = [count for image, count, _ in parts if isinstance(image, MediaError)]
    assert sum(lost) == pytest.approx((3000 - 60) * 5, abs=10)


def test_a_counted_file_of_one_frame(tmp_path):
    (recipe,) = (recipe for recipe in RECIPES if recipe.name == "h264_no_times.avi")
    path = write(tmp_path, recipe, count=1)
    assert numbers(read_frames(path, [0.0], 96)) == [0]
    with pytest.raises(MediaError, match=r"no frame at 2\.00 s"):
        read_frames(path, [2.0], 96)


@pytest.mark.parametrize("second", [1, 0.5])
@pytest.mark.parametrize("name", ["h264_open_gop.ts", "mpeg2.mpg", "mpeg1.mpg"])
def test_a_stream_joined_from_parts_is_refused(numbered, tmp_path, name, second):
    """Its clock starts again, so a time means two frames."""
    whole = numbered(next(recipe for recipe in RECIPES if recipe.name == name)).read_bytes()
    packet = 188 if name.endswith(".ts") else 2048
    joined = tmp_path / f"joined{Path(name).suffix}"
    joined.write_bytes(whole + whole[: int(len(whole) * second) // packet * packet])
    for reader in (lambda: probe(joined), lambda: read_frames(joined, [7.0]), lambda: list(decode_windows(joined))):
        with pytest.raises(MediaError, match=r"joined\.\w+: is joined from parts: its clock starts again\. .*ffmpeg"):
            reader()


def test_decoders_by_name(numbered):
    path = numbered(next(recipe for recipe in RECIPES if recipe.name == "h264.mp4"))
    for decoder in ("auto", "pyav", "decord"):
        assert numbers(read_frames(path, [2.5, 0.1], 96, decoder=decoder)) == [62, 2]


def test_a_track_of_an_unknown_codec_is_passed_over(tmp_path):
    """iPhones write spatial audio, of a codec of their own, beside AAC; alone it is an error."""
    for tracks in (1, 2):
        with av.open(str(tmp_path / "encoded.mov"), "w") as container:
            video = container.add_stream("libx264", rate=25, width=64, height=48)
            streams = [container.add_stream("aac", rate=AUDIO_RATE, layout="mono") for _ in range(tracks)]
            packets = video.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8))) + video.encode()
            for stream in streams:
                packets += encode_audio(stream, noise(1.0)[None])
            for packet in packets:
                container.mux(packet)
        data = (tmp_path / "encoded.mov").read_bytes()
        track = data.index(b"mp4a")  # of the first audio track; its description ends before the next track begins
        end = data.index(b"trak", track) if tracks == 2 else len(data)
        path = tmp_path / f"{tracks}.mov"
        path.write_bytes(
            data[:track] + data[track:end].replace(b"mp4a", b"apac").replace(b"esds", b"dapa") + data[end:]
        )
        if tracks == 2:
            assert abs(lag(read_audio(path, 0.2, 0.5, AUDIO_RATE), 0.2, 1.0)) < 0.01
        else:
            with pytest.raises(MediaError, match=r"1\.mov: its audio is of a codec that is not known here"):
                probe(path)


@pytest.mark.parametrize("channels", [6, 7, 8])
def test_surround_becomes_stereo(tmp_path, channels):
    """Eight planes once ended the process. The centre goes to both sides at -3 dB (ITU-R BS.775)."""
    tone = 0.2 * np.sin(2 * np.pi * 440 * np.arange(2 * AUDIO_RATE) / AUDIO_RATE).astype(np.float32)
    samples = np.zeros((2 * AUDIO_RATE, channels), np.float32)
    samples[:, 0] = samples[:, 2] = tone  # front left and front centre
    write_wav(tmp_path / "surround.wav", samples)
    assert probe(tmp_path / "surround.wav").channels == channels
    audio = read_audio(tmp_path / "surround.wav", 0.5, 1.0, AUDIO_RATE)
    assert audio.shape == (2, AUDIO_RATE)
    loudness = np.sqrt(2 * (audio**2).mean(1))
    np.testing.assert_allclose(loudness, [0.2 * (1 + np.sqrt(0.5)), 0.2 * np.sqrt(0.5)], atol=0.01)
    assert sum(len(block) for block, _ in audio_blocks(tmp_path / "surround.wav")) == 2 * AUDIO_RATE


def test_samples_that_are_no_numbers_or_too_loud(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(audio, "_told", [])
    samples = np.full((AUDIO_RATE, 1), 0.25, np.float32)
    write_wav(tmp_path / "good.wav", samples)
    samples[30_000] = np.nan
    write_wav(tmp_path / "nan.wav", samples)
    assert read_audio(tmp_path / "nan.wav", 0.0, 0.5, AUDIO_RATE).max() == 0.25
    with pytest.raises(MediaError, match=r"nan\.wav: has audio samples that are NaN or infinite"):
        read_audio(tmp_path / "nan.wav", 0.0, 1.0, AUDIO_RATE)
    samples[30_000] = 3.0
    for name in ("loud.wav", "louder.wav", "loud.wav"):
        write_wav(tmp_path / name, samples)
        assert read_audio(tmp_path / name, 0.0, 1.0, AUDIO_RATE).max() == 1.0
    assert [record.message for record in caplog.records] == [  # once, not once a file
        f"{tmp_path / 'loud.wav'}: its audio is louder than full scale; it is clipped there, as in other files like it"
    ]


def test_sixteen_bits_of_grey(tmp_path):
    Image.fromarray(np.full((20, 30), 32768, np.uint16)).save(tmp_path / "grey.png")
    assert read_frames(tmp_path / "grey.png", [0.0])[0, 0, 0].tolist() == [128, 128, 128]


def test_content_decides_and_no_pipe_is_waited_for(numbered, tmp_path):
    path = numbered(next(recipe for recipe in RECIPES if recipe.name == "h264.mp4"))
    (tmp_path / "film.wav").write_bytes(path.read_bytes())
    assert numbers(read_frames(tmp_path / "film.wav", [2.5], 96)) == [62]
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "gone.mp4")
    for name, reason in (("pipe.mp4", "is a pipe"), ("link.mp4", "links to a file that does not exist")):
        with pytest.raises(MediaError, match=reason):
            probe(tmp_path / name)


def test_pixels_are_square(tmp_path):
    """A video of 64 x 48 pixels, each twice as wide as high."""
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        frames = [av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), "rgb24") for _ in range(5)]
        for packet in [packet for frame in (*frames, None) for packet in stream.encode(frame)]:
            container.mux(packet)
    assert read_frames(path, [0.1]).shape == (1, 48, 128, 3)
