"""`avsc app` under several clients at once: no error, limits that hold, memory that stays, no file left.

    python benchmarks/app.py CHECKPOINT MEDIA... [--minutes 5] [--clients 8]

Most requests are whole recordings. Others are cut off, too large, too long or of no media type, or the client leaves
while it sends or while it waits. Each client has a loopback address of its own; one more asks faster than is allowed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import wave
from collections import Counter
from pathlib import Path
from statistics import median

import aiohttp

SIZE, LENGTH, RATE = 20, 60, 120
"""Limits of the server: megabytes, seconds, recordings a minute from one address."""
SHARES = {"whole": 14, "cut off": 2, "large": 1, "long": 1, "text": 1, "leaves": 2}
EXPECTED = {"whole": {"result"}, "cut off": {"result", "error"}, "large": {"413"}, "long": {"error"},
            "text": {"415"}, "leaves": {"left"}, "fast": {"error", "429"}}  # fmt: skip


class Client:
    """A visitor with an address of its own."""

    def __init__(self, number: int, url: str, media: list[bytes], long: bytes):
        self.address, self.url, self.media, self.long = f"127.0.0.{10 + number}", url, media, long
        self.draw = random.Random(number)
        self.seen: Counter[tuple[str, str]] = Counter()
        self.seconds: list[float] = []
        self.taken: list[tuple[float, float]] = []

    def session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(self.address, 0)))

    async def run(self, until: float) -> None:
        async with self.session() as session:
            while time.monotonic() < until:
                kind = self.draw.choices(list(SHARES), list(SHARES.values()))[0]
                begin = time.monotonic()
                self.seen[kind, await self.ask(session, kind)] += 1
                if kind == "whole":
                    self.seconds.append(time.monotonic() - begin)
                await asyncio.sleep(self.draw.uniform(0.2, 1.0))  # a visitor looks at what came

    async def ask(self, session: aiohttp.ClientSession, kind: str) -> str:
        """What came of a request: result, error (a line of the server), the status of a refusal, or left."""
        body, name = self.draw.choice(self.media), "clip.mp4"
        if kind == "cut off":
            body = body[: self.draw.randrange(1, len(body))]
        elif kind == "large":
            body = bytes(SIZE * 1_000_000 + 1)
        elif kind == "long":
            body, name = self.long, "long.wav"
        elif kind == "text":
            name = "notes.txt"
        try:
            patience = aiohttp.ClientTimeout(total=self.draw.uniform(0.01, 1.5) if kind == "leaves" else 300)
            async with session.post(f"{self.url}/predict?name={name}", data=body, timeout=patience) as answer:
                text = await answer.text()
        except TimeoutError:
            return "left" if kind == "leaves" else "timeout"
        except aiohttp.ClientError as error:  # the server closes on a body that is too large
            return "413" if kind == "large" else f"{type(error).__name__}: {error}"
        if kind == "leaves":
            return "left"
        last = json.loads(text.splitlines()[-1])
        if answer.status != 200:
            return str(answer.status)
        return "result" if "result" in last else "error"

    async def hurry(self) -> None:
        """Ask faster than is allowed, and note when each recording that was taken was sent and answered."""
        async with self.session() as session:
            for _ in range(RATE + 20):
                sent = time.monotonic()
                async with session.post(f"{self.url}/predict?name=clip.mp4", data=b"no media") as answer:
                    self.seen["fast", "429" if answer.status == 429 else "error"] += 1
                    await answer.read()
                if answer.status != 429:
                    self.taken.append((sent, time.monotonic()))

    @property
    def limited(self) -> bool:
        """Whether requests were refused, and no more than RATE were taken within a minute."""
        pairs = zip(self.taken, self.taken[RATE:], strict=False)
        return self.seen["fast", "429"] > 0 and all(answered - sent >= 60 for (sent, _), (_, answered) in pairs)


class Watch:
    """Memory, descriptors and files of the server."""

    def __init__(self, process: int, folder: Path):
        self.process, self.folder = process, folder
        self.memory: list[float] = []
        self.files: list[int] = []
        self.descriptors: list[int] = []

    def look(self) -> None:
        status = Path(f"/proc/{self.process}/status").read_text()
        self.memory.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
        self.files.append(sum(path.is_file() for path in self.folder.glob("avsc_app_*/tmp*/*")))
        self.descriptors.append(len(os.listdir(f"/proc/{self.process}/fd")))

    async def run(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(1)


async def load(url: str, process: int, folder: Path, options: argparse.Namespace) -> bool:
    media = [path.read_bytes() for path in options.media]
    clients = [Client(number, url, media, silence(LENGTH + 10)) for number in range(options.clients + 1)]
    watch = Watch(process, folder)
    *visitors, hasty = clients
    async with visitors[0].session() as session:  # what is loaded at the first prediction counts for none of the rest
        await visitors[0].ask(session, "whole")
    looking = asyncio.ensure_future(watch.run())
    until = time.monotonic() + 60 * options.minutes
    await asyncio.gather(hasty.hurry(), *(client.run(until) for client in visitors))
    looking.cancel()
    for _ in range(60):  # those who left may still be noticed
        watch.look()
        if not watch.files[-1]:
            break
        await asyncio.sleep(1)
    seen = sum((client.seen for client in clients), Counter())
    wrong = {key: number for key, number in seen.items() if key[1] not in EXPECTED[key[0]]}
    for (kind, came), number in sorted(seen.items()):
        print(f"{kind:8} {came:24} {number:6}")
    waits = sorted(second for client in clients for second in client.seconds)
    fifth = max(len(watch.memory) // 5, 1)
    early, late = median(watch.memory[:fifth]), median(watch.memory[-fifth:])
    print(f"{len(waits)} whole recordings, median {median(waits):.2f} s, slowest {waits[-1]:.2f} s")
    print(
        f"memory: {early:.0f} MB in the first fifth, {late:.0f} MB in the last ({late / early:.3f}), "
        f"most {max(watch.memory):.0f} MB"
    )
    print(f"descriptors: {watch.descriptors[0]} at first, {watch.descriptors[-1]} at last")
    print(f"uploads on the disk: at most {max(watch.files)}, at last {watch.files[-1]}")
    good = not wrong and hasty.limited and not watch.files[-1] and late < 1.1 * early
    print("unexpected: " + (", ".join(f"{kind} {came}: {number}" for (kind, came), number in wrong.items()) or "none"))
    return good


def silence(seconds: float) -> bytes:
    """A WAV file, mono, 8 kHz."""
    with tempfile.TemporaryFile() as file:
        with wave.open(file, "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframes(bytes(round(seconds * 16_000)))
        file.seek(0)
        return file.read()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("media", type=Path, nargs="+")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--port", "0", "--size", str(SIZE), "--length", str(LENGTH), "--rate", str(RATE)]
        log = Path(folder) / "log"
        with log.open("w") as told:
            server = subprocess.Popen(
                [sys.executable, "-m", "avsc_e2e", "app", str(options.checkpoint), *flags],
                stderr=told, env={**os.environ, "TMPDIR": folder},
            )  # fmt: skip
        while "http://" not in log.read_text():
            if server.poll() is not None:
                sys.exit(log.read_text())
            time.sleep(0.2)
        url = "http://" + log.read_text().split("http://")[1].split()[0]
        good = asyncio.run(load(url, server.pid, Path(folder), options))
        server.send_signal(signal.SIGINT)
        server.wait()
        complaints = log.read_text()
        left = [path for path in Path(folder).rglob("*") if path.name.startswith("avsc")]
        print(f"after the end: status {server.returncode}, {len(left)} files or folders left")
        tracebacks = complaints.count("Traceback")
        print(f"tracebacks in the server's log: {tracebacks}")
        good = good and not left and not tracebacks
    print("holds: " + ("yes" if good else "NO"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
