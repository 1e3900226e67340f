"""avsc export: a checkpoint as a file for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from avsc_e2e.cli.parsing import Positional
from avsc_e2e.cli.targets import refuse_out
from avsc_e2e.errors import AvscError


def export(
    checkpoint: Annotated[Path, Positional],
    out: Annotated[Path, Positional],
    format: Literal["onnx", "torch-export"] = "onnx",
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    modality: Literal["both", "audio", "video"] = "both",
    media: tuple[Path, ...] = (),
) -> None:
    """Write a model for other runtimes: waveform and frames in, probabilities out, front end included.

    `avsc predict OUT.onnx MEDIA` runs the result with onnxruntime, without torch.

    Args:
        checkpoint: The model.safetensors of a training run, or the folder of the run.
        out: File to write, such as model.onnx or model.pt2.
        format: An ONNX graph, or a program of torch.export.
        precision: fp32: as trained; fp16: half the size; int8: a quarter of the size. fp16 and int8 are for ONNX only.
        modality: Input of the exported model; audio or video leaves out the other trunk.
        media: Recordings on which the export is compared with the checkpoint.
    """
    from avsc_e2e.models.weights.files import checkpoint_file

    if format != "onnx" and precision != "fp32":
        raise AvscError(f"--precision {precision}: is for ONNX only; leave out --format {format}")
    refuse_out(out, "OUT")
    checkpoint = checkpoint_file(checkpoint)

    from avsc_e2e.export.comparison import export_checkpoint

    result = export_checkpoint(checkpoint, out, format, precision, modality, media)
    print(result.text())
