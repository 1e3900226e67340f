"""Pictures and sound out of files that were written, or recorded, on the spot: what is shown and heard when."""

import copy
import pickle
import shutil
import struct

import av
import numpy as np
import pytest
import soundfile
from PIL import Image
from support import SHARED, click, flat, onset, real, write_video

from avsc_e2e.data.media import audio, mix_channels, probe, read_audio, read_frames
from avsc_e2e.data.media.audio import Block
from avsc_e2e.errors import MediaError

RATE = 48_000
FLASH = 1.48
"""Seconds at which picture 37 of 25 a second turns white, and the click sounds."""


def flashing(start: float = 0.0, seconds: float = 3.0, rate: float = 25.0) -> tuple[list[np.ndarray], list[float]]:
    """Black pictures from `start` on, white ones from FLASH on, and their times."""
    times = [start + index / rate for index in range(round((seconds - start) * rate))]
    return [flat(255 if time > FLASH - 1e-6 else 0) for time in times], times


def shown(path, *times: float) -> list[bool]:
    """Whether the picture is white at each time, each asked for alone."""
    return [bool(read_frames(path, [time]).mean() > 128) for time in times]


def assert_synchronous(video, audio, tolerance: int, flash: float = FLASH) -> None:
    assert shown(video, flash - 0.039, flash - 0.001, flash + 0.001, flash + 0.5) == [False, False, True, True]
    together = read_frames(video, [flash - 0.2, flash + 0.001, flash - 0.001]).mean(axis=(1, 2, 3)) > 128
    assert together.tolist() == [False, True, False]
    for start in (0.0, 0.9, 1.0, 1.37, flash - 0.004):
        sound = read_audio(audio, start, 1.6, RATE)
        assert abs(onset(sound) - round((flash - start) * RATE)) <= tolerance, f"window at {start} s"


SOUND_START = 0.3
LED_IN = {"fragments.mp4": 0.08, "both.ts": 1024 / RATE, "late_pictures.ts": 1024 / RATE}
"""Seconds by which a recording, picture and sound alike, begins earlier than what it was written from: an AAC stream
starts with 1024 samples of silence, a stream with B frames two pictures early, and these files cannot say so."""


@pytest.mark.parametrize(
    ("name", "pictures_from", "sound_from", "options"),
    [
        ("both.mp4", 0.0, 0.0, {}),
        ("late_pictures.mp4", 0.4, 0.0, {}),
        ("late_sound.mp4", 0.0, SOUND_START, {}),
        ("both.mkv", 0.0, 0.0, {"sound_codec": "flac"}),
        ("late_pictures.mkv", 0.4, 0.0, {"sound_codec": "flac"}),
        ("late_sound.mkv", 0.0, SOUND_START, {"sound_codec": "flac"}),
        ("both.mov", 0.0, 0.0, {"sound_codec": "pcm_s16le"}),
        ("fragments.mp4", 0.0, 0.0, {"options": {"movflags": "frag_keyframe+empty_moov"}}),
        ("without_index.mkv", 0.0, 0.0, {"options": {"live": "1"}}),
        ("both.avi", 0.0, 0.0, {"codec": "mpeg4", "sound_codec": "pcm_s16le"}),
        ("both.ts", 0.0, 0.0, {}),
        ("late_pictures.ts", 0.4, 0.0, {}),
        ("late_sound.ts", 0.0, SOUND_START, {}),
    ],
)
def test_flash_and_click_in_one_file(tmp_path, name, pictures_from, sound_from, options):
    pictures, times = flashing(pictures_from)
    sound = click(FLASH - sound_from, 3.0 - sound_from)
    path = write_video(tmp_path / name, pictures, times=times, sound=sound, sound_start=sound_from, **options)
    # AAC smears the click over some samples, Matroska and MPEG-TS round time stamps to a millisecond or less.
    assert_synchronous(path, path, 60, FLASH + LED_IN.get(name, 0.0))


def test_flash_and_click_in_two_files(tmp_path):
    pictures, times = flashing()
    video = write_video(tmp_path / "city.mp4", pictures, times=times)
    for suffix in ("wav", "flac"):
        audio = tmp_path / f"city.{suffix}"
        soundfile.write(audio, click(FLASH, 3.0).T, RATE, subtype="PCM_24")
        assert_synchronous(video, audio, 0)


