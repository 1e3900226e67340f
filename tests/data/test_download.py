import hashlib
import io
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections import deque
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError

import pytest

from avsc_e2e.data.download.archives import Archive, list_archives
from avsc_e2e.data.download.connection import retry_after
from avsc_e2e.data.download.download import download
from avsc_e2e.data.download.job import Job
from avsc_e2e.data.download.plan import Plan, Progress, plan_download
from avsc_e2e.data.download.unpacking import unpack
from avsc_e2e.durable import alone
from avsc_e2e.errors import AvscError

NAME = "TAU-urban-audio-visual-scenes-2021-development"
RANDOM = random.Random(0)
NOISE = RANDOM.randbytes(400_000)


def zipped(files, change=None):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if change:
                change(info)
            archive.writestr(info, data)
    return buffer.getvalue()


ZIPS = {
    f"{NAME}.meta.zip": zipped({f"{NAME}.meta/meta.csv": b"a\tb\n" * 99, f"{NAME}.meta/evaluation_setup/x.csv": b"x"}),
    f"{NAME}.audio.1.zip": zipped({f"{NAME}/audio/{n}.wav": NOISE[n * 9000 :][:90_000] for n in range(8)}),
    f"{NAME}.audio.2.zip": zipped({f"audio/{n}.wav": NOISE[n * 7000 :][:50_000] for n in range(8, 14)}),
    f"{NAME}.video.1.zip": zipped({f"{NAME}/video/{n}.mp4": NOISE[n * 8000 :][:99_000] for n in range(6)}),
    f"{NAME}.examples.zip": zipped({f"{NAME}.examples/README.html": b"<p>", f"{NAME}.examples/audio/a.wav": b"a"}),
}


def listed(zips=ZIPS):
    return [Archive("development", name, len(data), hashlib.md5(data).hexdigest()) for name, data in zips.items()]


