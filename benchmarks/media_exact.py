"""Wrong frames and wrong seconds of audio in files whose frames bear their number, milliseconds and bytes a clip.

    python benchmarks/media_exact.py [PATTERN ...] [--times 60] [--seconds 10]

The files are those of tests/numbered.py, in every codec and container that PyAV's libraries write here, and where the
ffmpeg program is installed, those of benchmarks/everyday.py: as cameras, phones, recorders and converters write them.
Each is asked for frames at random times, one clip after the other, by `read_frames` with each decoder, in one thread,
and for seconds of audio; then all are prepared into a store, and every frame and second of it is looked at. What is
right, a decoding from the first packet to the last tells. Times are of the processor, and decoders take turns. Bytes
are what the process reads from files.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numbered
import numpy as np
from everyday import EVERYDAY, write_everyday

from avsc_e2e.clip import Row
from avsc_e2e.data.media import probe, read_audio, read_frames
from avsc_e2e.data.store.prepare import Options, prepare
from avsc_e2e.data.store.reader import Store, open_store
from avsc_e2e.errors import MediaError

DECODERS = ("auto", "pyav", "decord")
SIDE, STORED = 120, 5.0


class Written(NamedTuple):
    """A numbered file."""

    path: Path
    rate: float
    seconds: float
    in_time: bool
    """Whether its audio lasts `seconds` and begins with it."""
    turned: bool
    """Whether its frames are shown otherwise than they are stored, so that their order tells their numbers."""


class Answer(NamedTuple):
    """What asking for a frame gave and cost."""

    number: int | None
    """None for a refusal."""
    seconds: float
    """Of the processor."""
    size: int
    """Bytes read from files."""


def write_all(folder: Path, patterns: list[str], seconds: int) -> Iterator[Written]:
    """Each file in a folder of its own, which is a class for the store."""
    wanted = lambda name: not patterns or any(pattern in name for pattern in patterns)  # noqa: E731
    for recipe in (*numbered.RECIPES, numbered.GAP):
        if wanted(recipe.name):
            path = numbered.write(_folder(folder, recipe.name), recipe, seconds * numbered.RATE)
            in_time = bool(recipe.audio) and recipe.change is None and recipe.times is None
            yield Written(path, numbered.RATE, seconds, in_time, False)
    if not shutil.which("ffmpeg"):
        print("the files of benchmarks/everyday.py are left out: there is no ffmpeg program here")
        return
    for one in EVERYDAY:
        if wanted(one.name):
            path = write_everyday(_folder(folder, one.name), one, seconds)
            in_time = one.audio and not any(word in one.name for word in ("cut", "below"))
            yield Written(path, one.rate, seconds, in_time, "upright" in one.name)


def _folder(folder: Path, name: str) -> Path:
    folder = folder / name.replace(".", "_")
    folder.mkdir(parents=True)
    return folder


def ask(path: Path, moment: float, decoder: str) -> Answer:
    before, begin = bytes_read(), time.process_time()
    try:
        frame = read_frames(path, [moment], SIDE, decoder=decoder)[0]
    except MediaError:
        frame = None
    seconds, size = time.process_time() - begin, bytes_read() - before
    return Answer(None if frame is None else numbered.read(frame), seconds, size)


def bytes_read() -> int:
    """By this process so far, from files and what else; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/io").read_text().split()[1])
    except OSError:
        return 0


def wrong_seconds(read, duration: float, length: float) -> int:
    """Seconds of audio that are more than 0.1 s off."""
    lags = [numbered.lag(read(start), start, length) for start in np.arange(0.5, duration - 1.1)]
    return sum(abs(lag) > 0.1 for lag in lags)


