"""Wrong calls from Python, and of commands, that once ended in a traceback or were told something else."""

import subprocess
import sys

import numpy as np
import pytest

import avsc_e2e
from avsc_e2e.cli import main
from avsc_e2e.errors import AvscError
from avsc_e2e.outputs.output import SystemOutput, align


def outputs():
    files, classes, half = ("a", "b"), ("x", "y"), np.full((2, 2), 0.5)
    return [SystemOutput(files, classes, half), SystemOutput(files, classes, half, np.zeros(2))]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: avsc_e2e.train("zhang_ioa/audio"), r"'zhang_ioa/audio': give a Recipe, such as avsc_e2e\.recipes"),
        (lambda: avsc_e2e.evaluate("zhang_ioa/audio"), "give a Recipe"),
        (lambda: avsc_e2e.create_model("lite0", classes=3), "classes 3: give the names"),
        (lambda: avsc_e2e.create_model("lite0", classes="park"), "classes 'park': give the names"),
        (lambda: avsc_e2e.Predictor("absent", smooth="mean"), "smooth mean: give one of none, median, markov"),
        (lambda: avsc_e2e.Predictor("absent", on_bad="stop"), "on-bad stop: give one of raise, skip, mask"),
        (lambda: align(outputs()), "one is of segments, another of whole recordings"),
    ],
)
def test_wrong_calls_are_one_line(call, message):
    with pytest.raises(AvscError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("predict --smoth median a b", "avsc predict: unknown option --smoth: did you mean --smooth?"),
        ("export a --precison=int8", "avsc export: unknown option --precison: did you mean --precision?"),
        ("data check x --no-fst", "avsc data check: unknown option --no-fst: did you mean --no-fast?"),
    ],
)
def test_a_mistyped_option_is_named_whatever_follows_it(line, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(line.split())
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


QUICK = """
import sys
from avsc_e2e.cli import main
for line in sys.argv[1:]:
    try:
        main(line.split())
    except SystemExit as end:
        assert end.code == 2, line
    assert "torch" not in sys.modules, line
"""


def test_mistakes_are_told_before_torch_is_imported(tmp_path):
    """A mistake that needs no model to be found is told in a fifth of a second, not in five."""
    (tmp_path / "cut.safetensors").write_bytes((1000).to_bytes(8, "little") + b'{"weight": ')
    (tmp_path / "text.safetensors").write_text("This is no checkpoint.")
    (tmp_path / "clip.mp4").touch()
    cases = {
        "predict cut.safetensors clip.mp4": "cut.safetensors: this checkpoint is cut off after 19 bytes; copy it again",
        "predict text.safetensors clip.mp4": "text.safetensors: is not a checkpoint of avsc_e2e",
        "predict cut.safetensors clip.mp4 --hop -1": "--hop -1: give 0 or more",
        "predict cut.safetensors clip.mp4 --batch-size 0": "--batch-size 0: give 1 or more",
        "train clip.mp4": "clip.mp4: is a file; give the folder of the data set",
        "train own_videos/video --data.root=clip.mp4": "clip.mp4: is a file; give the folder of the data set",
        "evaluate zhang_ioa/hybrid --data.root nowhere": "nowhere: no such folder: give the root of the set",
        "submit zhang_ioa/hybrid --people people.toml": "people.toml: cannot be read",
    }
    command = [sys.executable, "-c", QUICK, *cases]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for line, message in zip(done.stderr.splitlines(), cases.values(), strict=True):
        assert message in line
