"""Exported files: an ONNX graph in three precisions, or a torch.export program."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from avsc_e2e.durable import replacing
from avsc_e2e.errors import AvscError
from avsc_e2e.export.deployed import Deployed

Precision = Literal["fp32", "fp16", "int8"]
"""fp32: as trained. fp16: half the size; the front end and the decision stay in fp32. int8: a quarter of the size; the
weights of convolutions and linear layers are rounded to 8 bits, all is computed in fp32."""

OPSET = 20
"""Version of ONNX operators: the first one with all operators of the front end."""
LEAST = 1024
"""Number of values from which on a tensor is rounded to int8."""


def export_onnx(
    deployed: Deployed,
    out: Path,
    metadata: Mapping[str, str],
    precision: Precision = "fp32",
) -> Path:
    """Write a deployed model as ONNX, with a dynamic batch and `metadata` inside. Raises AvscError where the extra
    `onnx` is not installed."""
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
    assert program is not None  # of the exporter by dynamo
    model = program.model_proto
    if precision == "fp16":
        model = _halved(model)
    elif precision == "int8":
        model = _rounded(model)
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
    """Half precision inside the trunks; operations with a wide range (spectra, logarithms, softmax) stay in fp32."""
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


def _rounded(model):
    """Weights of convolutions and linear layers as int8, with one scale for each channel that a layer gives. A runtime
    makes floats of them once, when it loads the file. Activations stay floats: rounded to 8 bits as well, they changed
    every sixth decision of a small video trunk, whatever clips their ranges were taken from."""
    onnx = _package("onnx")
    graph, wide = model.graph, onnx.TensorProto.FLOAT
    weights = {one.name: one for one in graph.initializer if one.data_type == wide and math.prod(one.dims) >= LEAST}
    floats = []
    for node in graph.node:
        name = node.input[1] if node.op_type in ("Conv", "Gemm", "MatMul") else ""
        if name not in weights or "frontend" in name:
            continue
        tensor = weights.pop(name)
        values = onnx.numpy_helper.to_array(tensor)
        turned = any(one.name == "transB" and one.i for one in node.attribute)
        last = node.op_type == "MatMul" or (node.op_type == "Gemm" and not turned)
        others = tuple(range(values.ndim - 1)) if last else tuple(range(1, values.ndim))
        scale = np.maximum(np.abs(values).max(axis=others, keepdims=True), 1e-12) / 127
        graph.initializer.remove(tensor)
        small = np.round(values / scale).astype(np.int8)
        for kind, part in (("int8", small), ("scale", scale.astype(np.float32))):
            graph.initializer.append(onnx.numpy_helper.from_array(part, f"{name}.{kind}"))
        make = onnx.helper.make_node
        floats.append(make("Cast", [f"{name}.int8"], [f"{name}.cast"], to=wide))
        floats.append(make("Mul", [f"{name}.cast", f"{name}.scale"], [name]))
    for node in reversed(floats):
        graph.node.insert(0, node)
    return model


def _package(name: str):
    """A package of the extra `onnx`. Raises AvscError where it is not installed."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise AvscError(f"export: the package {name} is not installed; pip install 'avsc-e2e[onnx]'") from error


@contextlib.contextmanager
def _quiet():
    """Suppress the exporter's messages, which are for its developers."""
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
