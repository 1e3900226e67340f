"""Kill `prepare` at random moments, run it again, and compare the store with an unbroken one, byte by byte.

    python benchmarks/killed_prepare.py [--kills 20] [--seed 0]

A toy city of 40 recordings goes into shards of a few recordings each. A run, with one process or two by turns, is
killed 1, 2 or 3 times before one that may finish.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from avsc_e2e.data.store.prepare import Options, prepare
from avsc_e2e.toycity.city import ToyCity

OPTIONS, SHARD_SIZE = Options(short_side=160), 4 << 20
WORKER = """
import sys, time
import decord
from avsc_e2e.data.store.prepare import Options, prepare
if __name__ == "__main__":
    root, store, workers = sys.argv[1:]
    print("go", flush=True)
    begin = time.perf_counter()
    prepare(root, store, Options(short_side=160), workers=int(workers), shard_size=4 << 20)
    print(time.perf_counter() - begin, flush=True)
"""


def digest(root: Path) -> str:
    """Of names and contents of all that lies in a folder."""
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        total.update(str(path.relative_to(root)).encode() + b"\0" + (path.read_bytes() if path.is_file() else b""))
    return total.hexdigest()


def start(script: Path, root: Path, store: Path, workers: int) -> subprocess.Popen:
    """A run that has imported what it needs."""
    arguments = [sys.executable, script, root, store, str(workers)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    process.stdout.readline()
    return process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        root, script = scratch / "city", scratch / "run.py"
        script.write_text(WORKER)
        ToyCity(train_locations=3, test_locations=1, duration=3.0).render(root, workers=1)
        seconds = {}
        for workers in (1, 2):
            process = start(script, root, scratch / f"whole{workers}", workers)
            seconds[workers] = float(process.stdout.readline())
            process.wait()
        expected = digest(scratch / "whole1")
        same = digest(scratch / "whole2") == expected
        print(f"unbroken: {seconds[1]:.2f} s, with two processes {seconds[2]:.2f} s and the same bytes: {same}")
        killed, differing, trial = 0, 0, 0
        while killed < options.kills:
            store, moments = scratch / str(trial), []
            for _ in range(min(1 + trial % 3, options.kills - killed)):
                workers = 1 + (killed + trial) % 2
                process = start(script, root, store, workers)
                moment = draw.uniform(0, seconds[workers])
                time.sleep(moment)
                alive = process.poll() is None
                process.send_signal(signal.SIGKILL)
                process.wait()
                process.stdout.close()
                killed += alive
                whole = len(list(store.glob("*.tar")))
                begun = len(list(store.glob("*.tar.partial")))
                moments.append(f"{moment:.2f} s ({workers} proc.), {whole} shards whole, {begun} begun")
                if not alive:
                    moments[-1] += " (had finished)"
                    break
            done = prepare(root, store, OPTIONS, workers=1, shard_size=SHARD_SIZE)
            same = digest(store) == expected
            differing += not same
            told = "identical" if same else "DIFFERENT"
            print(
                f"trial {trial:2}: {told}, {done.decoded} of {done.clips} left, after {'; '.join(moments)}", flush=True
            )
            trial += 1
    print(f"{killed} kills in {trial} trials: {trial - differing} identical, {differing} different")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
