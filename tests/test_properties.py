"""What holds for all values: what is written is read back, order says nothing, better is better (hypothesis)."""

import json
import string
from dataclasses import asdict, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import Phase, assume, given, reject, settings
from hypothesis import strategies as some

from avsc_e2e.clip import Row
from avsc_e2e.data.media.windows import window_starts
from avsc_e2e.data.sampler import KeyedSampler
from avsc_e2e.data.sets.rows import hold_out
from avsc_e2e.data.store.prepare import Options, prepare
from avsc_e2e.data.store.reader import open_store
from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.heads import decide
from avsc_e2e.outputs.calibration import fit as calibrated
from avsc_e2e.outputs.fusion import fit as fused
from avsc_e2e.outputs.intervals import intervals, percentiles
from avsc_e2e.outputs.metrics import macro_log_loss, score
from avsc_e2e.outputs.output import SystemOutput, align, read_output, write_output
from avsc_e2e.training.optimiser import rate_share
from avsc_e2e.training.recipe import Optim, Recipe
from avsc_e2e.training.resume import check_recipe, write_recipe

settings.register_profile("suite", max_examples=25, deadline=None, derandomize=True, database=None)
settings.load_profile("suite")

NAMES = some.text(string.ascii_letters + string.digits + "_-.é場 ", min_size=1, max_size=9).filter(
    lambda name: name == name.strip() and not name.startswith(".")
)


@some.composite
def tables(draw, rows=(1, 12), classes=(2, 5)):
    """Probabilities (N, K) and targets (N,) with every class, unequally often."""
    k = draw(some.integers(*classes))
    n = draw(some.integers(max(rows[0], k), max(rows[1], k)))
    rng = np.random.default_rng(draw(some.integers(0, 2**32 - 1)))
    probabilities = rng.dirichlet(np.full(k, draw(some.sampled_from([0.1, 0.5, 3.0]))), n)
    targets = np.concatenate([np.arange(k), rng.choice(k, n - k, p=rng.dirichlet(np.ones(k)))])
    return probabilities, targets


# ------------------------------------------------------------------------------------------- there and back


