"""A small part of benchmarks/robustness.py: damaged files are read or refused in one line, whatever the damage."""

import os
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parent))
import fuzzer

NAMES = ("output", "reference", "listing", "groups", "yaml", "store", "archive", "checkpoint")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    soundfile.write(folder / "a.wav", np.zeros((9000, 2)), 8000, subtype="PCM_24")
    soundfile.write(folder / "b.flac", np.zeros((9000, 2)), 8000)
    return fuzzer.seeds(folder, [folder / "a.wav", folder / "b.flac"])


def test_changes_are_drawn_by_keys():
    data = bytes(range(256)) * 20
    changed = [fuzzer.mutate(data, ("media", number, "x.mp4")) for number in range(50)]
    assert changed == [fuzzer.mutate(data, ("media", number, "x.mp4")) for number in range(50)]
    assert len(set(changed)) == 50
    assert data not in changed


def test_damaged_files_are_read_or_refused_in_one_line(found):
    numbers = dict.fromkeys(NAMES, 25) | {"media": 25, "decode": 0}
    results = list(fuzzer.run(list(fuzzer.cases(found, numbers))))
    assert len(results) == 25 * 11
    bad = [result for result in results if result.outcome not in ("read", "refused")]
    assert not bad, bad[:3]
    outcomes = Counter(result.outcome for result in results)
    assert min(outcomes["read"], outcomes["refused"]) > 20


def _dies(path):
    os._exit(3)


def _sleeps(path):
    time.sleep(60)


def _escapes(path):
    (path.parent.parent / "outside").touch()


def _raises(path):
    raise ValueError("two\nlines")


@pytest.mark.parametrize(
    ("reader", "outcome"), [("dies", "crash"), ("sleeps", "hang"), ("escapes", "payload"), ("raises", "untyped")]
)
def test_what_must_not_happen_would_be_counted(found, reader, outcome):
    """The harness itself notices a crash, a hang, a file outside and an error without a type, and goes on."""
    fuzzer.READERS[reader] = globals()[f"_{reader}"]
    case = fuzzer.Case(reader, str(found["output"][0]), 0)
    served = list(_run_here(case))
    assert [result.outcome for result in served] == [outcome]


def _run_here(case):
    """As `fuzzer.run`, in processes forked from this one, which has the readers above."""
    before = fuzzer.multiprocessing.get_context
    fuzzer.multiprocessing.get_context = lambda _: before("fork")
    try:
        yield from fuzzer.run([case], limit=-58)
    finally:
        fuzzer.multiprocessing.get_context = before
