"""Clips a second through ClipDataset, from media and from a store, beside bare calls of the decoders.

    python benchmarks/loading.py [--clips 6] [--seconds 10] [--rounds 5] [--real FOLDER]

It renders 720p30 H.264 at about 5 Mbit/s, whose texture moves so that the rate is real, with a key frame every 15 and
every 250 frames, each with 24-bit stereo sound at 48 kHz, and prepares a store of each. A clip is one frame of 256
pixels' shorter side from the middle of a second and that second's sound, at the file's own rate. The rivals take
turns, a few clips each, so that whatever else the machine does hits all alike. Times are of the processor, all threads
of the process; the time on the wall stands beside them. A ratio is the median of the rounds' ratios of processor time.

  bare media    decord.VideoReader(path, width=, height=).get_batch([index]) and a soundfile slice
  PyAV          seek, decode, reformat, and a soundfile slice
  bare JPEG     cv2.imdecode of the frame's bytes, read from a file of its own, and a soundfile slice of a WAV file

With training's changes a clip is a random window with the recipes' usual crop to 224 pixels, flip, colour jitter and
gain. The first touch of a file by ClipDataset, which looks at its header too, is timed apart.
"""

import argparse
import dataclasses
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import av
import cv2
import decord
import numpy as np
import soundfile

from avsc_e2e.clip import Row
from avsc_e2e.data import media
from avsc_e2e.data.dataset import ClipDataset, Key, Sampling
from avsc_e2e.data.loader import loader
from avsc_e2e.data.media.header import probe_located
from avsc_e2e.data.media.source import fitted
from avsc_e2e.data.store.prepare import prepare
from avsc_e2e.data.store.reader import open_store
from avsc_e2e.transforms import Compose
from avsc_e2e.transforms.augmentation import Augment

SIDE, TRAIN_SIDE, RATE = 256, 224, 48_000