class Server(ThreadingHTTPServer):
    """Serves bytes by name, with ranges, and with faults: functions (handler, name, data) that answer in its place
    and return True, each used once."""

    daemon_threads = True

    def __init__(self, files=ZIPS, rate=0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.requests, self.rate = dict(files), [], [], rate
        self.ranges = True
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def handle_error(self, request, client_address):  # clients that are killed
        pass


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        name = self.path.removeprefix("/")
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.server.requests.append((name, first))
        data = self.server.files.get(name)
        if data is None:
            self.send_error(404)
        elif self.server.faults and self.server.faults[0](self, name, data):
            self.server.faults.pop(0)
        else:
            self.answer(data, first)

    def answer(self, data, first, end=None):
        ranged = self.server.ranges
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Length", str(len(data) - (first if ranged else 0)))
        if ranged:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        rest = data[first if ranged else 0 : end]
        if not self.server.rate:
            self.wfile.write(rest)
        while self.server.rate and rest:
            self.wfile.write(rest[:4096])
            rest = rest[4096:]
            time.sleep(4096 / self.server.rate)


@pytest.fixture
def server():
    with Server() as server:
        yield server
        server.shutdown()


def tree(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="session")
def expected(tmp_path_factory):
    """The tree of an unbroken download."""
    root = tmp_path_factory.mktemp("expected")
    with Server() as server:
        download(root, listed(), base_url=server.url)
        server.shutdown()
    return tree(root)


def fetch(root, server, **options):
    return download(root, listed(), base_url=server.url + "/", pause=0.01, **options)


def fails(match, *args, **options):
    with pytest.raises(AvscError, match=match) as caught:
        download(*args, pause=0.001, **options)
    assert "\n" not in str(caught.value)


def test_the_published_table():
    development, evaluation = list_archives(), list_archives("evaluation")
    assert (len(development), len(evaluation)) == (27, 16)
    assert sum(archive.size for archive in development) == pytest.approx(107.7e9, rel=0.001)
    assert sum(archive.size for archive in evaluation) == pytest.approx(61.2e9, rel=0.001)
    assert [archive.kind for archive in list_archives(kinds=("meta", "doc"))] == ["doc", "meta"]
    assert len(list_archives("evaluation", ("audio",))) == 5
    assert all(len(archive.md5) == 32 for archive in development + evaluation)
    for part, kinds in (("test", ("doc",)), ("development", ("sound",))):
        with pytest.raises(AvscError, match="give"):
            list_archives(part, kinds)


def test_what_comes_out_is_the_official_layout(tmp_path, server, expected):
    ticks = []
    target = fetch(tmp_path, server, progress=ticks.append)
    assert target == tmp_path / NAME
    files = tree(target)
    assert files["meta.csv"] == b"a\tb\n" * 99
    assert set(files) == {"meta.csv", "evaluation_setup/x.csv", "examples/README.html", "examples/audio/a.wav"} | {
        *(f"audio/{n}.wav" for n in range(14)), *(f"video/{n}.mp4" for n in range(6))}  # fmt: skip
    assert files["audio/9.wav"] == NOISE[63_000:][:50_000]
    assert tree(tmp_path) == expected
    assert sorted(os.listdir(tmp_path / "archives")) == sorted(f"{name}.done" for name in ZIPS)
    total = sum(map(len, ZIPS.values()))
    assert (ticks[-1].done, ticks[-1].total, ticks[-1].finished, ticks[-1].archives) == (total, total, 5, 5)
    assert "5 of 5 archives" in str(ticks[-1])


def test_a_second_run_fetches_nothing_and_a_lost_file_again(tmp_path, server, expected):
    fetch(tmp_path, server)
    server.requests.clear()
    plan = plan_download(tmp_path, listed())
    assert (len(plan.finished), plan.to_fetch, plan.needed) == (5, 0, 0)
    fetch(tmp_path, server)
    assert server.requests == []
    (tmp_path / NAME / "audio" / "3.wav").unlink()
    fetch(tmp_path, server)
    assert server.requests == [(f"{NAME}.audio.1.zip", 0)]
    assert tree(tmp_path) == expected
    server.requests.clear()
    cut = tmp_path / NAME / "video" / "2.mp4"  # as a power failure leaves it
    os.truncate(cut, cut.stat().st_size - 1)
    fetch(tmp_path, server)
    assert server.requests == [(f"{NAME}.video.1.zip", 0)]
    assert tree(tmp_path) == expected


def test_archives_are_kept_as_asked(tmp_path, server):
    fetch(tmp_path, server, keep=True)
    assert {name: data for name, data in tree(tmp_path / "archives").items() if name in ZIPS} == ZIPS
    server.requests.clear()
    fetch(tmp_path, server)
    assert server.requests == []
    assert not any((tmp_path / "archives" / name).exists() for name in ZIPS)


def test_resumes_within_an_archive(tmp_path, server, expected):
    name = f"{NAME}.video.1.zip"
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / f"{name}.part").write_bytes(ZIPS[name][:100_000])
    assert plan_download(tmp_path, listed()).to_fetch == sum(map(len, ZIPS.values())) - 100_000
    fetch(tmp_path, server)
    assert (name, 100_000) in server.requests
    assert len(server.requests) == 5
    assert tree(tmp_path) == expected


@pytest.mark.parametrize("left", ["damaged", "longer", "whole but wrong"])
def test_what_an_earlier_run_left_is_not_trusted(tmp_path, server, expected, left):
    name = f"{NAME}.video.1.zip"
    (tmp_path / "archives").mkdir()
    junk = {"damaged": bytes(5000), "longer": bytes(len(ZIPS[name]) + 1), "whole but wrong": bytes(len(ZIPS[name]))}
    path = tmp_path / "archives" / (name if left == "whole but wrong" else f"{name}.part")
    path.write_bytes(junk[left])
    fetch(tmp_path, server)
    assert tree(tmp_path) == expected


