"""Fetch TAU Urban Audio-Visual Scenes 2021: resumes where it stopped, trusts nothing it has not checked.

    ROOT/archives/<name>.zip.part    what has come so far of an archive
    ROOT/archives/<name>.zip         a whole archive of the right size and MD5
    ROOT/archives/<name>.done        what was unpacked from it: its MD5, then size and path of each file
    ROOT/TAU-urban-audio-visual-scenes-2021-<part>/    the set, in its official layout

Each file takes its place whole, by a rename, so the process may be killed at any moment and be started again.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import math
import os
import queue
import re
import shutil
import stat
import threading
import time
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from avsc_e2e.errors import AvscError

RECORDS = {
    "development": "https://zenodo.org/records/4477542/files",
    "evaluation": "https://zenodo.org/records/4767103/files",
}
"""Where the archives of each part are published (DOI 10.5281/zenodo.4477542 and 10.5281/zenodo.4767103)."""

KINDS = ("doc", "meta", "examples", "audio", "video")

EXPANSION = {"audio": 1.17, "video": 1.01, "examples": 1.17}
"""Unpacked bytes to each byte of an archive, from 12,291 WAV files of 2.88 MB; for others see LARGEST_EXPANSION."""

LARGEST_EXPANSION = 20
"""An archive that would unpack to more than this many times its size, and 64 MiB, is refused as a bomb."""

ENVELOPE = re.compile(r"TAU-urban-audio-visual-scenes-2021-\w+(\.\w+)*")
"""Name of a folder around all that an archive holds."""

CHUNK = 1 << 20
TIMEOUT = 60.0
"""Seconds without a byte after which a connection is given up and made anew."""


class Archive(NamedTuple):
    """A published file."""

    part: str
    """development or evaluation."""
    name: str
    size: int
    """Bytes."""
    md5: str

    @property
    def kind(self) -> str:
        """doc, meta, examples, audio or video."""
        return next((kind for kind in KINDS if f".{kind}." in self.name), "doc")

    @property
    def unpacked(self) -> int:
        """Bytes that its files take, estimated."""
        return int(self.size * EXPANSION.get(self.kind, LARGEST_EXPANSION))


class Progress(NamedTuple):
    """How far a download is."""

    done: int
    """Bytes fetched, in earlier runs too."""
    total: int
    """Bytes of all archives asked for."""
    rate: float
    """Bytes a second, over the last half minute."""
    finished: int
    """Archives fetched, verified and unpacked."""
    archives: int
    at_work: tuple[str, ...]
    """What is being done, one entry for each archive at work."""

    @property
    def seconds_left(self) -> float:
        """For the fetching; infinite while nothing comes."""
        return (self.total - self.done) / self.rate if self.rate else math.inf

    def __str__(self) -> str:
        left = self.seconds_left
        eta = "" if math.isinf(left) else f", {left // 3600:.0f}:{left % 3600 // 60:02.0f}:{left % 60:02.0f} left"
        return (
            f"{self.done / 1e9:.2f} of {self.total / 1e9:.2f} GB, {self.rate / 1e6:.1f} MB/s{eta}; "
            f"{self.finished} of {self.archives} archives; {', '.join(self.at_work)}"
        )


class Plan(NamedTuple):
    """What a download has to do and what it needs."""

    root: Path
    archives: tuple[Archive, ...]
    """All that were asked for."""
    finished: tuple[Archive, ...]
    """Those unpacked already."""
    to_fetch: int
    """Bytes that are still to come."""
    needed: int
    """Bytes of disk that the download takes at its peak, estimated, beyond what is taken already."""
    free: int
    """Bytes."""

    def __str__(self) -> str:
        return (
            f"{self.root}: {len(self.finished)} of {len(self.archives)} archives are there, "
            f"{self.to_fetch / 1e9:.1f} GB to fetch; about {self.needed / 1e9:.1f} GB of disk "
            f"needed, {self.free / 1e9:.1f} GB free"
        )


def list_archives(part: str = "development", kinds: Sequence[str] = KINDS) -> tuple[Archive, ...]:
    """List the published archives of a part. Raises AvscError for an unknown part or kind."""
    if part not in RECORDS:
        raise AvscError(f"part {part!r}: give {' or '.join(RECORDS)}")
    for kind in kinds:
        if kind not in KINDS:
            raise AvscError(f"kind {kind!r}: give one of {', '.join(KINDS)}")
    table = resources.files(__package__).joinpath("tau_archives.tsv").read_text()
    rows = [line.split("\t") for line in table.splitlines()[1:]]
    archives = [Archive(of_part, name, int(size), md5) for of_part, name, size, md5 in rows if of_part == part]
    return tuple(archive for archive in archives if archive.kind in kinds)


def plan_download(
    root: str | os.PathLike[str], archives: Sequence[Archive], *, keep: bool = False, parallel: int = 4
) -> Plan:
    """Look at what is there already, and tell what remains and how much disk it takes."""
    root = Path(os.path.abspath(root))
    finished = tuple(archive for archive in archives if _is_finished(root, archive))
    remaining = [archive for archive in archives if archive not in finished]
    there = {archive: _fetched(root, archive) for archive in remaining}
    needed = sum(archive.unpacked for archive in remaining)
    sizes = sorted((archive.size for archive in remaining), reverse=True)
    needed += sum(sizes) - sum(there.values()) if keep else sum(sizes[:parallel])
    folder = next(path for path in (root, *root.parents) if path.exists())
    to_fetch = sum(archive.size - there[archive] for archive in remaining)
    return Plan(root, tuple(archives), finished, to_fetch, needed, shutil.disk_usage(folder).free)


def download(
    root: str | os.PathLike[str],
    archives: Sequence[Archive],
    *,
    base_url: str = "",
    keep: bool = False,
    parallel: int = 4,
    retries: int = 8,
    pause: float = 1.0,
    progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Fetch, verify and unpack archives below `root`; give the folder of the set.

    `base_url` replaces the published place; an archive's name is appended to it. `keep` leaves the archives in
    ROOT/archives. A broken connection is made anew `retries` times without a byte between, after a pause that starts
    at `pause` seconds and doubles. `progress` is called twice a second.

    Raises AvscError where disk, server or archive fails; archives that can be had are still finished before.
    """
    for archive in archives:
        if not re.fullmatch(r"[\w-][\w.-]*\.zip", archive.name):
            raise AvscError(f"{archive.name!r} is no name of a zip archive")
        if urlsplit(_url(archive, base_url)).scheme not in ("http", "https"):
            raise AvscError(f"base URL {base_url!r}: give one that starts with http:// or https://")
    if not archives:
        raise AvscError(f"no archives to fetch: give one of the kinds {', '.join(KINDS)}")
    plan = plan_download(root, archives, keep=keep, parallel=parallel)
    if plan.needed > plan.free:
        raise AvscError(f"{plan}: free some, give a root on another disk, or fetch fewer kinds of archives at a time")
    folder = plan.root / "archives"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AvscError(f"{folder}: cannot be made: {error.strerror}") from None
    with _only_process(folder):
        job = _Job(plan, base_url, keep, retries, pause)
        job.run(parallel, progress)
    return _target(plan.root, archives[0].part)


