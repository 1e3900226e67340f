"""What `avsc predict` costs over decoding and the network alone, its memory and reads, and a folder of short files.

    python benchmarks/predicting.py [--data ../shared/data] [--model lite0] [--minutes 30] [--files 500] [--rounds 3]

Rival: PyAV decodes all frames and samples of the same files once and converts one frame a second, and the network sees
batches that lie ready in memory. Processor time of one thread, rounds in turn, the smallest counts. The long file
repeats one real clip, copied packet by packet; the short files are its seconds, encoded anew. Weights are random, which
changes no time. Status 1 where an aim is missed: 1.3 times the rival, memory within 5 % from minute 1 to the end, reads
1.1 times the file, the folder 10 times as fast as one call a file.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import av
import numpy as np
import torch

from avsc_e2e.inference import head_probabilities, sampling
from avsc_e2e.memory import resident
from avsc_e2e.models.weights.checkpoint import save_model
from avsc_e2e.models.zoo.catalogue import create_model
from avsc_e2e.prediction import Predictor
from avsc_e2e.prediction.reading import parts
from avsc_e2e.prediction.recordings import MediaFile


def repeated(clip: Path, times: int, path: Path) -> Path:
    """A clip as often as asked for, one after the other, without decoding it."""
    with av.open(str(path), "w") as out, av.open(str(clip)) as first:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in first.streams}
        for number in range(times):
            with av.open(str(clip)) as source:
                for packet in source.demux():
                    if packet.dts is None:
                        continue
                    shift = round(number * source.duration / 1e6 / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
    return path


def seconds_of(clip: Path, folder: Path, count: int) -> Path:
    """Files of one second each: those of a clip, then copies of them."""
    folder.mkdir()
    with av.open(str(clip)) as source:
        video, audio = source.streams.video[0], source.streams.audio[0]
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in source.decode(video)]
        source.seek(0)
        samples = np.concatenate([frame.to_ndarray() for frame in source.decode(audio)], axis=1)
        rate, shots = audio.rate, round(float(video.average_rate))
    whole = int(frames[-1][0])
    for second in range(whole):
        with av.open(str(folder / f"{second:04d}.mp4"), "w") as out:
            moving, heard = out.add_stream("libx264", rate=shots), out.add_stream("aac", rate=rate)
            moving.height, moving.width = (side // 2 * 2 for side in frames[0][1].shape[:2])
            moving.pix_fmt = "yuv420p"
            for at, image in frames:
                if second <= at < second + 1:
                    image = np.ascontiguousarray(image[: moving.height, : moving.width])
                    out.mux(moving.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            out.mux(moving.encode())
            part = av.AudioFrame.from_ndarray(samples[:, second * rate : (second + 1) * rate].copy(), "fltp", "stereo")
            part.sample_rate = rate
            out.mux(heard.encode(part))
            out.mux(heard.encode())
    for number in range(whole, count):
        shutil.copy(folder / f"{number % whole:04d}.mp4", folder / f"{number:04d}.mp4")
    return folder


def decode_once(paths: Iterable[Path], side: int) -> int:
    """All frames and samples through PyAV in one pass, one frame a second converted; the number of those."""
    converted = 0
    for path in paths:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_count = 1
            due = 0.0
            for frame in container.decode(video=0, audio=0):
                if isinstance(frame, av.VideoFrame) and frame.time >= due:
                    width = round(side * frame.width / frame.height)
                    frame.reformat(width, side, "rgb24", interpolation="BICUBIC").to_ndarray()
                    due, converted = due + 1, converted + 1
                elif isinstance(frame, av.AudioFrame):
                    frame.to_ndarray()
    return converted


def network(predictor: Predictor, clips: list, windows: int) -> None:
    """The network over as many windows, from batches that lie ready."""
    from avsc_e2e.data.loader import collate

    batch = collate((clips * predictor.batch_size)[: predictor.batch_size])
    with torch.inference_mode():
        for _ in range(windows // predictor.batch_size):
            head_probabilities(predictor.model, batch, predictor.test_time)
        if rest := windows % predictor.batch_size:
            head_probabilities(predictor.model, collate((clips * rest)[:rest]), predictor.test_time)


def over_rival(name: str, predictor: Predictor, paths: list[Path], rounds: int) -> float:
    """The ratio of `avsc predict` to decoding and the network, told."""
    clips = [c for part in parts(0, MediaFile(str(paths[0])), predictor.reading) for c in part.clips]
    side = sampling(predictor.model.architecture).short_side
    took: dict[str, list[float]] = {"predict": [], "decode": [], "network": []}

    def timed(what: str, work: Callable):
        before = time.process_time()
        found = work()
        took[what].append(time.process_time() - before)
        return found

    for _ in range(rounds):
        found = timed("predict", lambda: list(predictor.all(paths)))
        windows = sum(len(one.windows) for one in found)
        timed("decode", lambda: decode_once(paths, side))
        timed("network", partial(network, predictor, clips, windows))
    best = {what: min(values) for what, values in took.items()}
    ratio = best["predict"] / (best["decode"] + best["network"])
    print(
        f"{name}: {windows} windows; predict {best['predict']:.2f} s, decode once {best['decode']:.2f} s, network "
        f"{best['network']:.2f} s: {ratio:.2f} times, at most 1.3: {yes(ratio <= 1.3)}",
        flush=True,
    )
    return ratio


def memory_and_reads(predictor: Predictor, path: Path) -> tuple[float, float]:
    """Growth of resident memory from minute 1 to the end, and bytes read over those of the file, told."""
    at: dict[int, float] = {}
    before = bytes_read()
    for window in predictor.windows(path):
        minute = int(window.end / 60)
        if minute not in at:
            at[minute] = resident()
    read = (bytes_read() - before) / path.stat().st_size
    last = max(at)
    growth = max(abs(at[minute] / at[1] - 1) for minute in at if minute >= 1)
    print(f"memory: {at[1]:.0f} MB at minute 1, {at[last]:.0f} MB at minute {last}, at most {100 * growth:.1f} % off")
    print(f"bytes read: {read:.3f} times the file, at most 1.1: {yes(read <= 1.1)}", flush=True)
    return growth, read


def bytes_read() -> int:
    """That this process has asked for so far."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def folder_over_calls(checkpoint: Path, folder: Path, calls: int) -> float:
    """How many times faster one call for a folder is than one call for each file, told; processor time."""
    files = sorted(folder.iterdir())

    def took(*given: Path) -> float:
        before = os.times()
        subprocess.run(
            [sys.executable, "-m", "avsc_e2e", "predict", str(checkpoint), *map(str, given), "--format", "csv"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    each = min(took(file) for file in files[:calls])
    whole = took(folder)
    ratio = each * len(files) / whole
    print(
        f"{len(files)} files of a second: {whole:.1f} s as a folder, {each:.2f} s for one call: {ratio:.0f} times "
        f"faster, at least 10: {yes(ratio >= 10)}",
        flush=True,
    )
    return ratio


def yes(reached: bool) -> str:
    return "yes" if reached else "NO"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--model", default="lite0")
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips = sorted((options.data / "real_clips").glob("*.mp4"))
    if not clips:
        parser.error(f"{options.data}: has no real_clips/*.mp4")
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = save_model(create_model(options.model), Path(scratch) / "model.safetensors", {"recipe": "{}"})
        predictor = Predictor(checkpoint)
        reached = [over_rival(f"{len(clips)} real clips", predictor, clips, options.rounds) <= 1.3]
        long = repeated(clips[0], options.minutes * 6, Path(scratch) / "long.mp4")
        reached.append(over_rival(f"a file of {options.minutes} minutes", predictor, [long], 1) <= 1.3)
        growth, read = memory_and_reads(predictor, long)
        reached += [growth <= 0.05, read <= 1.1]
        short = seconds_of(clips[0], Path(scratch) / "short", options.files)
        reached.append(folder_over_calls(checkpoint, short, 3) >= 10)
    sys.exit(not all(reached))


if __name__ == "__main__":
    main()