def test_broken_connections_are_made_anew(tmp_path, server, expected):
    def cut(handler, name, data):
        first = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        handler.answer(data, first, first + 30_000)
        handler.connection.close()
        return True

    def reset(handler, name, data):
        handler.connection.close()
        return True

    def busy(handler, name, data):
        handler.send_response(429)
        handler.send_header("Retry-After", "0")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    def down(handler, name, data):
        handler.send_error(503)
        return True

    server.faults += [cut, reset, busy, cut, down, cut, reset, cut]
    fetch(tmp_path, server, parallel=1)
    assert not server.faults
    audio = [first for name, first in server.requests if name == f"{NAME}.audio.1.zip"]
    assert audio == [0, 0, 0, 30_000, 30_000, 60_000, 60_000, 90_000]  # the first cut spared the small meta archive
    assert tree(tmp_path) == expected


def test_a_server_without_ranges(tmp_path, server, expected):
    server.ranges = False
    name = f"{NAME}.audio.1.zip"
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / f"{name}.part").write_bytes(ZIPS[name][:77])
    fetch(tmp_path, server)
    assert tree(tmp_path) == expected


def test_a_partial_answer_that_starts_elsewhere(tmp_path, server, expected):
    def elsewhere(handler, name, data):
        handler.answer(data, 5000)
        return True

    server.faults.append(elsewhere)
    fetch(tmp_path, server, parallel=1)
    assert tree(tmp_path) == expected


def test_wrong_hash_is_thrown_away_and_the_others_are_finished(tmp_path, server):
    name = f"{NAME}.audio.1.zip"
    server.files[name] = bytes(len(ZIPS[name]))
    fails(rf"{name}: MD5 \w+, not the published \w+: it was thrown away", tmp_path, listed(), base_url=server.url)
    assert (tmp_path / NAME / "audio" / "9.wav").is_file()
    assert not (tmp_path / NAME / "audio" / "1.wav").exists()
    assert not list((tmp_path / "archives").glob(f"{name}*"))
    server.files[name] = ZIPS[name]
    fetch(tmp_path, server)
    assert (tmp_path / NAME / "audio" / "1.wav").is_file()


def test_faults_of_a_server_are_one_line(tmp_path, server):
    archives = listed()
    server.files.clear()
    fails(r"404 Not Found: see to the base URL \(and 4 more", tmp_path, archives, base_url=server.url)
    server.files[archives[0].name] = ZIPS[archives[0].name] + b"x"
    fails("not the published", tmp_path, archives[:1], base_url=server.url)
    with Server() as gone:
        gone.shutdown()
    fails("refused, 3 times in a row: run it again later", tmp_path, archives[:1], base_url=gone.url, retries=2)
    fails("give one that starts with http", tmp_path, archives, base_url="file:///etc")
    fails("no archives", tmp_path, [])
    fails("is no name of a zip archive", tmp_path, [archives[0]._replace(name="../x.zip")], base_url=server.url)


def test_too_little_disk_is_told_before_it_starts(tmp_path, server):
    (huge, *_) = listed()
    huge = huge._replace(size=10**17)
    fails(r"1 to fetch|GB of disk needed, .* GB free: free some", tmp_path, [huge], base_url=server.url)
    assert server.requests == []
    plan = plan_download(tmp_path / "not" / "there", list_archives())
    assert isinstance(plan, Plan)
    assert 125e9 < plan.needed < 140e9
    assert "0 of 27 archives are there, 107.7 GB to fetch" in str(plan)
    assert plan_download(tmp_path, list_archives(), keep=True).needed > 210e9


def test_two_processes_in_one_folder(tmp_path, server):
    (tmp_path / "archives").mkdir()
    with alone(tmp_path / "archives"):
        fails("another process is at work", tmp_path, listed(), base_url=server.url)


def link(info):
    info.external_attr = (stat.S_IFLNK | 0o777) << 16


def device(info):
    info.external_attr = (stat.S_IFCHR | 0o666) << 16


