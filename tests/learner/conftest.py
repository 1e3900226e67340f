"""A data set of audio alone."""

import numpy as np
import pytest
import soundfile


def made(root, part="", classes=("high", "low"), sources=5):
    """Recordings of two clips a source: tones of two pitches in noise."""
    for number, name in enumerate(classes):
        (root / part / name).mkdir(parents=True)
        for source in range(sources):
            for take in range(2):
                draw = np.random.default_rng((number, source, take))
                time = np.arange(16000) / 16000
                tone = np.sin(2 * np.pi * (2000 if number == 0 else 300 + 20 * source) * time)
                sound = 0.2 * tone + 0.05 * draw.normal(size=16000)
                soundfile.write(root / part / name / f"{name}_s{source}_{take}.wav", sound, 16000)
    return root


@pytest.fixture
def tones():
    """The function that makes it."""
    return made
