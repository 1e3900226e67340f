"""Work in processes that may die: the item is named, the rest is done."""

import logging
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
from misbehaving import act, crash_over_deadly_files

from avsc_e2e.apart import Died, apart
from avsc_e2e.data.check.check import check
from avsc_e2e.data.media import probe
from avsc_e2e.data.store.layout import read_manifest
from avsc_e2e.data.store.prepare import prepare
from avsc_e2e.errors import MediaError


def test_a_death_costs_its_item_alone():
    found = defaultdict(list)
    items = ["work", "abort", "kill", "exit", "play"]
    for index, value in apart(act, items, workers=2):
        found[items[index]].append(value)
    assert found == {
        "work": ["work begins", "work ends"],
        "abort": ["abort begins", Died("the process that read it died (SIGABRT, its decoder crashed)")],
        "kill": ["kill begins", Died("the process that read it died (SIGKILL, out of memory or stopped)")],
        "exit": ["exit begins", Died("the process that read it died (exit status 3)")],
        "play": ["play begins", "play ends"],
    }


def test_patience_and_memory_end():
    found = list(apart(act, ["stand still", "rest"], workers=1, patience=3.0))
    assert found[:2] == [(0, "stand still begins"), (0, Died("reading it takes more than 3 s"))]
    assert found[2:] == [(1, "rest begins"), (1, "rest ends")]
    with pytest.raises(MemoryError):  # 64 GiB
        list(apart(act, ["allocate"]))


def test_processes_end_with_a_killed_main_process(tmp_path):
    script = (
        "import os, signal\nfrom misbehaving import act\nfrom avsc_e2e.apart import apart\n"
        "for _ in apart(act, ['stand still']): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    main = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parent)
    main.wait()
    for _ in range(100):
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        if not any(f", {main.pid})".encode() in line for line in lines):
            return
        time.sleep(0.1)
    pytest.fail("the process outlived the main process by 10 s")


@pytest.fixture
def deadly(tmp_path, monkeypatch):
    """Two classes of three recordings each; one ends the process that reads it."""
    crash_over_deadly_files(tmp_path / "shim")
    monkeypatch.syspath_prepend(tmp_path / "shim")
    draw = np.random.default_rng(0)
    for scene in ("a", "b"):
        (tmp_path / "set" / scene).mkdir(parents=True)
        for name in ("one", "deadly", "three") if scene == "a" else ("one", "two", "three"):
            soundfile.write(tmp_path / "set" / scene / f"{scene}{name}.wav", draw.normal(0, 0.1, 16_000), 8000)
    return tmp_path / "set"


def test_check_names_the_file_over_which_a_decoder_crashes(deadly):
    found = check(deadly, test=0.0, validation=0.0)
    (problem,) = [one for one in found.problems if one.kind == "unreadable"]
    reason = "the process that read it died (SIGABRT, its decoder crashed): remove it, or copy it anew"
    assert (problem.path, problem.reason) == (str(deadly / "a" / "adeadly.wav"), reason)
    assert found.files == 6
    with pytest.raises(MediaError, match="SIGABRT"):  # nor does this process read it again
        probe(deadly / "a" / "adeadly.wav")
    (deadly / "a" / "adeadly.wav").write_bytes((deadly / "a" / "aone.wav").read_bytes())
    assert probe(deadly / "a" / "adeadly.wav").duration == 2.0  # it is another file now


def test_prepare_goes_on_without_the_file_over_which_a_decoder_crashes(deadly, tmp_path, caplog):
    shown = []
    with caplog.at_level(logging.WARNING):
        done = prepare(deadly, tmp_path / "store", workers=1, progress=lambda n, total: shown.append((n, total)))
    assert (done.clips, done.bad) == (
        6, (("a/adeadly", "audio", "the process that read it died (SIGABRT, its decoder crashed)"),)
    )  # fmt: skip
    assert shown[-1] == (6, 6)
    assert read_manifest(tmp_path / "store")["copies"] == []
    again = prepare(deadly, tmp_path / "store", workers=1)
    assert (again.decoded, again.bad) == (0, done.bad)
