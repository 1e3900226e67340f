import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, log_loss, top_k_accuracy_score

from avsc_e2e.errors import AvscError
from avsc_e2e.outputs.intervals import bootstrap, intervals, percentiles, wald, warning_of_few, wilson
from avsc_e2e.outputs.metrics import (
    CLIP,
    class_means,
    log_losses,
    macro_accuracy,
    macro_log_loss,
    macro_mean,
    reliability,
    score,
)


def draw(n=400, k=5, seed=0, balanced=False):
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % k if balanced else rng.choice(k, n, p=np.arange(1, k + 1) / np.arange(1, k + 1).sum())
    probabilities = rng.dirichlet(np.full(k, 0.5), n) * 0.5 + 0.5 * np.eye(k)[rng.permutation(targets)]
    return probabilities, targets


def test_by_hand():
    probabilities = np.array([[0.5, 0.5], [0.25, 0.75], [0.1, 0.9]])
    targets = np.array([0, 0, 1])
    scores = score(probabilities, targets, ("a", "b"), "1 s segments")
    of_a, of_b = (np.log(2) + np.log(4)) / 2, -np.log(0.9)
    assert scores.class_log_loss == pytest.approx([of_a, of_b])
    assert scores.log_loss == pytest.approx((of_a + of_b) / 2)
    assert scores.micro_log_loss == pytest.approx((np.log(2) + np.log(4) - np.log(0.9)) / 3)
    assert scores.class_accuracy == pytest.approx([0.5, 1.0])
    assert scores.accuracy == 0.75
    assert scores.micro_accuracy == pytest.approx(2 / 3)
    assert scores.confusion.tolist() == [[1, 1], [0, 1]]
    assert scores.brier == pytest.approx((0.5 + 2 * 0.75**2 + 2 * 0.1**2) / 3)
    assert scores.top_accuracy.tolist() == [0.75, 1.0]
    assert (scores.protocol, scores.count, scores.classes) == ("1 s segments", 3, ("a", "b"))


@pytest.mark.parametrize(("k", "seed"), [(2, 0), (3, 1), (4, 2), (5, 3), (6, 4), (10, 5)])
def test_against_scikit_learn(k, seed):
    probabilities, targets = draw(200, k, seed)
    probabilities /= probabilities.sum(1, keepdims=True)
    targets[:k] = np.arange(k)
    weights = 1 / np.bincount(targets)[targets]
    scores = score(probabilities, targets, [f"c{i}" for i in range(k)])
    decided = probabilities.argmax(1)
    assert scores.log_loss == pytest.approx(log_loss(targets, probabilities, sample_weight=weights))
    assert scores.micro_log_loss == pytest.approx(log_loss(targets, probabilities))
    assert scores.accuracy == pytest.approx(balanced_accuracy_score(targets, decided))
    assert scores.micro_accuracy == pytest.approx(accuracy_score(targets, decided))
    assert np.array_equal(scores.confusion, confusion_matrix(targets, decided, labels=np.arange(k)))
    if k > 2:
        top = top_k_accuracy_score(targets, probabilities, k=2, sample_weight=weights, labels=np.arange(k))
        assert scores.top_accuracy[1] == pytest.approx(top)
    assert scores.top_accuracy[-1] == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_order_of_rows_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    probabilities = rng.random((20, 3)) * rng.integers(0, 2, (20, 3))
    targets = rng.integers(0, 3, 20)
    order = rng.permutation(20)
    one = score(probabilities, targets, "abc")
    two = score(probabilities[order], targets[order], "abc")
    assert one.log_loss == pytest.approx(two.log_loss)
    assert one.accuracy == two.accuracy
    assert 0 <= one.calibration_error <= 1


def test_against_torchmetrics_on_imbalanced_classes():
    import torch
    from torchmetrics.functional import classification

    probabilities, targets = draw(300, 4, 3)
    assert np.bincount(targets).max() > 3 * np.bincount(targets).min()
    scores = score(probabilities, targets, "abcd")
    given = torch.from_numpy(probabilities), torch.from_numpy(targets), 4
    accuracy = classification.multiclass_accuracy
    assert scores.accuracy == pytest.approx(float(accuracy(*given, average="macro")), abs=1e-6)
    assert scores.micro_accuracy == pytest.approx(float(accuracy(*given, average="micro")), abs=1e-6)
    assert scores.class_accuracy == pytest.approx(accuracy(*given, average=None).numpy(), abs=1e-6)
    assert scores.top_accuracy[1] == pytest.approx(float(accuracy(*given, average="macro", top_k=2)), abs=1e-6)
    assert scores.confusion.tolist() == classification.multiclass_confusion_matrix(*given).tolist()
    error = classification.multiclass_calibration_error(*given, n_bins=15, norm="l1")
    assert scores.calibration_error == pytest.approx(float(error), abs=1e-6)


