"""Hours, node hours and losses of preparing and training on many nodes, by a discrete-event simulation (simpy).

    python benchmarks/scale.py [--nodes 1 8 64] [--clips 1e7 1e9] [--decode 0.12] [--train 1000] ...
    python benchmarks/scale.py --check [--files 60]

The rates are those that the other benchmarks print; measure them on the machines in question and give them here:
`--decode`, core seconds for a clip of `avsc data prepare` (`preparing.py`: 1.2 s for a recording of ten); `--read`,
clips/s of a loader process (`loading.py`); `--megabytes` of a clip in the store; `--train`, clips/s of the engine on
one GPU (`training.py`; the default is an assumption, since no GPU was at hand). `--network` is GB/s of a node, `--days`
the mean time between two losses of a node.

Preparing: each core takes the next shard; a lost node loses the shards in hand, which others write again, and is back
after `--back` minutes. Training, one epoch: all GPUs make a step together, at the rate of what is slowest, network,
reading or GPU; each loss of a node ends the attempt, costs the steps since the last save and `--restart` seconds, and
the run goes on with the nodes that are left until the lost one is back. More than `--most` events are scaled: so many
shards are drawn together as one.

`--check` renders short files, measures what one process takes for them, and compares the simulation's time with that of
real clusters of one and two Ray nodes on this machine. Needs simpy; the check also the extra `ray`.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simpy


class Preparing(NamedTuple):
    seconds: float
    """On the clock."""
    idle: float
    """Share of the cores' time in which they wait."""
    again: float
    """Share of the shards that was begun again."""


