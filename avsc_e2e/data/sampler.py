"""The order of an epoch's clips: shuffled or shard after shard, balanced by class, and divided among processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from avsc_e2e.data.dataset import Key


@dataclass(frozen=True)
class Streaming:
    """How an epoch goes through shards: in an order drawn for the epoch, each process through a run of them, and in
    random order over as many shards at a time as hold `buffer` clips.

    WebDataset's reader, and those like it, lack what is asked of a run here: they read a shard from its first member to
    its last, so a clip is a whole recording and not a window of it that a key draws, and after an interruption they
    begin their shards again. Here the order is a function of (seed, epoch), so a position in it is one number, and a
    clip is read by its key, as in random order: the clips of an epoch are the same."""

    shards: np.ndarray
    """(length,) number of the shard of each index."""
    buffer: int
    """Clips."""
    fetch: Callable[[Sequence[int], Sequence[int]], None] | None = None
    """Called with the numbers of the shards that are read next, and of those after them, before a clip is."""


@dataclass(frozen=True)
class Position:
    """Where in an epoch a run goes on."""

    epoch: int
    taken: tuple[tuple[int, int], ...]
    """Processes, and clips that each of them has taken, for each time that their number changed."""

    def with_more(self, replicas: int, clips: int) -> Position:
        """After so many clips more of each process."""
        *before, (last, taken) = self.taken or ((replicas, 0),)
        if last == replicas:
            return Position(self.epoch, (*before, (last, taken + clips)))
        return Position(self.epoch, (*self.taken, (replicas, clips)))


class KeyedSampler(Sampler[Key]):
    """Keys of an epoch, shuffled by (seed, epoch) in training; each of `replicas` processes gets its own part. In
    training the parts are of equal length (the last few clips of an epoch may be left out), in evaluation every clip is
    in exactly one. `balance`, from 0 to 1, is the degree to which an epoch draws all `classes` (length,) equally
    often. `streaming` takes the clips of one shard after the other. In the epoch of `position` what was taken is left
    out, and where the number of processes has changed since, the rest is divided anew."""

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
        streaming: Streaming | None = None,
        position: Position | None = None,
    ):
        self.length, self.shuffle, self.seed, self.rank, self.replicas = length, shuffle, seed, rank, replicas
        self.balance, self.epoch, self.streaming, self.position = balance, 0, streaming, position
        _, self.classes, counts = np.unique(np.array(classes), return_inverse=True, return_counts=True)
        self.weights = (1.0 / counts[self.classes]) ** balance if len(counts) else np.ones(length)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Key]:
        order, repeats = self._order()
        if not self.streaming:
            return (Key(self.epoch, int(i), int(n)) for i, n in zip(order, repeats, strict=True))
        return (Key(self.epoch, int(index)) for group in self._fetched(order, self.streaming) for index in group)

    def _fetched(self, order: np.ndarray, streaming: Streaming) -> Iterator[np.ndarray]:
        """The clips of this process, in runs of shards that are there when they are read."""
        groups = self._groups(order, streaming.shards[order])
        shards = [np.unique(streaming.shards[group]).tolist() for group in groups]
        for group, now, then in zip(groups, shards, [*shards[1:], []], strict=True):
            if streaming.fetch:
                streaming.fetch(now, then)
            yield group

    def _groups(self, order: np.ndarray, of_shard: np.ndarray) -> list[np.ndarray]:
        """An order cut where its shuffled runs of shards end: where no later clip is of a shard that came before."""
        _, shards = np.unique(of_shard, return_inverse=True)
        last = np.zeros(shards.max(initial=-1) + 1, int)
        last[shards] = np.arange(len(order))  # of repeated places the last one counts
        reach = np.maximum.accumulate(last[shards])
        return np.split(order, np.flatnonzero(reach == np.arange(len(order)))[:-1] + 1) if len(order) else []

    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        """The indices that this process takes, and which repeat of its index each one is."""
        order = np.arange(self.length)
        repeats = np.zeros(self.length, int)
        if not self.shuffle:
            return order[self.rank :: self.replicas], repeats[self.rank :: self.replicas]
        draw = np.random.default_rng((self.seed, self.epoch))
        if self.streaming:
            of = self.streaming.shards
            places = draw.permutation(of.max(initial=-1) + 1)
            order = np.argsort(places[of], kind="stable")
        else:
            order = draw.permutation(self.length)
        if self.balance > 0:
            order, repeats = self._weighted(order, draw)
        pairs = np.stack([order, repeats], axis=1)
        taken = self.position.taken if self.position and self.position.epoch == self.epoch else ()
        for replicas, clips in taken:
            if replicas == self.replicas and (replicas, clips) == taken[-1]:
                part = self._part(pairs, self.rank, replicas)[clips:]
                return part[:, 0], part[:, 1]
            pairs = np.concatenate([self._part(pairs, rank, replicas)[clips:] for rank in range(replicas)])
        part = self._part(pairs, self.rank, self.replicas)
        return part[:, 0], part[:, 1]

    def _part(self, pairs: np.ndarray, rank: int, replicas: int) -> np.ndarray:
        """What one of so many processes takes of (index, repeat) pairs: every n-th; of a stream a run of it, shuffled
        over as many shards at a time as hold the buffer's clips."""
        each = len(pairs) // replicas
        if not self.streaming:
            return pairs[: each * replicas][rank::replicas]
        part = pairs[rank * each : (rank + 1) * each]
        draw = np.random.default_rng((self.seed, self.epoch, replicas, rank))
        ends = np.flatnonzero(np.diff(self.streaming.shards[part[:, 0]], append=-1)) + 1
        cuts, begin = [], 0
        for end in ends.tolist():
            if end - begin >= self.streaming.buffer:
                cuts.append(begin := end)
        return np.concatenate([draw.permutation(group) for group in np.split(part, cuts)]) if len(part) else part

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
