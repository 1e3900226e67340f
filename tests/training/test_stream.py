"""Reading shard after shard: the clips of random order, divided without duplicates, exact within an epoch."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support import tiny_recipe

from avsc_e2e.data.sampler import KeyedSampler, Position, Streaming
from avsc_e2e.data.store.cache import ShardCache
from avsc_e2e.data.store.prepare import Options, prepare
from avsc_e2e.data.store.reader import open_store
from avsc_e2e.errors import AvscError
from avsc_e2e.models.weights.checkpoint import read_checkpoint
from avsc_e2e.training.module import FineTuning
from avsc_e2e.training.recipe import Data
from avsc_e2e.training.trainer import train

SHARDS = np.repeat(np.arange(10), 7)
"""Ten shards of seven clips."""


def indices(rank: int = 0, replicas: int = 1, epoch: int = 0, position: Position | None = None, buffer: int = 14):
    sampler = KeyedSampler(
        70, shuffle=True, seed=3, rank=rank, replicas=replicas, streaming=Streaming(SHARDS, buffer), position=position
    )
    sampler.set_epoch(epoch)
    found = list(sampler)
    assert {key.epoch for key in found} <= {epoch}
    return [key.index for key in found]


def test_an_epoch_streams_the_clips_of_random_order():
    order = indices()
    assert sorted(order) == list(range(70))
    for first in range(0, 70, 14):  # two shards at a time, their clips mixed
        of = SHARDS[order[first : first + 14]]
        assert len(set(of)) == 2
        assert len(set(of[:7])) == 2
    assert order != indices(epoch=1)
    assert order == indices()
    three = [indices(rank, 3) for rank in range(3)]
    assert [len(part) for part in three] == [23] * 3
    assert len({i for part in three for i in part}) == 69
    assert sum(len(set(SHARDS[part])) for part in three) <= 12  # of ten shards two are divided


@pytest.mark.parametrize("streaming", [None, Streaming(SHARDS, 14)])
def test_position_leaves_out_what_was_taken(streaming):
    def part(rank, replicas, position=None):
        sampler = KeyedSampler(70, shuffle=True, rank=rank, replicas=replicas, streaming=streaming, position=position)
        return [key.index for key in sampler]

    whole = [part(rank, 2) for rank in range(2)]
    there = Position(0, ()).with_more(2, 10)
    assert [part(rank, 2, there) for rank in range(2)] == [order[10:] for order in whole]
    again = there.with_more(2, 5)
    assert part(1, 2, again) == whole[1][15:]
    assert again.taken == ((2, 15),)
    # Another process joins: what is left is divided anew, each clip once.
    left = {index for order in whole for index in order[10:]}
    three = [part(rank, 3, there) for rank in range(3)]
    assert [len(one) for one in three] == [16] * 3
    assert len({i for one in three for i in one}) == 48
    assert {i for one in three for i in one} <= left
    back = there.with_more(3, 6)
    assert back.taken == ((2, 10), (3, 6))
    assert len({i for rank in range(2) for i in part(rank, 2, back)} | {i for one in three for i in one[:6]}) == 48
    assert part(0, 2, Position(1, there.taken)) == whole[0]


@pytest.fixture(scope="module")
def store(toy_city, tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "store"
    prepare(toy_city, path, Options(short_side=36), workers=1, shard_size=1)
    return path


def test_shards_come_and_go(store, tmp_path):
    remote = open_store(f"file://{store}")
    names = remote.recordings.shards
    sizes = [remote.shards.sizes[name] for name in names]
    cache = ShardCache(remote.shards, names, str(tmp_path), 3.5 * max(sizes))
    span = [(512, 100)]
    want = [open_store(store).shards.parts(Path(store) / Path(name).name, span)[0].tobytes() for name in names]
    for number in range(6):
        cache.fetch([number], [number + 1])
        assert cache.parts(names[number], span)[0].tobytes() == want[number]
        assert sum(path.stat().st_size for path in cache.folder.iterdir()) <= cache.limit
    cache.fetch([5], [])
    assert cache.fetched <= 7
    assert cache.parts(names[9], span)[0].tobytes() == want[9]  # not there: from the URL
    with pytest.raises(AvscError, match=r"data.cache_size .*: the shards that data.buffer shuffles at a time have"):
        ShardCache(remote.shards, names, str(tmp_path), 10).fetch([0], [])


def test_killed_within_an_epoch_ends_with_the_same_bits(store, tmp_path, monkeypatch):
    """Of a URL's shards, with a moving average, gradients over two batches, and two kills."""
    data = Data(store=f"file://{store}", workers=0, order="stream", buffer=4, validation="0.5")
    base = tiny_recipe(Path(), tmp_path, data=data, epochs=2, batch_size=2, save_every=1)
    base = replace(base, optim=replace(base.optim, accumulate=2), averaging=replace(base.averaging, decay=0.9))
    train(replace(base, name="whole"))
    step, calls = FineTuning.training_step, []

    def dies(self, batch, index):
        calls.append(index)
        if len(calls) in (4, 9):
            raise RuntimeError("killed")
        return step(self, batch, index)

    monkeypatch.setattr(FineTuning, "training_step", dies)
    recipe = replace(base, name="killed")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="killed"):
            train(recipe, requeue=True)
    train(recipe, requeue=True)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    tensors = [read_checkpoint(folder / "model.safetensors")[0] for folder in (whole, killed)]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    rows = [list(csv.DictReader((folder / "metrics.csv").open())) for folder in (whole, killed)]
    assert [row | {"seconds": ""} for row in rows[0]] == [row | {"seconds": ""} for row in rows[1]]


def test_what_cannot_stream(toy_city, tmp_path):
    recipe = tiny_recipe(toy_city, tmp_path, data=Data(root=str(toy_city), workers=0, order="stream"))
    with pytest.raises(AvscError, match=r"data\.order stream: reads the shards of a store"):
        train(recipe)
    with pytest.raises(AvscError, match=r"leave out data\.balance"):
        Data(order="stream", balance=0.5)
