"""The ladder as a file and as a sentence."""

from avsc_e2e.learner.ladder import Ladder, Rung

RUNGS = [Rung("joint probe", 0.2, 0.9, 12.0, 0.05, "strength 0.1"), Rung("product", 0.1, 0.95, 13.0, 0.08)]


def test_written_and_read_again(tmp_path):
    ladder = Ladder(list(RUNGS), "product")
    ladder.write(tmp_path / "ladder.csv")
    again = Ladder.read(tmp_path / "ladder.csv")
    assert (again.rungs, again.chosen) == (RUNGS, "product")
    assert Ladder.read(tmp_path / "none.csv") == Ladder()


def test_the_verdict_has_an_interval_and_says_how_it_was_found():
    assert Ladder(list(RUNGS), "product").verdict() == (
        "out of fold, product: macro log loss 0.100 (95 % by source: 0.000 to 0.257), macro accuracy 95.0 %; chosen "
        "among 2 rungs, so a little too good"
    )
    assert Ladder(list(RUNGS)).verdict() == ""
