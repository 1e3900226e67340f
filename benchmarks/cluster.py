"""A Ray cluster of two nodes on this machine beside one process: the same output, once each, also when a node is lost.

    python benchmarks/cluster.py [--files 2000] [--kills 5] [--seed 0]

It renders short videos with audio, prepares a store of them (`--shard-mb` of media in a shard) and predicts them with
an untrained tiny model (64 files in a part): by the engine `local`, on a cluster, and on clusters of which a node is
killed at a random moment of the work. It prints whether every output has the bytes of the first, how often each
recording is in it, and the processor time of the work against `local`: of all processes of the cluster, and of all but
those that run it. Needs the extra `ray`.
"""

import argparse
import os
import random
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # that of this process, or a loaded machine starves the tasks
os.environ.setdefault("RAY_agent_register_timeout_ms", "300000")
os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")

import av
import numpy as np
import pyarrow.parquet
import ray
import torch
from ray.cluster_utils import Cluster

from avsc_e2e.data.store.layout import read_manifest
from avsc_e2e.data.store.prepare import prepare
from avsc_e2e.data.store.shard import Options
from avsc_e2e.models.weights.checkpoint import save_model
from avsc_e2e.models.zoo.catalogue import create_model
from avsc_e2e.prediction import predict_parts

TICK = os.sysconf("SC_CLK_TCK")


def render(root: Path, count: int) -> None:
    """Videos of a second, 160 x 120 pixels, 25 frames, with a tone; no two alike."""
    draw = np.random.default_rng(0)
    for number in range(count):
        path = root / ("park", "tram")[number % 2] / f"{number:05d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        base = draw.integers(0, 256, (12, 16, 3), np.uint8).repeat(10, 0).repeat(10, 1)
        tone = 0.3 * np.sin(2 * np.pi * draw.uniform(100, 4000) * np.arange(48_000) / 48_000).astype(np.float32)
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
            audio = container.add_stream("aac", rate=48_000, layout="mono")
            for index in range(25):
                container.mux(video.encode(av.VideoFrame.from_ndarray(np.roll(base, index, 1), "rgb24")))
            container.mux(video.encode())
            for begin in range(0, 48_000, 1024):
                frame = av.AudioFrame.from_ndarray(tone[None, begin : begin + 1024], "fltp", "mono")
                frame.sample_rate, frame.pts = 48_000, begin
                container.mux(audio.encode(frame))
            container.mux(audio.encode())


class Meter:
    """Seconds of the processor of this process and its descendants, looked at ten times a second."""

    def __enter__(self):
        self.used: dict[int, tuple[str, float]] = {}
        self.before = {pid: seconds for pid, (_, seconds) in _descendants().items()}
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.over.wait(0.1):
            self.used |= _descendants()

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        self.used |= _descendants()

    def seconds(self, tasks: bool = False) -> float:
        """Of all, or of all but the processes that run a cluster."""
        own = [
            seconds - self.before.get(pid, 0.0)
            for pid, (name, seconds) in self.used.items()
            if not (tasks and name in ("raylet", "gcs_server", "ray::DashboardA", "ray::RuntimeEnv"))
        ]
        return sum(own)


def _descendants() -> dict[int, tuple[str, float]]:
    """Process -> its name and seconds."""
    found, parents = {}, {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            name, _, rest = Path("/proc", entry, "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        cells = rest.split()
        parents[int(entry)] = int(cells[1])
        found[int(entry)] = name, (int(cells[11]) + int(cells[12])) / TICK

    def ours(pid: int) -> bool:
        while pid > 1 and pid != os.getpid():
            pid = parents.get(pid, 0)
        return pid == os.getpid()

    return {pid: value for pid, value in found.items() if ours(pid)}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def kill_after(cluster: Cluster, node: object, seconds: float) -> threading.Timer:
    timer = threading.Timer(seconds, lambda: cluster.remove_node(node, allow_graceful=False))
    timer.start()
    return timer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--shard-mb", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        render(root / "set", asked.files)
        save_model(create_model("tiny").eval(), root / "model.safetensors", {"recipe": "{}"})

        def work(name: str, engine: str) -> tuple[float, float]:
            """Prepare and predict; seconds on the wall of each."""
            begin = time.monotonic()
            size = round(asked.shard_mb * 2**20)
            prepare(root / "set", root / f"store-{name}", Options(120), engine=engine, workers=1, shard_size=size)
            middle = time.monotonic()
            predict_parts(root / "model.safetensors", root / "set", root / f"out-{name}", engine=engine, workers=1)
            return middle - begin, time.monotonic() - middle

        with Meter() as local:
            walls = work("local", "local")
        print(f"local: {walls[0]:.0f} s to prepare, {walls[1]:.0f} s to predict", flush=True)
        for run in range(asked.kills + 1):
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
            node = cluster.add_node(num_cpus=1)
            os.environ["RAY_ADDRESS"] = cluster.address
            moment = draw.uniform(0.1, 0.9) * sum(walls) if run else 0.0
            with Meter() as spread:
                timer = kill_after(cluster, node, moment) if run else None
                seconds = work(str(run), "ray")
                if timer:
                    timer.join()
            ray.shutdown()
            cluster.shutdown()
            same = [contents(root / f"{kind}-{run}") == contents(root / f"{kind}-local") for kind in ("store", "out")]
            stored = Counter(file for shard in read_manifest(root / f"store-{run}")["shards"] for file in shard)
            tables = [
                pyarrow.parquet.read_table(path, columns=["file"]) for path in (root / f"out-{run}").glob("*.parquet")
            ]
            listed = Counter(file for table in tables for file in table["file"].to_pylist())
            once = set(stored.values()) == {1} == set(listed.values())
            print(
                f"{f'node killed after {moment:.0f} s' if run else 'two nodes'}: {sum(seconds):.0f} s; bytes of local: "
                f"store {same[0]}, predictions {same[1]}; {len(stored)} and {len(listed)} of {asked.files} recordings, "
                f"each once: {once}; processor time {spread.seconds() / local.seconds():.2f} of local, of its tasks "
                f"{spread.seconds(tasks=True) / local.seconds():.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
