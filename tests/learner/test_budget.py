"""What of a large data set is looked at."""

import numpy as np
import pytest

from avsc_e2e.clip import Row
from avsc_e2e.data.store.prepare import Options
from avsc_e2e.learner import look as looking
from avsc_e2e.learner.budget import Clock, in_turn
from avsc_e2e.learner.embeddings import segments_of


def test_each_beginning_holds_all_classes_and_sources_in_turn():
    recordings = [("a", f"a{n % 4}", f"a{n}") for n in range(40)] + [("b", "b0", "b0"), ("b", "b1", "b1")]
    order = [recordings[place] for place in in_turn(recordings)]
    assert sorted(order) == sorted(recordings)
    assert {scene for scene, *_ in order[:2]} == {"a", "b"}
    assert {source for _, source, _ in order[:6]} == {"a0", "a1", "a2", "a3", "b0", "b1"}
    assert order == [recordings[::-1][place] for place in in_turn(recordings[::-1])]


ROWS = [
    Row(f"{scene}{n}", audio="x", scene=scene, location=f"{scene}{n}", duration=n) for scene in "ab" for n in (1, 5)
]


@pytest.mark.parametrize(
    ("count", "kept", "weights"),
    [
        (12, "0 01234 0 01234", [1] * 12),
        (11, "0 0134 0 01234", [1, *[1.25] * 4, *[1] * 6]),
        (6, "0 13 0 13", [1, 2.5, 2.5] * 2),
        (4, "0 2 0 2", [1, 5, 1, 5]),
    ],
)
def test_segments_are_thinned_out_evenly_and_stand_for_all(count, kept, weights):
    segments = segments_of(ROWS, ("a", "b"))
    left = segments.chosen(segments.within(count))
    found = {row.file: "".join(f"{s.start:g}" for s in left.segments if s.row.file == row.file) for row in ROWS}
    assert [found[row.file] for row in ROWS] == kept.split()
    assert left.weights == pytest.approx(np.array(weights, float))


def test_of_many_recordings_some_of_each_class():
    segments = segments_of(ROWS, ("a", "b"))
    for count, left in ((3, 3), (2, 2), (0.5, 2)):
        kept = segments.chosen(segments.within(count))
        assert (len(kept), set(kept.targets)) == (left, {0, 1})


def test_decoding_stops_at_its_share_of_the_time_and_goes_on_with_more(tmp_path, monkeypatch, tones):
    root = tones(tmp_path / "data", "train")
    tones(tmp_path / "data", "test", sources=1)
    monkeypatch.setattr(looking, "PILOT", 4)

    def looked(rates):
        clock = Clock(1)
        times = iter((0.0, 4 * rates))
        monkeypatch.setattr(Clock, "used", property(lambda _: next(times, 0.0)))
        return list(looking.look(root, tmp_path / "run", Options(160, 3.0, 90), clock))

    first, seen = looked(2.25)  # a minute has room for six training recordings and for four of the test part, all
    assert (len(first.corpus.train), len(first.corpus.test), first.corpus.classes) == (4, 0, ("high", "low"))
    assert (len(seen.corpus.train), len(seen.corpus.test)) == (6, 4)
    assert [text for text in seen.warnings if text.startswith("14 recordings are left out")]
    *_, seen = looked(0.1)
    assert (len(seen.corpus.train), len(seen.corpus.test)) == (20, 4)
    assert not [text for text in seen.warnings if "left out" in text]
