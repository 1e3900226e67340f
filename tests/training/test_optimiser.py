"""Optimisers and schedules by value: what a step does, which rate it has, which layers learn."""

import csv
import math
from dataclasses import replace

import pytest
import torch
from support import tiny_recipe

from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.zoo.systems import tiny
from avsc_e2e.training.optimiser import build_optimiser, last_layers, unfreeze
from avsc_e2e.training.recipe import Optim
from avsc_e2e.training.trainer import train

MODEL = replace(tiny(), size=32)


def two_steps(kind: str, **options) -> list[float]:
    """The value of a parameter that starts at 1, has the gradient 1 and a rate of 0.1, after each of two steps."""
    value = torch.nn.Parameter(torch.ones(1))
    optimiser = build_optimiser(
        [{"params": [value], "lr": 0.1, "weight_decay": 0.0, "name": "x", **options}], Optim(optimiser=kind)
    )
    found = []
    for _ in range(2):
        value.grad = torch.ones(1)
        optimiser.step()
        found.append(float(value.detach()))
    return found


def test_sgd_has_a_momentum_of_nine_tenths():
    assert two_steps("sgd") == pytest.approx([1 - 0.1, 1 - 0.1 - 0.1 * 1.9])


def test_weight_decay_is_decoupled_in_adamw_alone():
    # Both step by their rate while the gradient stays the same; AdamW first shrinks the weight by rate * decay.
    assert two_steps("adamw", weight_decay=0.5)[0] == pytest.approx(1 * (1 - 0.1 * 0.5) - 0.1, abs=1e-5)
    assert two_steps("adam", weight_decay=0.5)[0] == pytest.approx(1 - 0.1, abs=1e-5)


@pytest.mark.parametrize(
    ("optim", "share"),
    [
        (Optim(schedule="cosine", warmup=0.25, final=0.1), lambda d: 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * d))),
        (Optim(schedule="constant", warmup=0.25), lambda d: 1.0),
    ],
    ids=["cosine", "constant"],
)
def test_rates_move_by_steps_as_the_formula_says(toy_city, tmp_path, optim, share):
    """Two epochs of ten steps: after s steps the rate is that of step s, of which the first five are warm-up."""
    optim = replace(optim, lr=2e-3, audio_lr=3e-3, video_lr=1e-3)
    plan = tiny_recipe(toy_city, tmp_path, optim=optim, epochs=2)
    train(plan)
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    total = steps[-1]
    rising = round(0.25 * total)
    assert steps == [total // 2, total]
    for step, row in zip(steps, rows, strict=True):
        expected = share((step - rising) / (total - rising))
        for part, rate in (("heads", 2e-3), ("audio", 3e-3), ("video", 1e-3)):
            assert float(row[f"lr_{part}"]) == pytest.approx(rate * expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("epochs", "layers"), [(3, 0), (4, 5), (7, 3)])
def test_layers_that_learn_are_counted_from_the_end(epochs, layers):
    model, optim = SceneNet(MODEL), Optim(unfreeze=epochs, layers=layers)
    layer_of = model.video.layers()
    ever = last_layers(layer_of, optim)
    assert len(ever) == (layers or len(set(layer_of.values())))
    assert ever[-1] == max(layer_of.values())
    for epoch in range(epochs + 2):
        shares = unfreeze(model, optim, epoch)
        count = math.ceil(min(epoch / epochs, 1) * len(ever))
        learning = {layer_of[name] for name, p in model.video.named_parameters() if p.requires_grad}
        assert learning == set(ever[len(ever) - count :])
        assert shares["video"] == pytest.approx(count / len(ever))
