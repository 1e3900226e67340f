"""Keyed randomness: a draw depends on its purpose only, not on the process that draws it or on earlier draws."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

CLIP_KEY, BATCH_KEY, STEP_KEY, WEIGHTS_KEY = range(4)
"""The purpose of a draw: the second number of its key, so that no two purposes share random numbers."""


@contextmanager
def keyed(*key: int) -> Iterator[np.random.Generator]:
    """Within the block `random`, `numpy.random` and torch's CPU generator are seeded by `key`; afterwards they continue
    as if nothing had been drawn. Yields a numpy generator of the same key. Keys are non-negative integers, such as
    (seed, epoch, index) for a clip and (seed, epoch, batch, rank) for a batch."""
    sequence = np.random.SeedSequence(key)
    words = sequence.generate_state(3)
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        random.seed(int(words[0]))
        np.random.seed(words[1])
        torch.default_generator.manual_seed(int(words[2]))  # torch.manual_seed would seed every GPU as well
        yield np.random.default_rng(sequence)
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
