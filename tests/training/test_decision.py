"""The decision over a model's heads: the least macro log loss, by an optimiser of another kind."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from support import tiny_recipe

from avsc_e2e.clip import Corpus, Row
from avsc_e2e.models.heads import decide
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.checkpoint import load_model, save_model
from avsc_e2e.models.zoo import own
from avsc_e2e.outputs.metrics import macro_log_loss
from avsc_e2e.training.decision import fit_decision
from avsc_e2e.training.module import FineTuning
from avsc_e2e.training.run import model_file
from avsc_e2e.training.trainer import _fit_decision

NAMES = ("audio", "video", "fusion")


def votes(seed: int = 0):
    """Probabilities of a good, a middling and a useless head, unequal classes, the truth, and sources of ten clips."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(4, 600, p=[0.55, 0.25, 0.15, 0.05])
    found = {}
    for name, skill in zip(NAMES, (1.0, 2.5, 0.0), strict=True):
        logits = rng.standard_normal((600, 4)) * 1.5
        logits[np.arange(600), truth] += skill
        found[name] = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return found, truth, np.array([f"source {i // 10}" for i in range(600)])


def loss_of(found, truth, rule: str, weights, sharpness: float = 1.0) -> float:
    logits = {name: torch.from_numpy(np.log(p)) for name, p in found.items()}
    present = torch.ones(len(truth), 2, dtype=torch.bool)
    decided = decide(logits, dict(zip(NAMES, weights, strict=True)), present, rule, sharpness)
    return macro_log_loss(decided.double().numpy(), truth)


@pytest.mark.parametrize(("rule", "within"), [("mean", 5e-4), ("product", 2e-3)])
def test_the_decision_has_the_least_macro_log_loss(rule, within):
    """Each head keeps a weight of a thousandth, and the powers are held back a little."""
    found, truth, groups = votes()
    fitted = fit_decision(replace(own.tiny(), decision_rule=rule), found, truth, groups)
    ours = loss_of(found, truth, rule, fitted.decision, fitted.sharpness)

    def free(x):
        return loss_of(found, truth, rule, np.exp(x[:3]), np.exp(x[3]) if rule == "product" else 1.0)

    best = minimize(free, np.zeros(4), method="Nelder-Mead", options={"maxiter": 400}).fun
    assert best - 1e-5 <= ours <= best + within
    assert ours < min(loss_of(found, truth, rule, w) for w in ([1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]))
    assert sum(fitted.decision) == pytest.approx(1, abs=2e-3)
    assert fitted.decision[1] > fitted.decision[0] > fitted.decision[2] >= 1e-3
    assert (fitted.sharpness == 1.0) == (rule == "mean")


def test_heads_that_err_apart_are_sharpened_together():
    """Three heads that are independent, given the class: their product needs a power of three."""
    rng = np.random.default_rng(0)
    truth = rng.integers(4, size=2000)
    found = {}
    for name in NAMES:
        logits = 1.5 * np.eye(4)[truth] + np.sqrt(1.5) * rng.standard_normal((2000, 4))
        found[name] = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    fitted = fit_decision(own.tiny(), found, truth, np.arange(2000) // 20)
    assert fitted.sharpness == pytest.approx(3.0, abs=0.3)
    assert fitted.decision == pytest.approx((1 / 3, 1 / 3, 1 / 3), abs=0.04)


def test_a_single_source_is_held_to_equal_powers():
    found, truth, _ = votes()
    few = {name: p[:8] for name, p in found.items()}
    fitted = fit_decision(own.tiny(), few, truth[:8], np.array(["one"] * 8))
    assert fitted.decision == pytest.approx((1 / 3, 1 / 3, 1 / 3), abs=0.2)


def test_only_clips_with_both_modalities_count(tmp_path, monkeypatch):
    """Of every third clip the audio is missing, and what the heads say of it would turn the fit around."""
    found, truth, groups = votes()
    both = np.arange(600) % 3 > 0
    said = {name: np.where(both[:, None], p, np.roll(p, 1, axis=1)) for name, p in found.items()}
    files = [f"{i}.mp4" for i in range(600)]
    rows = tuple(Row(file, "a", "v", "bus", group) for file, group in zip(files, groups, strict=True))
    model = SceneNet(replace(own.tiny(), classes=tuple("abcd")))
    tuning = FineTuning(tiny_recipe(tmp_path, tmp_path), model, Corpus(tuple("abcd"), (), rows, ()))
    tuning.trainer = machine = SimpleNamespace(world_size=1)
    logged = {}
    monkeypatch.setattr(tuning, "log", logged.__setitem__)
    assert tuning.trainer is machine
    heads = {name: torch.from_numpy(p) for name, p in said.items()}
    heads["decision"] = heads["video"]
    for part in (slice(0, 350), slice(350, 600)):
        of_part = {name: values[part] for name, values in heads.items()}
        tuning._validation.append((torch.from_numpy(truth[part]), torch.from_numpy(both[part]), files[part], of_part))
    tuning.on_validation_epoch_end()
    assert logged["validation_log_loss"] == pytest.approx(macro_log_loss(said["video"], truth))  # of all clips
    of_both = fit_decision(model.architecture, {n: p[both] for n, p in said.items()}, truth[both], groups[both])
    of_all = fit_decision(model.architecture, said, truth, groups)
    assert tuning.fitted_decision() == of_both
    assert of_all.decision != pytest.approx(of_both.decision, abs=0.02)


def test_the_decision_is_fitted_to_the_model_that_is_kept(tmp_path):
    """Not to the one of the last step, which the trainer still holds."""
    torch.manual_seed(0)
    recipe = tiny_recipe(tmp_path, tmp_path)
    kept, last = SceneNet(own.tiny()), SceneNet(own.tiny())
    save_model(kept, model_file(recipe), {"recipe": "as it was", "calibration": "of another decision"})
    expected = {name: value.clone() for name, value in kept.state_dict().items()}
    seen = []

    def validate(tuning, verbose):
        seen.append(all(torch.equal(value, expected[name]) for name, value in tuning.judged.state_dict().items()))

    fitted = replace(own.tiny(), decision=(0.2, 0.3, 0.5), sharpness=1.25)
    tuning = SimpleNamespace(judged=last, fitted_decision=lambda: fitted)
    _fit_decision(recipe, SimpleNamespace(validate=validate, is_global_zero=True), tuning)
    assert seen == [True]
    saved = load_model(model_file(recipe))
    assert (saved.architecture.decision, saved.architecture.sharpness) == ((0.2, 0.3, 0.5), 1.25)
    assert all(torch.equal(value, expected[name]) for name, value in saved.state_dict().items())