def _url(archive: Archive, base_url: str) -> str:
    return f"{(base_url or RECORDS[archive.part]).rstrip('/')}/{archive.name}"


def _target(root: Path, part: str) -> Path:
    name = f"TAU-urban-audio-visual-scenes-2021-{part}"
    return root if root.name == name else root / name


def _fetched(root: Path, archive: Archive) -> int:
    """Bytes of an archive that are on the disk."""
    for name in (archive.name, f"{archive.name}.part"):
        path = root / "archives" / name
        if path.is_file():
            return min(path.stat().st_size, archive.size)
    return 0


def _is_finished(root: Path, archive: Archive) -> bool:
    """Whether an archive was unpacked, and each file that came out of it is still there at its size."""
    try:
        md5, *files = (root / "archives" / f"{archive.name}.done").read_text(encoding="utf-8").split("\n")[:-1]
        target = _target(root, archive.part)
        sizes = (line.split("\t", 1) for line in files)
        return md5 == archive.md5 and all(os.stat(target / name).st_size == int(size) for size, name in sizes)
    except (OSError, ValueError):
        return False


@contextmanager
def _only_process(folder: Path) -> Iterator[None]:
    """Keep a second process out of the folder; the lock goes with the process, even when that is killed."""
    try:
        import fcntl
    except ImportError:  # a system without it has no such lock on folders
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise AvscError(f"{folder}: another download is at work there: wait for it, or stop it") from None
    finally:
        os.close(handle)


