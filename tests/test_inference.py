"""A calibration that rides in a checkpoint acts where the checkpoint is used."""

import json

import numpy as np
import pytest
from conftest import click, flat, write_video

from avsc_e2e.calibration import Calibration
from avsc_e2e.errors import AvscError
from avsc_e2e.inference import CALIBRATION, stored_calibration, timeline
from avsc_e2e.models.checkpoint import add_notes, load_model, save_model
from avsc_e2e.models.zoo import create_model


@pytest.fixture
def checkpoint(tmp_path):
    return save_model(create_model("tiny").eval(), tmp_path / "model.safetensors", {"recipe": "{}"})


def test_a_checkpoint_without_a_calibration_has_none(checkpoint):
    assert stored_calibration(checkpoint) is None


def test_a_stored_temperature_sharpens_the_timeline(checkpoint, tmp_path):
    video = write_video(tmp_path / "a.mp4", [flat(10 * i) for i in range(20)], rate=10, sound=click(0.5, 2.0))
    model = load_model(checkpoint)
    plain = timeline(model, video)
    classes = model.architecture.classes
    exponent = 2.5
    values = {"calibration": "temperature", "classes": list(classes), "weights": [[exponent] * 10], "bias": [0.0] * 10}
    Calibration.from_json(values)
    add_notes(checkpoint, {CALIBRATION: json.dumps(values)})
    rule = stored_calibration(checkpoint)
    sharp = timeline(load_model(checkpoint), video, calibration=rule)
    assert len(sharp) == len(plain) == 2
    for before, after in zip(plain, sharp, strict=True):
        expected = before.probabilities**exponent
        np.testing.assert_allclose(after.probabilities, expected / expected.sum(), rtol=1e-6)
        assert after.modalities == ("audio", "video")


def test_what_is_no_calibration_is_refused(checkpoint):
    add_notes(checkpoint, {CALIBRATION: json.dumps({"calibration": "magic"})})
    with pytest.raises(AvscError, match="calibration"):
        stored_calibration(checkpoint)
