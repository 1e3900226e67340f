"""The demo through its real entry point, quick."""

import json
import re
import subprocess
import sys
from pathlib import Path

from avsc_e2e.outputs.metrics import macro_log_loss
from avsc_e2e.outputs.output import read_output
from avsc_e2e.outputs.reference import read_reference, targets_of


def test_quick_demo_makes_all_that_it_names_and_prints_what_it_measured(tmp_path):
    program = Path(sys.executable).with_name("avsc")
    done = subprocess.run(
        [program, "demo", "--quick", "--out", tmp_path / "demo"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "rendered toy city" in done.stdout
    rows = re.findall(r"^(audio|video|hybrid) +([\d.]+) +([\d.]+) % +([\d.]+) +([\d.]+) %", done.stdout, re.MULTILINE)
    assert [row[0] for row in rows] == ["audio", "video", "hybrid"]

    paths = {line.split()[0]: Path(line.split()[1]) for line in done.stdout.splitlines() if str(tmp_path) in line}
    assert set(paths) == {"report", "checkpoint", "package"}
    assert all(path.is_file() for path in paths.values())

    assert "avsc train hybrid" not in paths["report"].read_text(), "no such command"
    folder = paths["report"].parent
    output = read_output(folder / "segments.csv")
    targets = targets_of(output, read_reference(folder / "reference.csv"))
    assert f"{macro_log_loss(output.probabilities, targets):.3f}" == rows[2][1]
    scores = json.loads((folder / "scores.json").read_text())["decision"]
    assert {f"{of_protocol['log_loss']:.3f}" for of_protocol in scores.values()} == {rows[2][1], rows[2][3]}

    check = subprocess.run([program, "submission", "check", paths["package"]], capture_output=True, text=True)
    assert check.returncode == 1  # strict: these are not the challenge's 72,000 files
    assert "72000" in check.stdout.replace(",", "")
    files = paths["checkpoint"].with_name("submission.output.csv")
    check = subprocess.run([program, "submission", "check", paths["package"], "--files", files], capture_output=True)
    assert check.returncode == 0
