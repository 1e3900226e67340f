"""Weights in Keras files: reading their layers, and converting them to the layers of a net."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from avsc_e2e.errors import AvscError
from avsc_e2e.models.weights.tensors import match


def read_keras(file: Path) -> dict[str, dict[str, Tensor]]:
    """Layers with weights of a Keras .h5 or .h5.gz file, in the file's order, such as `conv2d_1`: `kernel`, `bias`.
    Needs h5py. Raises AvscError."""
    try:
        import h5py
    except ImportError as error:
        raise AvscError(f"{file}: Keras files are read with h5py: pip install 'avsc-e2e[keras]'") from error
    try:
        content = io.BytesIO(gzip.decompress(file.read_bytes())) if file.suffix == ".gz" else file
        with h5py.File(content, "r") as opened:
            root = opened.get("model_weights", opened)
            layers = {}
            for name in map(_text, root.attrs["layer_names"]):
                weights = [_text(weight) for weight in root[name].attrs["weight_names"]]
                if weights:
                    layers[name] = {
                        weight.split("/")[-1].split(":")[0]: torch.from_numpy(np.asarray(root[name][weight]))
                        for weight in weights
                    }
            return layers
    except FileNotFoundError as error:
        raise AvscError(f"{file}: there is no such file") from error
    except (OSError, KeyError, ValueError, TypeError, EOFError) as error:
        raise AvscError(f"{file}: is not a Keras file of weights ({str(error).splitlines()[0][:80]})") from error


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


_AXES: dict[str, dict[int, tuple[int, ...]]] = {
    "kernel": {4: (3, 2, 0, 1), 2: (1, 0)},
    "depthwise_kernel": {4: (2, 3, 0, 1)},
}
"""Keras has (height, width, in, out), (in, out) and (height, width, channels, 1)."""
_NAMES = {
    "kernel": "weight", "depthwise_kernel": "weight", "bias": "bias",
    "gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip


def from_keras(
    file: Path, net: nn.Module, layers: Iterable[dict[str, Tensor]], more: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Tensors of the net from layers of Keras (convolutions, full layers and batch norms in their order), and `more`
    tensors of the net."""
    layers = list(layers)
    names = [name for name, part in net.named_modules() if isinstance(part, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))]
    if len(names) != len(layers):
        raise AvscError(f"{file}: has {len(layers)} layers with weights, the net has {len(names)}")
    tensors = dict(more or {})
    for name, layer in zip(names, layers, strict=True):
        for kind, value in layer.items():
            if kind not in _NAMES:
                raise AvscError(f"{file}: has a weight named {kind}, which is not known of this source")
            axes = _AXES.get(kind, {}).get(value.dim())
            tensors[f"{name}.{_NAMES[kind]}"] = value.permute(axes).contiguous() if axes else value
    return match(file, tensors, net)
