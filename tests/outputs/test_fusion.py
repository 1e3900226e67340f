from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
from support import real

from avsc_e2e.errors import AvscError
from avsc_e2e.outputs.folds import choose
from avsc_e2e.outputs.fusion import Fused, Fusion, Method, fuse
from avsc_e2e.outputs.fusion import fit as fit_rule
from avsc_e2e.outputs.loglinear import LogLinear, fit_log_linear
from avsc_e2e.outputs.metrics import macro_log_loss, score
from avsc_e2e.outputs.output import SystemOutput, read_outputs
from avsc_e2e.outputs.reference import read_reference, targets_of

SYSTEMS = ("audio_only", "video_only", "early_fusion", "late_fusion", "baseline")
CLASSES = ("bus", "park", "tram")


def systems(strengths=(2.0, 2.0, 0.3), places=50, clips=6, seed=0):
    """Systems with independent evidence of these strengths."""
    rng = np.random.default_rng(seed)
    n = places * clips
    targets = rng.integers(0, 3, n)
    files = tuple(f"bus-rome-{i // clips}-{i}.wav" for i in range(n))
    outputs = {}
    for number, strength in enumerate(strengths):
        logits = rng.normal(size=(n, 3)) * np.sqrt(strength) + strength * np.eye(3)[targets]
        values = np.exp(logits)
        outputs[f"s{number}"] = SystemOutput(files, CLASSES, values / values.sum(1, keepdims=True))
    return outputs, targets


def test_product_of_independent_evidence():
    outputs, targets = systems()
    result = fuse(outputs, targets, get_args(Method))
    single = min(result.scores[name].log_loss for name in outputs)
    assert result.scores["pool"].log_loss < single - 0.1
    assert result.scores["pool"].log_loss < result.scores["mean"].log_loss - 0.05
    assert result.fusions["pool"].rule.weights == pytest.approx([0.9, 0.9, 0.9], abs=0.35)
    assert result.best == min(get_args(Method), key=lambda method: result.scores[method].log_loss)
    lines = result.table().splitlines()
    assert [line.split()[0] for line in lines[2:]] == [*outputs, *get_args(Method)]


def test_noise_gets_little_weight():
    outputs, targets = systems((2.0, 2.0, 0.0), places=100)
    rng = np.random.default_rng(1)
    outputs["s2"] = SystemOutput(outputs["s0"].files, CLASSES, rng.dirichlet(np.ones(3), len(targets)))
    result = fuse(outputs, targets, ("weights", "pool", "greedy", "confidence"))
    for method in ("weights", "pool", "greedy"):
        weights = result.fusions[method].rule.weights
        assert weights[2] < 0.3 * weights[:2].min()
    assert (result.fusions["confidence"].rule.weights[2] < result.fusions["confidence"].rule.weights[0]).all()


def test_mean_and_product_and_vote_by_hand():
    files = tuple(f"bus-rome-{i}-1" for i in range(2))
    a = SystemOutput(files, ("x", "y"), np.array([[0.9, 0.1], [0.4, 0.6]]))
    b = SystemOutput(files, ("x", "y"), np.array([[0.4, 0.6], [0.1, 0.9]]))
    targets = np.array([0, 1])
    result = fuse({"a": a, "b": b}, targets, ("mean", "product", "vote"))
    assert result.outputs["mean"].probabilities == pytest.approx(np.array([[0.65, 0.35], [0.25, 0.75]]))
    product = np.sqrt(a.probabilities * b.probabilities)
    assert result.outputs["product"].probabilities == pytest.approx(product / product.sum(1, keepdims=True))
    assert result.outputs["vote"].decisions.tolist() == [0, 1]  # a tie goes by the mean
    assert result.outputs["vote"].probabilities == pytest.approx(np.array([[1.65, 1.35], [0.25, 2.75]]) / 3)


def test_majority_beats_a_sure_minority():
    files = ("bus-rome-1-1", "bus-rome-2-1")
    sure, weak = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.45, 0.55], [0.45, 0.55]])
    outputs = {
        name: SystemOutput(files, ("x", "y"), values) for name, values in zip("abc", (sure, weak, weak), strict=False)
    }
    assert fuse(outputs, np.array([0, 1]), ("vote",)).outputs["vote"].decisions.tolist() == [1, 1]


