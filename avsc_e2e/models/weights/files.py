"""Paths of checkpoints, found without reading them and without torch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from avsc_e2e.arguments import checked
from avsc_e2e.errors import AvscError

MODEL = "model.safetensors"
LONGEST = 100_000_000
"""Bytes of the description of a safetensors file, as its readers have it."""
HUB = "hf-hub:"
"""Prefix of the address of a checkpoint on a hub: hf-hub:user/name, or hf-hub:user/name@revision."""


@checked
def checkpoint_file(path: str | os.PathLike) -> Path:
    """The file of a checkpoint; the folder of a run stands for its model.safetensors. `hf-hub:user/name` stands for
    that of a repository on a hub, which is downloaded into the hub's cache. Raises AvscError if there is none."""
    if str(path).startswith(HUB):
        return _fetched(str(path))
    if "://" in str(path):
        raise AvscError(f"{path}: is a URL, but a checkpoint of this machine is needed; download it first")
    path = Path(path)
    if path.is_dir():
        if not (path / MODEL).is_file():
            raise AvscError(
                f"{path}: no {MODEL} in this folder; give the folder of a trained run, or a checkpoint file"
            )
        return path / MODEL
    if not path.is_file():
        raise AvscError(f"{path}: no such checkpoint; training writes {MODEL} into the folder of the run")
    if path.suffix != ".onnx":
        _refuse_part(path)
    return path


def _refuse_part(path: Path) -> None:
    """Raises AvscError where a file does not begin as safetensors do, with the length and the JSON of its tensors, or
    is shorter than these say."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        begin = file.read(1)
        if size < 9 or begin != b"{" or length > LONGEST:
            raise AvscError(f"{path}: is not a checkpoint of avsc_e2e (a .safetensors file from training)")
        told = begin + file.read(length - 1) if size >= 8 + length else b""
    try:
        ends = [value["data_offsets"][1] for name, value in json.loads(told or "{}").items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return  # what opens it says what is wrong
    if size < 8 + length + max(ends, default=0):
        raise AvscError(f"{path}: this checkpoint is cut off after {size:,} bytes; copy it again")


def is_checkpoint(path: str | os.PathLike) -> bool:
    """Whether a path is a checkpoint file, a folder with a checkpoint, or an address on a hub."""
    if str(path).startswith(HUB):
        return True
    path = Path(path)
    return (path / MODEL).is_file() if path.is_dir() else path.is_file()


def _fetched(address: str) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
    from huggingface_hub.utils import HFValidationError

    from avsc_e2e.models.weights.fetching import look

    name, _, revision = address.removeprefix(HUB).partition("@")
    ask: dict[str, Any] = {"repo_id": name, "filename": MODEL, "revision": revision or None}
    try:
        try:
            look(constants.ENDPOINT)  # its client retries for most of a minute
        except AvscError:
            return Path(hf_hub_download(**ask, local_files_only=True))
        return Path(hf_hub_download(**ask))
    except HFValidationError as error:
        raise AvscError(
            f"{address}: not an address on a hub; give {HUB}user/name or {HUB}user/name@revision"
        ) from error
    except LocalEntryNotFoundError as error:
        raise AvscError(
            f"{address}: {constants.ENDPOINT} cannot be reached, and the model is not in {constants.HF_HUB_CACHE}: "
            f"fetch its {MODEL} elsewhere and give that file"
        ) from error
    except (EntryNotFoundError, HfHubHTTPError) as error:
        raise AvscError(
            f"{address}: {constants.ENDPOINT} has no such model, revision or {MODEL}; for a private one log in with "
            "`hf auth login`"
        ) from error
