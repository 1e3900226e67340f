"""Resident memory of the loader's processes at clip 500 and at clip 5,000, from media and from a store.

    python benchmarks/memory.py [--workers 2] [--clips 5000]

It renders 24 small videos of ten seconds with 24-bit stereo sound at 48 kHz (70 MB of sound, more than a process may
keep resident of a store) and goes through random windows with a crop, as training does. Resident memory is VmRSS of
/proc, which counts the pages of mapped files too.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import av
import numpy as np
import soundfile

from avsc_e2e.data.dataset import ClipDataset, Sampling
from avsc_e2e.data.loader import loader
from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.data.store.prepare import Options, prepare
from avsc_e2e.data.store.reader import open_store
from avsc_e2e.transforms.frames import RandomResizedCrop


def render(folder: Path, count: int) -> None:
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        name = folder / f"{chr(97 + number)}"
        soundfile.write(f"{name}.wav", draw.normal(0, 0.1, (480_000, 2)).clip(-1, 1), 48_000, subtype="PCM_24")
        with av.open(f"{name}.mp4", "w") as container:
            stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast", "g": "5"})
            stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
            for _ in range(100):
                picture = draw.integers(0, 256, (96, 128, 3), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            container.mux(stream.encode())


def resident(process: int) -> float:
    """MB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clips", type=int, default=5000)
    options = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "set"
        render(root / "scene", 24)
        prepare(root, Path(scratch) / "store", Options(short_side=96), workers=1, shard_size=4 << 20)
        corpus = read_corpus(root, validation=0, test=0)
        print(f"{'':10} {'process':10} {'clip 500':>12} {f'clip {options.clips}':>12}")
        for name, store in (("media", None), ("a store", open_store(Path(scratch) / "store"))):
            dataset = ClipDataset(
                corpus.train,
                corpus.classes,
                Sampling(short_side=96),
                RandomResizedCrop(size=64),
                windows=4,
                store=store,
            )
            batches = loader(dataset, 16, shuffle=True, workers=options.workers)
            seen, epoch, at_500 = 0, 0, {}
            while seen < options.clips:
                batches.sampler.set_epoch(epoch)
                for batch in batches:
                    seen += len(batch.file)
                    processes = {f"worker {n}": w.pid for n, w in enumerate(batches._iterator._workers)}
                    now = {"main": os.getpid()} | processes
                    if seen >= 500 and not at_500:
                        at_500 = {who: resident(process) for who, process in now.items()}
                epoch += 1
            for who, process in now.items():
                last = resident(process)
                growth = last / at_500[who] - 1
                worst = max(worst, growth)
                print(f"{name:10} {who:10} {at_500[who]:9.1f} MB {last:9.1f} MB {100 * growth:+6.1f} %")
            del batches
    print(f"largest growth {100 * worst:+.1f} %, at most 5: {'yes' if worst <= 0.05 else 'NO'}")
    sys.exit(worst > 0.05)


if __name__ == "__main__":
    main()
