"""Reading a store shard after shard over a slow network, beside random order and shards on this disk.

    python benchmarks/streaming.py [--clips 400] [--late 20] [--workers 2] [--rounds 3]
    python benchmarks/streaming.py --train [--seeds 0 1 2] [--epochs 6]

It renders a toy city, prepares a store and serves it over HTTP from a process of its own that answers `--late`
milliseconds late. The loaders read the same clips, with as many worker processes: in random order over HTTP, streamed
over HTTP, and streamed from the folder. They take turns; clips/s are on the wall, their ratios the medians over rounds,
and memory is that of the loader's processes at the end of the first and of the last epoch of the streamed one.
`--train` trains a tiny model on the toy city in both orders and prints the validation log loss of each seed.
"""

import argparse
import dataclasses
import multiprocessing
import os
import statistics
import tempfile
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from avsc_e2e.data.dataset import ClipDataset, Sampling
from avsc_e2e.data.loader import loader
from avsc_e2e.data.sampler import Streaming
from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.data.store.cache import ShardCache
from avsc_e2e.data.store.prepare import Options, prepare
from avsc_e2e.data.store.reader import open_store
from avsc_e2e.models.zoo.own import tiny
from avsc_e2e.toycity.city import ToyCity
from avsc_e2e.training.recipe import Data, Recipe
from avsc_e2e.training.trainer import train

SIDE = 64


class Late(SimpleHTTPRequestHandler):
    """Files, or a range of one, some time after they are asked for."""

    protocol_version = "HTTP/1.1"
    late = 0.0

    def do_GET(self):
        time.sleep(self.late)
        data = Path(self.translate_path(self.path))
        if not data.is_file():
            return self.send_error(404)
        size = data.stat().st_size
        begin, end = 0, size - 1
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(int(last or end), end)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(end - begin + 1))
        self.send_header("Content-Range", f"bytes {begin}-{end}/{size}")
        self.end_headers()
        with open(data, "rb") as file:
            file.seek(begin)
            self.wfile.write(file.read(end - begin + 1))

    def log_message(self, *_):
        pass


def serve(folder: str, late: float, port) -> None:
    Late.late = late
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Late, directory=folder))
    port.send(server.server_address[1])
    server.serve_forever()


def memory() -> float:
    """MB of this process and its children that no other process has."""
    total = 0
    for pid in [os.getpid(), *(child.pid for child in multiprocessing.active_children())]:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return total / 1024


def batches(place: str, order: str, windows: int, workers: int, buffer: int):
    """A loader of the training set's clips."""
    corpus, store = read_corpus(place, validation=0.0, test=0.0), open_store(place)
    want = Sampling(short_side=SIDE, sample_rate=48_000)
    dataset = ClipDataset(corpus.train, corpus.classes, want, windows=windows, store=store)
    streaming = None
    if order == "stream":
        fetch = None
        if "://" in place:
            cache = ShardCache(store.shards, store.recordings.shards, "", 2e9)
            dataset.store, fetch = dataclasses.replace(store, shards=cache), cache.fetch
        streaming = Streaming(dataset.shards(), buffer, fetch)
    return loader(dataset, 16, shuffle=True, workers=workers, streaming=streaming)


def network(root: Path, asked: argparse.Namespace) -> None:
    ToyCity(train_locations=8, test_locations=1, duration=10.0, height=96, width=128).render(root / "city", workers=1)
    prepare(root / "city", root / "store", Options(SIDE), workers=1, shard_size=1 << 20)
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(str(root), asked.late / 1000, there), daemon=True
    )
    server.start()
    url = f"http://127.0.0.1:{here.recv()}/store"
    windows = max(asked.clips // 80, 1)
    ways = {
        "random over HTTP": batches(url, "random", windows, asked.workers, 100),
        "stream over HTTP": batches(url, "stream", windows, asked.workers, 100),
        "stream from the folder": batches(str(root / "store"), "stream", windows, asked.workers, 100),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    used: list[float] = []
    for epoch in range(asked.rounds + 1):  # the first starts the processes
        for name, way in ways.items():
            way.sampler.set_epoch(epoch)
            begin = time.monotonic()
            clips = sum(len(batch.file) for batch in way)
            if epoch:
                rates[name].append(clips / (time.monotonic() - begin))
        used.append(memory())
    for name, values in rates.items():
        print(f"{name:<24} {statistics.median(values):8.1f} clips/s of {clips} clips an epoch")
    for rival, name in (("random over HTTP", "random over HTTP"), ("stream from the folder", "shards on this disk")):
        ratio = statistics.median(a / b for a, b in zip(rates["stream over HTTP"], rates[rival], strict=True))
        print(f"stream over HTTP / {name}: {ratio:.2f}")
    print(f"memory: {used[0]:.0f} MB after the first epoch, {used[-1]:.0f} MB after the last")
    server.kill()


def figures(root: Path, asked: argparse.Namespace) -> None:
    ToyCity(train_locations=6, test_locations=1, duration=4.0, height=64, width=80).render(root / "city", workers=1)
    prepare(root / "city", root / "store", Options(36), workers=1, shard_size=1 << 18)
    found: dict[str, list[float]] = {"random": [], "stream": []}
    for seed in asked.seeds:
        for order in found:
            recipe = Recipe(
                f"{order}-{seed}",
                model=dataclasses.replace(tiny(), size=32),
                data=Data(store=str(root / "store"), workers=0, order=order, buffer=24, windows=4, validation="0.3"),
                epochs=asked.epochs,
                batch_size=16,
                pretrained=False,
                precision="fp32",
                seed=seed,
                runs=str(root / "runs"),
            )
            train(recipe)
            rows = (root / "runs" / recipe.name / "metrics.csv").read_text().splitlines()
            best = min(
                float(dict(zip(rows[0].split(","), row.split(","), strict=True))["validation_log_loss"])
                for row in rows[1:]
            )
            found[order].append(best)
            print(f"{order} seed {seed}: validation log loss {best:.3f}", flush=True)
    spread = max(max(values) - min(values) for values in found.values())
    random_, stream = (statistics.mean(found[order]) for order in ("random", "stream"))
    print(f"toy city (synthetic), means: random {random_:.3f}, stream {stream:.3f}; spread of seeds {spread:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--late", type=float, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (figures if asked.train else network)(Path(folder), asked)
