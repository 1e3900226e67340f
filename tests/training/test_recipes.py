"""Every stage of every recipe through its real entry, with tiny trunks on a tiny toy city: it trains a step, evaluates,
writes a checked submission and resumes. And the table of results agrees with what is published."""

import csv
import json
import re
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from avsc_e2e.cli.targets import StageTarget, recipe_files, stages_of
from avsc_e2e.models.weights.checkpoint import read_checkpoint
from avsc_e2e.models.zoo.catalogue import list_models
from avsc_e2e.models.zoo.published import PUBLISHED, TRUNKS, recipe_of
from avsc_e2e.models.zoo.systems import ENSEMBLES
from avsc_e2e.training.averaging import between
from avsc_e2e.training.recipe import Recipe

ROOT = Path(__file__).parents[2]
FILES = list(recipe_files().values())
PEOPLE = """
[[author]]
lastname = "Doe"
firstname = "Jane"
email = "jane.doe@example.org"
[author.affiliation]
institute = "Example Institute"
abbreviation = "EXA"
department = "Sound"
location = "Exampleton, Finland"
"""


STAGES = {file.stem: {stage: StageTarget(file, stage).load() for stage in stages_of(file)} for file in FILES}


@dataclass
class Call:
    """Runs a recipe file as `python recipes/FILE VERB STAGE ...` does, in this process."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture

    def __call__(self, file: Path, *words: object) -> str:
        self.monkeypatch.setattr(sys, "argv", [str(file), *map(str, words)])
        status = 0
        try:
            runpy.run_path(str(file), run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
        printed = self.capsys.readouterr()
        assert status == 0, f"{' '.join(map(str, words))}: {printed.err}"
        return printed.out


@pytest.fixture
def call(monkeypatch, capsys) -> Call:
    return Call(monkeypatch, capsys)


@pytest.fixture(scope="module")
def tiny_city(tmp_path_factory) -> Path:
    """Ten scenes, two training locations and one test location each, one second a recording."""
    from avsc_e2e.toycity.city import ToyCity

    root = tmp_path_factory.mktemp("tiny") / "city"
    ToyCity(train_locations=2, test_locations=1, duration=1.0, height=40, width=48, seed=2).render(root, workers=1)
    return root


def tiny(recipe: Recipe) -> list[str]:
    """Flags that make a stage small without a change to its structure."""
    model, flags = recipe.model, ["--model.hidden", "16"]
    if model.audio and model.fusion == "sequence":  # whose strides need wide embeddings
        flags += ["--model.audio", "audio_resnet10", "--model.bands", "32", "--model.hop", "1210"]
    elif model.audio:
        flags += ["--model.audio", "audio_test"]
    if model.video:
        flags += ["--model.video", "test_efficientnet", "--model.size", "32", "--video-weights", ""]
    flags += [
        "--no-pretrained",
        "--batch-size",
        "10",
        "--data.windows",
        "1",
        "--data.window",
        "0",
        "--model.window",
        "1",
    ]
    return [*flags, "--epochs", str(min(recipe.epochs, 1))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_stage_trains_evaluates_submits_and_resumes(file, call, tiny_city, tmp_path):
    people = tmp_path / "people.toml"
    people.write_text(PEOPLE)
    for stage, recipe in STAGES[file.stem].items():
        flags = [*tiny(recipe), "--data.root", tiny_city, "--runs", tmp_path]
        run = tmp_path / recipe.name
        assert call(file, "train", stage, *flags) == f"checkpoint: {run / 'model.safetensors'}\n"
        assert f"{recipe.name} " in call(file, "evaluate", stage, *flags)
        assert (run / "evaluation" / "report.html").is_file()
        assert "package: " in call(file, "submit", stage, *flags, "--people", people)
        assert (run / "submission.zip").is_file()
        if not recipe.epochs:
            continue
        assert [row["step"] for row in _metrics(run)] == ["1"]
        # As if two epochs had been asked for and the run had been killed after the first.
        (run / "recipe.json").write_text(json.dumps({**json.loads((run / "recipe.json").read_text()), "epochs": 2}))
        call(file, "train", stage, *flags, "--epochs", 2, "--resume")
        assert [row["step"] for row in _metrics(run)] == ["1", "2"]


def _metrics(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


ROW = re.compile(r"\| (.+?) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|")
AT_DECISION_LEVEL = {
    "late fusion of `openl3_audio` and `openl3_video`": "dev 10 s: - / 80.8 %",
    "late fusion of `mcdonnell_usa` and `resnet50_video`": "dev 10 s: - / 85.8 %",
}
"""Of the dataset paper; no entries of the zoo."""


def published_cells(name: str) -> tuple[str, str]:
    """Paper and figures of a system, as the table of recipes/README.md has them."""
    found = PUBLISHED[name]
    parts = [_figures(found.protocol, found.log_loss, found.accuracy)]
    if found.dev_accuracy is not None:
        parts.append(_figures("dev 1 s", found.dev_log_loss, found.dev_accuracy))
    if clips := re.search(r"dev 10 s ([\d.]+) %", found.note):
        parts.append(_figures("dev 10 s", None, float(clips[1])))
    return found.source + f", rank {found.rank}" * bool(found.rank), ", ".join(parts)


def _figures(protocol: str, log_loss: float | None, accuracy: float) -> str:
    return f"{protocol}: {'-' if log_loss is None else f'{log_loss:g}'} / {accuracy:g} %"


def table_of_systems() -> dict[str, tuple[str, ...]]:
    text = (ROOT / "recipes" / "README.md").read_text().split("\n## ")[1]
    rows = [ROW.fullmatch(line).groups() for line in text.splitlines() if line.startswith("| ")]
    return {first: tuple(rest) for first, *rest in rows[1:]}


def test_table_lists_every_system_with_its_published_figures():
    table = table_of_systems()
    systems = {row.strip("`"): cells for row, cells in table.items() if row not in AT_DECISION_LEVEL}
    assert set(systems) == {
        name for name in list_models() if recipe_of(name) not in ("", "own_videos.py", "flagship.py")
    }
    assert set(PUBLISHED) <= set(systems)
    for name, (paper, _, figures, *_) in systems.items():
        if name in PUBLISHED:
            assert (paper, figures) == published_cells(name), name
        else:
            assert paper.startswith("of "), name
            assert figures == "-", name
    for row, figures in AT_DECISION_LEVEL.items():
        assert table[row][2] == figures


def test_table_names_stages_that_lead_to_the_system():
    for row, (_, command, *_) in table_of_systems().items():
        if command == "`avsc fuse`, below":
            continue
        file, names = re.fullmatch(r"`(\w+)\.py` ([\w, ]+)", command).groups()
        stages = [STAGES[file][name] for name in names.split(", ")]
        assert row in AT_DECISION_LEVEL or stages[-1].model.name == row.strip("`")
        before = {stage.name for stage in stages}
        for stage in stages:
            assert set(stage.init) <= before


def test_every_system_has_the_recipe_that_the_zoo_names():
    for name in list_models():
        if file := recipe_of(name):
            assert name in {stage.model.name for stage in STAGES[Path(file).stem].values()}, name
    for members in ENSEMBLES.values():
        assert all(map(recipe_of, members))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_stages_are_named_after_their_file_and_start_from_earlier_ones(file):
    before = set()
    for stage, recipe in STAGES[file.stem].items():
        assert recipe.name == f"{file.stem}/{stage}"
        assert set(recipe.init) <= before
        assert f"avsc train {file.stem}/" in runpy.run_path(str(file))["__doc__"]
        before.add(recipe.name)


def test_in_a_process_of_its_own(tiny_city, tmp_path):
    def run(*words: object) -> str:
        program = ROOT / "recipes" / "mcdonnell_usa.py"
        done = subprocess.run([sys.executable, program, *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (recipe,) = STAGES["mcdonnell_usa"].values()
    trained = run("train", "audio", *tiny(recipe), "--data.root", tiny_city, "--runs", tmp_path)
    assert trained == f"checkpoint: {tmp_path / 'mcdonnell_usa' / 'audio' / 'model.safetensors'}\n"


def test_show_and_help(call):
    file = ROOT / "recipes" / "mcdonnell_usa.py"
    shown = call(file, "show", "audio", "--epochs", "3")
    assert "epochs = 3" in shown
    assert "restarts = (2, 6, 14, 30, 62, 126, 254)" in shown
    assert call(file).startswith("usage: mcdonnell_usa.py")


OURS = ("own_videos", "distil_audio", "flagship")
"""Recipes of no published system."""


def augmentation(recipe: Recipe) -> dict[str, str]:
    """Every random change of training clips that a stage makes: the word for it, and its value."""
    augment = recipe.augment
    found = {
        "crop": 0 if augment.crop.smallest >= 1 else augment.crop.smallest,
        "flip": augment.flip.probability,
        "colour": augment.colour.strength,
        "randaugment": augment.randaugment.operations,
        "gain": augment.waveform.gain,
        "noise": augment.waveform.noise,
        "pitch": augment.waveform.pitch,
        "shift in time": augment.waveform.shift,
        "specaugment": augment.spectrum.bands + augment.spectrum.times,
        "mixup": augment.mixup.alpha,
        "cutmix": augment.cutmix.alpha,
        "dropped modalit": augment.drop.probability,
    }
    return {word: value for word, value in found.items() if value}


@pytest.mark.parametrize("file", [file for file in FILES if file.stem not in OURS], ids=lambda file: file.stem)
def test_published_recipes_name_their_augmentation(file):
    text = " ".join(runpy.run_path(str(file))["__doc__"].lower().split())
    for stage, recipe in STAGES[file.stem].items():
        for word, value in augmentation(recipe).items():
            other = {"flip": "swap of left and right"}.get(word, word)
            assert word in text or other in text, f"{file.stem}/{stage} has {word} {value}, not named in its text"


def test_augmentation_where_code_is_public():
    """As the authors' repositories have it, which the recipes name."""
    recipes = [recipe for file in PUBLIC for recipe in STAGES[file].values() if not recipe.name.endswith("_tuned")]
    assert {recipe.name: augmentation(recipe) for recipe in recipes} == {
        "naranjo_uv/audio": {"mixup": 0.4},
        "naranjo_uv/video": {},
        "naranjo_uv/joint": {},
        "naranjo_uv/tuned": {},
        "hou_ugent/joint": {"flip": 0.5},
        "mcdonnell_usa/audio": {"flip": 0.5, "mixup": 0.4},
        **{f"openl3_baseline/{stage}": {} for stage in ("audio", "video", "early", "late", "joint")},
    }