def truth_of(one: Written) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of the recording at which frames are shown, and their numbers."""
    times, numbers = np.array(numbered.frames_in_order(one.path)).T
    return times - probe(one.path).origin, np.arange(len(numbers)) if one.turned else numbers.astype(int)


def measure(one: Written, times: int) -> tuple[str, dict[str, list[tuple[bool, Answer]]]]:
    """Wrong seconds of audio, and of each decoder whether an answer is wrong, with it."""
    starts, numbers = truth_of(one)
    stays = np.minimum(np.diff(starts, append=starts[-1] + 1 / one.rate), 1.0)
    draw = np.random.default_rng(0)
    found: dict[str, list[tuple[bool, Answer]]] = {decoder: [] for decoder in DECODERS}
    for place in draw.integers(0, len(starts), times):
        moment = starts[place] + draw.uniform(0.05, 0.95) * stays[place]
        for decoder in draw.permutation(DECODERS).tolist():
            answer = ask(one.path, moment, decoder)
            found[decoder].append((answer.number is not None and answer.number != numbers[place], answer))
    read = lambda start: read_audio(one.path, start, 1.0, numbered.AUDIO_RATE)  # noqa: E731
    audio = wrong_seconds(read, probe(one.path).duration, one.seconds) if one.in_time else "-"
    return str(audio), found


def stored_wrong(one: Written, store: Store) -> tuple[int, int]:
    """Wrong frames and wrong seconds of audio in a store."""
    file = next(name for name in store.recordings if name.startswith(one.path.parent.name + "/"))
    row = Row(file, audio=str(one.path), video=str(one.path))
    starts, numbers = truth_of(one)
    moments = (np.arange(int((starts[-1] + 1 / one.rate) * STORED)) + 0.5) / STORED
    moments = moments[moments >= starts[0]]
    places = np.searchsorted(starts, moments + 1e-6, side="right") - 1
    shown = moments - starts[places] < 1.5  # not held over a gap
    wrong = 0
    for moment, place in zip(moments[shown], places[shown], strict=True):
        try:
            wrong += numbered.read(store.read_frames(row, [moment], SIDE)[0]) != numbers[place]
        except MediaError:
            wrong += 1
    read = lambda start: store.read_audio(row, start, 1.0, numbered.AUDIO_RATE)  # noqa: E731
    return wrong, wrong_seconds(read, probe(one.path).duration, one.seconds) if one.in_time else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", help="parts of names; none: all files")
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    wrong, refused = dict.fromkeys((*DECODERS, "store"), 0), dict.fromkeys(DECODERS, 0)
    late, ratios = 0, {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        files = list(write_all(root, options.patterns, options.seconds))
        prepare(root, Path(folder) / "store", Options(SIDE, STORED, 90))
        store = open_store(Path(folder) / "store")
        print(f"{'':24} audio " + " ".join(f"{d + ' wrong':>12} refused    ms    kB" for d in DECODERS) + "   store")
        for one in files:
            audio, found = measure(one, options.times)
            in_store, late_in_store = stored_wrong(one, store)
            late += late_in_store + (int(audio) if audio != "-" else 0)
            wrong["store"] += in_store
            line, ms = f"{one.path.name:24} {audio:>5} ", {}
            for decoder, answers in found.items():
                bad, no = sum(bad for bad, _ in answers), sum(answer.number is None for _, answer in answers)
                wrong[decoder], refused[decoder] = wrong[decoder] + bad, refused[decoder] + no
                ms[decoder] = 1e3 * np.mean([answer.seconds for _, answer in answers])
                size = np.mean([answer.size for _, answer in answers]) / 1e3
                line += f"{bad:12d} {no:7d} {ms[decoder]:5.1f} {size:5.0f} "
                if decoder == "decord" and not bad and not no:
                    ratios[one.path.name] = ms["auto"] / ms["decord"]
            print(f"{line} {in_store:6d}", flush=True)
    print(f"{len(files)} files")
    print("wrong frames: " + ", ".join(f"{decoder} {count}" for decoder, count in wrong.items()))
    print("refused: " + ", ".join(f"{decoder} {count}" for decoder, count in refused.items()))
    print(f"wrong seconds of audio, media and store: {late}")
    if ratios:
        worst = max(ratios, key=ratios.get)
        print(
            f"time of auto by that of decord on the {len(ratios)} files on which decord is right: median "
            f"{np.median(list(ratios.values())):.2f}, most {ratios[worst]:.2f} ({worst}), at most 1.1: "
            f"{'yes' if ratios[worst] <= 1.1 else 'NO'}"
        )
    return int(wrong["auto"] + wrong["pyav"] + wrong["store"] + late + refused["auto"] > 0)


if __name__ == "__main__":
    sys.exit(main())
