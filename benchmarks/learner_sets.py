"""Sets of class folders for benchmarks/learner.py: a real set under many conditions, and three synthetic ones.

Everything is written as files below a cache folder, so that what is judged reads nothing but files. A set that is
complete is kept and found again.
"""

import shutil
import subprocess
import wave
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from sklearn.datasets import load_digits

from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.toycity import city
from avsc_e2e.toycity.city import ToyCity

RATE = 44_100


class Recording(NamedTuple):
    """One file of a set."""

    part: str
    """train or test."""
    scene: str
    source: str
    path: Path


class Pool(NamedTuple):
    """What a condition draws from and writes to."""

    recordings: list[Recording]
    out: Path
    draw: np.random.Generator


# ---- Parts of a real set


def recordings_of(root: Path, fold: int | None) -> list[Recording]:
    """The recordings of class folders with train/ and test/.

    With a `fold`, 0 to 2, test/ is not looked at: a third of the sources of each class takes its place. Sources that
    follow each other in name may be of one author, so pairs of neighbours go to the same third.
    """
    corpus = read_corpus(root, validation=0.0, test=0.0)
    rows = [("train", row) for row in corpus.train + corpus.validation]
    found = [Recording(part, row.scene, row.location, Path(row.video or row.audio)) for part, row in rows]
    if fold is None:
        return found + [Recording("test", r.scene, r.location, Path(r.video or r.audio)) for r in corpus.test]
    held_out = set()
    for scene in corpus.classes:
        sources = sorted({r.source for r in found if r.scene == scene})
        held_out |= {(scene, source) for i, source in enumerate(sources) if (i // 2) % 3 == fold}
    return [r._replace(part="test") if (r.scene, r.source) in held_out else r for r in found]


# ---- Conditions of a real set


def whole(pool: Pool) -> None:
    for recording in pool.recordings:
        _link(pool, recording)


def fewer(share: float) -> Callable[[Pool], None]:
    """Of the training sources of each class only a share, at least two."""

    def condition(pool: Pool) -> None:
        kept = set()
        for scene, sources in _training_sources(pool).items():
            count = max(2, round(share * len(sources)))
            kept |= {(scene, source) for source in pool.draw.permutation(sources)[:count]}
        for r in pool.recordings:
            if r.part == "test" or (r.scene, r.source) in kept:
                _link(pool, r)

    return condition


def classes(count: int) -> Callable[[Pool], None]:
    """Only some of the classes."""

    def condition(pool: Pool) -> None:
        kept = set(pool.draw.permutation(sorted({r.scene for r in pool.recordings}))[:count])
        for r in pool.recordings:
            if r.scene in kept:
                _link(pool, r)

    return condition


def imbalance(pool: Pool) -> None:
    """Each class has 0.6 of the training sources of the one before, at least two."""
    kept = set()
    for rank, (scene, sources) in enumerate(sorted(_training_sources(pool).items())):
        count = max(2, round(len(sources) * 0.6**rank))
        kept |= {(scene, source) for source in pool.draw.permutation(sources)[:count]}
    for r in pool.recordings:
        if r.part == "test" or (r.scene, r.source) in kept:
            _link(pool, r)


def label_noise(pool: Pool) -> None:
    """One training recording in ten lies in the folder of another class."""
    scenes = sorted({r.scene for r in pool.recordings})
    for r in pool.recordings:
        if r.part == "train" and pool.draw.random() < 0.1:
            r = r._replace(scene=str(pool.draw.choice([scene for scene in scenes if scene != r.scene])))
        _link(pool, r)


def noise_audio(pool: Pool) -> None:
    """White noise in place of the audio."""
    for r in pool.recordings:
        length = len(decode(r.path).audio)
        _link(pool, r, video=r.path, audio=(0.1 * pool.draw.standard_normal(length)).astype(np.float32))


def other_audio(pool: Pool) -> None:
    """The audio of any other recording of the same part in place of a recording's own."""
    for r, other in _swapped(pool):
        length, audio = len(decode(r.path).audio), decode(other.path).audio
        _link(pool, r, video=r.path, audio=np.resize(audio, length))


def dark_video(pool: Pool) -> None:
    """Frames at a fiftieth of their brightness, with sensor noise."""

    def spoil(frames: np.ndarray) -> np.ndarray:
        noise = pool.draw.normal(0, 3, frames.shape).astype(np.float32)
        return (frames / 50 + 4 + noise).clip(0, 255).astype(np.uint8)

    _spoilt_video(pool, spoil)


def blurred_video(pool: Pool) -> None:
    _spoilt_video(pool, lambda frames: np.stack([cv2.GaussianBlur(frame, (0, 0), 24) for frame in frames]))


def other_video(pool: Pool) -> None:
    """The frames of any other recording of the same part in place of a recording's own."""
    for r, other in _swapped(pool):
        own, frames = decode(r.path), decode(other.path)
        length = min(len(own.audio), round(len(frames.frames) / frames.rate * RATE))
        _link(pool, r, video=other.path, audio=own.audio[:length])


def audio_only(pool: Pool) -> None:
    for r in pool.recordings:
        _link(pool, r, audio=decode(r.path).audio)


def video_only(pool: Pool) -> None:
    for r in pool.recordings:
        media = decode(r.path)
        write_video(_place(pool, r, ".mp4"), media.frames, media.rate)


def one_second(pool: Pool) -> None:
    """Every whole second of every recording is a file."""
    for r in pool.recordings:
        media = decode(r.path)
        for second in range(max(1, int(min(len(media.frames) / media.rate, len(media.audio) / RATE)))):
            frames = media.frames[round(second * media.rate) : round((second + 1) * media.rate)]
            audio = media.audio[second * RATE : (second + 1) * RATE]
            stem = _place(pool, r, "").with_name(f"{r.path.stem}_{second:02}")
            write_video(stem.with_suffix(".mp4"), frames, media.rate)
            write_audio(stem.with_suffix(".wav"), audio)


def _training_sources(pool: Pool) -> dict[str, list[str]]:
    sources = defaultdict(set)
    for r in pool.recordings:
        if r.part == "train":
            sources[r.scene].add(r.source)
    return {scene: sorted(found) for scene, found in sources.items()}


def _swapped(pool: Pool) -> Iterator[tuple[Recording, Recording]]:
    """Every recording with another one of its part."""
    for part in ("train", "test"):
        own = [r for r in pool.recordings if r.part == part]
        order = pool.draw.permutation(len(own))
        other = {int(a): own[int(b)] for a, b in zip(order, np.roll(order, 1), strict=True)}
        yield from ((r, other[i]) for i, r in enumerate(own))


def _spoilt_video(pool: Pool, spoil: Callable[[np.ndarray], np.ndarray]) -> None:
    for r in pool.recordings:
        media = decode(r.path)
        write_video(_place(pool, r, ".mp4"), spoil(media.frames), media.rate)
        write_audio(_place(pool, r, ".wav"), media.audio)


def _place(pool: Pool, r: Recording, suffix: str) -> Path:
    path = pool.out / r.part / r.scene / (r.path.stem + suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _link(pool: Pool, r: Recording, video: Path | None = None, audio: np.ndarray | None = None) -> None:
    """A link to the recording, or to `video`, and a WAV file beside it where there is other audio."""
    if video is not None or audio is None:
        source = video or r.path
        _place(pool, r, source.suffix).symlink_to(source.resolve())
    if audio is not None:
        write_audio(_place(pool, r, ".wav"), audio)


CONDITIONS: dict[str, Callable[[Pool], None]] = {
    "whole": whole,
    "third": fewer(1 / 3),
    "two_thirds": fewer(2 / 3),
    "classes_2": classes(2),
    "classes_3": classes(3),
    "classes_4": classes(4),
    "noise_audio": noise_audio,
    "other_audio": other_audio,
    "dark_video": dark_video,
    "blurred_video": blurred_video,
    "other_video": other_video,
    "audio_only": audio_only,
    "video_only": video_only,
    "label_noise": label_noise,
    "imbalance": imbalance,
    "one_second": one_second,
}


def condition_of(root: Path, condition: str, seed: int, held_out: bool, cache: Path) -> Path:
    """The class folders of a real set under a condition. With `held_out` the seed chooses the third of the training
    sources that is the test part; else it only draws what the condition leaves to chance."""
    name = f"{root.name}.{'fold' if held_out else 'seed'}{seed}"

    def write(out: Path) -> None:
        draw = np.random.default_rng([seed, zlib.crc32(condition.encode())])
        CONDITIONS[condition](Pool(recordings_of(root, seed if held_out else None), out, draw))

    return _once(cache / "sets" / condition / name, write)


# ---- Synthetic sets


def toy_large(out: Path, seed: int) -> None:
    """Ten scenes with 12 training and 6 test places, 10 s each."""
    _toy(out, ToyCity(train_locations=12, test_locations=6, duration=10.0, seed=seed))


def toy_small(out: Path, seed: int) -> None:
    """Ten scenes with 4 training and 4 test places, 4 s each."""
    _toy(out, ToyCity(train_locations=4, test_locations=4, duration=4.0, seed=seed))


def toy_13(out: Path, seed: int) -> None:
    """Thirteen classes of looks and noisy, quiet audio, with 14 training and 6 test recordings of 3 s."""
    looks, sounds = (sorted({getattr(a, kind) for a in city.REFERENCE.values()}) for kind in ("look", "audio"))
    pairs = [(i % 6, (i + i // 6) % 6) for i in range(13)]
    drawn = {f"{looks[a]}_{sounds[b]}": city.Appearance(looks[a], sounds[b]) for a, b in pairs}
    known = city.REFERENCE, city.SCENES
    city.REFERENCE, city.SCENES = drawn, tuple(drawn)
    try:
        _toy(out, ToyCity(train_locations=14, test_locations=6, duration=3.0, seed=seed), workers=1)
    finally:
        city.REFERENCE, city.SCENES = known
    draw = np.random.default_rng(seed)
    for path in sorted(out.rglob("*.wav")):
        audio = decode(path).audio
        loud = np.sqrt(np.mean(audio**2)) + 1e-6
        path.unlink()
        write_audio(path, audio + 2 * loud * draw.standard_normal(len(audio)).astype(np.float32))


def _toy(out: Path, settings: ToyCity, workers: int | None = None) -> None:
    """A toy city as class folders."""
    scratch = out.with_name(out.name + ".city")
    settings.render(scratch, workers=workers)
    for part in ("train", "test"):
        for audio, video, scene in _toy_rows(scratch, part):
            for file in (audio, video):
                target = out / part / scene / Path(file).name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(scratch / file, target)
    shutil.rmtree(scratch)


def _toy_rows(root: Path, part: str) -> list[list[str]]:
    name = {"train": "train", "test": "evaluate"}[part]
    lines = (root / "evaluation_setup" / f"fold1_{name}.csv").read_text(encoding="utf-8").splitlines()
    return [line.split("\t")[:3] for line in lines[1:]]


def digits(out: Path, seed: int) -> None:
    """Ten noisy spoken digits under noisy images of them: 400 recordings of one second by 20 voices, four of them,
    one of each accent, in the test part."""
    draw = np.random.default_rng(seed)
    images = load_digits()
    free = {digit: list(draw.permutation(np.flatnonzero(images.target == digit))) for digit in range(10)}
    kinds = ("", "+m1", "+m3", "+m7", "+f2", "+f4", "+croak", "+whisper")
    accents = ("en-us", "en-gb", "en-gb-scotland", "en-029")
    for voice in range(20):
        part = "test" if voice % 5 == 3 else "train"  # 4 voices, of each accent one
        name = accents[voice % 4] + kinds[voice // 4 + 4 * (voice % 2) if voice < 16 else voice - 16]
        pitch, speed = int(draw.integers(20, 80)), int(draw.integers(120, 210))
        for digit in range(10):
            for take in range(2):
                speech = _spoken(digit, name, pitch + int(draw.integers(-8, 8)), speed + int(draw.integers(-15, 15)))
                audio = np.zeros(RATE, np.float32)
                speech = speech[: int(0.95 * RATE)]
                at = int(draw.integers(0, RATE - len(speech)))
                audio[at : at + len(speech)] = speech * draw.uniform(0.5, 1.0)
                audio += draw.uniform(0.05, 0.12) * draw.standard_normal(RATE).astype(np.float32)
                image = images.images[free[digit].pop()] / 16
                size = int(draw.integers(60, 110))
                canvas = np.zeros((144, 192), np.float32)
                top, left = (int(draw.integers(0, room - size)) for room in canvas.shape)
                large = cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
                canvas[top : top + size, left : left + size] = large
                frames = 110 + 50 * canvas + 55 * draw.standard_normal((10, 144, 192)).astype(np.float32)
                frames = np.repeat(frames.clip(0, 255).astype(np.uint8)[..., None], 3, axis=3)
                path = out / part / str(digit) / f"{digit}_voice{voice:02}_take{take}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_video(path, frames, 10)
                write_audio(path.with_suffix(".wav"), audio)


def _spoken(digit: int, voice: str, pitch: int, speed: int) -> np.ndarray:
    """A digit by the speech synthesiser, without the silence around it, at most 1 in amplitude."""
    options = ["-v", voice, "-p", str(pitch), "-s", str(speed)]
    found = subprocess.run(["espeak-ng", *options, "--stdout", str(digit)], capture_output=True, check=True).stdout
    data = found[found.index(b"data") + 8 :]
    audio = np.frombuffer(data[: len(data) // 2 * 2], np.int16).astype(np.float32) / 32768
    rate = int.from_bytes(found[24:28], "little")
    loud = np.flatnonzero(np.abs(audio) > 0.02)
    audio = audio[loud[0] : loud[-1] + 1]
    audio = np.interp(np.arange(0, len(audio), rate / RATE), np.arange(len(audio)), audio)
    return (audio / np.abs(audio).max()).astype(np.float32)


SYNTHETIC: dict[str, Callable[[Path, int], None]] = {
    "toy_small": toy_small,
    "toy_large": toy_large,
    "toy_13": toy_13,
    "digits": digits,
}


def synthetic(name: str, seed: int, cache: Path) -> Path | None:
    """The class folders of a synthetic set; None for the digits where the speech synthesiser is missing."""
    if name == "digits" and not shutil.which("espeak-ng"):
        return None
    return _once(cache / "sets" / name / f"seed{seed}", lambda out: SYNTHETIC[name](out, seed))


def _once(folder: Path, write: Callable[[Path], None]) -> Path:
    """The folder, written unless it is complete."""
    if not folder.exists():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        partial.rename(folder)
    return folder


# ---- Media


class Decoded(NamedTuple):
    frames: np.ndarray
    """(T, H, W, 3) uint8."""
    rate: float
    """Frames a second."""
    audio: np.ndarray
    """(N,) float32 at RATE."""


def decode(path: Path) -> Decoded:
    """All frames and all audio of a file."""
    frames, blocks, rate = [], [np.zeros(0, np.float32)], 25.0
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
        for frame in container.decode(*container.streams.video[:1], *container.streams.audio[:1]):
            if isinstance(frame, av.VideoFrame):
                frames.append(frame.to_ndarray(format="rgb24"))
            else:
                blocks += [part.to_ndarray()[0] for part in resampler.resample(frame)]
        if container.streams.video:
            rate = float(container.streams.video[0].average_rate)
    return Decoded(np.array(frames), rate, np.concatenate(blocks))


def write_audio(path: Path, audio: np.ndarray) -> None:
    """(N,) float32 as 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((audio.clip(-1, 1) * 32767).astype("<i2").tobytes())


def write_video(path: Path, frames: np.ndarray, rate: float) -> None:
    """(T, H, W, 3) uint8 as H.264 without audio."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=round(rate), options={"preset": "superfast", "crf": "20"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
