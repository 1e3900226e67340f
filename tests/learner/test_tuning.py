"""How much of a trunk learns, and for how long."""

import numpy as np
import pytest
import torch
from torch import nn

from avsc_e2e.learner import tuning
from avsc_e2e.learner.folds import Folds
from avsc_e2e.models import cut
from avsc_e2e.models.nets.aisfx import Aisfx
from avsc_e2e.models.nets.speech import SpeechEmbedding


class Layers(nn.Module):
    """Two layers; weights of the first are of the size `1 / gain`."""

    def __init__(self, gain):
        super().__init__()
        self.first, self.last, self.gain = nn.Linear(2, 16), nn.Linear(16, 16), gain
        with torch.no_grad():
            self.first.weight.div_(gain)
            self.first.bias.div_(gain)

    def forward(self, x):
        return torch.relu(self.last(torch.relu(self.gain * self.first(x.flatten(1)))))


def tuned(monkeypatch, gain, lr, folds=5):
    """Of points in four quadrants, where opposite ones are of one class."""
    monkeypatch.setattr(cut, "learning", lambda net: (list(net.last.parameters()), list(net.parameters())))
    torch.manual_seed(0)
    net, points = Layers(gain), np.random.default_rng(0).normal(size=(320, 2)).astype(np.float32)
    targets, groups = (points[:, 0] * points[:, 1] > 0).astype(np.int64), np.arange(320) // 8
    cache = tuning.Cache(torch.from_numpy(points)[:, None], several=False)
    with torch.no_grad():
        features = net(cache.values[:, 0]).numpy()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = tuning.tune(
        net, ("mean",), cache, features, targets, np.ones(320), Folds.of(targets, groups, folds), 2,
        tuning.Plan(8, lr), strength=0.01, seed=0, seconds=1e9,
    )  # fmt: skip
    moved = {name for name, value in found.net.state_dict().items() if not value.equal(before[name])}
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())
    return found, moved, targets


@pytest.mark.parametrize("folds", [2, 5])
@pytest.mark.parametrize(
    ("gain", "lr", "layers"),
    [(1.0, 0.01, {"first", "last"}), (1e4, 0.01, {"last"})],
    ids=["all help", "the first is easily spoilt"],
)
def test_layers_that_learn_are_measured(monkeypatch, gain, lr, layers, folds):
    found, moved, targets = tuned(monkeypatch, gain, lr, folds)
    assert {name.split(".")[0] for name in moved} == layers
    assert found.judged.all()
    assert f"{sum(16 * (2 if layer == 'first' else 16) + 16 for layer in layers) + 34} parameters" in found.note
    ones = np.ones(320)
    assert tuning.loss_of(found.logits, targets, ones) < 0.9 * tuning.loss_of(found.start, targets, ones)


@pytest.mark.parametrize("net", [Aisfx(1), SpeechEmbedding()], ids=["aisfx", "speech"])
def test_the_last_layers_are_a_part_of_those_that_may_learn(net):
    few, most = ({id(parameter) for parameter in part} for part in cut.learning(net))
    assert few < most
    assert {id(parameter) for parameter in list(net.parameters())[-1:]} <= most


@pytest.mark.parametrize(
    ("seconds", "epochs", "folds", "depths"),
    [
        (1.3 * 8 * (1 + 0.8 * 8) + 1, 8, 5, 2),  # five folds, and three of them once more
        (1.3 * 8 * (1 + 0.8 * 8) - 1, 8, 5, 1),
        (1.3 * 8 * (1 + 0.8 * 3) + 1, 8, 3, 1),
        (1.3 * 8 * (1 + 0.8 * 3) - 1, 4, 5, 1),
        (1.3 * 1 * (1 + 0.8 * 3) - 1, 8, 0, 1),
    ],
)
def test_what_seconds_afford(seconds, epochs, folds, depths):
    plan, count, trials = tuning._affordable(tuning.Plan(8, 1e-3), 1.0, 5, 2, seconds)
    assert (plan.epochs, count, trials) == (epochs, folds, depths)
