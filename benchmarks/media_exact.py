"""Wrong frames and wrong seconds of audio in files whose frames bear their number, and milliseconds a clip.

    python benchmarks/media_exact.py [PATTERN ...] [--times 60] [--seconds 10]

The files are those of tests/numbered.py: every codec and container that PyAV's libraries write here. Each is asked for
frames at random times, one at a time, by `read_frames` with each decoder, and for seconds of audio. What is right, a
decoding from the first packet to the last tells. Times are of the processor, of one thread, and take turns.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numbered
import numpy as np

from avsc_e2e.data.media import probe, read_audio, read_frames
from avsc_e2e.errors import MediaError

DECODERS = ("auto", "decord")


def ask(path: Path, moment: float, decoder: str) -> tuple[int | None, float]:
    """The number of the frame shown, None for a refusal, and seconds of the processor."""
    begin = time.process_time()
    try:
        frame = read_frames(path, [moment], 120, decoder=decoder)[0]
    except MediaError:
        return None, time.process_time() - begin
    return numbered.read(frame), time.process_time() - begin


def wrong_seconds(path: Path, length: float) -> int:
    """Seconds of audio that are more than 0.1 s off."""
    starts = np.arange(0.5, probe(path).duration - 1.1)
    return sum(abs(numbered.lag(read_audio(path, start, 1.0, numbered.AUDIO_RATE), start, length)) > 0.1
               for start in starts)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", help="parts of names; none: all files")
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    total = dict.fromkeys(DECODERS, 0)
    print(f"{'':26} {'audio':>5}  " + "  ".join(f"{d + ' wrong':>12} refused     ms" for d in DECODERS))
    with tempfile.TemporaryDirectory() as folder:
        for recipe in (*numbered.RECIPES, numbered.GAP):
            if options.patterns and not any(pattern in recipe.name for pattern in options.patterns):
                continue
            path = numbered.write(Path(folder), recipe, options.seconds * numbered.RATE)
            truth = numbered.frames_in_order(path)
            starts = np.array([start for start, _ in truth]) - probe(path).origin
            stays = np.minimum(np.diff(starts, append=starts[-1] + 1 / numbered.RATE), 1.0)
            draw = np.random.default_rng(0)
            found = {decoder: [] for decoder in DECODERS}
            for place in draw.integers(0, len(truth), options.times):
                moment = starts[place] + draw.uniform(0.05, 0.95) * stays[place]
                for decoder in DECODERS:
                    number, seconds = ask(path, moment, decoder)
                    found[decoder].append((number is not None and number != truth[place][1], number is None, seconds))
            plain = recipe.audio and recipe.change is None and recipe.times is None
            line = f"{recipe.name:26} {wrong_seconds(path, float(options.seconds)) if plain else '-':>5}  "
            for decoder, answers in found.items():
                wrong, refused, seconds = np.array(answers, float).T
                total[decoder] += int(wrong.sum())
                line += f"{int(wrong.sum()):12d} {int(refused.sum()):7d} {1e3 * seconds.mean():6.1f}  "
            print(line, flush=True)
    print("wrong frames: " + ", ".join(f"{decoder} {count}" for decoder, count in total.items()))


if __name__ == "__main__":
    main()