@pytest.mark.parametrize("method", get_args(Method))
def test_stored_and_applied_to_further_outputs(tmp_path, method):
    outputs, targets = systems(places=20)
    fusion = fuse(outputs, targets, (method,)).fusions[method]
    fusion.save(tmp_path / "fusion.json")
    again = Fusion.load(tmp_path / "fusion.json")
    further, _ = systems(seed=1, places=20)
    expected = fusion(further)
    assert np.array_equal(again(dict(reversed(further.items()))).probabilities, expected.probabilities)  # by name
    assert expected.probabilities.sum(1) == pytest.approx(np.ones(len(expected)))
    order = np.random.default_rng(0).permutation(len(expected))
    first = further["s0"]
    shuffled = SystemOutput(tuple(first.files[i] for i in order), CLASSES[::-1], first.probabilities[order][:, ::-1])
    mixed = again({**further, "s0": shuffled})
    rows = [mixed.files.index(file) for file in expected.files]
    assert mixed.probabilities[rows] == pytest.approx(expected.probabilities)
    assert mixed.classes == expected.classes


def test_nothing_is_gained_on_pure_noise():
    rng = np.random.default_rng(0)
    targets = np.repeat(rng.integers(0, 3, 40), 10)
    files = tuple(f"bus-rome-{i // 10}-{i}" for i in range(400))
    outputs = {
        name: SystemOutput(files, CLASSES, np.repeat(rng.dirichlet(np.ones(3), 40), 10, axis=0)) for name in "abcd"
    }
    result = fuse(outputs, targets, get_args(Method))
    for method in get_args(Method):
        assert result.scores[method].log_loss > np.log(3) - 0.05


def test_gradient_of_every_shape():
    """The fit is a minimum: no small step from it lowers the loss that it minimises."""
    outputs, targets = systems(places=20)
    probabilities = np.stack([one.probabilities for one in outputs.values()])
    groups = np.arange(len(targets)) // 6
    rng = np.random.default_rng(0)
    for shape in ("system", "class", "matrix"):
        rule = fit_log_linear(probabilities, targets, groups, shape, bias=shape != "system", start=1.0, strength=1e-6)
        best = macro_log_loss(rule(probabilities), targets)
        for _ in range(20):
            step = rng.normal(size=rule.weights.shape)
            moved = type(rule)(rule.weights + 0.02 * step / np.linalg.norm(step), rule.bias)
            assert macro_log_loss(moved(probabilities), targets) > best - 1e-5


def test_strength_is_chosen_by_cross_validation():
    outputs, targets = systems(places=20)
    probabilities = np.stack([one.probabilities for one in outputs.values()])
    groups = np.arange(len(targets)) // 6

    def fit(value):
        return lambda p, t, g: lambda q: (1 - value) * q.mean(0) + value / 3

    assert choose(fit, (1.0, 0.0, 0.5), probabilities, targets, groups) == 0.0
    assert choose(fit, (1.0, 0.0, 0.5), probabilities, targets, np.zeros_like(groups)) == 0.5


def test_what_cannot_be_fused(tmp_path):
    outputs, targets = systems(places=10)
    with pytest.raises(AvscError, match="two or more"):
        fuse({"s0": outputs["s0"]}, targets)
    with pytest.raises(AvscError, match="unknown method 'magic'"):
        fuse(outputs, targets, ("magic",))
    fusion = fuse(outputs, targets).fusions["pool"]
    with pytest.raises(AvscError, match="no output of s1"):
        fusion({"s0": outputs["s0"], "s2": outputs["s2"]})
    for text in ("not json", "{}", '{"fusion": "pool", "systems": ["a"], "classes": ["x"], "weights": [1, 2]}'):
        (tmp_path / "f.json").write_text(text)
        with pytest.raises(AvscError):
            Fusion.load(tmp_path / "f.json")


def test_real_systems():
    """Cross-fitted by location: at most 0.465 at 82 % or better, where the best single system has 0.539 at 80.7 %."""
    outputs = read_outputs([real(f"system_outputs/{name}.csv") for name in SYSTEMS])
    targets = targets_of(outputs["baseline"], read_reference(real("system_outputs/baseline.csv")))
    result = fuse(outputs, targets, ("mean", "product", "pool", "weights", "greedy"), protocol="10 s clips")
    pool = result.scores["pool"]
    assert pool.log_loss < 0.45
    assert pool.accuracy > 0.825
    assert round(result.scores["mean"].log_loss, 3) == 0.555
    assert result.best == "pool"
    assert round(result.scores["baseline"].log_loss, 4) == 0.5394
    # Another deal of the locations tells the same.
    assert fuse(outputs, targets, seed=1).scores["pool"].log_loss < 0.45
    # Rows in another order, or labels of another, are not mistaken for each other.
    turned = outputs["baseline"]
    turned = SystemOutput(turned.files[::-1], turned.classes, turned.probabilities[::-1])
    again = fuse({**outputs, "baseline": turned}, targets)
    assert again.scores["baseline"].log_loss == pytest.approx(result.scores["baseline"].log_loss)
    assert again.scores["pool"].log_loss == pytest.approx(pool.log_loss, abs=1e-6)


