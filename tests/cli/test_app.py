"""avsc app: mistakes on the command line, and names of models that differ."""

import socket
from pathlib import Path

import pytest

from avsc_e2e.cli import main
from avsc_e2e.cli.app import _names
from avsc_e2e.errors import AvscError
from avsc_e2e.models.weights.checkpoint import save_model
from avsc_e2e.models.zoo.catalogue import create_model


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as end:
        main(["app", *map(str, arguments)])
    return end.value.code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "app: no checkpoint given"),
        (["absent"], "absent: no such checkpoint"),
        (["absent", "--length", "0"], "--length 0: give more than 0"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, said):
    assert run(*arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")


def test_a_port_that_is_taken(tmp_path, capsys):
    save_model(create_model("tiny", audio="", fusion="").eval(), tmp_path / "model.safetensors", {"recipe": "{}"})
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "a.mp4").write_bytes(b"")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert run(tmp_path, "--examples", tmp_path / "examples", "--port", port) == 2
    assert f"--port {port}: " in capsys.readouterr().err


def test_models_have_the_shortest_names_that_differ():
    assert _names([Path("/a/x/model.safetensors"), Path("/a/y.safetensors")]) == ["x", "y"]
    assert _names([Path("/a/x/model.safetensors"), Path("/b/x/model.safetensors")]) == ["a/x", "b/x"]
    with pytest.raises(AvscError, match="given twice"):
        _names([Path("/a/x/model.safetensors")] * 2)
