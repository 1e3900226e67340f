"""Every field of a recipe is explained, and --help-all prints it."""

import ast
import dataclasses
import inspect
import itertools
import os
import re
import subprocess
import sys
import textwrap
import typing

import pytest
from support import ZHANG, run_commands

from avsc_e2e.training.recipe import Recipe


def dataclasses_below(kind: type) -> list[type]:
    found = [kind]
    for hint in typing.get_type_hints(kind).values():
        if dataclasses.is_dataclass(hint):
            found += dataclasses_below(hint)
    return found


@pytest.mark.parametrize("kind", dataclasses_below(Recipe), ids=lambda kind: kind.__name__)
def test_every_field_is_explained(kind):
    """An attribute docstring, which `--help` prints; a field that holds fields is explained by its class."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body
    explained = set()
    for field, text in itertools.pairwise(body):
        is_text = isinstance(text, ast.Expr) and isinstance(getattr(text.value, "value", None), str)
        if isinstance(field, ast.AnnAssign) and is_text:
            explained.add(field.target.id)
    hints = typing.get_type_hints(kind)
    plain = {field.name for field in dataclasses.fields(kind) if not dataclasses.is_dataclass(hints[field.name])}
    assert plain <= explained, f"{kind.__name__}: {sorted(plain - explained)} without a text"
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}(")


def test_help_prints_it():
    environment = {**os.environ, "COLUMNS": "80"}
    line = [sys.executable, ZHANG, "train", "hybrid", "--help-all"]
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    for flag, text in (
        ("--optim.audio-lr", "Highest learning rate of the audio trunk"),
        ("--model.sample-rate", "Hz"),
        ("--augment.waveform.gain", "change of level in dB"),
        ("--augment.flip.probability", "mirror"),
        ("--heads.fusion", "fusion head"),
        ("--batch-size", "Clips in a batch"),
        ("--resume", "Continue an interrupted run"),
    ):
        at = re.search(f" {flag}[ ,]", done.stdout).start()
        assert text.lower() in done.stdout[at : at + 400].lower(), flag
    assert "(default: zhang_ioa/audio zhang_ioa/video)" in re.sub(r"[│\s]+", " ", done.stdout)


def test_help_shows_what_matters_first():
    (done,) = run_commands([ZHANG, "train", "hybrid", "--help"])
    assert done.status == 0
    options = set(re.findall(r"--[a-z.-]+", done.out))
    assert {"--data.root", "--epochs", "--init", "--resume", "--optim.video-lr", "--help-all"} <= options
    assert not {"--optim.warmup", "--model.fft", "--augment.waveform.gain", "--machine.compile"} & options
    assert len(done.out.splitlines()) < 100
