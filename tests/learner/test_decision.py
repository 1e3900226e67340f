"""The decision over heads: richer rules only where they earn it, and the ensemble that says the same as its rule."""

import numpy as np
import torch

from avsc_e2e.learner.assembly import Head, decide, full
from avsc_e2e.learner.decision import Judged, beats, candidates, choose, standard_error
from avsc_e2e.learner.folds import Folds, loss_of
from avsc_e2e.learner.probe import Probe, probe


def rows(n=240, k=3, sources=24, seed=0):
    draw = np.random.default_rng(seed)
    groups = np.repeat(np.arange(sources), n // sources)
    targets = groups % k
    return draw, targets, groups, np.ones(n)


def test_a_useless_head_is_not_heard():
    draw, y, g, w = rows()
    good = 2.0 * np.eye(3)[y] + draw.normal(size=(len(y), 3))
    judged = Judged(y, g, w, Folds.of(y, g))
    found = candidates({"good": good, "noise": draw.normal(size=(len(y), 3)) * 5}, judged, ["noise"])
    chosen = choose(found, judged)
    assert chosen.heads == ("good",)
    assert chosen.loss <= judged.loss(good) + 0.01


def test_two_heads_that_err_apart_are_pooled():
    draw, y, g, w = rows()
    heads = {name: 2.0 * np.eye(3)[y] + draw.normal(size=(len(y), 3)) for name in ("one", "two")}
    judged = Judged(y, g, w, Folds.of(y, g))
    chosen = choose(candidates(heads, judged, ["one"]), judged)
    assert set(chosen.heads) == {"one", "two"}
    assert chosen.loss < 0.8 * min(judged.loss(values) for values in heads.values())


def test_an_overconfident_head_is_cooled():
    draw, y, g, w = rows()
    logits = 20.0 * (np.eye(3)[y] + draw.normal(size=(len(y), 3)))
    judged = Judged(y, g, w, Folds.of(y, g))
    chosen = choose(candidates({"hot": logits}, judged, ["hot"]), judged)
    assert chosen.loss < 0.5 * judged.loss(logits)


def test_each_pattern_hears_only_what_it_has():
    draw, y, g, w = rows()
    present = np.ones((len(y), 2), bool)
    everywhere = np.ones(len(y), bool)
    logits = {name: 2.0 * np.eye(3)[y] + draw.normal(size=(len(y), 3)) for name in ("a", "v", "j")}
    none = Probe(np.zeros((1, 3)), np.zeros(3))
    of = {"a": {"audio"}, "v": {"video"}, "j": {"audio", "video"}}
    heads = {name: Head((name,), frozenset(of[name]), logits[name], everywhere, none) for name in of}
    decisions = decide(heads, y, g, w, present, seed=0)
    assert decisions.chosen[1].heads == ("a",)
    assert decisions.chosen[2].heads == ("v",)
    matrix = full(decisions.chosen[1], list(of), 3)
    assert matrix[0].any()
    assert not matrix[1:].any()


def test_the_strength_of_a_probe_follows_the_data():
    draw, y, g, w = rows(sources=60)
    source = draw.normal(size=(60, 400))[g]  # features that tell sources apart, not classes
    features = np.concatenate([source, np.eye(3)[y] + 0.5 * draw.normal(size=(len(y), 3))], axis=1).astype(np.float32)
    found = probe(features, y, w, Folds.of(y, g), 3)
    assert found.loss == loss_of(found.logits, y, w) < np.log(3)
    np.testing.assert_allclose(found.probe.logits(features).shape, (len(y), 3))


def test_a_probe_is_the_same_with_more_features_than_rows():
    draw, y, g, w = rows(n=60, sources=12)
    narrow = draw.normal(size=(60, 20)).astype(np.float32)
    wide = np.concatenate([narrow] * 4, axis=1)  # 80 features over 60 rows: solved in coordinates of the rows
    found = {name: probe(x, y, w, Folds.of(y, g), 3) for name, x in (("narrow", narrow), ("wide", wide))}
    assert np.isfinite(found["wide"].logits).all()
    assert abs(found["wide"].loss - found["narrow"].loss) < 0.05


def test_losses_are_of_classes_not_of_rows():
    targets, weights = np.array([0, 0, 0, 1]), np.array([1.0, 1.0, 1.0, 1.0])
    logits = np.log(np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.75, 0.25]]))
    assert np.isclose(loss_of(logits, targets, weights), (np.log(2) + np.log(4)) / 2)
    assert torch.isfinite(torch.tensor(logits)).all()


