"""Windows of frames and samples that come one after the other, and what is kept of them."""

import weakref

import numpy as np
import pytest
from support import flat

from avsc_e2e.data.media.audio import Block
from avsc_e2e.data.media.header import Media
from avsc_e2e.data.media.live import LiveWindows
from avsc_e2e.data.media.source import TOLERANCE
from avsc_e2e.data.media.windows import rolling_cut
from avsc_e2e.errors import MediaError


def levels(windows) -> list[tuple[float, float]]:
    """Start of each window, and level of its frame."""
    return [(window.start, float(window.frames.mean())) for window in windows]


def test_a_window_has_the_frame_on_screen_at_its_middle():
    live = LiveWindows(seen=True)
    for number in range(25):
        live.see(flat(10 * number), number / 10)
        if number in (9, 19):
            assert not levels(live.windows())
        if number in (10, 20):  # as soon as a frame begins where the window ends
            assert levels(live.windows()) == [((number - 10) / 10, 10.0 * (number - 5))]
    assert live.end == pytest.approx(2.5)
    assert levels(live.windows(2.5)) == [(1.5, 200.0)]


def test_frames_come_in_order():
    live = LiveWindows(seen=True, name="camera")
    live.see(flat(1), 1.0)
    for time in (1.0, 0.5):
        with pytest.raises(MediaError, match=rf"camera: a frame at {time:.3f} s after one at 1\.000 s"):
            live.see(flat(1), time)
    live.see(flat(1), 1.04)
    assert live.end == pytest.approx(1.08)


@pytest.mark.parametrize(("late", "there"), [(0.0, True), (TOLERANCE, True), (TOLERANCE + 0.01, False)])
def test_a_first_frame_may_come_a_little_late(late, there):
    live = LiveWindows(seen=True)
    for number, time in enumerate((0.5 + late, 1.25, 2.0)):
        live.see(flat(50 * (number + 1)), time)
    window, second = live.windows()
    assert second.frames.mean() == 100
    if there:
        assert window.frames.mean() == 50
    else:
        assert str(window.frames) == "stream: no frame at 0.50 s"


def test_samples_are_kept_for_two_windows():
    """However long the recording is, and however many samples come at a time."""
    for size in (30, 100, 250):
        alive = []

        def blocks(size=size, alive=alive):
            for at in range(0, 20_000, size):
                samples = np.arange(at, at + size, dtype=np.float32)[None]
                alive.append(weakref.ref(samples))
                yield Block(at, samples, False)

        cut = rolling_cut("long", Media(0.0, 0, sample_rate=100, channels=1), 1.0, blocks())
        for first in range(0, 19_000, 100):
            found, _ = cut(first, first + 100)
            assert found[0, :100].tolist() == list(range(first, first + 100))
            assert sum(one() is not None for one in alive) <= 300 // size + 4