PUBLIC = ("naranjo_uv", "hou_ugent", "mcdonnell_usa", "openl3_baseline")
"""Recipes whose authors' training code is public."""


def test_rates_and_epochs_where_code_is_public():
    stages = {recipe.name: recipe for found in STAGES.values() for recipe in found.values()}
    naranjo = {name.split("/")[1]: recipe for name, recipe in stages.items() if name.startswith("naranjo_uv/")}
    values = {
        name: (one.batch_size, one.epochs, one.patience, one.optim.lr, one.optim.video_lr, one.optim.every)
        for name, one in naranjo.items()
    }
    assert values == {
        "audio": (32, 200, 80, 1e-3, 0.0, 15),
        "video": (16, 200, 40, 1e-4, 0.0, 20),
        "joint": (16, 200, 80, 1e-4, 0.0, 15),
        "tuned": (16, 200, 80, 1e-6, 1e-6, 15),
    }
    assert all((one.optim.schedule, one.optim.factor) == ("plateau", 0.5) for one in naranjo.values())
    assert (naranjo["joint"].optim.audio_lr, naranjo["tuned"].optim.audio_lr) == (0.0, 1e-6)
    hou = stages["hou_ugent/joint"]
    assert (hou.optim.lr, hou.optim.schedule, hou.optim.every, hou.optim.factor) == (1e-4, "steps", 20, 0.5)
    assert (hou.batch_size, hou.data.window, hou.model.window) == (16, 10.0, 1.0)
    mcdonnell = stages["mcdonnell_usa/audio"]
    assert mcdonnell.optim.restarts == (2, 6, 14, 30, 62, 126, 254)
    assert (mcdonnell.epochs, mcdonnell.keep, mcdonnell.model.window) == (510, "last", 10.0)
    frames = 1 + round(mcdonnell.data.window * 48_000) // 1024 - 8
    assert frames == 400
    baseline = [stages[f"openl3_baseline/{stage}"] for stage in ("audio", "joint")]
    assert [(one.epochs, one.data.windows, one.data.statistics) for one in baseline] == [(199, 96, 0), (99, 96, 0)]


