"""Read thousands of damaged and hostile files, each in a process that may die, and count what came of it.

    python benchmarks/robustness.py [MEDIA...] [--scale 1.0] [--only READER...] [--minutes 30]

Three kinds of files: media, lists, checkpoints, archives and stores that are changed by keyed draws; files as an
attacker writes them (pickles, playlists, external references, links, paths that lead outside, bombs, headers that lie,
HTML); texts and command lines that hypothesis draws. MEDIA are files or folders to change beside small ones that are
encoded here. Printed by reader: cases, how many were read or refused in one line (typed), and how many ended in
another exception, a crash, a hang (10 s of the processor or 60 s on the clock), a leak (open files, or memory that
grows with the cases), a payload (a file outside the case's folder, a connection, HTML that is not escaped) or the loss
of a whole recording or row beside the damaged one. Exit status 1 where any of the latter is above 0.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "robustness"))
from fuzzer import WHOLE, cases, listen, run, whole
from material import hostile, seeds
from texts import TEXTS, draw

FORMATS = (
    ("x.mp4", "libx264", "aac"), ("x.mov", "mpeg4", "pcm_s16le"), ("x.mkv", "libx265", "flac"),
    ("x.avi", "mpeg4", "libmp3lame"), ("x.ts", "libx264", "aac"), ("x.mpg", "mpeg1video", "mp2"),
    ("x.flv", "flv1", "libmp3lame"), ("y.mkv", "mjpeg", "pcm_s24le"),
)  # fmt: skip
OUTCOMES = ("read", "refused", "untyped", "crash", "hang", "leak", "payload", "lost")
PER_SEED = {"media": 80, "decode": 40, "predict": 12, "prepare": 8, "check": 6, "names": 60, "flags": 150, "scored": 60}
"""Cases of a file, or of a text, that are read; 120 of others."""


def encode(path: Path, video: str, audio: str) -> Path | None:
    try:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(video, rate=25, width=64, height=48)
            stream.pix_fmt = "yuvj420p" if video == "mjpeg" else "yuv420p"
            track = container.add_stream(audio, rate=44100, layout="mono")
            for number in range(50):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number * 5, np.uint8))
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
            container.mux(stream.encode())
            draw = np.random.default_rng(0)
            size = track.codec_context.frame_size or 1024
            for number in range(2 * 44100 // size):
                frame = av.AudioFrame.from_ndarray(draw.integers(-999, 999, (1, size)).astype(np.int16), "s16p", "mono")
                frame.sample_rate, frame.pts = 44100, number * size
                [frame] = av.AudioResampler(track.format.name, "mono", 44100).resample(frame)
                container.mux(track.encode(frame))
            container.mux(track.encode())
        return path
    except (av.FFmpegError, ValueError, av.codec.codec.UnknownCodecError):
        path.unlink(missing_ok=True)
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("media", type=Path, nargs="*")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--minutes", type=float, default=30.0, help="what is not read by then is left out and counted")
    options = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, listen() as ear:
        media = [path for name, *codecs in FORMATS if (path := encode(Path(folder) / name, *codecs))]
        for name, kind in (("a.wav", "PCM_24"), ("b.wav", "FLOAT"), ("c.flac", "PCM_16")):
            soundfile.write(Path(folder) / name, np.zeros((9000, 2)), 8000, subtype=kind)
            media.append(Path(folder) / name)
        given = [path for path in options.media if path.is_file()]
        given += [f for path in options.media if path.is_dir() for f in sorted(path.rglob("*.mp4"))[:4]]
        found = seeds(Path(folder), media + given)
        count = lambda reader: max(1, round(options.scale * PER_SEED.get(reader, 120)))  # noqa: E731
        work = list(cases(found, {reader: count(reader) for reader in found}))
        work += whole(hostile(Path(folder) / "hostile", ear.getsockname()[1]))
        work += whole({reader: draw(Path(folder), reader, count(reader)) for reader in TEXTS})
        work = [case for case in work if not options.only or case.reader in options.only]
        table: dict[str, Counter[str]] = defaultdict(Counter)
        told: list[str] = []
        work.sort(key=lambda case: (case.reader in PER_SEED, case.reader))  # those that take long come last
        for result in run(work, ear=ear):
            table[result.case.reader][result.outcome] += 1
            if result.outcome not in ("read", "refused"):
                case = result.case
                told.append(f"{result.outcome}: {case.reader} {Path(case.seed).name} {case.number}: {result.text}")
                if case.number == WHOLE:
                    told[-1] += f" <- {Path(case.seed).read_bytes()[:300]!r}"
                print(told[-1], file=sys.stderr, flush=True)
            if time.monotonic() - begin > 60 * options.minutes:
                break
    print(f"{'reader':<12}{'cases':>8}{'typed':>8}" + "".join(f"{name:>9}" for name in OUTCOMES))
    for name, counts in [*table.items(), ("all", sum(table.values(), Counter()))]:
        cells = "".join(f"{counts[outcome]:9}" for outcome in OUTCOMES)
        print(f"{name:<12}{counts.total():8}{counts['read'] + counts['refused']:8}{cells}")
    read = sum(counts.total() for counts in table.values())
    left = f"; {len(work) - read} cases are left" if read < len(work) else ""
    print(f"{read} cases in {(time.monotonic() - begin) / 60:.1f} minutes{left}")
    return int(bool(told))


if __name__ == "__main__":
    sys.exit(main())
