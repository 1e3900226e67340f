import json

import numpy as np
import pytest
from scipy.stats import binom
from support import real

from avsc_e2e.errors import AvscError
from avsc_e2e.outputs import comparison
from avsc_e2e.outputs.comparison import compare, majority
from avsc_e2e.outputs.comparisontable import comparison_table
from avsc_e2e.outputs.output import SystemOutput, read_outputs
from avsc_e2e.outputs.reference import read_reference, targets_of

SYSTEMS = ("audio_only", "video_only", "early_fusion", "late_fusion", "baseline")
CLASSES = ("bus", "park", "tram")


def deciding(decisions, sure=0.8, clips=4):
    """An output with these decisions."""
    decisions = np.asarray(decisions)
    files = tuple(f"bus-rome-{i // clips}-{i}.wav" for i in range(len(decisions)))
    return SystemOutput(files, CLASSES, sure * np.eye(3)[decisions] + (1 - sure) / 3)


def test_by_hand():
    targets = np.array([0, 1, 2] * 8)
    wrong = (targets + 1) % 3
    a = np.where(np.arange(24) < 6, wrong, targets)
    b = np.where((np.arange(24) >= 3) & (np.arange(24) < 15), wrong, targets)
    c = np.where(np.arange(24) < 18, wrong, targets)
    result = compare(
        {"c": deciding(c), "b": deciding(b), "a": deciding(a)}, targets, parameters={"a": 3, "b": 2, "c": 1}
    )
    assert result.systems == ("a", "b", "c")
    assert [result.scores[name].accuracy for name in result.systems] == [0.75, 0.5, 0.25]
    pair = result.pairs[0]
    assert (pair.first, pair.second, pair.only_first, pair.only_second) == ("a", "b", 9, 3)
    assert pair.agreement == 0.5
    assert pair.mcnemar == pytest.approx(2 * binom.cdf(3, 12, 0.5))
    difference = result.scores["a"].log_loss - result.scores["b"].log_loss
    assert pair.log_loss == pytest.approx(difference)
    assert pair.interval.low < difference < pair.interval.high
    combined = result.combinations[0]
    assert combined.vote == np.mean(sum((x == targets).astype(int) for x in (a, b, c)) >= 2)
    assert combined.oracle == pytest.approx(21 / 24)
    assert result.rank_correlation == pytest.approx(1.0)
    assert result.size_correlation == pytest.approx(1.0)
    assert {item.file for item in result.disagreements} == {
        f"bus-rome-{i // 4}-{i}.wav" for i in range(24) if len({a[i], b[i], c[i]}) > 1
    }
    assert sum(count for *_, count in result.confused) == len(result.disagreements)
    json.dumps(result.to_json(), allow_nan=False)


def test_ties_of_a_vote_go_by_the_mean_probability():
    outputs = [deciding([0], 0.9), deciding([1], 0.5), deciding([2], 0.6)]
    assert majority(outputs).tolist() == [0]
    assert majority([*outputs, deciding([1], 0.4)]).tolist() == [1]


def test_equal_systems_are_not_told_apart():
    targets = np.array([0, 1, 2] * 20)
    one = deciding(np.where(np.arange(60) % 5 == 0, (targets + 1) % 3, targets))
    pair = compare({"a": one, "b": one}, targets).pairs[0]
    assert (pair.agreement, pair.mcnemar, pair.log_loss, pair.p) == (1.0, 1.0, 0.0, 1.0)


def test_a_clear_difference_is_found_and_few_places_make_it_unclear():
    rng = np.random.default_rng(0)
    targets = np.array([0, 1, 2] * 100)
    good = np.where(rng.random(300) < 0.1, (targets + 1) % 3, targets)
    bad = np.where(rng.random(300) < 0.3, (targets + 1) % 3, targets)
    outputs = {"good": deciding(good), "bad": deciding(bad)}
    assert compare(outputs, targets).pairs[0].p < 0.01
    assert compare(outputs, targets).pairs[0].mcnemar < 0.01
    # All misses of one in a single place: rows seem to tell the two apart, places do not.
    placed = np.where(np.arange(300) < 30, (targets + 1) % 3, targets)
    groups = np.arange(300) // 30
    pair = compare({"a": deciding(targets), "b": deciding(placed)}, targets, groups=groups).pairs[0]
    assert pair.mcnemar < 1e-6
    assert pair.p > 0.3