def test_slices_are_parts_of_the_whole(tmp_path):
    # A rising tone is nowhere the same twice; one sample off is an error of 0.1. No noise, nor the bits of AAC, whose
    # decoder makes up some noise of its own.
    time = np.arange(3 * RATE) / RATE
    sweep = (0.5 * np.sin(2 * np.pi * (200 + 500 * time) * time) * [[1.0], [-0.5]]).astype(np.float32)
    soundfile.write(tmp_path / "sweep.wav", sweep.T, RATE, subtype="PCM_24")
    for name, codec in (("aac.mp4", "aac"), ("aac.mkv", "aac"), ("flac.mkv", "flac"), ("mp3.mp4", "libmp3lame")):
        write_video(tmp_path / name, sound=sweep, sound_codec=codec)
    for name, exact in (("sweep.wav", 0), ("flac.mkv", 0), ("aac.mp4", 0.02), ("aac.mkv", 0.02), ("mp3.mp4", 1e-4)):
        whole = read_audio(tmp_path / name, 0.0, 3.0, RATE)
        assert whole.shape == (2, 3 * RATE)
        assert whole.dtype == np.float32
        for start, seconds in ((0.0, 1.0), (0.5, 1.0), (1.2345, 0.5), (2.0, 1.0)):
            first, count = round(start * RATE), round(seconds * RATE)
            part = read_audio(tmp_path / name, start, seconds, RATE)
            assert part.shape == (2, count)
            np.testing.assert_allclose(part, whole[:, first : first + count], atol=exact, err_msg=name)
    np.testing.assert_allclose(read_audio(tmp_path / "sweep.wav", 0.0, 3.0, RATE), sweep, atol=2**-23)


@pytest.mark.parametrize("suffix", ["wav", "mkv"])
@pytest.mark.parametrize("start", [0.0, 0.7, 1.2345])
def test_resampling_keeps_pitch_and_phase(tmp_path, suffix, start):
    rate, tone = 44_100, 1000.0
    sine = 0.5 * np.sin(2 * np.pi * tone * np.arange(3 * rate) / rate, dtype=np.float64)
    path = tmp_path / f"tone.{suffix}"
    if suffix == "wav":
        soundfile.write(path, sine, rate, subtype="FLOAT")
    else:
        write_video(path, sound=sine[None], sample_rate=rate, sound_codec="flac")
    sound = read_audio(path, start, 1.0, RATE)
    assert sound.shape == (1, RATE)
    # The file can be cut at its own samples only: at 1.2345 s the nearest is 0.45 of one away.
    cut = round(start * rate) / rate
    expected = 0.5 * np.sin(2 * np.pi * tone * (cut + np.arange(RATE) / RATE))
    edge = 0 if start else 100  # nothing comes before the beginning of the file
    np.testing.assert_allclose(sound[0, edge:], expected[edge:], atol=1e-3)


def test_mono_stereo_and_surround(tmp_path):
    levels = np.array([0.1, 0.2, 0.3, 0.4, 0.05, 0.06], np.float32)  # L R C LFE Ls Rs
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    half = np.sqrt(0.5)
    expected = {
        1: ([0.1, 0.1], [0.1]),
        2: ([0.1, 0.2], [0.15]),
        6: ([0.1 + half * 0.35, 0.2 + half * 0.36], [0.15 + half * 0.355]),
    }
    for channels, (stereo, mono) in expected.items():
        sound = levels[:channels, None] * tone
        soundfile.write(tmp_path / "wave.wav", sound.T, RATE, subtype="FLOAT")
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
        write_video(tmp_path / "video.mkv", sound=sound, layout=layout, sound_codec="flac")
        for name in ("wave.wav", "video.mkv"):
            read = read_audio(tmp_path / name, 0.0, 1.0, RATE)
            assert read.shape == (min(channels, 2), RATE)
            assert probe(tmp_path / name).channels == channels
            for count, wanted in ((2, stereo), (1, mono)):
                mixed = mix_channels(read, count)
                np.testing.assert_allclose(mixed, np.array(wanted)[:, None] * tone, atol=1e-4)


