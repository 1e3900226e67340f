"""A small part of benchmarks/robustness.py: damaged and hostile files are read or refused in one line."""

import os
import socket
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parent))
import fuzzer
import material
import texts

DRAWN = ("output", "reference", "listing", "tau", "groups", "yaml", "people", "calibration")


def test_changes_are_drawn_by_keys():
    data = bytes(range(256)) * 20
    changed = [fuzzer.mutate(data, ("media", number, "x.mp4")) for number in range(50)]
    assert changed == [fuzzer.mutate(data, ("media", number, "x.mp4")) for number in range(50)]
    assert len(set(changed)) == 50
    assert data not in changed


def test_files_are_read_or_refused_in_one_line(tmp_path):
    """Changed files, all files of an attacker but the slow ones, and drawn texts."""
    soundfile.write(tmp_path / "a.wav", np.zeros((9000, 2)), 8000, subtype="PCM_24")
    soundfile.write(tmp_path / "b.flac", np.zeros((9000, 2)), 8000)
    found = material.seeds(tmp_path, [tmp_path / "a.wav", tmp_path / "b.flac"])
    with fuzzer.listen() as ear:
        hostile = material.hostile(tmp_path / "hostile", ear.getsockname()[1], bomb=1 << 20)
        # Those import half of the library; benchmarks/robustness.py has them.
        few = dict.fromkeys(("predict", "prepare", "check", "decode", "scored", "names", "store"), 0) | {"media": 4}
        work = list(fuzzer.cases(found, {reader: few.get(reader, 5) for reader in found}))
        work += fuzzer.whole({reader: files[: few.get(reader, 40)] for reader, files in hostile.items()})
        work += fuzzer.whole({reader: texts.draw(tmp_path, reader, 8) for reader in DRAWN})
        results = list(fuzzer.run(work, ear=ear))
    assert len(results) == len(work) > 250
    bad = [result for result in results if result.outcome not in ("read", "refused")]
    assert not bad, bad[:3]
    outcomes = Counter(result.outcome for result in results)
    assert min(outcomes["read"], outcomes["refused"]) > 20


def _dies(path):
    os._exit(3)


def _sleeps(path):
    time.sleep(60)


def _escapes(path):
    (path.parents[2] / "outside").touch()


def _calls(path):
    socket.create_connection(("127.0.0.1", int(os.environ["HF_ENDPOINT"].rpartition(":")[2])))


def _raises(path):
    raise ValueError("two\nlines")


def _writes(path):
    path.write_text("other")


def _leaks(path):
    for _ in range(20):
        os.open(path, os.O_RDONLY)


@pytest.mark.parametrize(
    ("reader", "outcome"),
    [
        (_dies, "crash"), (_sleeps, "hang"), (_escapes, "payload"), (_calls, "payload"), (_raises, "untyped"),
        (_writes, "lost"), (_leaks, "leak"),
    ],
)  # fmt: skip
def test_what_must_not_happen_would_be_counted(tmp_path, reader, outcome):
    """The harness itself notices each of it."""
    (tmp_path / "x.csv").write_text("x")
    case = fuzzer.Case("x", str(tmp_path / "x.csv"), fuzzer.WHOLE)
    wall = 1.0 if outcome == "hang" else 60.0  # a busy machine is no hang
    *_, result = fuzzer.run([case] * 3, {"x": reader}, method="fork", wall=wall, start=0.0)
    assert result.outcome == outcome
