"""The examples of the page: audio and video of scenes one after the other."""

import numpy as np

from avsc_e2e.data.media import probe, read_audio, read_frames
from avsc_e2e.toycity.example import EXAMPLES, write_example


def test_scenes_follow_each_other(tmp_path):
    path = write_example(tmp_path / "x.mp4", ("park", "metro"), seconds=2.0, seed=1)
    media = probe(path)
    assert (media.has_audio, media.has_video) == (True, True)
    assert abs(media.duration - 4) < 0.1
    first, same, other = read_frames(path, [0.3, 1.7, 2.3]).astype(float)
    assert np.abs(first - same).mean() < 0.5 * np.abs(first - other).mean()
    heard, later, rails = (_colour(read_audio(path, at, 0.8, 16_000)[0]) for at in (0.1, 1.1, 2.6))
    assert np.abs(heard - later).mean() < 0.5 * np.abs(heard - rails).mean()
    assert all(len(scenes) == 2 for scenes in EXAMPLES.values())


def _colour(audio):
    """Levels of 20 bands, dB."""
    power = np.abs(np.fft.rfft(audio))[: 20 * 300] ** 2
    return 10 * np.log10(power.reshape(20, -1).mean(axis=1) + 1e-9)