def test_variable_frame_rate_shows_the_picture_on_screen(tmp_path):
    times = [0.0, 0.1, 0.14, 0.9, 1.0, 1.6, 1.64, 2.0]
    pictures = [flat(20 + 30 * index) for index in range(len(times))]
    for name in ("vfr.mp4", "vfr.mkv", "vfr.ts"):
        path = write_video(tmp_path / name, pictures, times=times)
        asked = [0.0, 0.05, 0.101, 0.139, 0.141, 0.5, 0.89, 0.95, 1.59, 1.61, 1.7, 2.0]
        on_screen = [0, 0, 1, 1, 2, 2, 2, 3, 4, 5, 6, 7]
        levels = read_frames(path, asked).mean(axis=(1, 2, 3))
        assert [round((level - 20) / 30) for level in levels] == on_screen, name


def test_asked_in_any_order_and_twice(tmp_path):
    path = write_video(tmp_path / "ramp.mp4", [flat(8 * index) for index in range(30)], rate=10)
    asked = [2.55, 0.05, 1.25, 1.25, 0.0]
    frames = read_frames(path, asked)
    assert frames.shape == (5, 48, 64, 3)
    assert frames.dtype == np.uint8
    assert [round(level / 8) for level in frames.mean(axis=(1, 2, 3))] == [25, 0, 12, 12, 0]


