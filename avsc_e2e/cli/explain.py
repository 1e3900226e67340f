"""avsc explain: what a decision is based on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from avsc_e2e.cli.parsing import Positional
from avsc_e2e.cli.progress import progress
from avsc_e2e.cli.targets import refuse_device
from avsc_e2e.errors import AvscError, within


def explain(
    checkpoint: Annotated[Path, Positional],
    file: Annotated[Path, Positional],
    out: Path = Path("explanation.html"),
    windows: int = 10,
    parts: int = 4,
    grid: int = 5,
    device: str = "",
) -> None:
    """Show what the decision about a recording is based on: each modality alone, and parts of the input hidden in turn.

    Args:
        checkpoint: The model.safetensors of a training run, or the folder of the run.
        file: Video, audio file or image.
        out: HTML page to write; it needs no other file.
        windows: Largest number of windows to explain, evenly spaced over the recording.
        parts: Number of parts of a window's audio; each is silenced in turn.
        grid: Number of rows and columns of regions of a frame; each region is hidden in turn.
        device: cpu, cuda or cuda:N; empty: a GPU if there is one.
    """
    from avsc_e2e.models.weights.files import checkpoint_file

    refuse_device(device)
    for flag, value in (("--windows", windows), ("--parts", parts), ("--grid", grid)):
        within(flag, value, 1)
    checkpoint = checkpoint_file(checkpoint)
    if not file.is_file():
        raise AvscError(f"{file}: no such file")

    from avsc_e2e.explanation.occlusion import explain
    from avsc_e2e.explanation.page import sentences, write_explanation
    from avsc_e2e.prediction.predictor import Predictor

    predictor = Predictor(checkpoint, on_bad="mask", device=device)
    found = explain(predictor, file, windows=windows, parts=parts, grid=grid, progress=progress("explaining"))
    for sentence in sentences(found):
        print(sentence)
    print(f"page: {write_explanation(found, out)}")
