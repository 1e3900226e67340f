"""Commands that answer at once, as a user calls them."""

import json
import re
import subprocess
import sys

import pytest
from support import AVSC, ZHANG, run_commands

import avsc_e2e


def test_commands_that_answer_at_once(tmp_path, trained, toy_city):
    city = tmp_path / "city"
    output = trained.folder("hybrid") / "evaluation" / "segments.csv"
    done = run_commands(
        [AVSC, "--version"],
        [AVSC],
        [AVSC, "data"],
        [AVSC, "models", "*ioa*"],
        [AVSC, "data", "render", city, "--train-locations", 1, "--test-locations", 1, "--duration", 0.5],
        [AVSC, "data", "check", city, "--fast"],
        [AVSC, "score", output, toy_city / "evaluation_setup" / "fold1_evaluate.csv"],
        [ZHANG],
        [ZHANG, "show", "hybrid", "--optim.lr", "0.5"],
        [ZHANG, "train", "--help"],
    )
    version, overview, group, models, render, check, score, recipe, show, verb = done
    assert version.out == f"avsc_e2e {avsc_e2e.__version__}\n"
    for command in ("avsc demo", "avsc data render", "avsc predict", "avsc score"):
        assert command in overview.out
    assert "avsc data check" in group.out
    assert "avsc predict" not in group.out
    (line,) = [line for line in models.out.splitlines() if line.startswith("zhang_ioa ")]
    assert "tf_efficientnet_b5" in line
    count = int(re.search(r"([\d,]+) parameters", line).group(1).replace(",", ""))
    assert count == 44_803_662 == sum(p.numel() for p in avsc_e2e.create_model("zhang_ioa").parameters())
    assert render.out == f"{city}: 20 recordings of 0.5 s\n"
    assert len(list(city.glob("video/*.mp4"))) == 20
    scores = json.loads((output.parent / "scores.json").read_text())["decision"]["1 s segments"]
    assert f"log loss {scores['log_loss']:.4f}" in score.out
    assert "{show,train,evaluate" in recipe.out
    assert "Zhang_IOA_3" in recipe.out
    assert "    lr = 0.5" in show.out
    assert "epochs = 10" in show.out
    assert verb.out.startswith("usage: zhang_ioa.py")
    assert "problems: none" in check.out
    for command in done:
        assert command.status == 0, command
        assert not command.err, command.err


@pytest.mark.parametrize("command", [[AVSC], [sys.executable, "-m", "avsc_e2e"]])
def test_installed_command(command):
    done = subprocess.run([*command, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"avsc_e2e {avsc_e2e.__version__}\n", "")


def test_output_cut_off_by_its_reader():
    line = f"{AVSC} models --no-count | head -1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
