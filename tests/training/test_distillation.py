"""Teachers by value."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from avsc_e2e.clip import Clip
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.checkpoint import save_model
from avsc_e2e.models.zoo.own import tiny
from avsc_e2e.outputs.output import SystemOutput, write_output
from avsc_e2e.training.distillation import Teachers

CLASSES = ("bus", "park", "tram")


def output(path, rows):
    rows = np.array(rows, dtype=float)
    files = ("a.wav", "b.wav")
    write_output(path, SystemOutput(files, CLASSES[::-1], rows[:, ::-1]))  # columns are matched by name
    return path


def test_two_outputs_teach_alike(tmp_path):
    first = output(tmp_path / "one.csv", [[0.8, 0.1, 0.1], [0.2, 0.5, 0.3]])
    second = output(tmp_path / "two.csv", [[0.4, 0.5, 0.1], [0.6, 0.3, 0.1]])
    teachers = Teachers([first, second], CLASSES)
    batch = Clip(
        torch.zeros(2, 1, 8), torch.zeros(2, 1, 3, 0, 0), torch.zeros(2), torch.ones(2, 2, dtype=torch.bool),
        ["b.wav", "a.wav"], torch.zeros(2),
    )  # fmt: skip
    given = teachers.look_up(batch)
    found = teachers.probabilities(batch, given, temperature=1.0)
    assert found.numpy() == pytest.approx(np.array([[0.4, 0.4, 0.2], [0.6, 0.3, 0.1]]), abs=1e-6)
    softened = teachers.probabilities(batch, given, temperature=2.0)
    roots = np.sqrt([[0.4, 0.4, 0.2], [0.6, 0.3, 0.1]])
    assert softened.numpy() == pytest.approx(roots / roots.sum(1, keepdims=True), abs=1e-6)


def test_models_teach_in_the_precision_of_training_and_without_gradients(tmp_path):
    arch = replace(tiny(), size=32)
    teachers = Teachers([save_model(SceneNet(arch), tmp_path / "teacher.safetensors", {})], arch.classes)
    seen = []
    teachers.models[0].register_forward_hook(
        lambda model, given, logits: seen.append(
            (torch.is_autocast_enabled("cpu"), torch.is_grad_enabled(), model.training, logits["video"].dtype)
        )
    )
    batch = Clip(
        torch.zeros(2, 2, arch.sample_rate), torch.zeros(2, 1, 3, 32, 32, dtype=torch.uint8), torch.zeros(2),
        torch.ones(2, 2, dtype=torch.bool), ["a", "b"], torch.zeros(2),
    )  # fmt: skip
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = teachers.train().probabilities(batch, None, 2.0)
    assert seen == [(True, False, False, torch.bfloat16)]
    assert found.dtype is torch.float32
