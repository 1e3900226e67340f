"""Media of all kinds for the tests of the commands."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from support import flat, write_video


@pytest.fixture(scope="session")
def media(tmp_path_factory) -> Path:
    """A video with audio, one without, an audio file and an image."""
    folder = tmp_path_factory.mktemp("media") / "mine"
    folder.mkdir()
    pictures = [flat(7 * index) for index in range(25)]
    sound = 0.2 * np.sin(np.arange(2 * 24_000) / 20).reshape(1, -1)
    write_video(folder / "both.mp4", pictures, rate=10, sound=sound.repeat(2, 0), sample_rate=24_000)
    write_video(folder / "mute.mkv", pictures, rate=10)
    soundfile.write(folder / "sound.wav", np.full((60_000, 2), 0.1), 48_000)
    Image.fromarray(flat(100)).save(folder / "still.jpg")
    (folder / "notes.txt").write_text("no media")
    return folder
