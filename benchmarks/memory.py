"""Resident memory of the loader's processes at clip 500 and at clip 5,000, from media and from a store.

    python benchmarks/memory.py [--workers 2] [--clips 5000] [--index]
    python benchmarks/memory.py --long 60

First it lays the index of a store of 2,000 and of 52,000 recordings, whose shards hold nothing, and measures what a
process of its own keeps of each (RssAnon), after 500 look-ups: at most 100 bytes a recording.

It renders 24 small videos of ten seconds with 24-bit stereo sound at 48 kHz (70 MB of sound, more than a process may
keep resident of a store) and goes through random windows with a crop, as training does. Resident memory is VmRSS of
/proc, which counts the pages of mapped files too.

With --long MINUTES it is instead the most memory that `prepare` needs for a stereo MP3 of that length, beside one of a
minute, and the bytes that a second of audio from the middle of an MKV with video costs, beside the file's size.
"""

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import threading
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import av
import numpy as np
import soundfile

from avsc_e2e.clip import Row
from avsc_e2e.data.dataset import ClipDataset, Sampling
from avsc_e2e.data.loader import loader
from avsc_e2e.data.media import probe, read_audio
from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.data.store.layout import FORMAT, MANIFEST, index_file, shard_file
from avsc_e2e.data.store.prepare import Options, prepare
from avsc_e2e.data.store.reader import Store, open_store
from avsc_e2e.data.store.shard import DEFAULT
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


def encode_noise(path: Path, minutes: float, video: bool = False) -> Path:
    """Stereo MP3, or MKV with it and H.264 of noise, of one second that repeats."""
    draw = np.random.default_rng(0)
    second = draw.normal(0, 0.1, (1, 2 * 44_100)).clip(-1, 1).astype(np.float32)
    images = [draw.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(10)] if video else []
    with av.open(str(path), "w") as container:
        audio = container.add_stream("libmp3lame", rate=44_100, layout="stereo", options={"compression_level": "9"})
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"}) if video else None
        if stream:
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        resampler = av.AudioResampler(audio.format, "stereo", 44_100, audio.frame_size or 1152)
        for number in range(round(60 * minutes)):
            frame = av.AudioFrame.from_ndarray(second, "flt", "stereo")
            frame.sample_rate, frame.pts = 44_100, number * 44_100
            for part in resampler.resample(frame):
                container.mux(audio.encode(part))
            for image in images:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        for track in container.streams:
            container.mux(track.encode())
    return path


def most_of_prepare(folder: Path, minutes: float) -> float:
    """MB resident at most in the process that prepares an MP3 so long."""
    (folder / "scene").mkdir(parents=True)
    encode_noise(folder / "scene" / "a.mp3", minutes)
    most = [0.0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            children = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))
            for child in children.split():
                with contextlib.suppress(OSError, IndexError):
                    status = Path(f"/proc/{child}/status").read_text()
                    most.append(int(status.split("VmHWM:")[1].split()[0]) / 1024)

    watcher = threading.Thread(target=watch)
    watcher.start()
    prepare(folder, folder.with_name(folder.name + ".store"), workers=1)
    done.set()
    watcher.join()
    return max(most)


def long_recordings(scratch: Path, minutes: float) -> int:
    """Print what long recordings cost; 1 where it is too much."""
    short, long = most_of_prepare(scratch / "short", 1.0), most_of_prepare(scratch / "long", minutes)
    print(f"prepare, stereo MP3: 1 minute {short:.0f} MB, {minutes:g} minutes {long:.0f} MB, "
          f"below 300: {'yes' if long < 300 else 'NO'}")  # fmt: skip
    path = encode_noise(scratch / "long.mkv", min(minutes, 10.0), video=True)
    probe(path)
    before = bytes_read()
    read_audio(path, 30.0 * min(minutes, 10.0), 1.0, 44_100)
    cost, size = bytes_read() - before, path.stat().st_size
    print(f"a second of audio from the middle of an MKV of {size / 1e6:.0f} MB: {cost / 1e6:.2f} MB read")
    return int(long >= 300 or cost > size / 20)


def bytes_read() -> int:
    """By this process so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def resident(process: int) -> float:
    """MB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def lay_index(folder: Path, count: int) -> None:
    """A store's manifest and index of so many recordings of ten seconds, with shards that hold nothing."""
    folder.mkdir()
    options = DEFAULT._asdict()
    shards, spans = [], {"offsets": list(range(1536, 1536 + 50 * 24_000, 24_000)), "sizes": [23_456] * 50, "end": 10.0}
    for number in range(0, count, 200):
        lines, files = [], []
        for one in range(number, min(number + 200, count)):
            file = f"video/street_traffic-amsterdam-{one // 40}-{one}"
            paths = {"audio": f"{file}.wav", "video": f"{file}.mp4"}
            row = {"file": file, **paths, "scene": "street_traffic", "location": f"amsterdam-{one // 40}",
                   "city": "amsterdam", "part": "train"}  # fmt: skip
            record = {
                "row": row, "source": {path: [2_000_000, 1_700_000_000_000_000_000] for path in paths.values()},
                "bad": {}, "duration": {"audio": 10.0, "video": 10.0}, "audio": [5_000, 480_000, 2, 48_000, 24],
                "video": spans, "next": (len(lines) + 1) * 4_194_304, "checksum": 123_456_789,
            }  # fmt: skip
            lines.append(json.dumps(record))
            files.append(file)
        shard = shard_file(folder, len(shards))
        index_file(shard).write_text("\n".join(lines) + "\n")
        with open(shard, "wb") as tar:
            tar.truncate(len(lines) * 4_194_304 + 2 * 512)
        shards.append(files)
    told = {"format": FORMAT, "layout": "tau", "root": str(folder), "options": options, "shards": shards}
    (folder / MANIFEST).write_text(json.dumps(told))


def own_memory(store: Store, files: list[str], answer) -> None:
    """Told by a worker that has a store and has looked up some of its recordings: the bytes that are its own."""
    for file in files:
        store.measured(Row(file))
    told = Path("/proc/self/status").read_text()
    answer.put(int(told.split("RssAnon:")[1].split()[0]) * 1024)


def index_cost(scratch: Path, counts: tuple[int, int]) -> float:
    """Bytes that a recording more in a store costs each process, told."""
    context = multiprocessing.get_context("spawn")
    own = []
    for count in counts:
        lay_index(scratch / f"index{count}", count)
        store = open_store(scratch / f"index{count}")
        files = list(itertools.islice(store.recordings, 0, count, count // 500))
        answer = context.Queue()
        process = context.Process(target=own_memory, args=(store, files, answer))
        process.start()
        own.append(answer.get(timeout=600))
        process.join()
    cost = (own[1] - own[0]) / (counts[1] - counts[0])
    print(
        f"index: a worker has {own[0] / 1e6:.1f} MB with {counts[0]} recordings, {own[1] / 1e6:.1f} MB with "
        f"{counts[1]}: {cost:.0f} bytes a recording, at most 100: {'yes' if cost <= 100 else 'NO'}",
        flush=True,
    )
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clips", type=int, default=5000)
    parser.add_argument("--index", action="store_true", help="measure the index of a store only")
    parser.add_argument("--long", type=float, default=0.0, help="minutes of a long recording")
    options = parser.parse_args()
    if options.long:
        with tempfile.TemporaryDirectory() as scratch:
            sys.exit(long_recordings(Path(scratch), options.long))
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        cost = index_cost(Path(scratch), (2_000, 52_000))
        if options.index:
            sys.exit(cost > 100)
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
    sys.exit(worst > 0.05 or cost > 100)


if __name__ == "__main__":
    main()
