"""Reading tensors of a file without running code in it, and matching them with a net."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avsc_e2e.errors import AvscError


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pth, .pt or .tar file, taken out of the dictionaries that training scripts wrap
    them in and without DataParallel's prefix. Raises AvscError if the file is of another kind or could run code."""
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            table: Any = load_file(file)
        else:
            # Encoding: strings of Python 2, as in files of 2017. Numbers of numpy are data; all else is refused.
            with torch.serialization.safe_globals(_numpy_data()), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on the encoding and on old protocols
                table = torch.load(file, map_location="cpu", weights_only=True, encoding="latin1")
    except FileNotFoundError as error:
        raise AvscError(f"{file}: there is no such file") from error
    except Exception as error:  # the readers raise what they like: KeyError, EOFError, UnpicklingError ...
        raise AvscError(
            f"{file}: is not a file of plain tensors ({type(error).__name__}), and other files could "
            f"run code; save its state_dict as safetensors where it can be trusted"
        ) from error
    if isinstance(table, (tuple, list)) and table:
        table = table[0]
    for wrap in ("state_dict", "model", "module"):
        if isinstance(table, Mapping) and isinstance(table.get(wrap), Mapping):
            table = table[wrap]
    if not isinstance(table, Mapping):
        raise AvscError(f"{file}: holds {type(table).__name__}, not a table of tensors")
    tensors = {name: value for name, value in table.items() if isinstance(value, Tensor)}
    if not tensors:
        raise AvscError(f"{file}: holds no tensors")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _numpy_data() -> list:
    scalar, array = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]
    allowed = [np.dtype, np.ndarray, *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd")]
    for home in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed += [(scalar, f"{home}.scalar"), (array, f"{home}._reconstruct")]
    return allowed


def match(file: Path, tensors: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """The tensors, if their names and shapes are the net's. Counters of batches, which old files lack and nothing uses,
    are taken from the net. Raises AvscError that names the first difference."""
    own = net.state_dict()
    counters = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    tensors = counters | tensors
    for name, value in own.items():
        if name not in tensors:
            raise AvscError(f"{file}: lacks {name}, so it is of another net")
        if tensors[name].shape != value.shape:
            given, needed = tuple(tensors[name].shape), tuple(value.shape)
            raise AvscError(f"{file}: its {name} is {given}, the net's is {needed}; another front end, or another net?")
    extra = [name for name in tensors if name not in own]
    if extra:
        raise AvscError(f"{file}: has {extra[0]}, which the net does not, so it is of another one")
    return tensors
