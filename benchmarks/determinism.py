"""The same prediction and the same training clips twice on a busy machine: are they equal to the last bit?

    python benchmarks/determinism.py [--minutes 10] [--clips 200] [--loops 4]

It encodes a long H.264 file of numbered frames with a key frame every 240, on which a reader that gives up skipping
under load returns earlier frames. Beside busy loops, that file is predicted twice by a small model with random weights,
and an epoch of training clips is drawn twice by two loader processes. The frames of the clips are compared with their
numbers, too.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numbered
import numpy as np
import torch

import avsc_e2e
from avsc_e2e.clip import Clip, Row
from avsc_e2e.data.dataset import ClipDataset, Sampling
from avsc_e2e.data.loader import loader
from avsc_e2e.data.media import probe
from avsc_e2e.models.zoo.catalogue import create_model


def training_clips(path: Path, clips: int) -> list[Clip]:
    """An epoch of random windows, in batches, by two processes."""
    row = Row("long", str(path), str(path), "a", duration=probe(path).duration)
    dataset = ClipDataset(
        [row], ["a"], Sampling(sample_rate=16_000, channels=1, short_side=120, frames=2), windows=clips
    )
    return list(loader(dataset, 8, shuffle=True, workers=2))


def digest(batches: list[Clip]) -> str:
    """Of every bit of the clips, in their order."""
    found = hashlib.sha256()
    for batch in batches:
        for values in (batch.audio, batch.video.contiguous(), batch.start):
            found.update(values.numpy().tobytes())
    return found.hexdigest()


def wrong_frames(batches: list[Clip]) -> tuple[int, int]:
    """Frames whose number is not that of a part of their window, and frames."""
    wrong = count = 0
    for batch in batches:
        for start, frames in zip(batch.start.tolist(), batch.video, strict=True):
            for part, frame in enumerate(frames):
                number = numbered.read(frame.permute(1, 2, 0).numpy())
                begin, end = (int((start + (part + more) / len(frames)) * numbered.RATE + 1e-6) for more in (0, 1))
                wrong, count = wrong + (not begin <= number <= end), count + 1
    return wrong, count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--loops", type=int, default=4)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = create_model("tiny").eval()
    with tempfile.TemporaryDirectory() as folder:
        settings = (("preset", "ultrafast"), ("threads", "1"), ("g", "240"), ("keyint_min", "240"),
                    ("sc_threshold", "0"), ("bf", "2"))  # fmt: skip
        recipe = numbered.Recipe("long.mp4", options=settings)
        path = numbered.write(Path(folder), recipe, round(options.minutes * 60 * numbered.RATE))
        loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.loops)]
        try:
            predictions = [avsc_e2e.Predictor(model)(path) for _ in range(2)]
            epochs = [training_clips(path, options.clips) for _ in range(2)]
            load = os.getloadavg()[0]
        finally:
            for loop in loops:
                loop.kill()
        first, second = (np.stack([window.probabilities for window in one.windows]) for one in predictions)
        different = int((first != second).any(axis=1).sum())
        same = digest(epochs[0]) == digest(epochs[1])
        wrong, count = wrong_frames(epochs[0])
    print(f"{options.loops} busy loops on {os.cpu_count()} cores, load average {load:.1f}")
    print(f"prediction twice: {different} of {len(first)} windows differ in a bit")
    print(f"training clips twice: {options.clips} clips, {'identical' if same else 'DIFFERENT'} to the last bit")
    print(f"{wrong} of {count} frames of them wrong")
    return int(bool(different) or not same or bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
