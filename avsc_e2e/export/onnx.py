"""Exported files: an ONNX graph in three precisions, or a torch.export program."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from avsc_e2e.durable import replacing
from avsc_e2e.errors import AvscError
from avsc_e2e.export.deployed import Deployed

Precision = Literal["fp32", "fp16", "int8"]
"""fp32: as trained. fp16: half the size; the front end and the decision stay in fp32. int8: a quarter of the size;
weights and activations of convolutions and linear layers are quantised, with ranges seen on example clips."""

OPSET = 20
"""Of ONNX: the first with all operators of the front end."""


def export_onnx(
    deployed: Deployed,
    out: Path,
    metadata: Mapping[str, str],
    precision: Precision = "fp32",
    examples: Iterable[Mapping[str, np.ndarray]] = (),
) -> Path:
    """Write a deployed model as ONNX, with a dynamic batch and `metadata` inside. `examples`, batches of its inputs by
    name, are needed for int8. Raises AvscError where the extra `onnx` is not installed."""
    onnx = _package("onnx")
    _package("onnxscript")
    batch = torch.export.Dim("batch", min=1)
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            deployed,
            deployed.example(),
            dynamo=True,
            input_names=list(deployed.inputs),
            output_names=list(deployed.outputs),
            dynamic_shapes={"arguments": tuple({0: batch} for _ in deployed.inputs)},
            opset_version=OPSET,
        )
    model = program.model_proto
    if precision == "fp16":
        model = _halved(model)
    elif precision == "int8":
        model = _quantised(model, examples)
    onnx.helper.set_model_props(model, {**metadata, "precision": precision})
    onnx.checker.check_model(model)
    with replacing(out) as partial:
        onnx.save(model, partial)
    return out


def export_program(deployed: Deployed, out: Path, metadata: Mapping[str, str]) -> Path:
    """Write a deployed model as a torch.export program (.pt2), with a dynamic batch and `metadata` as extra files."""
    batch = torch.export.Dim("batch", min=1)
    with _quiet(), torch.inference_mode():
        program = torch.export.export(
            deployed,
            deployed.example(),
            dynamic_shapes={"arguments": tuple({0: batch} for _ in deployed.inputs)},
            strict=False,
        )
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files=dict(metadata))
    with replacing(out) as partial:
        partial.write_bytes(buffer.getvalue())
    return out


def _halved(model):
    """Half precision inside the trunks; what reaches far (spectra, logarithms, softmax) stays in fp32."""
    _package("onnxruntime")
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    wide = ("DFT", "STFT", "Log", "Pow", "Exp", "Softmax", "LogSoftmax", "ReduceMean", "Sqrt")
    with _quiet():
        half = OnnxModel(
            convert_float_to_float16(model, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *wide])
        )
        half.topological_sort()  # the casts of the inputs come last otherwise
    return half.model


def _quantised(model, examples: Iterable[Mapping[str, np.ndarray]]):
    """Convolutions and linear layers in int8, with ranges of activations from the examples."""
    import tempfile

    onnx = _package("onnx")
    _package("onnxruntime")
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self, batches: list[dict[str, np.ndarray]]):
            self.batches = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    batches = [dict(one) for one in examples]
    if not batches:
        raise AvscError("--precision int8: give clips whose ranges it is to see, with --media FILES")
    with tempfile.TemporaryDirectory() as folder:
        whole, ready, small = (f"{folder}/{name}.onnx" for name in ("whole", "ready", "small"))
        onnx.save(model, whole)
        with _quiet():
            quant_pre_process(whole, ready, skip_symbolic_shape=True)
            quantize_static(
                ready,
                small,
                Reader(batches),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Gemm"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
            )
        return onnx.load(small)


def _package(name: str):
    """A package of the extra `onnx`. Raises AvscError where it is not installed."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise AvscError(f"export: the package {name} is not installed; pip install 'avsc-e2e[onnx]'") from error


@contextlib.contextmanager
def _quiet():
    """The exporter tells its own developers much, on both streams and by warnings."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(level)
