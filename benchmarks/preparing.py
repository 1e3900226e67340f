"""How fast `avsc data prepare` is, beside a bare sequential pass of decord over the same files.

    python benchmarks/preparing.py [--clips 4] [--seconds 10] [--rounds 5]

It renders 720p30 H.264 at about 5 Mbit/s with a key frame every 15 frames and 24-bit stereo audio at 48 kHz. The bare
pass opens each video at 256 pixels' shorter side and takes every frame, one after the other; prepare decodes the same,
writes 5 JPEGs a second, the audio and the index. Both take turns, file by file. Times are of the processor, all threads
and processes; the time on the wall stands beside them. Two processes are compared with one on the wall, on both sides
without the time that starting takes, which a run over two recordings of a second tells; that needs two free cores. What
the machine has to give is told by the rival: two bare passes in processes of their own, begun at once, beside one.
"""

import argparse
import multiprocessing
import os
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import decord
import numpy as np
from loading import SIDE, render_set

from avsc_e2e.data import media
from avsc_e2e.data.media.source import fitted
from avsc_e2e.data.store.prepare import prepare

CLIPS, EVALUATION_CLIPS = 12_291, 72_000
"""Recordings of ten seconds of the development set, and of one second of the evaluation set."""

COPIES = 4
"""Of each recording, where two processes are beside one: so many that neither waits long for the other at the end."""


def used() -> np.ndarray:
    """Seconds of the processor, of this process and its ended children, and on the wall."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return np.array([own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, time.perf_counter()])


def bare_pass(path: str) -> np.ndarray:
    begin = used()
    header = media.probe(path)
    width, height = fitted(header.width, header.height, SIDE)
    reader = decord.VideoReader(path, num_threads=1, width=width, height=height)
    for _ in range(len(reader)):
        reader.next().asnumpy()
    return used() - begin


def bare_passes(paths: list[str], ready, start, walls) -> None:
    """In a process of its own: every recording once more, when all are ready."""
    bare_pass(paths[0])
    ready.release()
    start.wait()
    begin = time.perf_counter()
    for path in paths:
        bare_pass(path)
    walls.put(time.perf_counter() - begin)


def bare_scaling(paths: list[str]) -> float:
    """How many times the recordings that one process passes over in a time two pass over at once."""
    context, seconds = multiprocessing.get_context("spawn"), []
    for count in (1, 2):
        ready, start, walls = context.Semaphore(0), context.Event(), context.Queue()
        passes = [context.Process(target=bare_passes, args=(paths, ready, start, walls)) for _ in range(count)]
        for process in passes:
            process.start()
        for _ in passes:
            ready.acquire()
        start.set()
        seconds.append(max(walls.get() for _ in passes))
        for process in passes:
            process.join()
    return 2 * seconds[0] / seconds[1]


def prepared(root: Path, store: Path, workers: int) -> tuple[np.ndarray, int]:
    begin = used()
    size = prepare(root, store, workers=workers, shard_size=1).size
    return used() - begin, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = render_set(Path(scratch) / "set", 15, options.clips, options.seconds)
        roots = []
        for row in rows:  # a set of its own for each recording, for the turns
            folder = Path(scratch) / row.location / "scene"
            folder.mkdir(parents=True)
            for path in (row.video, row.audio):
                (folder / Path(path).name).symlink_to(path)
            roots.append(folder.parent)
        found: dict[str, list[np.ndarray]] = {"bare pass": [], "prepare": []}
        store = Path(scratch) / "store"
        for turn in range(options.rounds + 1):  # the first warms up
            total = {name: np.zeros(2) for name in found}
            for row, root in zip(rows, roots, strict=True):
                total["bare pass"] += bare_pass(row.video)
                seconds, _ = prepared(root, store, 1)
                total["prepare"] += seconds
                shutil.rmtree(store)
            for name, seconds in total.items():
                if turn:
                    found[name].append(seconds / len(rows))
        print(f"{len(rows)} recordings of {options.seconds} s, 720p30, medians of {options.rounds} rounds")
        print(f"  {'':22} {'processor':>9} {'wall':>14}")
        for name, rounds in found.items():
            cpu, wall = np.median(rounds, axis=0)
            print(f"  {name:22} {cpu:8.3f} s {wall:8.3f} s a recording")
        ratio = statistics.median(a[0] / b[0] for a, b in zip(found["bare pass"], found["prepare"], strict=True))
        print(f"  bare pass / prepare {ratio:11.2f}     at least 0.9: {'yes' if ratio >= 0.9 else 'NO'}")

        pairs = []
        render_set(Path(scratch) / "short", 15, 2, 1)
        many = Path(scratch) / "many" / "scene"  # the same files under several names, to be busy for a while
        many.mkdir(parents=True)
        for copy in range(COPIES):
            for row in rows:
                for path in (row.video, row.audio):
                    (many / f"{chr(97 + copy)}{Path(path).name}").symlink_to(path)
        for _ in range(options.rounds):
            walls = []
            for workers in (1, 2):
                seconds, size = prepared(many.parent, store, workers)
                shutil.rmtree(store)
                start, _ = prepared(Path(scratch) / "short", store, workers)
                shutil.rmtree(store)
                walls += (seconds - start).tolist()
            pairs.append((*walls, bare_scaling([row.video for row in rows])))
        _, one, _, two, most = np.median(pairs, axis=0)
        ratio = statistics.median(pair[1] / pair[3] for pair in pairs)
        print(
            f"  one process {one:.2f} s, two {two:.2f} s on the wall: {ratio:.2f} times as fast; at least 1.8 on two "
            f"free cores: {'yes' if ratio >= 1.8 else 'NO'}"
        )
        print(f"  two bare passes at once: {most:.2f} times as fast as one, which is what these cores give decord")
        each = size / (COPIES * len(rows))
        audio = options.seconds * 288_000
        print(f"  {each / 1e6:.2f} MB a recording, {audio / 1e6:.2f} MB of it audio")
        share = 10 / options.seconds
        print(f"  development set: {CLIPS * each * share / 1e9:.0f} GB, evaluation set: "
              f"{EVALUATION_CLIPS * each * share / 10e9:.0f} GB")  # fmt: skip
        cpu = np.median(found["prepare"], axis=0)[0] * share
        for cores in (2, 16, 64):
            print(f"  {cores:2} cores like these: {CLIPS * cpu / cores / 60:7.1f} min for the development set")


if __name__ == "__main__":
    main()
