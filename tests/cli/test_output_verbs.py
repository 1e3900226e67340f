"""avsc calibrate, fuse, compare and submission check, through the entry point that a user calls."""

import json
import subprocess
import sys

import numpy as np
import pytest

from avsc_e2e.cli import main
from avsc_e2e.outputs.metrics import macro_log_loss
from avsc_e2e.outputs.output import SystemOutput, read_output, write_output
from avsc_e2e.outputs.reference import read_reference, targets_of

CLASSES = ("bus", "park", "tram")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Outputs one.csv, two.csv, three.csv and reference.csv of 30 places, as the working folder."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 180)
    files = tuple(f"bus-rome-{i // 6}-{i}.wav" for i in range(180))
    for name in ("one", "two", "three"):
        values = np.exp(2 * np.eye(3)[targets] + 1.5 * rng.normal(size=(180, 3))) ** 2  # too sure
        write_output(tmp_path / f"{name}.csv", SystemOutput(files, CLASSES, values / values.sum(1, keepdims=True)))
    rows = [f"{file}\t{CLASSES[target]}" for file, target in zip(files, targets, strict=True)]
    (tmp_path / "reference.csv").write_text("\n".join(["filename\tscene_label", *rows]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def avsc(command, capsys):
    """Exit status and what was said."""
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


def test_calibrate(folder, capsys):
    code, out, _ = avsc("calibrate one.csv --reference reference.csv --save c.json --out cross.csv", capsys)
    assert code == 0
    before, after = (float(line.split()[1]) for line in out.splitlines()[2:4])
    assert after < before - 0.02
    assert json.loads((folder / "c.json").read_text())["calibration"] == "temperature"
    assert avsc("calibrate one.csv --use c.json --out used.csv", capsys)[0] == 0
    assert avsc("calibrate one.csv --reference reference.csv --apply-to one.csv --out applied.csv", capsys)[0] == 0
    used, applied = (read_output(name).probabilities for name in ("used.csv", "applied.csv"))
    assert np.array_equal(used, applied)
    assert not np.array_equal(used, read_output("cross.csv").probabilities)


def test_fuse(folder, capsys):
    code, out, _ = avsc("fuse one.csv two.csv three.csv --reference reference.csv --method all --folds 3", capsys)
    assert code == 0
    losses = {line.split()[0]: float(line.split()[1]) for line in out.splitlines()[2:]}
    assert losses["pool"] < min(losses[name] for name in ("one", "two", "three")) - 0.1
    assert avsc("fuse one.csv two.csv --reference reference.csv --save f.json", capsys)[0] == 0
    assert avsc("fuse two.csv one.csv --use f.json --out fused.csv", capsys)[0] == 0
    assert len(read_output("fused.csv")) == 180


def test_compare(folder, capsys):
    command = "compare one.csv two.csv three.csv --reference reference.csv --parameters 3 2 1 --json-to c.json"
    code, out, _ = avsc(command, capsys)
    assert code == 0
    assert "vote of all" in out
    assert "Spearman of parameters and rank" in out
    assert len(json.loads((folder / "c.json").read_text())["pairs"]) == 3


def test_compare_writes_a_report(folder, capsys):
    command = "compare one.csv two.csv three.csv --reference reference.csv --report page/report.html"
    code, out, _ = avsc(command, capsys)
    assert code == 0
    assert "report: page/report.html" in out
    page = (folder / "page" / "report.html").read_text()
    assert "Pairs of systems" in page
    for name in ("one", "two", "three"):
        output = read_output(folder / f"{name}.csv")
        loss = macro_log_loss(output.probabilities, targets_of(output, read_reference(folder / "reference.csv")))
        assert f"{loss:.3f}" in page


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("calibrate one.csv", "give --reference to fit to, or --use"),
        ("calibrate one.csv --reference absent.csv", "absent.csv: cannot be read"),
        ("calibrate one.csv --reference two.csv", "its scene_label is the decision"),
        ("calibrate one.csv --reference reference.csv --method platt", "platt"),
        ("calibrate one.csv --use reference.csv", "reference.csv: not JSON"),
        ("calibrate one.csv --reference reference.csv --folds 1", "folds 1: cross-fitting needs at least two"),
        ("calibrate --reference reference.csv", "OUTPUT is missing: System output, a CSV"),
        ("calibrate one.csv --reference reference.csv --folds two", "--folds: 'two' is not a whole number"),
        ("calibrate one.csv --referense reference.csv", "unknown option --referense: did you mean --reference?"),
        (
            "submission pack out.zip run --people absent.toml",
            "`avsc submission people > people.toml` writes a template",
        ),
        ("fuse one.csv --reference reference.csv", "two or more"),
        ("fuse one.csv one.csv --reference reference.csv", "given twice"),
        ("fuse one.csv two.csv", "give --reference to fit to, or --use"),
        ("compare one.csv two.csv --reference reference.csv --parameters 1", "1 numbers for 2 outputs"),
        ("compare one.csv two.csv", "reference"),
        ("submission check absent.zip", "absent.zip: no such file"),
    ],
)
def test_mistakes_are_one_line(folder, capsys, command, reason):
    code, _, err = avsc(command, capsys)
    assert code == 2
    assert reason in err
    assert len(err.strip().splitlines()) == 1


def test_submission_check_lists_violations(folder, capsys):
    code, out, _ = avsc("submission check one.csv", capsys)
    assert code == 1
    assert "one.csv, line 1: " in out


def test_as_a_program(folder):
    code = "from avsc_e2e.cli import main; main()"
    command = [sys.executable, "-c", code, "compare", "one.csv", "two.csv", "--reference", "reference.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("whole clips: 180 of 30 locations")
    assert not done.stderr
