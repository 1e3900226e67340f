"""Two runs in one folder, signals, writes that the disk refuses, files that go, clocks."""

import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from support import ROOT

from avsc_e2e.data.media import probe, read_audio
from avsc_e2e.durable import alone, replacing, write_text
from avsc_e2e.errors import AvscError, MediaError


def python(code: str, *arguments) -> subprocess.Popen:
    """A process that has printed its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "go\n"
    return process


HOLD = """
import sys, time
from avsc_e2e.durable import alone
with alone(sys.argv[1]):
    print("go", flush=True)
    time.sleep(60)
"""


def test_the_second_run_in_a_folder_is_refused_until_the_first_is_gone(tmp_path):
    first = python(HOLD, tmp_path / "run")
    refused = pytest.raises(AvscError, match=r"run: another process is at work there: wait for it")
    with refused as caught, alone(tmp_path / "run"):
        pass
    assert "\n" not in str(caught.value)
    first.kill()
    first.communicate()
    with alone(tmp_path / "run"):  # a killed process leaves no lock
        assert not list((tmp_path / "run").iterdir())
    with alone(tmp_path / "run"):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    refused = pytest.raises(AvscError, match=r"file/run: cannot be made \(Not a directory\)")
    with refused, alone(tmp_path / "file" / "run"):
        pass


WORK = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
from avsc_e2e.cli.parsing import one_line_errors
with one_line_errors():
    try:
        print("go", flush=True)
        time.sleep(60)
    finally:
        print("tidied", flush=True)
"""


@pytest.mark.parametrize(("number", "status", "word"), [(signal.SIGTERM, 143, "term"), (signal.SIGINT, 130, "interr")])
def test_signals_end_in_order_with_one_line(number, status, word):
    process = python(WORK)
    process.send_signal(number)
    out, err = process.communicate(timeout=50)
    assert (process.returncode, out, err) == (status, "tidied\n", err)
    assert err.startswith(word)
    assert err.endswith("ed: what was finished is kept\n")
    assert err.count("\n") == 1


def test_a_second_sigterm_does_not_wait():
    process = python(WORK.replace('print("tidied", flush=True)', 'print("tidied", flush=True); time.sleep(60)'))
    process.terminate()
    assert process.stdout.readline() == "tidied\n"
    process.terminate()
    process.communicate(timeout=50)
    assert process.returncode == -signal.SIGTERM


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
print("go", flush=True)
from avsc_e2e.cli.parsing import one_line_errors
from avsc_e2e.durable import write_text
with one_line_errors():
    write_text(sys.argv[1], "x" * 2000)
"""


def test_a_write_that_the_disk_refuses_keeps_the_old_file(tmp_path):
    """A limit on the size of files refuses as a full disk does, amid the write."""
    write_text(tmp_path / "x", "old")
    process = python(FULL, tmp_path / "x")
    _, err = process.communicate(timeout=50)
    assert process.returncode == 2
    refusal = "cannot be written (File too large), the old file is unchanged; make room and try again"
    assert err == f"error: {tmp_path}/x: {refusal}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"
    with pytest.raises(AvscError, match="no part of it is left"), replacing(tmp_path / "none" / "y") as partial:
        partial.write_text("y")


@pytest.mark.parametrize("change", ["vanishes", "is cut", "is another", "is a folder"])
def test_a_file_that_changes_after_it_was_listed_is_named(tmp_path, change):
    path = tmp_path / "x.wav"
    soundfile.write(path, np.zeros(16000), 8000)
    assert probe(path).duration == 2.0
    whole = path.read_bytes()
    path.unlink()
    if change == "is cut":
        path.write_bytes(whole[:9000])
    elif change == "is another":
        path.write_text("no audio")
    elif change == "is a folder":
        path.mkdir()
    with pytest.raises(MediaError, match=r"x\.wav: ") as caught:
        read_audio(path, 1.0, 1.0, 8000)
    assert "\n" not in str(caught.value)


def test_no_duration_is_told_by_a_clock_that_may_go_back():
    """Budgets, rates and limits of time come from time.monotonic; files are fresh by equal, not by later, times. The
    lock of a store behind a URL alone is of several machines, and stands a clock that goes back."""
    for path in (ROOT / "avsc_e2e").rglob("*.py"):
        text = path.read_text().replace('abs(time.time() - other["time"])', "").replace('"time": time.time()}', "")
        assert not any(word in text for word in ("time.time(", "datetime.now(", "datetime.today(", "utcnow(")), path