class _Stopped(Exception):
    """Told to a worker that it shall not go on."""


class _Job:
    """A download at work: threads take archives from a queue, the caller's thread tells how it goes."""

    def __init__(self, plan: Plan, base_url: str, keep: bool, retries: int, pause: float):
        self.plan, self.base_url, self.keep, self.retries, self.pause = plan, base_url, keep, retries, pause
        self.stop = threading.Event()
        self.waiting: queue.SimpleQueue[Archive] = queue.SimpleQueue()
        self.results: queue.SimpleQueue[tuple[Archive, BaseException | None]] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.fetched = sum(archive.size for archive in plan.archives) - plan.to_fetch
        self.stage: dict[str, str] = {}

    def run(self, parallel: int, progress: Callable[[Progress], None] | None) -> None:
        for archive in self.plan.archives:
            if archive in self.plan.finished:
                self._delete(archive)  # a kill may have come between the unpacking and this
            else:
                self.waiting.put(archive)
        open_ones = len(self.plan.archives) - len(self.plan.finished)
        # Daemons, so that Ctrl-C needs not wait for a silent server: they can be cut off anywhere.
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(min(parallel, open_ones))]
        for thread in threads:
            thread.start()
        failures: list[BaseException] = []
        history = deque([(time.monotonic(), self.fetched)], maxlen=60)
        try:
            while open_ones:
                try:
                    _, failure = self.results.get(timeout=0.5)
                    open_ones -= 1
                    failures += [failure] if failure else []
                    if failure and not isinstance(failure, AvscError):
                        raise failure
                except queue.Empty:
                    history.append((time.monotonic(), self.fetched))
                if progress:
                    progress(self._progress(history, open_ones + len(failures)))
        finally:
            self.stop.set()
            for thread in threads:
                thread.join(timeout=2)
        if failures:
            more = f" (and {len(failures) - 1} more archives failed)" if len(failures) > 1 else ""
            raise AvscError(f"{failures[0]}{more}")

    def _progress(self, history: deque[tuple[float, int]], unfinished: int) -> Progress:
        (start, before), now = history[0], time.monotonic()
        rate = max(self.fetched - before, 0) / (now - start) if now > start else 0.0
        archives = self.plan.archives
        with self.lock:
            at_work = tuple(f"{what} {name}" for name, what in sorted(self.stage.items()))
        total = sum(archive.size for archive in archives)
        return Progress(self.fetched, total, rate, len(archives) - unfinished, len(archives), at_work)

    def _work(self) -> None:
        while not self.stop.is_set():
            try:
                archive = self.waiting.get_nowait()
            except queue.Empty:
                return
            failure: BaseException | None = None
            try:
                self._finish(archive)
            except _Stopped:
                return
            except OSError as error:
                hint = "free some disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "see to that folder"
                failure = AvscError(
                    f"{error.filename or self.plan.root}: {error.strerror or error}: {hint}, run it again"
                )
            except Exception as error:  # shown by the caller's thread
                failure = error
            with self.lock:
                self.stage.pop(_short(archive), None)
            self.results.put((archive, failure))

    def _tell(self, archive: Archive, stage: str) -> None:
        with self.lock:
            self.stage[_short(archive)] = stage

    def _count(self, number: int) -> None:
        with self.lock:
            self.fetched += number

    def _finish(self, archive: Archive) -> None:
        folder = self.plan.root / "archives"
        whole, partial = folder / archive.name, folder / f"{archive.name}.part"
        if whole.is_file() and self._md5(whole, archive) != archive.md5:
            self._count(-_fetched(self.plan.root, archive))
            whole.unlink()
        if not whole.is_file():
            resumed = partial.is_file() and partial.stat().st_size > 0
            self._fetch(archive, partial)
            found = self._md5(partial, archive)
            if found != archive.md5 and resumed:  # perhaps what an earlier run left was damaged
                self._count(-partial.stat().st_size)
                partial.unlink()
                self._fetch(archive, partial)
                found = self._md5(partial, archive)
            if found != archive.md5:
                self._count(-partial.stat().st_size)
                partial.unlink()
                raise AvscError(
                    f"{_url(archive, self.base_url)}: MD5 {found}, not the published {archive.md5}: "
                    "it was thrown away; run it again, or try another base URL"
                )
            partial.replace(whole)
        self._tell(archive, "unpacking")
        files = unpack(whole, _target(self.plan.root, archive.part), stop=self.stop)
        marker = folder / f"{archive.name}.done"
        temporary = folder / f"{archive.name}.done.part"
        lines = [archive.md5, *(f"{size}\t{name}" for name, size in files.items())]
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        temporary.replace(marker)
        self._delete(archive)

    def _delete(self, archive: Archive) -> None:
        if not self.keep:
            (self.plan.root / "archives" / archive.name).unlink(missing_ok=True)

    def _md5(self, path: Path, archive: Archive) -> str:
        self._tell(archive, "verifying")
        digest = hashlib.md5(usedforsecurity=False)
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                if self.stop.is_set():
                    raise _Stopped
        return digest.hexdigest()

    def _fetch(self, archive: Archive, path: Path) -> None:
        """Append to `path` what it lacks of the archive."""
        url, failures = _url(archive, self.base_url), 0
        self._tell(archive, "fetching")
        while (have := path.stat().st_size if path.is_file() else 0) != archive.size:
            if have > archive.size:
                self._count(-archive.size)
                path.unlink()
                continue
            wait, reason = 0.0, "the connection broke off"
            try:
                self._stream(archive, url, path, have)
            except HTTPError as error:
                if error.code not in (408, 425, 429) and error.code < 500:
                    raise AvscError(f"{url}: {error.code} {error.reason}: see to the base URL") from None
                wait = _retry_after(error)
                reason = f"{error.code} {error.reason}"
            except (_Unreachable, http.client.HTTPException) as error:
                reason = str(error) or type(error).__name__
            now = path.stat().st_size if path.is_file() else 0
            if now == archive.size:
                return
            failures = 1 if now > have else failures + 1
            if failures > self.retries:
                raise AvscError(f"{url}: {reason}, {failures} times in a row: run it again later, it goes on from here")
            if self.stop.wait(max(wait, min(self.pause * 2 ** (failures - 1), 60.0))):
                raise _Stopped

    def _stream(self, archive: Archive, url: str, path: Path, have: int) -> None:
        """One connection, until it ends."""
        headers = {"Range": f"bytes={have}-", "User-Agent": "avsc-e2e", "Accept-Encoding": "identity"}
        with _connected(Request(url, headers=headers)) as response:
            first, size = _announced(response)
            if size not in (None, archive.size):
                raise AvscError(f"{url}: has {size} bytes, not the published {archive.size}: see to the base URL")
            if first not in (0, have):
                raise http.client.HTTPException(f"sent bytes from {first} on, not from {have}")
            if first != have:  # a server that knows no ranges starts anew
                self._count(first - have)
                have = first
                os.truncate(path, first)
            with open(path, "ab") as file:
                while chunk := _read(response):
                    if self.stop.is_set():
                        raise _Stopped
                    if have + len(chunk) > archive.size:
                        raise AvscError(f"{url}: has more than the published {archive.size} bytes: see to the base URL")
                    file.write(chunk)
                    have += len(chunk)
                    self._count(len(chunk))