@pytest.mark.parametrize(
    "data",
    [zipped({"/etc/evil": b"x"}), zipped({"../evil": b"x"}), zipped({"a/../../evil": b"x"}), zipped({"a//evil": b"x"}),
     zipped({"C:\\evil": b"x"}), zipped({"a\\..\\evil": b"x"}), zipped({"a\tb": b"x"}), zipped({"evil": b"/etc"}, link),
     zipped({"evil": b"x"}, device), zipped({f"{NAME}/audio/x": b"x", f"{NAME}/audio/../../../x": b"x"})],
)  # fmt: skip
def test_malicious_archives_leave_nothing(tmp_path, data):
    path = tmp_path / "deep" / "down" / "archive.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    before = tree(tmp_path)
    with pytest.raises(AvscError, match="leads out of the folder: not unpacked"):
        unpack(path, tmp_path / "deep" / "down" / "target")
    assert tree(tmp_path) == before
    assert not os.path.exists("/etc/evil")


def test_a_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.zip"
    path.write_bytes(zipped({f"{n}.wav": bytes(10_000_000) for n in range(9)}))
    assert path.stat().st_size < 200_000
    with pytest.raises(AvscError, match="far too many for its size"):
        unpack(path, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_an_archive_that_lies_about_its_sizes(tmp_path):
    """The sizes in the directory say little, the data hold much."""
    data = bytearray(zipped({"x.wav": bytes(3_000_000)}))
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = (1000).to_bytes(4, "little")
    path = tmp_path / "lying.zip"
    path.write_bytes(data)
    with pytest.raises(AvscError, match="a damaged archive"):
        unpack(path, tmp_path / "target")
    assert tree(tmp_path) == {"lying.zip": bytes(data)}


def test_the_same_name_twice(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x", b"2")
    (tmp_path / "twice.zip").write_bytes(buffer.getvalue())
    with pytest.raises(AvscError, match="holds 'x' twice"):
        unpack(tmp_path / "twice.zip", tmp_path / "target")


def test_a_damaged_archive(tmp_path):
    data = bytearray(ZIPS[f"{NAME}.audio.1.zip"])
    data[200_000] ^= 1
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(AvscError, match=r"a damaged archive .*: delete it and fetch it again"):
        unpack(tmp_path / "x.zip", tmp_path / "target")
    (tmp_path / "x.zip").write_bytes(b"<html>not found</html>")
    with pytest.raises(AvscError, match="a damaged archive"):
        unpack(tmp_path / "x.zip", tmp_path / "target")


def start(root, server):
    code = (
        "import sys\nfrom avsc_e2e.data.download.archives import Archive\n"
        "from avsc_e2e.data.download.download import download\n"
        "url, root, *rest = sys.argv[1:]\n"
        "archives = [Archive('development', n, int(s), m) for n, s, m in zip(rest[::3], rest[1::3], rest[2::3])]\n"
        "print('go', flush=True)\ndownload(root, archives, base_url=url, parallel=2)\n"
    )
    rows = [str(cell) for archive in listed() for cell in archive[1:]]
    command = [sys.executable, "-c", code, server.url, str(root), *rows]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    process.stdout.readline()
    return process


@pytest.mark.parametrize("moment", [0.1, 0.35, 0.7])
def test_killed_and_run_again(tmp_path, expected, moment):
    """Some three quarters of a second of work, killed in the middle, and the rest done by a second run."""
    with Server(rate=2e6) as server:
        process = start(tmp_path, server)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        server.rate = 0.0
        fetch(tmp_path, server)
        assert tree(tmp_path) == expected
        server.shutdown()


COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
from avsc_e2e.cli import data
from avsc_e2e.cli.parsing import one_line_errors
from avsc_e2e.data.download import archives
url, root, *rest = sys.argv[1:]
rows = [archives.Archive("development", n, int(s), m) for n, s, m in zip(rest[::3], rest[1::3], rest[2::3])]
archives.list_archives = lambda part: rows
with one_line_errors():
    data.download(root, base_url=url, parallel=2)
"""


@pytest.mark.parametrize(
    ("number", "status", "word", "silent"), [(signal.SIGTERM, 143, "term", True), (signal.SIGINT, 130, "interr", False)]
)
def test_the_command_ends_in_order_at_a_signal(tmp_path, expected, number, status, word, silent):
    """Also where the server has fallen silent; what was fetched is not fetched again."""
    with Server(rate=1e5) as server:
        rows = [str(cell) for archive in listed() for cell in archive[1:]]
        command = [sys.executable, "-c", COMMAND, server.url, str(tmp_path / "root"), *rows]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        fetched = lambda: sum(file.stat().st_size for file in (tmp_path / "root").rglob("*.part"))  # noqa: E731
        wait_for(lambda: fetched() > 30_000)
        if silent:
            server.rate = 4096 / 60
            time.sleep(0.1)
        process.send_signal(number)
        _, err = process.communicate(timeout=50)
        assert process.returncode == status
        assert err == f"{word}{err[len(word) :]}"
        assert err.endswith("ed: what was finished is kept\n")
        assert err.count("\n") == 1
        server.rate, server.requests[:] = 0.0, []
        fetch(tmp_path / "root", server)
        assert any(first > 0 for _, first in server.requests)
        assert tree(tmp_path / "root") == expected
        server.shutdown()


def wait_for(true, seconds=50.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_stopped_from_the_keyboard(tmp_path, expected):
    class Enough(KeyboardInterrupt):
        pass

    def stop(progress):
        if progress.done > 50_000:
            raise Enough

    with Server(rate=3e5) as server:
        with pytest.raises(Enough):
            download(tmp_path, listed(), base_url=server.url, progress=stop)
        server.rate = 0.0
        fetch(tmp_path, server)
        server.shutdown()
    assert tree(tmp_path) == expected


def test_a_server_that_asks_for_time_gets_it(tmp_path, server):
    """503 with Retry-After: 1 is asked again after a second, though the pause of this test is a hundredth of one."""
    asked = []

    def busy(handler, name, data):
        asked.append(time.monotonic())
        handler.send_response(503)
        handler.send_header("Retry-After", "1")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    server.faults.append(busy)
    zips = {name: data for name, data in ZIPS.items() if "meta" in name}
    seen = len(server.requests)
    download(tmp_path, listed(zips), base_url=server.url, pause=0.01)
    assert len(server.requests) == seen + 2
    assert time.monotonic() - asked[0] >= 1.0


def test_progress_in_words():
    """36,630 of 40,000 seconds are left at this rate: 10 hours, 10 minutes and 30 seconds."""
    found = Progress(3_370_000_000, 40_000_000_000, 1e6, 3, 21, ("audio.1.zip: fetching", "video.2.zip: unpacking"))
    assert str(found) == (
        "3.37 of 40.00 GB, 1.0 MB/s, 10:10:30 left; 3 of 21 archives; audio.1.zip: fetching, video.2.zip: unpacking"
    )
    assert str(found._replace(rate=0.0)).startswith("3.37 of 40.00 GB, 0.0 MB/s; 3 of 21")


def test_the_rate_is_that_of_the_last_seconds(monkeypatch):
    archives = (Archive("development", "audio.1.zip", 5_000_000, ""),)
    job = Job(SimpleNamespace(archives=archives, to_fetch=2_000_000), "http://a", False, 1, 0.0)
    monkeypatch.setattr(time, "monotonic", lambda: 12.0)
    found = job._progress(deque([(10.0, 1_000_000), (11.5, 2_900_000)]), 1)
    assert (found.done, found.total, found.rate) == (3_000_000, 5_000_000, 1e6)
    assert job._progress(deque([(12.0, 1_000_000)]), 1).rate == 0.0


def test_an_unpacked_file_that_lost_its_end_is_fetched_again(tmp_path, server, expected):
    fetch(tmp_path, server)
    victim = next(path for path in sorted(tmp_path.rglob("*.wav")) if path.stat().st_size > 1000)
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1])
    fetch(tmp_path, server)
    assert victim.read_bytes() == whole
    assert tree(tmp_path) == expected


@pytest.mark.parametrize(
    ("asked", "waited"), [("7", 7.0), ("300", 300.0), ("86400", 300.0), ("soon", 0.0), ("-1", 0.0), (None, 0.0)]
)
def test_a_server_may_ask_for_five_minutes_at_most(asked, waited):
    headers = Message()
    if asked is not None:
        headers["Retry-After"] = asked
    assert retry_after(HTTPError("http://a/b", 503, "busy", headers, None)) == waited
