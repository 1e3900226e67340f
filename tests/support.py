"""What the tests share and call: small real media written on the spot, command lines, tiny recipes."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two cores and nets this small: threads would only wait for each other

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
"""Real recordings, beside the repository; tests that need them skip without."""


def real(name: str) -> Path:
    """A file or folder of the real recordings; skips the test where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the real recordings are not in {path}")
    return path


def write_video(
    path: Path,
    pictures: Sequence[np.ndarray] = (),
    *,
    rate: float = 25.0,
    times: Sequence[float] | None = None,
    sound: np.ndarray | None = None,
    sample_rate: int = 48_000,
    sound_start: float = 0.0,
    layout: str = "",
    codec: str = "libx264",
    sound_codec: str = "aac",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """Write (H, W, 3) uint8 pictures, shown at `times` (or `rate` a second from 0), and sound (C, N) in [-1, 1] that
    begins at `sound_start`; the container is that of the suffix."""
    clock = 90_000
    times = [index / rate for index in range(len(pictures))] if times is None else times
    with av.open(str(path), "w", options=options or {}) as container:
        video = audio = None
        if len(pictures):
            height, width = pictures[0].shape[:2]
            quality = {"preset": "veryfast", "crf": "12"} if codec == "libx264" else {"qscale": "2"}
            video = container.add_stream(codec, rate=round(rate), options=quality)
            video.width, video.height, video.pix_fmt = width, height, pixels
            if codec == "libx264":
                video.codec_context.time_base = Fraction(1, clock)
            video.codec_context.thread_count = 1
        if sound is not None:
            layout = layout or ("mono", "stereo")[len(sound) - 1]
            audio = container.add_stream(sound_codec, rate=sample_rate, layout=layout)
        packets = []
        if video is not None:
            for picture, time in zip(pictures, times, strict=True):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
                frame.pts, frame.time_base = round(time * clock), Fraction(1, clock)
                packets += video.encode(frame)
            packets += video.encode()
        if audio is not None:
            to_codec = av.AudioResampler(
                audio.codec_context.format, audio.layout, sample_rate, audio.frame_size or 1024
            )
            packed = np.ascontiguousarray(sound.T, np.float32).reshape(1, -1)  # PyAV takes no planes of 8 channels
            frame = av.AudioFrame.from_ndarray(packed, "flt", layout)
            frame.sample_rate, frame.time_base = sample_rate, Fraction(1, sample_rate)
            frame.pts = round(sound_start * sample_rate)
            for part in (*to_codec.resample(frame), *to_codec.resample(None)):
                packets += audio.encode(part)
            packets += audio.encode()
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            container.mux(packet)
    return path


def click(at: float, duration: float, sample_rate: int = 48_000, channels: int = 2) -> np.ndarray:
    """Silence (C, N) with a click at `at` seconds: a short tone burst whose first sample is its loudest."""
    sound = np.zeros((channels, round(duration * sample_rate)), np.float32)
    first = round(at * sample_rate)
    length = min(round(0.004 * sample_rate), sound.shape[1] - first)
    after = np.arange(length) / sample_rate
    sound[:, first : first + length] = 0.9 * np.exp(-after / 0.001) * np.cos(2 * np.pi * 3000 * after)
    return sound


def onset(sound: np.ndarray) -> int:
    """The first sample (C, N) that reaches half of the loudest."""
    level = np.abs(sound).max(axis=0)
    return int(np.argmax(level > 0.5 * level.max()))


def flat(level: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


class Malice:
    """What a hostile file would do when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


class Done(NamedTuple):
    """How a command line ended."""

    status: int
    out: str
    err: str


_DRIVER = """
import contextlib, io, json, logging, runpy, sys
done = []
for argv in json.load(sys.stdin):
    out, err, status = io.StringIO(), io.StringIO(), 0
    sys.argv = argv
    logging.getLogger().handlers.clear()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(argv[0], run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
    done.append((status, out.getvalue(), err.getvalue()))
print(json.dumps(done))
"""


def run_commands(*lines: Sequence[object], cwd: Path | None = None) -> list[Done]:
    """Run scripts with their arguments one after the other, as `python SCRIPT ARGUMENT ...` does, but in one process:
    importing the library takes longer than most commands."""
    argv = json.dumps([[str(word) for word in line] for line in lines])
    done = subprocess.run([sys.executable, "-c", _DRIVER], input=argv, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return [Done(*values) for values in json.loads(done.stdout.splitlines()[-1])]


AVSC = Path(sys.executable).with_name("avsc")
ZHANG = ROOT / "recipes" / "zhang_ioa.py"


def zhang(verb: str, stage: str, root: Path, runs: Path, *more: object) -> list[object]:
    """A command line of recipes/zhang_ioa.py with nets small enough for a test."""
    nets = ["--model.bands", "32", "--model.hop", "1024", "--model.size", "32", "--model.hidden", "16"]
    nets += ["--model.audio", "audio_test"] * (stage != "video")
    nets += ["--model.video", "test_efficientnet"] * (stage != "audio")
    rest = f"--epochs 2 --batch-size 5 --data.windows 1 --no-pretrained --data.root {root} --runs {runs}"
    return [ZHANG, verb, stage, *nets, *rest.split(), *more]


def tiny_recipe(root: Path, runs: Path, name: str = "run", **changes):
    """A recipe of the hybrid with timm's test nets, an epoch of batches of five."""
    from dataclasses import replace

    from avsc_e2e.models.zoo.own import tiny
    from avsc_e2e.training.recipe import Data, Optim, Recipe

    base = Recipe(
        name,
        model=replace(tiny(), size=32),
        data=Data(root=str(root), workers=0),
        optim=Optim(lr=3e-3, audio_lr=3e-3, video_lr=3e-3),
        epochs=1,
        batch_size=5,
        pretrained=False,
        precision="fp32",
        runs=str(runs),
    )
    return replace(base, **changes)


class Trained(NamedTuple):
    """The three stages of recipes/zhang_ioa.py, trained on the toy city and evaluated."""

    runs: Path
    train: dict[str, Done]
    evaluate: dict[str, Done]

    def folder(self, stage: str) -> Path:
        return self.runs / "zhang_ioa" / stage

    def checkpoint(self, stage: str) -> Path:
        return self.folder(stage) / "model.safetensors"