def test_zero_is_clipped_and_rows_are_not_renormalised():
    probabilities = np.array([[0.0, 1.003], [0.5, 0.4]])
    assert log_losses(probabilities, np.array([0, 0])) == pytest.approx([-np.log(CLIP), np.log(2)])
    assert log_losses(probabilities, np.array([1, 1])) == pytest.approx([0.0, -np.log(0.4)])


def test_class_without_rows_is_left_out():
    probabilities, targets = np.full((4, 3), 1 / 3), np.array([0, 0, 2, 2])
    scores = score(probabilities, targets, ("a", "b", "c"))
    assert np.isnan(scores.class_log_loss[1])
    assert np.isnan(scores.class_accuracy[1])
    assert scores.log_loss == pytest.approx(np.log(3))
    assert macro_log_loss(probabilities, targets) == pytest.approx(np.log(3))
    values = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert values["class_log_loss"][1] is None
    assert values["class_count"] == [2, 0, 2]


def test_own_decisions_change_accuracy_alone():
    probabilities = np.array([[0.5, 0.5], [0.5, 0.5]])
    targets = np.array([0, 1])
    scores = score(probabilities, targets, ("a", "b"), predictions=np.array([0, 1]))
    assert scores.accuracy == 1.0
    assert scores.confusion.tolist() == [[1, 0], [0, 1]]
    assert score(probabilities, targets, ("a", "b")).accuracy == 0.5
    assert macro_accuracy(np.array([0, 0]), targets) == 0.5


@pytest.mark.parametrize(
    ("probabilities", "targets", "classes", "reason"),
    [
        (np.ones((2, 2)) / 2, np.array([0, 1]), ("a",), "2 columns of probabilities for 1 classes"),
        (np.ones((2, 2)) / 2, np.array([0, -1]), ("a", "b"), "row 1 of targets is -1"),
        (np.ones((2, 2)) / 2, np.array([0, 2]), ("a", "b"), "row 1 of targets is 2"),
        (np.ones((2, 2)) / 2, np.array([0.0, 1.0]), ("a", "b"), "must be 2 integers"),
        (np.ones((2, 2)) / 2, np.array([0]), ("a", "b"), "must be 2 integers"),
        (np.array([[0.5, 0.5], [np.nan, 1]]), np.array([0, 1]), ("a", "b"), "row 1 of the probabilities is NaN"),
        (np.ones((0, 2)), np.array([], dtype=int), ("a", "b"), "not empty"),
    ],
)
def test_what_does_not_fit_is_refused(probabilities, targets, classes, reason):
    with pytest.raises(AvscError, match=reason):
        score(probabilities, targets, classes)


def test_calibration_error_of_a_known_case():
    probabilities = np.tile([0.9, 0.1], (10, 1))
    targets = np.array([0] * 6 + [1] * 4)
    diagram = reliability(probabilities, targets, bins=10)
    assert diagram.count.tolist() == [0] * 8 + [10, 0]
    assert diagram.accuracy[8] == pytest.approx(0.6)
    assert diagram.error == pytest.approx(0.3)
    assert reliability(np.tile([1.0, 0.0], (5, 1)), np.zeros(5, dtype=int)).error == 0.0


def test_wald_as_published():
    """The challenge's best system: 93.8 % on 72,000 segments, 93.6 - 93.9 %; the baseline: 77.1 %, 76.8 - 77.5 %."""
    for accuracy, low, high in ((0.93765, 0.936, 0.939), (0.77145, 0.768, 0.775)):
        hits = (np.arange(72_000) % 7200 < round(accuracy * 7200)).astype(float)
        interval = wald(hits, np.repeat(np.arange(10), 7200))
        assert interval.low == pytest.approx(low, abs=6e-4)
        assert interval.high == pytest.approx(high, abs=6e-4)


def test_bootstrap_over_independent_rows_agrees_with_wald():
    probabilities, targets = draw(2000, 4, balanced=True)
    losses = log_losses(probabilities, targets)
    samples = bootstrap(losses, targets, np.arange(len(targets)))
    interval = wald(losses, targets)
    assert samples.std() * 1.96 == pytest.approx((interval.high - interval.low) / 2, rel=0.1)


def test_clips_of_one_place_widen_the_interval():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 20)
    targets = groups % 3
    easy = rng.random(60)[groups]  # whole places are easy or hard
    right = rng.random(len(groups)) < easy
    probabilities = np.where(right[:, None], 0.8 * np.eye(3)[targets] + 0.2 / 3, 0.1)
    by_row, by_place = intervals(probabilities, targets), intervals(probabilities, targets, groups=groups)
    for one, other in zip(by_row, by_place, strict=True):
        assert other.high - other.low > 1.8 * (one.high - one.low)
    doubled = intervals(np.repeat(probabilities, 2, 0), np.repeat(targets, 2), groups=np.repeat(groups, 2))
    assert doubled.log_loss == pytest.approx(by_place.log_loss)  # copies of rows teach nothing new


