"""Optimisers and schedules by value: what a step does, which rate it has, which layers learn."""

import math
from dataclasses import replace

import pytest
import torch
from timm.scheduler import CosineLRScheduler, StepLRScheduler

from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.zoo.own import tiny
from avsc_e2e.training.optimiser import build_optimiser, last_layers, rate_share, unfreeze
from avsc_e2e.training.recipe import Optim

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


def shares(optim: Optim, steps: int, epochs: int = 1) -> list[float]:
    return [rate_share(optim, step, steps=steps, epochs=epochs) for step in range(steps)]


def of_timm(kind: type, steps: int, **options) -> list[float]:
    """The rates of a schedule of timm's, as shares of the highest."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler, found = kind(optimiser, t_in_epochs=False, **options), []
    for step in range(steps):
        scheduler.step_update(step)
        found.append(optimiser.param_groups[0]["lr"])
    return found


def test_the_cosine_is_timms():
    ours = shares(Optim(warmup=0.25, final=0.1), 20)
    assert ours[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])  # timm's first step has a rate of 0
    theirs = of_timm(CosineLRScheduler, 20, t_initial=15, lr_min=0.1, warmup_t=5, warmup_prefix=True)
    assert ours[5:] == pytest.approx(theirs[5:])
    restarted = shares(Optim(warmup=0.0, final=0.1, restarts=(2, 4)), 18, epochs=6)
    assert restarted[6:] == pytest.approx(of_timm(CosineLRScheduler, 18, t_initial=6, lr_min=0.1, cycle_limit=3)[6:])


def test_steps_are_timms():
    ours = shares(Optim(warmup=0.0, schedule="steps", every=2, factor=0.3), 21, epochs=7)
    assert ours == pytest.approx(of_timm(StepLRScheduler, 21, decay_t=6, decay_rate=0.3))


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
