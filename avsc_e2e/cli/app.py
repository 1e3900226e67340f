"""avsc app: a local page to try models in."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from avsc_e2e.cli.parsing import Paths
from avsc_e2e.cli.targets import refuse_device
from avsc_e2e.errors import AvscError


def app(
    checkpoints: Paths,
    port: int = 7860,
    host: str = "127.0.0.1",
    examples: Path | None = None,
    size: float = 200.0,
    length: float = 600.0,
    rate: int = 30,
    time: float = 120.0,
    device: str = "",
) -> None:
    """Serve a page that predicts recordings, camera and microphone with one or several models.

    Recordings of visitors are neither kept nor sent on. Only this machine can open the page, unless --host is given.

    Args:
        checkpoints: One or more model.safetensors or folders of runs.
        port: Port of the page; 0: a free one.
        host: Address to listen on; with 0.0.0.0, everybody who reaches this machine can open the page.
        examples: Folder of recordings to offer as examples; by default three rendered ones.
        size: Largest recording, megabytes.
        length: Longest recording, seconds.
        rate: Recordings that one address may send in a minute.
        time: Longest time that one model may take for a recording, seconds.
        device: cpu, cuda or cuda:N; empty: a GPU if there is one.
    """
    from avsc_e2e.models.weights.files import checkpoint_file

    if not checkpoints:
        raise AvscError("app: no checkpoint given; name model.safetensors or the folder of a run")
    for flag, value in (("size", size), ("length", length), ("rate", rate), ("time", time)):
        if not value > 0:
            raise AvscError(f"--{flag} {value:g}: give more than 0")
    if not 0 <= port < 65536:
        raise AvscError(f"--port {port}: give 0 to 65535")
    refuse_device(device)
    files = [checkpoint_file(path) for path in checkpoints]

    from avsc_e2e.app.limits import Limits
    from avsc_e2e.app.server import Server, serve
    from avsc_e2e.data.extensions import media_files
    from avsc_e2e.prediction.predictor import Predictor
    from avsc_e2e.toycity.example import EXAMPLES, write_example

    offered = media_files([examples]) if examples else []
    models = dict(zip(_names(files), (Predictor(file, on_bad="mask", device=device) for file in files), strict=True))
    with tempfile.TemporaryDirectory(prefix="avsc_app_examples_") as folder:
        if not examples:
            drawn = enumerate(EXAMPLES.items())
            offered = [write_example(Path(folder) / f"{name}.mp4", s, seed=i) for i, (name, s) in drawn]
        serve(Server(models, Limits(size, length, rate, time), offered, host), port)


def _names(files: list[Path]) -> list[str]:
    """Short, distinct names of checkpoints: the end of each path, from the folder of the run on."""
    paths = [file.parent if file.name == "model.safetensors" else file.with_suffix("") for file in files]
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = [os.path.join(*one[-depth:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    raise AvscError("app: a checkpoint is given twice")
