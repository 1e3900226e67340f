"""A class folder of recordings as phones, cameras and browsers write them."""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path

import numpy as np
from support import write_video

SECONDS, RATE, AUDIO_RATE = 2.0, 20.0, 48_000


def write_phones(folder: Path) -> list[Path]:
    """Two classes of eight recordings each, which differ in brightness and in pitch."""
    found = []
    for scene, level, pitch in (("dark", 60, 300.0), ("light", 180, 900.0)):
        (folder / scene).mkdir(parents=True)

        write = partial(_write, folder / scene, level, pitch)

        found += [
            _turned(write("IMG_0001.MOV", codec="libx265", pixels="yuv420p10le")),
            write("VID_20240301_101500.mp4", times=_varying()),
            write("PXL_20240302_090000.mp4", sound_start=0.2),
            write("DJI_0004.mp4", silent=True),
            write("GX010005.mp4", seconds=SECONDS + 1.5),
            write("surround.mov", channels=8, layout="7.1", sound_codec="pcm_s16le"),
            write("cinema.mp4", channels=8, layout="7.1"),
            write("recorded in a browser.webm", codec="libvpx", sound_codec="libopus", options={"live": "1"}),
        ]
    return found


def _write(
    folder: Path,
    level: int,
    pitch: float,
    name: str,
    *,
    seconds: float = SECONDS,
    channels: int = 2,
    silent: bool = False,
    **options,
) -> Path:
    draw = np.random.default_rng([level, *name.encode()])
    sound = None if silent else _tone(pitch, seconds, channels, draw)
    return write_video(folder / name, _images(level, draw), sound=sound, **{"rate": RATE} | options)


def _images(level: int, draw: np.random.Generator) -> list[np.ndarray]:
    """Noise of a brightness, which is nowhere the same twice."""
    coarse = draw.integers(-50, 51, (round(SECONDS * RATE), 12, 16, 3)) + level
    return [np.repeat(np.repeat(values, 8, 0), 8, 1).clip(0, 255).astype(np.uint8) for values in coarse]


def _tone(pitch: float, seconds: float, channels: int, draw: np.random.Generator) -> np.ndarray:
    """A tone in noise (C, N)."""
    time = np.arange(round(seconds * AUDIO_RATE)) / AUDIO_RATE
    tone = 0.1 * np.sin(2 * np.pi * pitch * time) + draw.normal(0, 0.05, len(time))
    return np.repeat(tone[None], channels, 0).astype(np.float32)


def _varying() -> list[float]:
    """Times of a phone's variable frame rate."""
    steps = np.random.default_rng(0).choice([0.033, 0.034, 0.067, 0.05], round(SECONDS * RATE))
    return np.concatenate([[0.0], np.cumsum(steps)[:-1]]).round(3).tolist()


def _turned(path: Path) -> Path:
    """The recording of a phone that is held upright: a matrix turns it by a right angle."""
    data = path.read_bytes()
    unit, turned = (struct.pack(">5i", *(65536 * x for x in values)) for values in ((1, 0, 0, 0, 1), (0, 1, 0, -1, 0)))
    at = data.index(unit, data.index(b"tkhd"))
    path.write_bytes(data[:at] + turned + data[at + len(turned) :])
    return path