def prepare_time(
    nodes: int, cores: int, shards: int, work: float, mean_loss: float, back: float, seed: int = 0, most: int = 50_000
) -> Preparing:
    """Of shards that take `work` seconds of a core each, a third more or less; `mean_loss` and `back` in seconds."""
    together = max(1, -(-shards // most))
    count, draw = -(-shards // together), np.random.default_rng(seed)
    left = (work * together * draw.uniform(2 / 3, 4 / 3, count)).tolist()
    world = simpy.Environment()
    done, busy, again = 0, 0.0, 0

    def core(life: list[simpy.Event]):
        nonlocal done, busy, again
        while left:
            seconds, begin = left.pop(), world.now
            ended = world.timeout(seconds)
            yield ended | life[0]
            if ended.processed:
                busy, done = busy + seconds, done + 1
            else:
                left.append(seconds)
                again += 1
                busy += (world.now - begin) % (seconds / together)
                yield world.timeout(back)

    def node(life: list[simpy.Event]):
        while done < count:
            yield world.timeout(draw.exponential(mean_loss))
            life[0].succeed()
            life[0] = world.event()
            yield world.timeout(back)

    finished = []
    for _ in range(nodes):
        life = [world.event()]
        finished += [world.process(core(life)) for _ in range(min(cores, count))]
        world.process(node(life))
    world.run(until=simpy.AllOf(world, finished))
    return Preparing(world.now, max(0.0, 1 - busy / (world.now * nodes * cores)), again / count)


class Training(NamedTuple):
    seconds: float
    lost: float
    """Share of the time that was learned twice, or spent on starting again."""
    losses: int
    """Of nodes."""


def train_time(
    nodes: int, rate: float, clips: float, save: float, mean_loss: float, back: float, restart: float, seed: int = 0
) -> Training:
    """Of `clips` at `rate` clips/s a node; saved each `save` seconds, everything in seconds."""
    world, draw = simpy.Environment(), np.random.default_rng(seed)
    here, learned, kept, losses = nodes, 0.0, 0.0, 0
    wasted = 0.0

    def returns():
        nonlocal here
        yield world.timeout(back)
        here += 1

    def run():
        nonlocal here, learned, kept, losses, wasted
        while learned < clips:
            if not here:
                yield world.timeout(back / 10)
                wasted += back / 10
                continue
            step, alive = min(save, (clips - learned) / (rate * here)), draw.exponential(mean_loss / here)
            if alive > step:
                yield world.timeout(step)
                learned = kept = learned + step * rate * here
                continue
            yield world.timeout(alive + restart)
            learned, losses, here = kept, losses + 1, here - 1
            wasted += alive + restart
            world.process(returns())

    world.run(until=world.process(run()))
    return Training(world.now, wasted / world.now, losses)


def table(asked: argparse.Namespace) -> None:
    day = 86_400.0
    cost = f", at {asked.price:g} a node hour" if asked.price else ""
    print(f"simulated, {asked.cores} cores and {asked.gpus} GPUs a node{cost}")
    print("   clips nodes    prepare   idle  again       epoch   lost bound by  node hours      cost")
    for clips in asked.clips:
        for nodes in asked.nodes:
            per_shard = 140
            made = prepare_time(
                nodes, asked.cores, int(clips / per_shard), per_shard * asked.decode, asked.days * day, asked.back * 60
            )
            rates = {
                "GPU": asked.train * asked.gpus,
                "reading": asked.read * (asked.cores - asked.gpus),
                "network": asked.network * 1000 / asked.megabytes,
            }
            bound = min(rates, key=rates.get)
            drawn = [
                train_time(
                    nodes, rates[bound], clips, asked.save, asked.days * day, asked.back * 60, asked.restart, seed
                )
                for seed in range(20)
            ]
            epoch, lost = (float(np.mean([getattr(one, name) for one in drawn])) for name in ("seconds", "lost"))
            hours = (made.seconds + asked.epochs * epoch) * nodes / 3600
            prepare = f"{made.seconds / 3600:7.1f} h {100 * made.idle:4.1f} % {100 * made.again:4.1f} %"
            train = f"{epoch / 3600:7.2f} h {100 * lost:4.1f} % {bound:>8}"
            print(f"{clips:8.0e} {nodes:5d}  {prepare}   {train}  {hours:10.0f}{hours * asked.price:10.0f}", flush=True)


def check(files: int) -> None:
    """Real clusters of one and of two nodes of a core each beside the simulation."""
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_agent_register_timeout_ms", "300000")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")
    os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
    import ray
    from cluster import render
    from ray.cluster_utils import Cluster

    from avsc_e2e.data.store.prepare import prepare
    from avsc_e2e.data.store.shard import Options

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        render(root / "set", files)
        size, found = 1 << 17, {}
        for nodes in (1, 2):
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
            for _ in range(nodes - 1):
                cluster.add_node(num_cpus=1)
            os.environ["RAY_ADDRESS"] = cluster.address
            render(root / "warm", 8)
            prepare(root / "warm", root / f"warm-{nodes}", Options(120), engine="ray", shard_size=1)  # processes start
            begin = time.monotonic()
            prepare(root / "set", root / f"store-{nodes}", Options(120), engine="ray", shard_size=size)
            found[nodes] = time.monotonic() - begin
            ray.shutdown()
            cluster.shutdown()
        shards = len(list((root / "store-1").glob("*.tar")))
    work = found[1] / shards
    for nodes, seconds in found.items():
        told = prepare_time(nodes, 1, shards, work, 1e12, 0.0).seconds
        print(f"{nodes} nodes, {shards} shards: {seconds:.1f} s, simulated {told:.1f} s, ratio {told / seconds:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--clips", type=float, nargs="+", default=[1e7, 1e9])
    parser.add_argument("--cores", type=int, default=16)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--decode", type=float, default=0.12)
    parser.add_argument("--read", type=float, default=270)
    parser.add_argument("--megabytes", type=float, default=0.5)
    parser.add_argument("--train", type=float, default=1000)
    parser.add_argument("--network", type=float, default=1.0)
    parser.add_argument("--days", type=float, default=30)
    parser.add_argument("--back", type=float, default=10)
    parser.add_argument("--restart", type=float, default=120)
    parser.add_argument("--save", type=float, default=600)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--price", type=float, default=0)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--files", type=int, default=60)
    asked = parser.parse_args()
    check(asked.files) if asked.check else table(asked)
