import json
import warnings
from typing import get_args

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from support import real

from avsc_e2e.errors import AvscError
from avsc_e2e.outputs.calibration import CELL, GRID, Calibration, Floors, Isotonic, Method, calibrate
from avsc_e2e.outputs.calibration import fit as fit_rule
from avsc_e2e.outputs.folds import split
from avsc_e2e.outputs.loglinear import fit_log_linear
from avsc_e2e.outputs.metrics import macro_log_loss
from avsc_e2e.outputs.names import location_of
from avsc_e2e.outputs.output import SystemOutput, read_output
from avsc_e2e.outputs.reference import read_reference, targets_of

SYSTEMS = ("audio_only", "video_only", "early_fusion", "late_fusion", "baseline")
CLASSES = ("bus", "park", "tram")


def places(exponent=1.0, places=60, clips=8, seed=0):
    """An output whose probabilities are true ones raised to a power, with as many decisions right as it should have."""
    rng = np.random.default_rng(seed)
    true = rng.dirichlet(np.ones(3), places * clips)
    targets = np.array([rng.choice(3, p=row) for row in true])
    given = true**exponent
    files = tuple(f"bus-rome-{i // clips}-{i}.wav" for i in range(len(true)))
    return SystemOutput(files, CLASSES, given / given.sum(1, keepdims=True)), targets, true


@pytest.mark.parametrize("exponent", [0.4, 1.0, 3.0])
def test_temperature_undoes_an_exponent(exponent):
    output, targets, true = places(exponent)
    result = calibrate(output, targets)
    assert result.calibration.rule.weights[0] * exponent == pytest.approx(1, abs=0.25)
    assert np.array_equal(result.output.decisions, output.decisions)
    assert np.abs(result.output.probabilities - true).mean() < 0.03
    if exponent != 1.0:
        assert result.after.log_loss < result.before.log_loss - 0.03
        assert result.after.calibration_error < result.before.calibration_error


@pytest.mark.parametrize("method", ["classwise", "vector", "isotonic"])
def test_richer_methods_undo_it_too(method):
    output, targets, _ = places(3.0)
    result = calibrate(output, targets, method, folds=3)
    assert result.after.log_loss < result.before.log_loss - 0.05


def test_vector_scaling_learns_a_bias():
    output, targets, _ = places(1.0, places=120)
    biased = output.probabilities * [4, 1, 1]
    biased = SystemOutput(output.files, CLASSES, biased / biased.sum(1, keepdims=True))
    temperature, vector = (
        calibrate(biased, targets, method, folds=3).after.log_loss for method in ("temperature", "vector")
    )
    assert vector < temperature - 0.05


def test_floors_bound_the_cost_of_a_miss():
    output, targets, _ = places(1.0)
    zeroed = np.where(output.probabilities < 0.1, 0, output.probabilities)
    zeroed = SystemOutput(output.files, CLASSES, zeroed / zeroed.sum(1, keepdims=True))
    result = calibrate(zeroed, targets, "floor")
    assert result.before.log_loss > 1.5
    assert result.after.log_loss < 0.9
    assert result.output.probabilities.min() > 0.005


@pytest.mark.parametrize("method", get_args(Method))
def test_stored_and_applied_to_another_file(tmp_path, method):
    output, targets, _ = places(2.0)
    calibration = calibrate(output, targets, method, folds=2).calibration
    other, _, _ = places(2.0, seed=1)
    calibration.save(tmp_path / "calibration.json")
    again = Calibration.load(tmp_path / "calibration.json")
    expected = calibration(other).probabilities
    assert np.array_equal(again(other).probabilities, expected)
    assert expected.sum(1) == pytest.approx(np.ones(len(other)))
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))).method == method
    shuffled = SystemOutput(other.files, CLASSES[::-1], other.probabilities[:, ::-1])  # classes are matched by name
    assert again(shuffled).probabilities == pytest.approx(expected)


