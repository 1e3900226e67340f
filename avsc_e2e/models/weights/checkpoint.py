"""Checkpoints for sharing: safetensors with the Architecture inside, so that the file alone rebuilds the model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from avsc_e2e import __version__
from avsc_e2e.durable import replacing
from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.files import checkpoint_file


def save_model(
    model: SceneNet,
    path: str | os.PathLike,
    notes: Mapping[str, str] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write the model's tensors (or these, where it holds only a part of them), its Architecture and `notes` (such as
    how it was trained) to one file, which is complete or as it was before, never half. Raises AvscError where the disk
    is full."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in (tensors or model.state_dict()).items()}
    return _write(
        path, tensors, {**(notes or {}), "architecture": model.architecture.to_json(), "avsc_e2e": __version__}
    )


def add_notes(path: str | os.PathLike, notes: Mapping[str, str]) -> Path:
    """Put further notes into a checkpoint. Raises AvscError where the file is not one."""
    path = checkpoint_file(path)
    tensors, metadata = read_checkpoint(path)
    return _write(path, tensors, {**metadata, **notes})


def _write(path: str | os.PathLike, tensors: dict, metadata: dict[str, str]) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        safetensors.torch.save_file(tensors, partial, metadata=metadata)
        os.chmod(partial, 0o666 & ~_umask())  # safetensors writes for the owner's eyes alone
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_checkpoint(path: str | os.PathLike) -> tuple[dict, dict[str, str]]:
    """The tensors and the metadata of a checkpoint, or of the checkpoint in a run's folder. Raises AvscError where
    there is none."""
    path = checkpoint_file(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    except (safetensors.SafetensorError, OSError) as error:
        if "not fully covered" in str(error):
            raise AvscError(f"{path}: this checkpoint is cut off, its tensors are incomplete; copy it again") from error
        raise AvscError(f"{path}: is not a checkpoint of avsc_e2e (a .safetensors file from training)") from error
    if "architecture" not in metadata:
        raise AvscError(f"{path}: has no Architecture inside, so it is not a checkpoint of avsc_e2e")
    return tensors, metadata


def load_model(path: str | os.PathLike) -> SceneNet:
    """The model of a checkpoint file, or of a run's folder, in evaluation mode, on the CPU. Raises AvscError."""
    tensors, metadata = read_checkpoint(path)
    try:
        model = SceneNet(Architecture.from_json(metadata["architecture"]))
        model.load_state_dict(tensors)
    except (AvscError, TypeError, ValueError, RuntimeError) as error:
        raise AvscError(f"{path}: {str(error).splitlines()[0]}") from error
    return model.eval()
