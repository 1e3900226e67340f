"""Send signals to real commands at random moments, refuse them the disk, start them twice: what is left is whole.

    python benchmarks/faults.py [--runs 4] [--seed 0] [--only train evaluate prepare check]

Each command first runs unbroken, on class folders of generated videos. Then `--runs` times for each of SIGINT, SIGTERM
and SIGKILL it is sent the signal at a moment drawn from the time that it took, and run again (training with --resume
once there is a checkpoint). Printed for each command and signal: runs that ended in order (status 130 or 143, one line
and no traceback; SIGKILL cannot), the longest time from signal to end, processes left, files that had been whole and
are not (lost), and whether the run after it finished. At the end: a second run in the same folder, and the limit of
10 kB a file that stands for a full disk. Exit status 1 where anything is not as promised.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import numpy as np
from safetensors import safe_open
from support import AVSC, write_video

SMALL = [
    *("--model.audio", "audio_test", "--model.video", "test_efficientnet", "--model.size", "64", "--model.bands", "32"),
    *("--no-pretrained", "--epochs", "6", "--batch-size", "4", "--data.short-side", "64"),
]


def folders(root: Path) -> Path:
    """Three classes of six videos of 3 s."""
    draw = np.random.default_rng(0)
    for scene in "abc":
        for number in range(6):
            base = np.kron(draw.integers(0, 255, (6, 8, 3)), np.ones((12, 12, 1))).astype(np.uint8)
            path = root / scene / f"IMG_{number:04d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            sound = draw.uniform(-0.3, 0.3, (1, 48000 + 800 * number)).astype(np.float32)
            write_video(path, [np.roll(base, n, axis=1) for n in range(30)], rate=10, sound=sound, sample_rate=16000)
    return root


def command(name: str, data: Path, out: Path) -> list[str]:
    stage = ["own_videos/hybrid", "--init", "--runs", str(out), "--data.root", str(data), *SMALL]
    return [str(AVSC), *{
        "train": ["train", *stage], "evaluate": ["evaluate", *stage],
        "prepare": ["data", "prepare", str(data), str(out / "store"), "--short-side", "64"],
        "check": ["data", "check", str(data)],
    }[name]]  # fmt: skip


def start(line: list[str], **options) -> subprocess.Popen:
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )


def whole(out: Path) -> set[str]:
    """Names of the files that are finished; raises where one of them is not what its name says."""
    found = set()
    for path in (path for path in out.rglob("*") if path.is_file()):
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                file.get_tensor(next(iter(file.keys())))
        if path.suffix in (".safetensors", ".ckpt", ".tar", ".json", ".html") or path.name == "metrics.csv":
            found.add(str(path.relative_to(out)))
    return found


def left(session: int) -> int:
    """Processes of a session."""
    found = subprocess.run(["ps", "-o", "pid=", "-s", str(session)], capture_output=True, text=True)
    return len(found.stdout.split())


def again(name: str, data: Path, out: Path) -> tuple[int, str]:
    line = command(name, data, out)
    if name == "train" and (out / "own_videos/hybrid/last.ckpt").is_file():
        line.append("--resume")
    process = start(line)
    _, said = process.communicate()
    return process.returncode, said[-300:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=("prepare", "train", "evaluate", "check"))
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1"}
    draw, wrong = random.Random(options.seed), 0
    head = "".join(f"{name:>11}" for name in ("in order", "longest s", "left", "lost", "finished"))
    print(f"{'command':<10}{'signal':<9}{'runs':>5}{head}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        data = folders(Path(scratch) / "data")
        trained = Path(scratch) / "trained"
        for name in ["train", *(one for one in options.only if one != "train")]:
            out = trained if name in ("train", "evaluate") else Path(scratch) / name
            begin = time.monotonic()
            status, said = again(name, data, out)
            seconds = time.monotonic() - begin
            if status:
                print(f"{name}: {said}")
                return 1
            if name not in options.only:
                continue
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
                order = lost = finished = remain = 0
                longest, told = 0.0, ""
                for _ in range(options.runs):
                    out = Path(scratch) / "out"
                    shutil.rmtree(out, ignore_errors=True)
                    if name == "evaluate":
                        shutil.copytree(trained, out)
                        shutil.rmtree(out / "own_videos/hybrid/evaluation", ignore_errors=True)
                    process = start(command(name, data, out))
                    # What Python does before it runs our code ends as any program does.
                    time.sleep(min(2.0, 0.2 * seconds) + draw.uniform(0, 0.8 * seconds))
                    before = whole(out) if out.is_dir() else set()
                    process.send_signal(number)
                    begin = time.monotonic()
                    _, err = process.communicate()
                    longest = max(longest, time.monotonic() - begin)
                    time.sleep(1.5)
                    remain += left(process.pid)
                    last = err.strip().split("\n")[-1]
                    ended = process.returncode in (0, 130, 143) and "Traceback" not in err
                    ended &= process.returncode == 0 or last.endswith("what was finished is kept")
                    order += ended
                    if not ended and number != signal.SIGKILL:
                        told = f"{name}: status {process.returncode}: {err[-400:]}"
                    lost += len(before - (whole(out) if out.is_dir() else set()))
                    status, said = again(name, data, out)
                    finished += status == 0
                    told = told or (f"{name}: the run after it: {said}" if status else "")
                in_order = "-" if number == signal.SIGKILL else str(order)
                print(f"{name:<10}{number.name:<9}{options.runs:5}{in_order:>11}{longest:11.1f}{remain:11}{lost:11}{finished:11}",
                      flush=True)  # fmt: skip
                bad = (number != signal.SIGKILL and order < options.runs) or remain or lost or finished < options.runs
                wrong += bool(bad)
                if told:
                    print(told)
        wrong += twice(data, Path(scratch) / "twice") + full(data, Path(scratch) / "full")
    return int(bool(wrong))


def twice(data: Path, out: Path) -> int:
    """A second training in the folder of one that runs."""
    first = start(command("train", data, out))
    while not (out / "own_videos/hybrid/recipe.json").exists() and first.poll() is None:
        time.sleep(0.05)
    second = start(command("train", data, out))
    _, err = second.communicate()
    first.communicate()
    refused = second.returncode == 2 and "another process is at work there" in err
    print(f"two runs in one folder: the second {'is refused' if refused else 'goes on'}, status {second.returncode}; "
          f"the first ends with status {first.returncode}")  # fmt: skip
    return int(not refused or first.returncode != 0)


def full(data: Path, out: Path) -> int:
    """No file may grow beyond 10 kB: what a full disk does to a write."""
    wrong = 0
    for name in ("train", "prepare"):
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))  # noqa: E731
        process = start(command(name, data, out / name), preexec_fn=limit)
        _, err = process.communicate()
        said = err.strip().split("\n")[-1]
        good = process.returncode == 2 and said.startswith("error: ") and "Traceback" not in err
        status, _ = again(name, data, out / name)
        print(f"full disk, {name}: status {process.returncode}, {said[:160]}; with room again: status {status}")
        wrong += not good or status != 0
    return wrong


if __name__ == "__main__":
    sys.exit(main())
