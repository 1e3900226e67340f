"""The order of an epoch's clips: shuffled, balanced by class, and divided among processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from avsc_e2e.data.dataset import Key


class KeyedSampler(Sampler[Key]):
    """Keys of an epoch, shuffled by (seed, epoch) in training; each of `replicas` processes gets its own part. In
    training the parts are of equal length (the last few clips of an epoch may be left out), in evaluation every clip is
    in exactly one. `balance`, from 0 to 1, is the degree to which an epoch draws all `classes` (length,) equally
    often."""

    def __init__(
        self,
        length: int,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        replicas: int = 1,
        classes: Sequence[str] = (),
        balance: float = 0.0,
    ):
        self.length, self.shuffle, self.seed, self.rank, self.replicas = length, shuffle, seed, rank, replicas
        self.balance, self.epoch = balance, 0
        _, self.classes, counts = np.unique(np.array(classes), return_inverse=True, return_counts=True)
        self.weights = (1.0 / counts[self.classes]) ** balance if len(counts) else np.ones(length)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Key]:
        order = np.arange(self.length)
        repeats = np.zeros(self.length, int)
        if self.shuffle:
            draw = np.random.default_rng((self.seed, self.epoch))
            order = draw.permutation(self.length)
            if self.balance > 0:
                order, repeats = self._weighted(order, draw)
            order = order[: self.length // self.replicas * self.replicas]
        part = slice(self.rank, None, self.replicas)
        return (
            Key(self.epoch, int(index), int(repeat)) for index, repeat in zip(order[part], repeats[part], strict=False)
        )

    def _weighted(self, order: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Systematic sampling: as many indices as there are, each drawn as often as its weight says, rounded up or down
        by one common random number, class by class, so that no class gets more than its share by chance. The second
        result is the number of each draw among the draws of its index."""
        order = order[np.argsort(self.classes[order], kind="stable")]
        ends = np.floor(np.cumsum(self.weights[order]) / self.weights.sum() * self.length + draw.random() + 1e-9)
        counts = np.diff(ends.astype(int), prepend=0)
        counts[-1] += self.length - counts.sum()
        indices = np.repeat(order, counts)
        repeats = np.concatenate([np.arange(count) for count in counts])
        shuffled = draw.permutation(self.length)
        return indices[shuffled], repeats[shuffled]

    def __len__(self) -> int:
        if self.shuffle:
            return self.length // self.replicas
        return len(range(self.rank, self.length, self.replicas))