def test_the_product_of_the_joint_heads_and_the_best_other_one_comes_first():
    draw, y, g, w = rows()
    heads = {n: size * np.eye(3)[y] + draw.normal(size=(len(y), 3)) for n, size in (("joint", 2), ("v", 2), ("a", 1))}
    judged = Judged(y, g, w, Folds.of(y, g))
    found = candidates(heads, judged, ["joint"])
    assert [one.name for one in found[:2]] == ["product", "best head"]
    assert found[0].heads == ("joint", "v")
    assert [one.rule.weights.tolist() for one in found[:2]] == [[0.5, 0.5], [1.0]]  # nothing is fitted
    assert choose(found[:2], judged) is found[0]
    # The best head replaces it only by a standard error, however slightly the other one errs more.
    calm = 2.0 * np.eye(3)[y] + np.sqrt(2) * draw.normal(size=(len(y), 3))
    alike = {"joint": calm, "v": calm + 0.01 * draw.normal(size=(len(y), 3))}
    assert choose(candidates(alike, judged, ["joint"]), judged).name == "product"


def test_a_temperature_has_to_earn_its_place():
    """Heads that are as sure as they should be: a fitted temperature only follows the noise of few sources."""
    draw, y, g, w = rows(n=60, sources=12)
    head = 2.0 * np.eye(3)[y] + np.sqrt(2) * draw.normal(size=(len(y), 3))
    judged = Judged(y, g, w, Folds.of(y, g))
    found = candidates({"calm": head}, judged, ["calm"])
    assert [one.name for one in found] == ["best head", "temperature"]
    assert choose(found, judged).name == "best head"
    assert found[0].loss == judged.loss(head)


def test_one_thing_beats_another_by_the_noise_between_sources():
    """Two sources a class, one of which gains 0.2 nats in each class: 0.1 in the mean, and as much in its error."""
    y, g, w = np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3]), np.ones(4)
    rows = Judged(y, g, w)

    def logs(*gains):
        right = np.log(0.5) + np.array(gains)
        return np.where(np.eye(2)[y].astype(bool), right[:, None], np.log(-np.expm1(right))[:, None])

    before = logs(0.0, 0.0, 0.0, 0.0)
    once = logs(0.2, 0.0, 0.2, 0.0)  # of each class: mean 0.1, deviation 0.1; of the mean of two: 0.1 / sqrt(2)
    assert np.isclose(standard_error(np.array([0.2, 0.0, 0.2, 0.0]), rows), 0.1 / np.sqrt(2))
    assert beats(once, before, rows, 1.0)
    assert not beats(once, before, rows, 1.5)
    assert not beats(before, before, rows, 1.0)
    assert beats(logs(0.001, 0.001, 0.001, 0.001), before, rows, 1.0)  # small, and everywhere


def test_sharper_where_nothing_errs_is_no_gain():
    """Ten sources a class, all right: 99.9 % sure costs less than 98 %, until one more source is of another class."""
    y = np.repeat([0, 1], 10)
    rows = Judged(y, np.arange(20), np.ones(20))

    def logs(sure: float, wrong: int = 0) -> np.ndarray:
        right = np.full(20, sure)
        right[:wrong] = 0.3
        return np.log(np.where(np.eye(2)[y].astype(bool), right[:, None], 1 - right[:, None]))

    assert not beats(logs(0.999), logs(0.98), rows, 2.0)
    assert not beats(logs(0.98), logs(0.999), rows, 2.0)  # nor does it err more
    assert beats(logs(0.98), logs(0.7), rows, 2.0)
