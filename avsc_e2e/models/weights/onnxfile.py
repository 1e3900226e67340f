"""Weights of an ONNX file, read without running it: the few protocol buffer fields that hold named float tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avsc_e2e.errors import AvscError

GRAPH, INITIALIZER = 7, 5
"""Fields of a ModelProto and of its GraphProto."""
DIMS, KIND, NAME, RAW = 1, 2, 8, 9
"""Fields of a TensorProto."""
FLOAT = 1
"""The kind of float32."""


def onnx_tensors(file: Path) -> dict[str, Tensor]:
    """Name -> float32 tensor of the graph's initializers that are stored as raw bytes, in the order of the file. Raises
    AvscError if it is not such a file."""
    try:
        data = file.read_bytes()
        graph = next(value for number, value in _fields(data) if number == GRAPH)
        found = {}
        for number, value in _fields(graph):
            if number != INITIALIZER:
                continue
            dims, kind, name, raw = [], 0, "", b""
            for inner, content in _fields(value):
                if inner == DIMS:
                    dims += [content] if isinstance(content, int) else list(_varints(content))
                elif inner == KIND:
                    kind = content
                elif inner == NAME:
                    name = content.decode()
                elif inner == RAW:
                    raw = content
            if kind == FLOAT and raw:
                found[name] = torch.from_numpy(np.frombuffer(raw, "<f4").reshape(dims).copy())
        return found
    except FileNotFoundError as error:
        raise AvscError(f"{file}: there is no such file") from error
    except (StopIteration, IndexError, ValueError, TypeError, AttributeError) as error:
        raise AvscError(f"{file}: is not an ONNX file whose weights can be read") from error


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers of fields and their values: int, or bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
        else:
            size = {1: 8, 5: 4}.get(wire)
            if size is None:
                if wire != 2:
                    raise ValueError(f"wire type {wire}")
                size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("cut off")
            yield number, data[at : at + size]
            at += size


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