def test_scores_are_of_the_cross_fitted_rows():
    outputs, targets = systems(places=20)
    result = fuse(outputs, targets)
    fused = result.outputs["pool"]
    assert result.scores["pool"].log_loss == score(fused.probabilities, targets, fused.classes).log_loss
    assert not np.allclose(result.fusions["pool"](outputs).probabilities, fused.probabilities)


def test_table_by_hand():
    scores = {
        name: SimpleNamespace(protocol="", count=12, log_loss=loss, accuracy=share, calibration_error=0.0625)
        for name, loss, share in (("baseline", 1.25, 0.5), ("pool", 0.75, 0.875))
    }
    assert Fused({}, {}, scores, 6).table().splitlines() == [
        "rows: 12, fusions cross-fitted by location in 6 folds",
        "            log loss   accuracy   calibration error",
        "baseline      1.2500    50.00 %              0.0625",
        "pool          0.7500    87.50 %              0.0625",
    ]


def of_two(right, targets):
    """Probabilities (M, N, 2) of systems that give the true class `right` (M, N)."""
    right, targets = np.asarray(right, dtype=float), np.asarray(targets)
    first = np.where(targets == 0, right, 1 - right)
    return np.stack([first, 1 - first], axis=-1)


def imbalanced():
    """One row of class 0, which the first system knows better, and nine of class 1, which the second knows better."""
    targets = np.array([0] + [1] * 9)
    return of_two([[0.9] + [0.3] * 9, [0.1] + [0.6] * 9], targets), targets


def test_weights_of_a_mixture_by_hand():
    probabilities, targets = imbalanced()
    # d/dw of log(0.1 + 0.8 w) + log(0.6 - 0.3 w) is zero at w = 0.45 / 0.48; by rows instead of classes it is near 0.
    rule = fit_rule(probabilities, targets, np.arange(10), "weights")
    assert rule.weights == pytest.approx([0.9375, 0.0625], abs=2e-3)


def test_greedy_selection_keeps_its_best_prefix():
    probabilities, targets = imbalanced()
    # The best weight, 15 of 16, is reached after 16 rounds; all 30 rounds end elsewhere.
    rule = fit_rule(probabilities, targets, np.arange(10), "greedy")
    assert rule.weights.tolist() == [15 / 16, 1 / 16]


def test_an_anti_informative_system_has_no_say():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 200)
    good = np.where(rng.random(200) < 0.8, 0.8, 0.3)
    probabilities = of_two([good, np.where(rng.random(200) < 0.9, 0.05, 0.6)], targets)
    rule = fit_rule(probabilities, targets, np.arange(200) // 4, "pool")
    assert rule.weights[1] == 0.0
    assert rule.weights[0] > 0.5


def test_weights_by_confidence_by_hand():
    targets = np.array([0, 0, 1])
    probabilities = of_two([[0.8, 0.2, 0.5], [0.4, 0.9, 0.25]], targets)
    rule = fit_rule(probabilities, targets, np.arange(3), "confidence")
    first, second = np.sqrt(0.8 * 0.2), np.sqrt(0.4 * 0.9)
    assert rule.weights[:, 0] == pytest.approx([first / (first + second), second / (first + second)])
    assert rule.weights[:, 1] == pytest.approx([2 / 3, 1 / 3])


def test_fits_weigh_classes_alike():
    """To repeat every row of one class changes no fit: macro log loss has the same mean of that class."""
    outputs, targets = systems(places=20)
    probabilities = np.stack([one.probabilities for one in outputs.values()])
    rows = np.concatenate([np.arange(len(targets)), np.tile(np.flatnonzero(targets == 2), 4)])
    for method in ("weights", "pool", "classwise", "stacking", "confidence"):
        once = fit_rule(probabilities, targets, np.arange(len(targets)), method)
        often = fit_rule(probabilities[:, rows], targets[rows], rows, method)
        assert often.weights == pytest.approx(once.weights, abs=3e-3), method


def test_log_probabilities_are_floored():
    rule = LogLinear(np.array([1.0]), np.zeros(2))
    found = rule(np.array([[[1.0, 0.0]]]))
    assert found[0] == pytest.approx([1 / 1.0001, 0.0001 / 1.0001])