def test_rows_are_judged_by_fits_on_other_places():
    """What is learnt from a place must not be used on it: with labels that are pure noise there is nothing to gain."""
    rng = np.random.default_rng(0)
    targets = np.repeat(rng.integers(0, 3, 40), 10)
    probabilities = np.repeat(rng.dirichlet(np.ones(3), 40), 10, axis=0)
    output = SystemOutput(tuple(f"bus-rome-{i // 10}-{i}" for i in range(400)), CLASSES, probabilities)
    for method in ("temperature", "isotonic", "floor"):
        assert calibrate(output, targets, method).after.log_loss > np.log(3) - 0.05
    for fitted, judged in split(targets, np.array([location_of(file) for file in output.files])):
        assert not {output.files[i].split("-")[2] for i in fitted} & {output.files[i].split("-")[2] for i in judged}


def test_a_class_of_a_single_place():
    output, targets, _ = places(2.0, places=10)
    targets = np.where(np.arange(len(targets)) < 8, 2, targets % 2)
    for method in get_args(Method):
        assert np.isfinite(calibrate(output, targets, method, folds=3).output.probabilities).all()


def test_what_cannot_be_calibrated(tmp_path):
    output, targets, _ = places(places=1)
    with pytest.raises(AvscError, match="one location"):
        calibrate(output, targets)
    output, targets, _ = places()
    with pytest.raises(AvscError, match="unknown method 'platt'"):
        calibrate(output, targets, "platt")
    calibration = calibrate(output, targets).calibration
    with pytest.raises(AvscError, match="metro"):
        calibration(SystemOutput(("a",), ("bus", "metro", "tram"), np.ones((1, 3)) / 3))
    for text in ("not json", "{}", "[]", '{"calibration": "magic", "classes": ["a", "b"]}'):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(AvscError):
            Calibration.load(tmp_path / "c.json")
    values = calibration.to_json()
    with pytest.raises(AvscError, match="not the values"):
        Calibration.from_json({**values, "bias": [0.0]})


@pytest.mark.parametrize("name", SYSTEMS)
def test_real_systems(name):
    """Ten folds of locations: never 0.006 worse, audio_only and late_fusion at least 0.025 better."""
    output = read_output(real(f"system_outputs/{name}.csv"))
    targets = targets_of(output, read_reference(real("system_outputs/baseline.csv")))
    result = calibrate(output, targets, protocol="10 s clips")
    gain = result.before.log_loss - result.after.log_loss
    assert gain > (0.025 if name in ("audio_only", "late_fusion") else -0.006)
    assert result.after.accuracy == result.before.accuracy
    assert result.folds == 10
    assert f"{result.after.log_loss:.4f}" in result.table()
    floors = calibrate(output, targets, "floor")
    assert floors.after.log_loss < floors.before.log_loss + 0.006


def imbalanced(probabilities, targets):
    """An output of two classes, one location a row."""
    files = tuple(f"bus-rome-{i}-{i}.wav" for i in range(len(targets)))
    values = np.stack([probabilities, 1 - np.asarray(probabilities)], axis=1)
    return SystemOutput(files, ("bus", "park"), values), np.array(targets)


def test_isotonic_curves_weigh_classes_alike():
    output, targets = imbalanced([0.3, 0.1, 0.3, 0.3], [0, 1, 1, 1])
    groups = np.arange(4)
    rule = fit_rule(output.probabilities, targets, groups, "isotonic")
    # At 0.3 lie a row of class 0 of weight 1 and two rows of class 1 of weight 1/3 each: 1 of 5/3.
    assert dict(zip(rule.given[0], rule.true[0], strict=True)) == pytest.approx({0.1: 0.0, 0.3: 0.6})


def test_a_bias_undoes_no_imbalance_of_classes():
    """Macro log loss does not know how frequent a class is: on equal probabilities there is nothing to learn."""
    output, targets = imbalanced(np.full(40, 0.5), [0] * 4 + [1] * 36)
    rule = fit_rule(output.probabilities, targets, np.arange(40), "vector")
    assert rule.bias == pytest.approx(np.zeros(2), abs=1e-4)


