"""Checkpoints for sharing: safetensors with the Architecture inside, so that the file alone rebuilds the model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from avsc_e2e import __version__
from avsc_e2e.arguments import checked
from avsc_e2e.durable import replacing
from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.ensemble import Ensemble
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.files import HUB, checkpoint_file

ENSEMBLE = "ensemble"
"""The metadata key that holds the description of an Ensemble; without it the model is a SceneNet."""
EQUAL = "equal"
"""The metadata key for tensors that equal another tensor and are stored once, such as trunks that members share."""


@checked
def save_model(
    model: SceneNet | Ensemble,
    path: str | os.PathLike,
    notes: Mapping[str, str] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write the model's tensors (or `tensors`, if the model holds only a part of them), its Architecture and `notes`,
    such as the recipe, to one file. The write is atomic. Raises AvscError if the disk is full."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in (tensors or model.state_dict()).items()}
    about = {"architecture": model.architecture.to_json(), "avsc_e2e": __version__}
    if isinstance(model, Ensemble):
        about[ENSEMBLE] = model.to_json()
    return _write(path, tensors, {**(notes or {}), **about})


def add_notes(path: str | os.PathLike, notes: Mapping[str, str]) -> Path:
    """Add notes to a checkpoint. Raises AvscError if the file is not a checkpoint or lies on a hub."""
    if str(path).startswith(HUB):
        raise AvscError(
            f"{path}: is a checkpoint on a hub, which cannot be changed; give a file or the folder of a run"
        )
    path = checkpoint_file(path)
    tensors, metadata = read_checkpoint(path)
    return _write(path, tensors, {**metadata, **notes})


def _write(path: str | os.PathLike, tensors: dict, metadata: dict[str, str]) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors, equal = _unique(tensors) if ENSEMBLE in metadata else (tensors, {})
    metadata = {name: text for name, text in metadata.items() if name != EQUAL} | (
        {EQUAL: json.dumps(equal)} if equal else {}
    )
    with replacing(path) as partial:
        safetensors.torch.save_file(tensors, partial, metadata=metadata)
        os.chmod(partial, 0o666 & ~_umask())  # safetensors makes files that only the owner can read
    return path


def _unique(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors without duplicates, and for each duplicate the name of the tensor that it equals."""
    first: dict[tuple, str] = {}
    kept, equal = {}, {}
    for name, value in tensors.items():
        digest = hashlib.sha256(value.view(-1).numpy().tobytes()).digest()
        same = first.setdefault((value.shape, value.dtype, digest), name)
        if same == name:
            kept[name] = value
        else:
            equal[name] = same
    return kept, equal


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_checkpoint(path: str | os.PathLike) -> tuple[dict, dict[str, str]]:
    """The tensors and the metadata of a checkpoint, or of the checkpoint in a run's folder. Raises AvscError if there
    is none."""
    with _opened(path) as (file, metadata):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    try:
        tensors |= {name: tensors[same] for name, same in json.loads(metadata.get(EQUAL, "{}")).items()}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise AvscError(f"{path}: its list of equal tensors is damaged; copy it again") from None
    return tensors, metadata


def read_notes(path: str | os.PathLike) -> dict[str, str]:
    """The metadata of a checkpoint, without reading its tensors. Raises AvscError if there is none."""
    with _opened(path) as (_, metadata):
        return metadata


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[tuple[safetensors.safe_open, dict[str, str]]]:
    """A checkpoint file and its metadata."""
    path = checkpoint_file(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if "architecture" not in metadata:
                raise AvscError(f"{path}: has no Architecture inside, so it is not a checkpoint of avsc_e2e")
            yield file, metadata
    except (safetensors.SafetensorError, OSError) as error:
        if "not fully covered" in str(error):
            raise AvscError(f"{path}: this checkpoint is cut off, its tensors are incomplete; copy it again") from error
        raise AvscError(f"{path}: is not a checkpoint of avsc_e2e (a .safetensors file from training)") from error


def load_model(path: str | os.PathLike) -> SceneNet | Ensemble:
    """The model of a checkpoint file, or of a run's folder, in evaluation mode, on the CPU. Raises AvscError."""
    tensors, metadata = read_checkpoint(path)
    try:
        if ENSEMBLE in metadata:
            model = Ensemble.from_json(metadata[ENSEMBLE])
        else:
            model = SceneNet(Architecture.from_json(metadata["architecture"]))
        model.load_state_dict(tensors)
    except AvscError as error:
        raise AvscError(f"{path}: {error}") from error
    except Exception as error:  # a damaged description may raise any error
        raise AvscError(f"{path}: its description and its tensors do not fit together ({_shortly(error)})") from error
    return model.eval()


def _shortly(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
