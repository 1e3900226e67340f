"""Outputs on the validation set, of all batches and processes. Axes: N clips, K classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from avsc_e2e.clip import Row
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.training.decision import fit_decision

Validated: TypeAlias = tuple[Tensor, Tensor, list[str], dict[str, Tensor]]
"""Targets (N,), whether both modalities are there (N,), files, and each head's probabilities (N, K)."""


def gathered(parts: Sequence[Validated], processes: int) -> Validated:
    """Those of all batches of all processes, each clip exactly once, in the same order in every process."""
    targets, both = torch.cat([found for found, *_ in parts]), torch.cat([found for _, found, *_ in parts])
    files = [name for _, _, names, _ in parts for name in names]
    heads = {name: torch.cat([values[name] for *_, values in parts]) for name in parts[0][3]}
    if processes == 1:
        return targets, both, files, heads
    every: list[Any] = [None] * processes  # parts of unequal length are gathered as objects
    mine = targets.cpu(), both.cpu(), files, {name: values.cpu() for name, values in heads.items()}
    torch.distributed.all_gather_object(every, mine)
    return gathered(every, 1)


def fitted(
    architecture: Architecture,
    probabilities: Mapping[str, Tensor],
    targets: Tensor,
    files: Sequence[str],
    rows: Sequence[Row],
) -> Architecture:
    """The architecture with the decision fitted on the heads' probabilities of clips of `rows`, by source."""
    source = {row.file: row.location or row.file for row in rows}
    return fit_decision(
        architecture,
        {name: values.cpu().double().numpy() for name, values in probabilities.items()},
        targets.cpu().numpy(),
        np.array([source[file] for file in files]),
    )