def test_what_cannot_be_compared():
    targets = np.array([0, 1, 2])
    with pytest.raises(AvscError, match="two or more"):
        compare({"a": deciding(targets)}, targets)
    with pytest.raises(AvscError, match="parameters for b"):
        compare({"a": deciding(targets), "b": deciding(targets)}, targets, parameters={"a": 1})
    with pytest.raises(AvscError, match="not in both"):
        compare({"a": deciding(targets), "b": deciding([0, 1])}, targets)


def test_real_systems():
    """The kinds of figures of section 4.2 of the analysis of the challenge."""
    outputs = read_outputs([real(f"system_outputs/{name}.csv") for name in SYSTEMS])
    reference = read_reference(real("tau_urban_audio_visual_scenes_2021/evaluation_setup/fold1_evaluate.csv"))
    targets = targets_of(outputs["audio_only"], reference)
    result = compare(outputs, targets, protocol="10 s clips")
    assert result.systems == ("baseline", "late_fusion", "early_fusion", "audio_only", "video_only")
    assert result.locations == 126
    best, every = result.combinations
    assert best.systems == ("baseline", "late_fusion", "early_fusion")
    singles = [result.scores[name].accuracy for name in SYSTEMS]
    assert max(singles) < best.oracle < every.oracle < 1
    assert round(best.oracle, 4) == 0.8838
    assert round(every.oracle, 4) == 0.9349
    assert round(best.vote, 4) == 0.8177
    assert round(result.rank_correlation, 2) == 0.9  # 0.93 over the challenge's 43 systems
    for name in SYSTEMS:
        honest, published = result.bootstrap[name].accuracy, result.wald[name].accuracy
        assert honest.high - honest.low > 2 * (published.high - published.low)
        assert honest.low < result.scores[name].accuracy < honest.high
    assert len(result.pairs) == 10
    assert result.size_correlation is None
    assert result.confused[0][:2] == ("public_square", "street_pedestrian")
    text = comparison_table(result)
    for words in ("10 s clips", "vote of best 3", "oracle of all", "McNemar", "street_traffic", "0.5394"):
        assert words in text


def test_p_of_the_bootstrap_counts_both_sides(monkeypatch):
    targets = np.array([0, 1, 2] * 4)
    outputs = {"a": deciding(targets), "b": deciding((targets + 1) % 3)}
    samples = np.concatenate([np.full(3, 0.5), np.full(1, 0.0), np.full(1995, -1.0)])
    monkeypatch.setattr(comparison, "bootstrap", lambda *_: samples)
    assert compare(outputs, targets).pairs[0].p == pytest.approx(2 * (4 + 1) / (1999 + 1))
    monkeypatch.setattr(comparison, "bootstrap", lambda *_: -samples)
    assert compare(outputs, targets).pairs[0].p == pytest.approx(2 * (4 + 1) / (1999 + 1))


def test_disagreements_begin_with_the_most():
    """Two systems contradict each other on every row, the surer the more."""
    sure = np.array([0.4, 0.9, 0.6, 0.8])
    rows = tuple(f"bus-rome-1-{i}.wav" for i in range(4))
    first = np.stack([sure, (1 - sure) / 2, (1 - sure) / 2], axis=1)
    outputs = {"a": SystemOutput(rows, CLASSES, first), "b": SystemOutput(rows, CLASSES, first[:, [1, 0, 2]])}
    found = compare(outputs, np.array([0, 0, 1, 1])).disagreements
    assert [item.file for item in found] == [rows[i] for i in (1, 3, 2, 0)]

    def entropy(values):
        return -sum(v * np.log(v) for v in values)

    assert found[0].divergence == pytest.approx(entropy([0.475, 0.475, 0.05]) - entropy([0.9, 0.05, 0.05]))
    assert found[0].decisions == ("bus", "park")
    assert found[0].scene == "bus"


def test_confusions_begin_with_the_most():
    a, b = deciding([0, 0, 0, 1, 1, 2]), deciding([1, 1, 1, 2, 2, 2])
    assert compare({"a": a, "b": b}, np.array([0, 0, 1, 1, 2, 2])).confused == (
        ("bus", "park", 3),
        ("park", "tram", 2),
    )
