"""Every frame and every second the right one, in files whose frames bear their number (tests/numbered.py)."""

import numpy as np
import pytest
from numbered import AUDIO_RATE, GAP, RATE, RECIPES, frames_in_order, lag, numbers, read, write

from avsc_e2e.data.media import decode_frames, decode_windows, probe, read_audio, read_frames
from avsc_e2e.errors import MediaError

SECONDS = 6
QUICK = {
    *("mpeg4_b.avi", "mpeg4_packed.avi", "h264.mp4", "h264_intra_refresh.mp4", "h264_pyramid.mkv", "h264_no_times.avi"),
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


def test_decoders_by_name(numbered):
    path = numbered(next(recipe for recipe in RECIPES if recipe.name == "h264.mp4"))
    for decoder in ("auto", "pyav", "decord"):
        assert numbers(read_frames(path, [2.5, 0.1], 96, decoder=decoder)) == [62, 2]
