"""Completion, asked of bash itself."""

import shutil
import subprocess
import sys

import pytest

from avsc_e2e.cli import VERBS, main

ASK = """
eval "$SCRIPT"
try() { COMP_WORDS=(avsc "$@"); COMP_CWORD=$#; COMPREPLY=(); _avsc; echo "${COMPREPLY[*]}"; }
try da; try data ch; try data check --f; try train zhang_ioa/h; try train videos --mi; try predict --sm; try predict x
"""


@pytest.fixture
def script(capsys):
    with pytest.raises(SystemExit) as end:
        main(["completion", "bash"])
    assert not end.value.code
    return capsys.readouterr().out


def test_bash_completes_commands_options_and_stages(script):
    if not shutil.which("bash"):
        pytest.skip("there is no bash")
    done = subprocess.run(["bash", "-c", ASK], env={"SCRIPT": script}, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "data", "check", "--fast", "zhang_ioa/hybrid", "--minutes", "--smooth", "",
    ]  # fmt: skip


def test_every_command_is_there(script):
    for verb in VERBS:
        assert f'"{verb}")' in script


def test_python_m_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "avsc_e2e", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("avsc_e2e ")
