"""The threads of a download, which fetch, verify and unpack archives."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request

from avsc_e2e.data.download.archives import Archive
from avsc_e2e.data.download.connection import Unreachable, announced, connected, read_chunk, retry_after
from avsc_e2e.data.download.plan import Plan, Progress, bytes_there, folder_of_set
from avsc_e2e.data.download.unpacking import CHUNK, Stopped, unpack
from avsc_e2e.errors import AvscError


class Job:
    """A running download: threads take archives from a queue; the caller's thread reports progress."""

    def __init__(self, plan: Plan, base_url: str, keep: bool, retries: int, pause: float):
        self.plan, self.base_url, self.keep, self.retries, self.pause = plan, base_url, keep, retries, pause
        self.stop = threading.Event()
        self.waiting: queue.SimpleQueue[Archive] = queue.SimpleQueue()
        self.results: queue.SimpleQueue[tuple[Archive, BaseException | None]] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.fetched = sum(archive.size for archive in plan.archives) - plan.to_fetch
        self.stage: dict[str, str] = {}

    def run(self, parallel: int, progress: Callable[[Progress], None] | None) -> None:
        """Finish all archives that do not fail, then raise AvscError for those that failed."""
        for archive in self.plan.archives:
            if archive in self.plan.finished:
                self._delete(archive)  # the process may have been killed after unpacking
            else:
                self.waiting.put(archive)
        open_ones = len(self.plan.archives) - len(self.plan.finished)
        # Daemon threads, so that Ctrl-C does not wait for a silent server; they can be stopped anywhere.
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
            patience = time.monotonic() + 2
            for thread in threads:
                thread.join(timeout=max(patience - time.monotonic(), 0))
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
            except Stopped:
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
            self._count(-bytes_there(self.plan.root, archive))
            whole.unlink()
        if not whole.is_file():
            resumed = partial.is_file() and partial.stat().st_size > 0
            self._fetch(archive, partial)
            found = self._md5(partial, archive)
            if found != archive.md5 and resumed:  # the part from an earlier run may be damaged
                self._count(-partial.stat().st_size)
                partial.unlink()
                self._fetch(archive, partial)
                found = self._md5(partial, archive)
            if found != archive.md5:
                self._count(-partial.stat().st_size)
                partial.unlink()
                raise AvscError(
                    f"{archive.url(self.base_url)}: MD5 {found}, not the published {archive.md5}: "
                    "it was thrown away; run it again, or try another base URL"
                )
            partial.replace(whole)
        self._tell(archive, "unpacking")
        files = unpack(whole, folder_of_set(self.plan.root, archive.part), stop=self.stop)
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
                    raise Stopped
        return digest.hexdigest()

    def _fetch(self, archive: Archive, path: Path) -> None:
        """Append the missing part of the archive to `path`."""
        url, failures = archive.url(self.base_url), 0
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
                wait = retry_after(error)
                reason = f"{error.code} {error.reason}"
            except (Unreachable, http.client.HTTPException) as error:
                reason = str(error) or type(error).__name__
            now = path.stat().st_size if path.is_file() else 0
            if now == archive.size:
                return
            failures = 1 if now > have else failures + 1
            if failures > self.retries:
                raise AvscError(f"{url}: {reason}, {failures} times in a row: run it again later, it goes on from here")
            if self.stop.wait(max(wait, min(self.pause * 2 ** (failures - 1), 60.0))):
                raise Stopped

    def _stream(self, archive: Archive, url: str, path: Path, have: int) -> None:
        """One connection, until it ends."""
        headers = {"Range": f"bytes={have}-", "User-Agent": "avsc-e2e", "Accept-Encoding": "identity"}
        with connected(Request(url, headers=headers)) as response:
            first, size = announced(response)
            if size not in (None, archive.size):
                raise AvscError(f"{url}: has {size} bytes, not the published {archive.size}: see to the base URL")
            if first not in (0, have):
                raise http.client.HTTPException(f"sent bytes from {first} on, not from {have}")
            if first != have:  # a server without range requests starts again
                self._count(first - have)
                have = first
                os.truncate(path, first)
            with open(path, "ab") as file:
                while chunk := read_chunk(response):
                    if self.stop.is_set():
                        raise Stopped
                    if have + len(chunk) > archive.size:
                        raise AvscError(f"{url}: has more than the published {archive.size} bytes: see to the base URL")
                    file.write(chunk)
                    have += len(chunk)
                    self._count(len(chunk))


def _short(archive: Archive) -> str:
    return archive.name.removesuffix(".zip").rpartition(f"{archive.part}.")[2]
