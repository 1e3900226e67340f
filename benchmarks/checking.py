"""Time `avsc data check --fast` on a tree with the names of the whole development set and tiny media.

    python benchmarks/checking.py METADATA [FOLDER]

METADATA is the folder of the real meta.csv and evaluation_setup/; the tree, about 100 MB, goes to FOLDER or to a
temporary one. Each sound is a 10 s WAV of the real format whose silence is a hole in the file, each video 10 s of
32 x 32 pixels.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import soundfile

from avsc_e2e.data.check.check import check
from avsc_e2e.data.sets.tau import read_tau
from avsc_e2e.data.sets.taulayout import find_layout, read_meta


def write_media(folder: Path) -> tuple[bytes, int, bytes]:
    soundfile.write(folder / "sound.wav", np.zeros((480_000, 2)), 48_000, subtype="PCM_24")
    with av.open(str(folder / "video.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30, width=32, height=32, pix_fmt="yuv420p")
        for _ in range(300):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        container.mux(stream.encode())
    sound = (folder / "sound.wav").read_bytes()
    return sound[:4096], len(sound), (folder / "video.mp4").read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metadata", type=Path)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(dir=options.folder)) / "set"
    try:
        shutil.copytree(options.metadata, root, copy_function=shutil.copyfile)
        for folder in ("audio", "video"):
            (root / folder).mkdir()
        header, length, video = write_media(root.parent)
        entries = read_meta(find_layout(root))
        for entry in entries.values():
            with open(root / entry.audio, "wb") as file:
                file.write(header)
                file.truncate(length)
            (root / entry.video).write_bytes(video)
        times: dict[str, list[float]] = {"read_tau": [], "check, fast": []}
        for _ in range(options.rounds):
            start = time.perf_counter()
            read_tau(root)
            times["read_tau"].append(time.perf_counter() - start)
            # A new name makes new paths, so that no header is remembered from the round before.
            root = root.rename(root.with_name(root.name + "_"))
            start = time.perf_counter()
            result = check(root, fast=True)
            times["check, fast"].append(time.perf_counter() - start)
        print(result.table())
        for name, seconds in times.items():
            print(f"{name:12} {len(entries)} clips, median of {len(seconds)}: {statistics.median(seconds):6.2f} s")
    finally:
        shutil.rmtree(root.parent)


if __name__ == "__main__":
    main()
