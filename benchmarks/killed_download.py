"""Kill a download at random moments, run it again, and compare what comes out with an unbroken one, byte by byte.

    python benchmarks/killed_download.py [--kills 20] [--seed 0]

A server on this machine serves seven archives of about 3 MB at a few MB/s, with many small files, so that fetching,
verifying and unpacking are all hit. A run is killed 1, 2 or 3 times before it may finish.
"""

import argparse
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from avsc_e2e.data.download.archives import Archive
from avsc_e2e.data.download.download import download

RATE = 6e6
KINDS = (".zip.part", ".zip", ".member", ".done")
"""What may lie in ROOT/archives."""

WORKER = """
import sys
from avsc_e2e.data.download.archives import Archive
from avsc_e2e.data.download.download import download
url, root, *cells = sys.argv[1:]
rows = zip(cells[::3], cells[1::3], cells[2::3])
archives = [Archive("development", name, int(size), md5) for name, size, md5 in rows]
print("go", flush=True)
download(root, archives, base_url=url, parallel=2)
"""


class Handler(BaseHTTPRequestHandler):
    def __init__(self, files, *args):
        self.files = files
        super().__init__(*args)

    def log_message(self, *_):
        pass

    def do_GET(self):
        data = self.files[self.path.removeprefix("/")]
        first = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.send_response(206)
        self.send_header("Content-Length", str(len(data) - first))
        self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        for at in range(first, len(data), 32768):
            try:
                self.wfile.write(data[at : min(at + 32768, len(data))])
            except OSError:  # the client was killed
                return
            time.sleep(32768 / RATE)


def make_archives(draw: random.Random) -> dict[str, bytes]:
    files = {}
    for kind, number in (*(("audio", n) for n in range(1, 4)), *(("video", n) for n in range(1, 4)), ("meta", 0)):
        name = f"TAU-urban-audio-visual-scenes-2021-development.{kind}" + (f".{number}" if number else "")
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for index in range(300):
                archive.writestr(f"{name}/{kind}/{number}-{index}.bin", draw.randbytes(draw.randrange(20_000)))
        files[f"{name}.zip"] = buffer.getvalue()
    return files


def digest(root: Path) -> str:
    """Of names and contents of all that lies in a folder."""
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        total.update(str(path.relative_to(root)).encode() + b"\0" + (path.read_bytes() if path.is_file() else b""))
    return total.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    files = make_archives(draw)
    archives = [Archive("development", name, len(data), hashlib.md5(data).hexdigest()) for name, data in files.items()]
    cells = [str(cell) for archive in archives for cell in archive[1:]]
    with (
        tempfile.TemporaryDirectory() as scratch,
        ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, files)) as server,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        start = time.perf_counter()
        download(Path(scratch) / "whole", archives, base_url=url, parallel=2)
        seconds = time.perf_counter() - start
        expected = digest(Path(scratch) / "whole")
        print(f"unbroken: {seconds:.2f} s, {len(files)} archives, {sum(map(len, files.values())) / 1e6:.1f} MB")
        killed, differing, trial = 0, 0, 0
        while killed < options.kills:
            root = Path(scratch) / str(trial)
            moments = []
            for _ in range(min(1 + trial % 3, options.kills - killed)):
                process = subprocess.Popen(
                    [sys.executable, "-c", WORKER, url, str(root), *cells], stdout=subprocess.PIPE
                )
                process.stdout.readline()
                moment = draw.uniform(0, seconds)
                time.sleep(moment)
                alive = process.poll() is None
                process.send_signal(signal.SIGKILL)
                process.wait()
                process.stdout.close()
                killed += alive
                left = sorted(os.listdir(root / "archives")) if (root / "archives").exists() else []
                count = " ".join(f"{sum(name.endswith(end) for name in left)}{end}" for end in KINDS)
                moments.append(f"{moment:5.2f} s {count}" + ("" if alive else " (had finished)"))
                if not alive:
                    break
            download(root, archives, base_url=url, parallel=2)
            same = digest(root) == expected
            differing += not same
            print(f"trial {trial:2}: {'identical' if same else 'DIFFERENT'} after kills at {'; '.join(moments)}")
            trial += 1
        server.shutdown()
        print(f"{killed} kills in {trial} trials: {trial - differing} identical, {differing} different")
        sys.exit(bool(differing))


if __name__ == "__main__":
    main()