@pytest.mark.parametrize(("height", "width", "fitted"), [(48, 64, (32, 43)), (64, 48, (43, 32)), (48, 48, (32, 32))])
def test_short_side(tmp_path, height, width, fitted):
    picture = flat(40, height, width)
    picture[: height // 2, : width // 2] = (250, 30, 30)
    Image.fromarray(picture).save(tmp_path / "still.png")
    for path in (write_video(tmp_path / "video.mp4", [picture] * 5), tmp_path / "still.png"):
        frames = read_frames(path, [0.0, 0.1], 32)
        assert frames.shape == (2, *fitted, 3)
        corners = frames[0, 4, 4], frames[0, -5, 4], frames[0, 4, -5]
        assert [bool(corner[0] > 180 and corner[1] < 90) for corner in corners] == [True, False, False]
        assert read_frames(path, [0.0]).shape == (1, height, width, 3)


@pytest.mark.parametrize(
    ("matrix", "shape", "corner"),
    [
        ((1, 0, 0, 1), (48, 64), (0, 0)),
        ((0, 1, -1, 0), (64, 48), (0, -1)),
        ((-1, 0, 0, -1), (48, 64), (-1, -1)),
        ((0, -1, 1, 0), (64, 48), (-1, 0)),
        ((-1, 0, 0, 1), (48, 64), (0, -1)),  # mirrored, as front cameras write it
        ((1, 0, 0, -1), (48, 64), (-1, 0)),
        ((0, 1, 1, 0), (64, 48), (0, 0)),
        ((0, -1, -1, 0), (64, 48), (-1, -1)),
    ],
)
def test_video_of_a_turned_phone(tmp_path, matrix, shape, corner):
    picture = flat(40)
    picture[:24, :32] = (250, 30, 30)
    path = write_video(tmp_path / "phone.mp4", [picture] * 10)
    data = path.read_bytes()
    unit, turned = (struct.pack(">5i", *(65536 * x for x in (a, b, 0, c, d))) for a, b, c, d in ((1, 0, 0, 1), matrix))
    at = data.index(unit, data.index(b"tkhd"))  # the matrix is stored as a b 0 c d 0 x y 1
    path.write_bytes(data[:at] + turned + data[at + len(unit) :])
    red = (corner[0] * 5 + 4 * (corner[0] == 0), corner[1] * 5 + 4 * (corner[1] == 0))
    frames = read_frames(path, [0.1])
    assert frames.shape == (1, *shape, 3)
    upright = [(row, column) for row in (4, -5) for column in (4, -5) if frames[0, row, column, 0] > 180]
    assert upright == [red]
    assert min(read_frames(path, [0.1], 24).shape[1:3]) == 24


def test_turned_photograph(tmp_path):
    picture = Image.fromarray(flat(0, 40, 60))
    exif = picture.getexif()
    exif[0x0112] = 6  # held upright
    picture.save(tmp_path / "photo.jpg", exif=exif)
    media = probe(tmp_path / "photo.jpg")
    assert (media.width, media.height, media.has_audio, media.duration) == (40, 60, False, 0.0)
    assert read_frames(tmp_path / "photo.jpg", [0.0, 5.0], 20).shape == (2, 30, 20, 3)


def test_probe(tmp_path):
    pictures, times = flashing()
    path = write_video(tmp_path / "both.mp4", pictures, times=times, sound=click(FLASH, 2.5))
    media = probe(path)
    assert media.duration == pytest.approx(2.5, abs=0.03)  # what both cover
    assert media.frame_rate == pytest.approx(25)
    assert (media.width, media.height, media.frames, media.sample_rate, media.channels) == (64, 48, 75, RATE, 2)
    assert media.size == path.stat().st_size
    soundfile.write(tmp_path / "odd.wav", np.zeros(12345), 8000)
    media = probe(tmp_path / "odd.wav")
    assert (media.duration, media.sample_rate, media.channels) == (12345 / 8000, 8000, 1)
    assert not media.has_video


def test_probe_sees_that_a_file_changed(tmp_path):
    path = tmp_path / "sound.wav"
    soundfile.write(path, np.zeros(8000), 8000)
    assert probe(path).duration == 1.0
    soundfile.write(path, np.zeros(16000), 8000)
    assert probe(path).duration == 2.0


def test_a_little_short_is_held_and_padded(tmp_path):
    soundfile.write(tmp_path / "short.wav", np.full(RATE - 1, 0.5), RATE)
    sound = read_audio(tmp_path / "short.wav", 0.0, 1.0, RATE)
    assert sound.shape == (1, RATE)
    assert sound[0, -2] == pytest.approx(0.5, abs=1e-4)
    assert sound[0, -1] == 0
    path = write_video(tmp_path / "short.mp4", [flat(0)] * 24 + [flat(200)])
    assert read_frames(path, [1.3]).mean() > 150


def test_cut_off_is_not_taken_for_silence(tmp_path):
    soundfile.write(tmp_path / "short.wav", np.zeros(RATE), RATE)
    with pytest.raises(MediaError, match=r"no audio at 2\.00 s: it ends at 1\.00 s"):
        read_audio(tmp_path / "short.wav", 1.0, 1.0, RATE)
    for name in ("short.mp4", "short.mkv", "short.ts"):
        path = write_video(tmp_path / name, [flat(0)] * 25, sound=np.zeros((2, RATE)))
        with pytest.raises(MediaError, match=r"no frame at 2\.00 s"):
            read_frames(path, [2.0])
        with pytest.raises(MediaError, match=r"no audio at 3\.00 s"):
            read_audio(path, 2.0, 1.0, RATE)


def test_a_video_that_begins_late_shows_nothing_before(tmp_path):
    path = write_video(
        tmp_path / "late.mkv", [flat(90)] * 50, times=[1 + n / 25 for n in range(50)],
        sound=np.zeros((2, 3 * RATE)), sound_codec="flac",
    )  # fmt: skip
    assert read_frames(path, [0.6]).mean() == pytest.approx(90, abs=3)
    with pytest.raises(MediaError, match=r"no frame at 0\.20 s can be decoded: the first is at 1\.00 s"):
        read_frames(path, [0.2])


def test_a_gap_in_the_audio_is_told_with_its_times(tmp_path, monkeypatch):
    path = write_video(tmp_path / "gap.mkv", sound=np.zeros((1, 4800)), sound_codec="flac")
    blocks = [Block(0, np.zeros((1, 3 * RATE // 2), np.float32), False), Block(90 * RATE, np.zeros((1, 9)), False)]
    monkeypatch.setattr(audio, "track_blocks", lambda *_: iter(blocks))
    with pytest.raises(MediaError, match=r"no audio from 1\.50 s to 90\.00 s"):
        list(audio.audio_blocks(path))


def broken(tmp_path) -> dict[str, str]:
    """Files that cannot be read, and a part of the reason."""
    (tmp_path / "folder.mp4").mkdir()
    for name in ("empty.wav", "empty.mp4", "empty.png"):
        (tmp_path / name).touch()
    for name in ("text.wav", "text.mp4", "text.flac", "text.jpg", "text.unknown"):
        (tmp_path / name).write_text("This is no recording.\n" * 100)
    noise = np.random.default_rng(0).integers(0, 255, (50, 48, 64, 3), np.uint8)
    whole = write_video(tmp_path / "whole.mp4", noise)
    (tmp_path / "half.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])  # its index was at the end
    write_video(tmp_path / "silent.mp4", noise[:2])
    write_video(tmp_path / "blind.mkv", sound=np.zeros((1, 4800)), sound_codec="flac")
    return {
        "folder.mp4": "is a folder",
        "missing.mp4": "no such file",
        "missing.wav": "no such file",
        "empty.wav": "is empty",
        "empty.mp4": "is empty",
        "empty.png": "is empty",
        "text.wav": "is not a media file",
        "text.flac": "is not a media file",
        "text.mp4": "is not a media file",
        "text.unknown": "is not a media file",
        "text.jpg": "is not a media file",
        "half.mp4": "cut off",
        "silent.mp4": "has no audio",
        "blind.mkv": "has no video",
    }


def test_what_cannot_be_read_says_so_in_one_line(tmp_path):
    for name, reason in broken(tmp_path).items():
        path = tmp_path / name
        read = (lambda p: read_frames(p, [0.0])) if name == "blind.mkv" else (lambda p: read_audio(p, 0.0, 0.1, RATE))
        with pytest.raises(MediaError) as caught:
            read(path)
        error = caught.value
        assert reason in error.reason, name
        assert error.path == str(path)
        assert str(error) == f"{path}: {error.reason}"
        assert "\n" not in str(error)
        for same in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(same) is MediaError
            assert (same.path, same.reason, str(same)) == (error.path, error.reason, str(error))
        if name not in ("silent.mp4", "blind.mkv"):
            for other in (probe, lambda p: read_frames(p, [0.0])):
                with pytest.raises(MediaError, match=reason):
                    other(path)


def test_truncated_with_its_index_first(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (100, 96, 128, 3), np.uint8)
    sound = np.random.default_rng(1).uniform(-0.5, 0.5, (2, 4 * RATE))
    whole = write_video(tmp_path / "whole.mp4", noise, sound=sound, options={"movflags": "+faststart"})
    data = whole.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    half = tmp_path / "half.mp4"
    half.write_bytes(data[: len(data) // 2])
    assert probe(half).duration == pytest.approx(4.0, abs=0.05)  # what its header promises
    assert read_frames(half, [0.5]).shape == (1, 96, 128, 3)
    assert read_audio(half, 0.5, 1.0, RATE).shape == (2, RATE)
    for read in (lambda: read_frames(half, [3.5]), lambda: read_audio(half, 2.8, 1.0, RATE)):
        with pytest.raises(MediaError, match="cut off") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_each_of_several_times_must_lie_in_the_video(tmp_path):
    path = write_video(tmp_path / "video.mp4", [flat(8 * index) for index in range(25)])
    assert read_frames(path, [0.9, 0.1]).shape == (2, 48, 64, 3)
    for times in ([5.0, 0.1], [0.1, 0.5, 5.0], [0.1, 5.0, 0.5]):
        with pytest.raises(MediaError, match=r"no frame at 5\.00 s"):
            read_frames(path, times)


def test_names_that_look_like_something_else(tmp_path, monkeypatch):
    video = write_video(tmp_path / "video.mp4", [flat(90)] * 5, sound=np.zeros((1, 9600)))
    for name in ("-vf.mp4", "concat:a.mp4", "100%d.mp4", "Straße 7 über.MP4", "http:", "a.b.c"):
        shutil.copy(video, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for name in ("-vf.mp4", "concat:a.mp4", "100%d.mp4", "Straße 7 über.MP4", "http:", "a.b.c"):
        assert probe(name).has_video
        assert read_frames(name, [0.1]).mean() == pytest.approx(90, abs=4)
        assert read_audio(name, 0.0, 0.1, 8000).shape == (1, 800)


def test_cover_art_is_no_video(tmp_path):
    path = tmp_path / "song.mp4"
    Image.fromarray(flat(50)).save(tmp_path / "cover.jpg")
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=RATE, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        for packet in cover.encode(av.VideoFrame.from_image(Image.open(tmp_path / "cover.jpg"))):
            container.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, RATE), np.float32), "fltp", "mono")
        frame.sample_rate = RATE
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    media = probe(path)
    assert media.has_audio
    assert not media.has_video


# ------------------------------------------------------------------------------------------- real recordings


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real recordings are not in {SHARED}")
@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("park-lyon-1012-43196.wav", None),
        ("airport-paris-9-402.wav", None),
        ("bus-prague-1102-41514.wav", None),
        ("bus-prague-1102-42615.wav", None),
        ("shopping_mall-prague-1053-42630.wav", None),
        ("street_traffic-lyon-1029-40200.wav", None),
    ],
)
def test_real_sounds_have_ten_seconds(name, samples):
    path = real(f"real_audio/{name}")
    whole, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == RATE
    assert abs(len(whole) - 10 * RATE) <= 1
    tenth = read_audio(path, 9.0, 1.0, RATE)
    assert tenth.shape == (2, RATE)
    there = min(len(whole) - 9 * RATE, RATE)
    np.testing.assert_array_equal(tenth[:, :there], whole.T[:, 9 * RATE : 9 * RATE + there])
    assert not tenth[:, there:].any()


def test_real_pair_is_synchronous():
    """The sound in the video and the set's own recording of it: the same sample at the start, 6 ppm apart after."""
    video, audio = real("real_clips/lyon1029_40200_md.mp4"), real("real_audio/street_traffic-lyon-1029-40200.wav")
    for start in (0.0, 4.0, 8.9):
        a, b = (read_audio(path, start, 1.0, RATE)[0].astype(np.float64) for path in (video, audio))
        spectrum = np.fft.rfft(a, 2 * RATE) * np.conj(np.fft.rfft(b, 2 * RATE))
        # The phase alone makes the peak sharp; MP3 keeps nothing above 16 kHz.
        sharp = spectrum / np.maximum(np.abs(spectrum), 1e-12)
        sharp[2 * 16_000 :] = 0
        correlation = np.fft.irfft(sharp)
        lag = int(np.argmax(correlation))
        lag -= 2 * RATE * (lag > RATE)
        assert abs(lag) <= (0 if start == 0 else 3), f"{lag} samples apart at {start} s"


def test_real_videos_are_read_to_their_end():
    for path in sorted(real("real_clips").glob("*.mp4")):
        media = probe(path)
        assert (media.sample_rate, media.channels) == (44_100, 2)
        assert media.duration == pytest.approx(10, abs=0.2)
        frames = read_frames(path, [0.5, media.duration - 0.1], 128)
        assert frames.shape[0] == 2
        assert min(frames.shape[1:3]) == 128
        sound = read_audio(path, media.duration - 1, 1.0, RATE)
        assert sound.shape == (2, RATE)
        assert sound[:, -RATE // 10 :].any()


@pytest.mark.parametrize("name", ["lyon1029_40200_md.mp4", "rivera0922_00_0_md.mp4"])
def test_real_videos_show_the_picture_of_the_time(name):
    """Against PyAV, which decodes all pictures from the first to the last."""
    path = real(f"real_clips/{name}")
    with av.open(str(path)) as container:
        frames = [
            (frame.time, frame.reformat(100, 56, "rgb24").to_ndarray().astype(np.float32))
            for frame in container.decode(video=0)
        ]
    starts = np.array([time for time, _ in frames]) - frames[0][0]
    for time in np.random.default_rng(0).uniform(0, starts[-1], 8):
        index = int(np.searchsorted(starts, time, side="right")) - 1
        read = read_frames(path, [time], 56)[0]
        near = range(max(index - 2, 0), min(index + 3, len(frames)))
        errors = {i: float(np.abs(frames[i][1] - read[:56, :100]).mean()) for i in near}
        assert errors[index] <= min(errors.values()) + 0.05, f"at {time:.3f} s: {errors}"
