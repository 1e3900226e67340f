import json
from typing import get_args

import numpy as np
import pytest
from support import real

from avsc_e2e.errors import AvscError
from avsc_e2e.outputs.calibration import Calibration, Method, calibrate
from avsc_e2e.outputs.folds import split
from avsc_e2e.outputs.output import SystemOutput, location_of, read_output, read_reference, targets_of

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
