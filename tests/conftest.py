"""Hooks and fixtures of the tests: a toy city, and runs trained on it."""

import os
from pathlib import Path

import pytest
from support import Trained, run_commands, zhang


def pytest_configure(config: pytest.Config) -> None:
    """Tests are of the CPU also where there is a GPU, so that bits can be compared; `-m gpu` runs those of a GPU."""
    if config.getoption("markexpr") != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a GPU are skipped where there is none."""
    asked = [item for item in items if item.get_closest_marker("gpu")]
    if asked:
        import torch

        if not torch.cuda.is_available():
            for item in asked:
                item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


@pytest.fixture(scope="session")
def toy_city(tmp_path_factory) -> Path:
    """Ten scenes with two training locations and one test location each, two seconds a recording."""
    from avsc_e2e.toycity.city import ToyCity

    root = tmp_path_factory.mktemp("toy") / "city"
    ToyCity(train_locations=2, test_locations=1, duration=2.0, height=64, width=80, seed=1).render(root, workers=1)
    return root


@pytest.fixture(scope="session")
def trained(toy_city, tmp_path_factory) -> Trained:
    runs, stages = tmp_path_factory.mktemp("trained") / "runs", ("audio", "video", "hybrid")
    lines = [zhang(verb, stage, toy_city, runs) for verb in ("train", "evaluate") for stage in stages]
    done = run_commands(*lines)
    for command in done:
        assert command.status == 0, command.err
    return Trained(runs, dict(zip(stages, done[:3], strict=True)), dict(zip(stages, done[3:], strict=True)))