def test_bootstrap_is_repeatable_and_paired():
    probabilities, targets = draw(300, 3)
    groups = np.arange(300) // 10
    losses = log_losses(probabilities, targets)
    assert np.array_equal(bootstrap(losses, targets, groups), bootstrap(losses, targets, groups))
    shifted = bootstrap(losses + 0.25, targets, groups) - bootstrap(losses, targets, groups)
    assert shifted == pytest.approx(np.full(2000, 0.25))


def test_class_means_leave_gaps():
    means = class_means(np.array([1.0, 3.0]), np.array([2, 2]), 3)
    assert np.isnan(means[:2]).all()
    assert means[2] == 2.0


def test_no_torch():
    modules = [
        *(
            f"outputs.{name}"
            for name in ("calibration", "comparison", "folds", "fusion", "loglinear", "metrics", "output")
        ),
        *(f"submission.{name}" for name in ("check", "entry", "package")),
    ]
    code = f"import sys\nfor name in {modules}: __import__('avsc_e2e.' + name)\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_percentiles_are_the_central_share():
    assert percentiles(np.arange(201.0)) == pytest.approx((5.0, 195.0))
    assert percentiles(np.arange(201.0), level=0.9) == pytest.approx((10.0, 190.0))


def test_bootstrap_draws_within_each_class():
    """Class 0 has one group, so it adds no spread; class 1 has two groups of one and of three rows."""
    values = np.array([1.0, 0.0, 1.0, 1.0, 1.0])
    samples = bootstrap(values, np.array([0, 1, 1, 1, 1]), np.array(["a", "b", "c", "c", "c"]))
    found, counts = np.unique(samples, return_counts=True)
    # Class 1 is b twice (0), b and c (3 of 4 rows), or c twice (1); the macro mean adds class 0, which is always 1.
    assert found.tolist() == [0.5, 0.875, 1.0]
    assert counts / len(samples) == pytest.approx([0.25, 0.5, 0.25], abs=0.04)


def test_a_group_counts_with_the_class_of_most_of_its_rows():
    """Group b has rows of classes 0 and 1; its commonest class, 1, is drawn among b and c."""
    targets, groups = np.array([0, 0, 1, 1, 1, 2]), np.array(["a", "b", "b", "b", "c", "d"])
    samples = bootstrap(np.array([1.0, 0.0, 0.0, 0.0, 1.0, 1.0]), targets, groups)
    # c twice: every class is right. b twice: class 0 has 1 of 3 rows, class 1 none. One of each: 1 of 2 and 1 of 3.
    assert np.unique(samples.round(9)).tolist() == pytest.approx([(1 / 3 + 1) / 3, (1 / 2 + 1 / 3 + 1) / 3, 1.0])


def test_intervals_are_of_the_level_that_is_asked():
    probabilities, targets = draw(300, 3)
    groups = np.arange(300) // 10
    losses = log_losses(probabilities, targets)
    samples = bootstrap(losses, targets, groups)
    narrow = intervals(probabilities, targets, groups=groups, level=0.5).log_loss
    assert narrow == pytest.approx(tuple(np.quantile(samples, [0.25, 0.75])))
    wide = wald(losses, targets)
    assert (wide.high - wide.low) / 2 == pytest.approx(
        1.959964 * np.sqrt(macro_mean((losses - macro_mean(losses, targets)) ** 2, targets) / 300)
    )


def test_no_interval_that_cannot_be_had():
    """Four recordings, one location a class: "100.0 to 100.0" says nothing. Wilson's interval, or none."""
    probabilities = np.full((4, 4), 0.1) + 0.6 * np.eye(4)
    targets = np.arange(4)
    alone = intervals(probabilities, targets, groups=np.arange(4))
    assert alone.log_loss is None
    assert alone.accuracy == pytest.approx((4 / (4 + 3.841459), 1.0), abs=1e-6)  # n / (n + z^2)
    doubled = np.repeat(probabilities, 2, 0), np.repeat(targets, 2)
    all_right = intervals(*doubled, groups=np.arange(8))
    assert all_right.accuracy == pytest.approx((8 / (8 + 3.841459), 1.0), abs=1e-6)
    assert all_right.log_loss == pytest.approx((-np.log(0.7), -np.log(0.7)))
    # One class of a single location spoils the interval of all: its part of the mean would not vary.
    assert intervals(*doubled, groups=[0, 0, 1, 2, 3, 4, 5, 6]).log_loss is None


def test_wilson_against_published_values():
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)


def test_few_test_data_give_a_warning():
    targets = np.repeat(np.arange(3), [20, 20, 4])
    text = warning_of_few(targets, np.arange(44), ("bus", "metro", "park"))
    assert text.startswith("few test data: 44 locations in all, 4 locations of class park")
    assert warning_of_few(np.array([0]), np.array(["x"]), ("bus",)).startswith(
        "few test data: 1 location in all, 1 location of class bus"
    )
    text = warning_of_few(np.repeat(np.arange(2), 6), np.arange(12), ("bus", "metro"))
    assert text.startswith("few test data: 12 locations in all; figures")
    assert warning_of_few(np.repeat(np.arange(3), 10), np.arange(30), ("bus", "metro", "park")) == ""