def test_weights_are_mixed_with_their_start(tiny_city, tmp_path, call):
    """The share with the lowest validation log loss is kept, and the file says which."""
    file = ROOT / "recipes" / "zhang_ioa.py"
    flags = [*tiny(STAGES["zhang_ioa"]["audio"]), "--data.root", tiny_city, "--runs", tmp_path]
    # A rate so high that the end is worse than the start.
    call(file, "train", "audio", *flags, "--optim.lr", 0.1, "--optim.audio-lr", 0.1, "--averaging.start")
    notes = read_checkpoint(tmp_path / "zhang_ioa" / "audio" / "model.safetensors")[1]
    kept = json.loads(notes["validation"])
    assert kept["start"] == 0.5
    last = float(_metrics(tmp_path / "zhang_ioa" / "audio")[-1]["validation_log_loss"])
    assert kept["validation_log_loss"] < last


def test_the_way_between_two_models():
    end, start = {"w": torch.tensor([4.0]), "n": torch.tensor(7)}, {"w": torch.tensor([0.0]), "n": torch.tensor(1)}
    mixed = between(end, start, 0.25)
    assert (float(mixed["w"]), int(mixed["n"])) == (3.0, 7)


def test_table_of_trunks_has_every_trunk_with_its_published_figure():
    """`benchmarks/fidelity.py --trunks` prints it."""
    text = (ROOT / "recipes" / "README.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `") and line.count(" | ") == 5]
    found = {row[0].strip("| `"): row[3] for row in rows if row[3] == "-" or "mAP" in row[3] or "top 1" in row[3]}
    assert {name: found.get(name) for name in TRUNKS} == {name: figure or "-" for name, figure in TRUNKS.items()}