def test_a_temperature_is_fitted_to_macro_log_loss():
    """Class 0 has few rows, half of them sure and wrong; class 1 has many right ones: a fit to rows would sharpen."""
    output, targets = imbalanced([0.9, 0.1] * 4 + [0.2] * 72, [0] * 8 + [1] * 72)
    weight = fit_rule(output.probabilities, targets, np.arange(80), "temperature").weights[0]
    p = output.probabilities

    def objective(w, strength=0.1, loose=0.3):
        powered = p**w / (p**w).sum(1, keepdims=True)
        return macro_log_loss(powered, targets) + strength * (loose * (w - 1)) ** 2

    grid = np.arange(0.2, 3, 0.001)
    assert weight == pytest.approx(grid[np.argmin([objective(w) for w in grid])], abs=0.01)


def test_floors_are_fitted_to_macro_log_loss():
    """No common floor of the grid is better than the fitted ones, by macro log loss on imbalanced classes."""
    rng = np.random.default_rng(3)
    targets = np.array([0] * 6 + [1] * 60 + [2] * 6)
    p = rng.dirichlet(np.full(3, 0.15), 72)
    rule = fit_rule(p, targets, np.arange(72), "floor")
    best = macro_log_loss(rule(p), targets)
    for floor in GRID:
        assert macro_log_loss(Floors(np.full(3, floor))(p), targets) >= best - 1e-9
    micro = rule(p)[np.arange(72), targets]
    assert best < -np.log(micro).mean() + 1  # both are finite: no true class is left at zero
    moved = [
        macro_log_loss(Floors(np.where(np.arange(3) == label, value, rule.floor))(p), targets)
        for label in range(3)
        for value in GRID
    ]
    assert min(moved) >= best - 1e-9


def test_calibrated_cells_keep_away_from_zero_and_one():
    rule = Isotonic(((0.0, 1.0),) * 3, ((0.0, 1.0),) * 3)
    found = rule(np.array([[1.0, 0.0, 0.0]]))
    assert found[0] == pytest.approx([(1 - CELL) / (1 + CELL), CELL / (1 + CELL), CELL / (1 + CELL)])
    assert CELL == 0.001


def test_a_full_matrix_is_scikit_learns_logistic_regression():
    """Without regularisation, on classes of unequal size that weigh alike."""
    output, targets, _ = places(2.0, places=40)
    kept = np.flatnonzero((targets != 2) | (np.arange(len(targets)) % 4 == 0))
    given, targets = output.probabilities[kept], targets[kept]
    weights = 1 / np.bincount(targets)[targets]
    assert weights.max() > 2 * weights.min()
    features = np.log(np.maximum(given, 1e-4))
    theirs = LogisticRegression(C=1e9, tol=1e-8, max_iter=2000).fit(features, targets, sample_weight=weights)
    ours = fit_log_linear(given[None], targets, np.arange(len(targets)), "matrix", bias=True, strength=1e-9)
    np.testing.assert_allclose(ours(given[None]), theirs.predict_proba(features), atol=2e-3)
    temperature = fit_log_linear(given[None], targets, np.arange(len(targets)), strength=0.0).weights[0]
    best = minimize_scalar(
        lambda w: macro_log_loss(softmax(w * features, axis=1), targets), bounds=(0.1, 3), method="bounded"
    )
    assert temperature == pytest.approx(best.x, abs=1e-3)
    assert temperature == pytest.approx(0.5, abs=0.12)  # what undoes a square


def test_a_class_in_fewer_groups_than_folds_is_split_without_a_warning():
    targets, groups = np.repeat([0, 1], [30, 3]), np.array([str(n // 2) for n in range(33)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = list(split(targets, groups, 5))
    assert sorted(row for _, judged in parts for row in judged) == list(range(33))