def _short(archive: Archive) -> str:
    return archive.name.removesuffix(".zip").rpartition(f"{archive.part}.")[2]


class _Unreachable(Exception):
    """The network failed, as opposed to the disk."""


@contextmanager
def _connected(request: Request) -> Iterator[http.client.HTTPResponse]:
    try:
        response = urlopen(request, timeout=TIMEOUT)
    except HTTPError:
        raise
    except OSError as error:
        raise _Unreachable(str(getattr(error, "reason", error))) from None
    with response:
        yield response


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK)
    except OSError as error:
        raise _Unreachable(str(error)) from None


def _announced(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """The first byte that comes, and the size of the whole file where the server says it."""
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if match is None:
            raise http.client.HTTPException("a partial answer that does not say which part")
        return int(match[1]), int(match[2]) if match[2].isdecimal() else None
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _retry_after(error: HTTPError) -> float:
    value = error.headers.get("Retry-After", "") if error.headers else ""
    return min(float(value), 300.0) if value.isdecimal() else 0.0


def unpack(archive: str | os.PathLike[str], target: Path, stop: threading.Event | None = None) -> dict[str, int]:
    """Unpack a zip archive below `target`; give the size of each file by its path there.

    A folder named like an archive around all that it holds is left away, so that the parts of a set come together in
    its official layout; examples go into a folder of their own. Each file takes its place whole.

    Raises AvscError, before anything is written, for an archive with an absolute path, '..', a link, a second file of
    the same name, a password, or more to unpack than LARGEST_EXPANSION allows; and for a damaged one.
    """
    path = Path(archive)
    temporary = path.with_name(f"{path.name}.member")
    try:
        with zipfile.ZipFile(path) as opened:
            members = _members(path, opened.infolist())
            for name, member in members.items():
                destination = target / name
                destination.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as source, open(temporary, "wb") as file:
                    while chunk := source.read(CHUNK):  # no more than the size that was declared, checked by CRC
                        file.write(chunk)
                        if stop and stop.is_set():
                            raise _Stopped
                if temporary.stat().st_size != member.file_size:
                    raise zipfile.BadZipFile(f"{member.filename} is not of the size declared")
                temporary.replace(destination)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        if (
            isinstance(error, OSError) and error.errno != errno.EINVAL
        ):  # a directory that points before the file's begin
            raise
        temporary.unlink(missing_ok=True)
        raise AvscError(f"{path}: a damaged archive ({error}): delete it and fetch it again") from None
    return {name: member.file_size for name, member in sorted(members.items())}


def _members(path: Path, infos: Sequence[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by the path they shall get; nothing of an archive with an unsafe member."""
    total = sum(info.file_size for info in infos)
    if total > LARGEST_EXPANSION * path.stat().st_size + (64 << 20) or len(infos) > 1_000_000:
        raise AvscError(
            f"{path}: would unpack to {len(infos)} files of {total / 1e9:.1f} GB, far too many for its size"
        )
    files = []
    for info in infos:
        kind = stat.S_IFMT(info.external_attr >> 16)
        parts = info.filename.rstrip("/").split("/")
        if (
            any(part in ("", ".", "..") for part in parts)
            or re.search(r"[\\:\x00-\x1f]", info.orig_filename)
            or kind not in (0, stat.S_IFREG, stat.S_IFDIR)
            or info.flag_bits & 1
        ):
            raise AvscError(f"{path}: {info.filename!r} is a link, encrypted, or leads out of the folder: not unpacked")
        if not info.is_dir():
            files.append((tuple(parts), info))
    depth = 0
    while files and all(
        len(parts) > depth + 1 and parts[depth] == files[0][0][depth] and ENVELOPE.fullmatch(parts[depth])
        for parts, _ in files
    ):
        depth += 1
    examples = ("examples",) if ".examples." in path.name else ()
    members: dict[str, zipfile.ZipInfo] = {}
    for parts, info in files:
        name = str(PurePosixPath(*examples, *parts[depth:]))
        if name in members:
            raise AvscError(f"{path}: holds {info.filename!r} twice: not unpacked")
        members[name] = info
    return members