@settings(max_examples=12)
@given(tables(), some.lists(NAMES, min_size=12, max_size=12, unique=True), some.booleans(), some.booleans())
def test_outputs_are_read_as_they_were_written(table, names, segments, decided):
    probabilities, targets = table
    n, k = probabilities.shape
    classes = tuple(f"class {name}" for name in names[:k])
    files = tuple(names[: len(targets)]) if not segments else tuple(names[i // 3] for i in range(n))
    start = np.array([1.5 * (i % 3) for i in range(n)]) if segments else None
    predicted = tuple(classes[t] for t in targets) if decided else None
    output = SystemOutput(files, classes, probabilities, start, predicted)
    with TemporaryDirectory() as folder:
        write_output(f"{folder}/out.csv", output)
        found = read_output(f"{folder}/out.csv", classes)
    assert (found.files, found.classes) == (files, classes)
    np.testing.assert_allclose(found.probabilities, probabilities, rtol=1e-8, atol=1e-12)
    assert found.decisions.tolist() == output.decisions.tolist()
    assert (found.start is None) == (start is None)
    assert start is None or found.start.tolist() == start.tolist()


def values_of(kind: type) -> dict:
    """Strategies for the fields of a frozen dataclass: numbers near their default, words of a Literal."""
    hints, found = get_type_hints(kind), {}
    for field in fields(kind):
        hint, default = hints[field.name], field.default
        if get_origin(hint) is Literal:
            found[field.name] = some.sampled_from(get_args(hint))
        elif hint is bool:
            found[field.name] = some.booleans()
        elif hint is int:
            found[field.name] = some.integers(max(default, 0), 4 * max(default, 1))
        elif hint is float:
            found[field.name] = some.floats(0.0, 2.0 * max(default, 0.5)).map(lambda value: round(value, 6))
    return found


def changed(value, changes: dict):
    """A value with other fields, where they go together."""
    try:
        return replace(value, **changes)
    except AvscError:
        reject()


@settings(max_examples=40)
@given(some.data())
def test_architectures_survive_their_text(data):
    changes = data.draw(some.fixed_dictionaries({}, optional=values_of(Architecture)))
    architecture = changed(Architecture(), changes)
    assert Architecture.from_json(architecture.to_json()) == architecture
    assert len(architecture.heads) == len(architecture.weights)


@settings(max_examples=40)
@given(some.data())
def test_a_run_goes_on_with_its_own_recipe_and_no_other(data):
    """Every option of the optimiser counts, and what JSON makes of it is the same."""
    changes = data.draw(some.fixed_dictionaries({}, optional=values_of(Optim)))
    recipe = Recipe("x", optim=changed(Optim(), changes))
    with TemporaryDirectory() as folder:
        file = Path(folder, "recipe.json")
        write_recipe(recipe, file)
        assert json.loads(file.read_text()) == json.loads(json.dumps(asdict(recipe)))
        check_recipe(recipe, file)
        if recipe != Recipe("x"):
            with pytest.raises(AvscError, match=r"optim\."):
                check_recipe(Recipe("x"), file)


KINDS = some.tuples(some.integers(1, 3000), some.integers(1, 2), some.sampled_from(["PCM_16", "PCM_24", "FLOAT"]))


@settings(max_examples=1, phases=[Phase.generate])
@given(some.lists(KINDS, min_size=16, max_size=16))
def test_a_store_gives_back_every_sample(kinds):
    """One store, since preparing starts a process."""
    rate, draw, written = 1000, np.random.default_rng(0), {}
    with TemporaryDirectory() as folder:
        root, store = Path(folder, "set"), Path(folder, "store")
        (root / "a").mkdir(parents=True)
        for number, (count, channels, kind) in enumerate(kinds):
            path = root / "a" / f"{number}.wav"
            soundfile.write(path, draw.uniform(-1, 1, (count, channels)), rate, kind)
            written[f"a/{number}"] = soundfile.read(path, dtype="float32", always_2d=True)[0].T
        prepare(root, store, Options(), workers=1)
        stored = open_store(store)
        rows = stored.rows(("audio",))[""]
        assert {row.file for row in rows} == set(written)
        for row in rows:
            whole = written[row.file]
            np.testing.assert_array_equal(stored.read_audio(row, 0.0, whole.shape[1] / rate, rate), whole)


# --------------------------------------------------------------------------------------- order says nothing


@given(tables(rows=(5, 40)), some.randoms(use_true_random=False))
def test_scores_know_no_order(table, random):
    probabilities, targets = table
    n, k = probabilities.shape
    rows, columns = random.sample(range(n), n), random.sample(range(k), k)
    names = [f"c{i}" for i in range(k)]
    turned = probabilities[rows][:, columns], np.argsort(columns)[targets[rows]]
    one, other = score(probabilities, targets, names), score(*turned, [names[i] for i in columns])
    for field in ("log_loss", "accuracy", "micro_log_loss", "micro_accuracy", "brier", "calibration_error"):
        assert getattr(one, field) == pytest.approx(getattr(other, field), rel=1e-9, abs=1e-12), field
    assert other.class_log_loss == pytest.approx(one.class_log_loss[columns])
    assert other.confusion.tolist() == one.confusion[np.ix_(columns, columns)].tolist()
    assert other.top_accuracy == pytest.approx(one.top_accuracy)


@given(tables(rows=(4, 30)), some.randoms(use_true_random=False))
def test_outputs_are_aligned_by_name(table, random):
    probabilities, _ = table
    n, k = probabilities.shape
    one = SystemOutput(tuple(f"r{i}.wav" for i in range(n)), tuple(f"c{i}" for i in range(k)), probabilities)
    rows, columns = random.sample(range(n), n), random.sample(range(k), k)
    other = SystemOutput(
        tuple(one.files[i] for i in rows), tuple(one.classes[i] for i in columns), probabilities[rows][:, columns]
    )
    first, second = align([one, other])
    assert (first.files, first.classes) == (one.files, one.classes)
    assert second.classes == one.classes
    assert np.array_equal(second.probabilities, probabilities)


@given(tables(rows=(12, 40)), some.sampled_from(["weights", "greedy", "confidence", "mean", "product"]))
def test_a_fusion_knows_neither_the_order_of_rows_nor_of_systems(table, method):
    probabilities, targets = table
    systems = np.stack([probabilities, np.roll(probabilities, 1, axis=0), np.full_like(probabilities, 1 / 3)])
    systems /= systems.sum(2, keepdims=True)
    groups = np.arange(len(targets))
    found = fused(systems, targets, groups, method)(systems)
    rows = np.random.default_rng(0).permutation(len(targets))
    assert fused(systems[:, rows], targets[rows], groups, method)(systems) == pytest.approx(found, abs=1e-6)
    if method != "greedy":  # where two systems are alike, it takes the first
        assert fused(systems[::-1], targets, groups, method)(systems[::-1]) == pytest.approx(found, abs=1e-6)
    assert found.sum(1) == pytest.approx(1)


@given(some.integers(0, 60), some.integers(1, 5), some.booleans(), some.integers(0, 9))
def test_processes_share_an_epoch(length, replicas, shuffle, epoch):
    parts = []
    for rank in range(replicas):
        sampler = KeyedSampler(length, shuffle=shuffle, rank=rank, replicas=replicas)
        sampler.set_epoch(epoch)
        parts.append([key.index for key in sampler])
    whole = KeyedSampler(length, shuffle=shuffle)
    whole.set_epoch(epoch)
    together = [index for step in range(len(parts[0])) for part in parts if step < len(part) for index in [part[step]]]
    assert together == [key.index for key in whole][: len(together)]  # as one process would go through it
    assert length - len(together) < (replicas if shuffle else 1)


# ------------------------------------------------------------------------------------------ better is better


@given(tables(rows=(3, 30)), some.integers(0, 29), some.floats(0.01, 1))
def test_more_on_the_truth_lowers_the_log_loss(table, row, share):
    probabilities, targets = table
    row %= len(targets)
    better = probabilities.copy()
    better[row] *= 1 - share
    better[row, targets[row]] += share
    assume(better[row, targets[row]] > probabilities[row, targets[row]] + 1e-9)
    assert macro_log_loss(better, targets) < macro_log_loss(probabilities, targets)


@given(tables(rows=(12, 60)), some.sampled_from(["weights", "greedy"]))
def test_a_fitted_mean_is_no_worse_than_any_system(table, method):
    probabilities, targets = table
    flat = np.full_like(probabilities, 1 / probabilities.shape[1])
    systems = np.stack([probabilities, flat])
    found = macro_log_loss(fused(systems, targets, np.arange(len(targets)), method)(systems), targets)
    assert found <= min(macro_log_loss(one, targets) for one in systems) + 1e-3


@settings(max_examples=4)
@given(tables(rows=(20, 60)))
def test_isotonic_curves_and_temperatures_keep_what_is_more(table):
    probabilities, targets = table
    groups = np.arange(len(targets))
    isotonic = calibrated(probabilities, targets, groups, "isotonic")
    assert all((np.diff(curve) >= 0).all() for curve in isotonic.true)
    cooled = calibrated(probabilities, targets, groups, "temperature")(probabilities[None])
    floor = np.maximum(probabilities, 1e-4)
    for before, after in zip(floor, cooled, strict=True):
        assert (np.diff(after[np.argsort(before, kind="stable")]) >= -1e-12).all()


@given(some.lists(some.floats(-1e3, 1e3), min_size=2, max_size=30), some.floats(0.5, 0.98))
def test_a_wider_level_has_the_wider_interval(samples, level):
    narrow, wide = percentiles(np.array(samples), level), percentiles(np.array(samples), level + 0.01)
    assert wide.low <= narrow.low <= narrow.high <= wide.high


@given(tables(rows=(20, 40)))
def test_an_interval_holds_its_figure(table):
    probabilities, targets = table
    found = score(probabilities, targets, [str(i) for i in range(probabilities.shape[1])])
    for groups in (None, np.arange(len(targets)) // 2):
        spans = intervals(probabilities, targets, groups=groups)
        assert spans.accuracy.low <= found.accuracy <= spans.accuracy.high


@given(some.integers(2, 400), some.floats(0, 0.5), some.floats(0, 0.9))
def test_rates_rise_and_then_fall(steps, warmup, final):
    optim = Optim(warmup=warmup, final=final)
    shares = np.array([rate_share(optim, step, steps=steps, epochs=4) for step in range(steps + 1)])
    top = max(round(warmup * steps), 1)
    assert (np.diff(shares[:top]) > 0).all()
    assert shares.max() == pytest.approx(1)
    assert (np.diff(shares[top:]) <= 1e-12).all()
    assert shares[-1] == pytest.approx(final)


@given(
    tables(rows=(6, 20)), some.sampled_from(["mean", "product"]), some.lists(some.booleans(), min_size=3, max_size=3)
)
def test_a_decision_lies_between_its_heads(table, rule, silent):
    """Each clip is decided alone; heads that agree are followed, and those without a vote are not heard."""
    probabilities = torch.from_numpy(table[0].clip(1e-3)).float()
    heads = {"audio": probabilities, "video": probabilities.flip(1), "fusion": probabilities.roll(1, 1)}
    logits = {name: value.log() for name, value in heads.items()}
    present = torch.from_numpy(np.random.default_rng(0).random((len(probabilities), 2)) < 0.7)
    weights = {name: 0.0 if out else 1.0 for name, out in zip(heads, silent, strict=True)}
    found = decide(logits, weights, present, rule)
    assert found.sum(dim=1).numpy() == pytest.approx(1, abs=1e-5)
    rows = torch.randperm(len(present), generator=torch.Generator().manual_seed(0))
    turned = decide({name: value[rows] for name, value in logits.items()}, weights, present[rows], rule)
    torch.testing.assert_close(turned, found[rows])
    alike = decide(dict.fromkeys(logits, logits["audio"]), weights, present, rule)
    torch.testing.assert_close(alike, logits["audio"].softmax(dim=1), atol=1e-5, rtol=1e-4)
    if silent == [True, True, False]:
        torch.testing.assert_close(found, logits["fusion"].softmax(dim=1), atol=1e-4, rtol=1e-3)


# -------------------------------------------------------------------------------------------- of recordings


@given(some.floats(0.01, 500), some.floats(0.1, 10), some.floats(0.05, 5))
def test_windows_reach_the_end(duration, window, hop):
    starts = window_starts(duration, window, hop)
    assert starts[0] == 0
    assert (np.diff(starts) >= -1e-9).all()
    assert starts[-1] <= max(duration - window, 0) + 1e-9
    assert duration - (starts[-1] + window) <= hop / 20 + 1e-9


@given(
    some.lists(some.tuples(some.sampled_from("ab"), some.integers(0, 9)), min_size=6, max_size=60),
    some.floats(0.05, 0.6),
    some.integers(0, 5),
)
def test_no_location_is_on_both_sides(pairs, share, seed):
    rows = [Row(f"{i}", scene=scene, location=f"{scene}{place}") for i, (scene, place) in enumerate(pairs)]
    scenes = {row.scene for row in rows}
    if min(len({row.location for row in rows if row.scene == scene}) for scene in scenes) == 1:
        with pytest.raises(AvscError, match="too few to cut a test set"):
            hold_out(rows, share, seed=seed, part="test", way_out="")
        return
    kept, held = hold_out(rows, share, seed=seed, part="test", way_out="")
    assert not {row.location for row in kept} & {row.location for row in held}
    assert sorted(kept + held, key=lambda row: int(row.file)) == rows
    assert {row.scene for row in kept} == {row.scene for row in held} == scenes