def render(path: Path, gop: int, seconds: int, draw: np.random.Generator) -> None:
    """Soft random texture that drifts, with a little noise of its own in each frame."""
    height, width = 720, 1280
    texture = cv2.GaussianBlur(draw.integers(0, 256, (height + 320, width + 640, 3), np.uint8), (0, 0), 2.0)
    texture = cv2.normalize(texture, None, 16, 235, cv2.NORM_MINMAX)
    options = {"preset": "veryfast", "g": str(gop), "keyint_min": str(gop), "sc_threshold": "0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 5_000_000
        phase = draw.uniform(0, 6)
        for index in range(30 * seconds):
            x, y = round(320 + 300 * np.sin(index / 40 + phase)), round(160 + 150 * np.cos(index / 55 + phase))
            picture = np.ascontiguousarray(texture[y : y + height, x : x + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())


def render_set(folder: Path, gop: int, clips: int, seconds: int) -> list[Row]:
    draw = np.random.default_rng(gop)
    folder = folder / "scene"
    folder.mkdir(parents=True)
    rows = []
    for number in range(clips):
        sound, video = folder / f"{chr(97 + number)}.wav", folder / f"{chr(97 + number)}.mp4"
        soundfile.write(sound, draw.normal(0, 0.1, (seconds * RATE, 2)).clip(-1, 1), RATE, subtype="PCM_24")
        render(video, gop, seconds, draw)
        rows.append(Row(f"scene/{video.stem}", str(sound), str(video), "scene", video.stem, "", float(seconds)))
    return rows


def real_set(folder: Path, target: Path) -> list[Row]:
    """The real clips as the development set has its own: pictures in one file, sound in a WAV of the same name."""
    (target / "scene").mkdir(parents=True)
    rows = []
    for path in sorted(folder.glob("*.mp4")):
        video, sound = target / "scene" / path.name, target / "scene" / f"{path.stem}.wav"
        video.symlink_to(path)
        blocks = list(media.audio_blocks(path))
        samples, rate = np.concatenate([block for block, _ in blocks]), blocks[0][1]
        soundfile.write(sound, samples, rate, subtype="PCM_24")
        rows.append(
            Row(f"scene/{path.stem}", str(sound), str(video), "scene", path.stem, "", media.probe(path).duration)
        )
    return rows


class Rivals:
    """One clip each, all of the same segments."""

    def __init__(self, rows: list[Row], store, scratch: Path):
        self.rows = rows
        sampling = Sampling(short_side=SIDE, sample_rate=media.probe(rows[0].audio).sample_rate)
        self.media = ClipDataset(rows, ["scene"], sampling)
        self.store = ClipDataset(rows, ["scene"], sampling, store=store)
        augment = Augment()
        changes = (dataclasses.replace(augment.crop, size=TRAIN_SIDE), augment.flip, augment.colour, augment.waveform)
        windows = len(self.media) // len(rows)
        self.train = ClipDataset(rows, ["scene"], sampling, Compose(changes), windows=windows, seed=0, store=store)
        self.sizes, self.rates = {}, {}
        self.jpegs = {}
        for index, segment in enumerate(self.media.segments):
            row = segment.row
            header = media.probe(row.video)
            self.sizes[row.file] = fitted(header.width, header.height, SIDE)
            self.rates[row.file] = header.frame_rate
            stored = store.recordings[row.file]
            k = int((segment.start + 0.5) * store.rate)
            self.jpegs[index] = scratch / f"{index}.jpg"
            with open(stored.shard, "rb") as shard:
                shard.seek(int(stored.frames[k]))
                self.jpegs[index].write_bytes(shard.read(int(stored.sizes[k])))

    def training_clip(self, index: int):
        return self.train[Key(0, index)]

    def bare_sound(self, index: int) -> np.ndarray:
        segment = self.media.segments[index]
        with soundfile.SoundFile(segment.row.audio) as sound:
            sound.seek(round(segment.start * sound.samplerate))
            return sound.read(sound.samplerate, dtype="float32", always_2d=True)

    def bare_media(self, index: int):
        segment = self.media.segments[index]
        width, height = self.sizes[segment.row.file]
        reader = decord.VideoReader(segment.row.video, num_threads=1, width=width, height=height)
        frame = min(int((segment.start + 0.5) * self.rates[segment.row.file]), len(reader) - 1)
        return reader.get_batch([frame]).asnumpy(), self.bare_sound(index)

    def pyav(self, index: int):
        segment = self.media.segments[index]
        width, height = self.sizes[segment.row.file]
        at = segment.start + 0.5
        with av.open(segment.row.video) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            container.seek(int(at / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if float(frame.pts * stream.time_base) + 1.5 / self.rates[segment.row.file] > at:
                    break
            return frame.reformat(width=width, height=height, format="rgb24").to_ndarray(), self.bare_sound(index)

    def bare_jpeg(self, index: int):
        return cv2.imdecode(np.frombuffer(self.jpegs[index].read_bytes(), np.uint8), 1), self.bare_sound(index)


def seconds_of(function, indices) -> np.ndarray:
    """Of the processor and on the wall, together for all `indices`."""
    begin = np.array([time.process_time(), time.perf_counter()])
    for index in indices:
        function(index)
    return np.array([time.process_time(), time.perf_counter()]) - begin


def one_round(kinds: dict, indices: list[int], turn: int, draw: random.Random) -> dict[str, np.ndarray]:
    """Seconds a clip of each rival."""
    found = {name: np.zeros(2) for name in kinds}
    for first in range(0, len(indices), turn):
        for name in draw.sample(list(kinds), len(kinds)):
            found[name] += seconds_of(kinds[name], indices[first : first + turn])
    return {name: seconds / len(indices) for name, seconds in found.items()}


def through_loader(dataset: ClipDataset, workers: int, passes: int) -> float:
    """Seconds a clip, after the first batch of a first pass, which starts the workers."""
    batches = loader(dataset, 8, shuffle=True, workers=workers)
    for _ in batches:
        pass
    begin, count = time.perf_counter(), 0
    for epoch in range(passes):
        batches.sampler.set_epoch(epoch)
        for batch in batches:
            count += len(batch.file)
    return (time.perf_counter() - begin) / count


def measure(title: str, rows: list[Row], root: Path, rounds: int, draw: random.Random) -> None:
    scratch = root.with_name(root.name + ".scratch")
    scratch.mkdir()
    prepare(root, scratch / "store", workers=1)
    store = open_store(scratch / "store")
    rivals = Rivals(rows, store, scratch)
    probe_located.cache_clear()
    size = sum(os.path.getsize(row.video) for row in rows) * 8 / sum(row.duration for row in rows)
    jpeg = np.mean([stored.sizes.mean() for stored in store.recordings.values()]) / 1e3
    print(
        f"\n{title}: {len(rows)} recordings, {size / 1e6:.1f} Mbit/s, {len(rivals.media)} clips, {jpeg:.0f} kB a JPEG"
    )
    slow = {"bare media": rivals.bare_media, "ClipDataset on media": rivals.media.__getitem__, "PyAV": rivals.pyav}
    fast = {"bare JPEG": rivals.bare_jpeg, "ClipDataset on a store": rivals.store.__getitem__}
    fast["with training's changes"] = rivals.training_clip
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("first touch", *slow, *fast)}
    for _ in range(rounds):
        probe_located.cache_clear()
        each = len(rivals.media) // len(rows)
        for row in range(len(rows)):
            found["first touch"].append(seconds_of(rivals.media.__getitem__, [row * each + draw.randrange(each)]))
        few = draw.sample(range(len(rivals.media)), min(12, len(rivals.media)))
        many = [draw.randrange(len(rivals.media)) for _ in range(400)]
        seconds = one_round(slow, few, 1, draw) | one_round(fast, many, 25, draw)
        for name, of_round in seconds.items():
            found[name].append(of_round)
    print(f"  {'':26} {'processor':>10} {'wall':>13}")
    for name, of_rounds in found.items():
        cpu, wall = 1e3 * np.median(of_rounds, axis=0)
        print(f"  {name:26} {cpu:8.2f} ms {wall:8.2f} ms a clip")
    workers: dict[tuple[str, int], list[float]] = {}
    for _ in range(min(rounds, 3)):
        for number in (1, 2):
            for name, dataset, clips in (("media", rivals.media, 1), ("a store", rivals.store, 2000)):
                passes = max(clips // len(dataset), 1)
                workers.setdefault((name, number), []).append(through_loader(dataset, number, passes))
    for (name, number), seconds in sorted(workers.items()):
        middle = statistics.median(seconds)
        text = f"loader, {name}, {number} worker{'s' * (number > 1)}"
        print(f"  {text:26} {'':11} {1e3 * middle:8.2f} ms a clip")
    for name, above, below, bar in (
        ("ClipDataset on media / bare media", "bare media", "ClipDataset on media", 0.95),
        ("ClipDataset on media / PyAV", "PyAV", "ClipDataset on media", 0),
        ("ClipDataset on a store / bare JPEG", "bare JPEG", "ClipDataset on a store", 0.7),
        ("store / media", "ClipDataset on media", "ClipDataset on a store", 30),
    ):
        ratio = statistics.median(a[0] / b[0] for a, b in zip(found[above], found[below], strict=True))
        told = f"at least {bar:g}: {'yes' if ratio >= bar else 'NO'}" if bar else ""
        print(f"  {name:36} {ratio:7.2f}   {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    shared = Path(__file__).parents[2] / "shared" / "data" / "real_clips"
    parser.add_argument("--real", type=Path, default=shared, help="real clips, left out where they are absent")
    options = parser.parse_args()
    draw = random.Random(0)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as scratch:
        for gop in (15, 250):
            root = Path(scratch) / f"gop{gop}"
            rows = render_set(root, gop, options.clips, options.seconds)
            measure(f"720p30 H.264, a key frame every {gop}", rows, root, options.rounds, draw)
        if options.real.is_dir():
            root = Path(scratch) / "real"
            measure("real clips, 400 x 225", real_set(options.real, root), root, options.rounds, draw)
    print(f"\nload average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
