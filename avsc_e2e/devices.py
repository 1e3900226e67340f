"""The device that a process computes on, and the arithmetic that its networks use there."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Literal

import torch

from avsc_e2e.errors import AvscError

Precision = Literal["auto", "fp32", "fp16", "bf16"]
"""Arithmetic of trunks and heads; auto: bf16 on a GPU that has it, fp16 on other GPUs, fp32 without a GPU."""

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def device(name: str = "") -> torch.device:
    """The device of that name, such as cuda:1 or cpu; by default this process's GPU, or the CPU if there is none.
    Raises AvscError for a device that does not exist."""
    if not name:
        local = int(os.environ.get("LOCAL_RANK", 0))
        return torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    try:
        found = torch.device(name)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise AvscError(f"--device {name}: there is no such device here; use cpu, cuda or cuda:N") from error
    return found


def resolved(precision: Precision, where: torch.device | None = None) -> Literal["fp32", "fp16", "bf16"]:
    """The precision that `auto` means on a device. Emulated bf16 is slower than fp32 and is not used."""
    if precision != "auto":
        return precision
    if (where or device()).type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def autocast(precision: Precision, where: torch.device) -> AbstractContextManager:
    """Within it, networks on a device compute in a precision. The CPU has no fp16: it takes fp32 in its place."""
    dtype = DTYPES.get(resolved(precision, where))
    if dtype is torch.float16 and where.type != "cuda":
        dtype = None
    return torch.autocast(where.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
