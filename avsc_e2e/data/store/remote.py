"""Stores behind a URL: s3://, gs://, http(s)://, file:// and all other protocols of fsspec, which only this file uses.

Only the ranges of a shard that a clip needs are fetched, in blocks. Ranges near each other share a request, and the
last blocks stay in memory. Each process opens its own connection at its first read, so loaders may fork or spawn.
"""

from __future__ import annotations

import errno
import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from avsc_e2e.durable import refusal
from avsc_e2e.errors import AvscError, MediaError

BLOCK = 1 << 15
"""Bytes; requests begin and end at multiples of this."""
GAP = 4
"""Up to so many blocks between two ranges are fetched too, to save a request."""
KEPT = 2048
"""Number of blocks that a process keeps."""
PART = 8 << 20
"""Bytes fetched at a time when a whole file is copied."""
WAITS = (0.5, 2.0, 8.0)
"""Seconds before a failed request is repeated."""
SILENCE = 30.0
"""Seconds without a byte after which an HTTP connection is given up."""
PASSING = (408, 425, 429)
"""HTTP statuses from 400 to 499 that may change after a while."""


def is_url(path: str | os.PathLike[str]) -> bool:
    return "://" in str(path)


def _only_read(url: str) -> AvscError:
    return AvscError(f"{url}: this protocol can only be read; give a folder, or storage that takes files")


class RemoteFolder:
    """The files of a folder behind a URL. Raises AvscError, one line with the file's URL, if a file is absent, access
    is refused, or it cannot be fetched after several tries. It is no MediaError, because a lost connection does not
    mean a bad recording."""

    def __init__(self, url: str):
        self.url = url
        self.sizes: dict[str, int] = {}
        """Bytes of each shard, by its URL."""
        self.requests = 0
        """Folders that this process has made."""
        self._process = 0
        self._connection: Any = None
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": 0, "_connection": None, "_blocks": OrderedDict(), "requests": 0}

    def read(self, names: Sequence[str], *, optional: bool = False) -> list[bytes | None]:
        """Read whole files, many at a time; None for absent files if they are `optional`. Object storage that does not
        allow listing reports absent files as refused."""
        return self._fetch([(f"{self.url}/{name}", None, None) for name in names], optional)

    def copy(self, names: Sequence[str], folder: Path) -> None:
        """Copy the files that exist into a folder."""
        for name, data in zip(names, self.read(names, optional=True), strict=True):
            if data is not None:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)

    def names(self) -> dict[str, int]:
        """The files below the folder, at any depth, and their sizes in bytes. Raises AvscError."""
        connection = self._connect()
        with self._named(self.url):
            root = connection._strip_protocol(self.url).rstrip("/")
            found = connection.find(root, detail=True)
            return {path[len(root) :].lstrip("/"): about.get("size") or 0 for path, about in found.items()}

    def size(self, name: str) -> int | None:
        """Size of a file in bytes; None if it does not exist. Raises AvscError."""
        connection, url = self._connect(), f"{self.url}/{name}"
        with self._named(url):
            try:
                connection.invalidate_cache()
                return connection.info(connection._strip_protocol(url))["size"]
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file, atomically if the storage can. Raises AvscError."""
        connection, url = self._connect(), f"{self.url}/{name}"
        with self._named(url):
            self._make_folder(url)
            connection.pipe_file(connection._strip_protocol(url), data)

    def put(self, path: Path, name: str) -> None:
        """Copy a local file into the folder, as `write` does. Raises AvscError."""
        connection, url = self._connect(), f"{self.url}/{name}"
        with self._named(url):
            self._make_folder(url)
            connection.put_file(str(path), connection._strip_protocol(url))

    def remove(self, name: str) -> None:
        """Remove an existing file. Raises AvscError."""
        connection, url = self._connect(), f"{self.url}/{name}"
        with self._named(url):
            connection.rm_file(connection._strip_protocol(url))

    def _make_folder(self, url: str) -> None:
        connection = self._connect()
        if url.startswith(("http://", "https://")):
            raise _only_read(url)
        if "file" in connection.protocol:  # object storage has no folders
            connection.makedirs(connection._parent(connection._strip_protocol(url)), exist_ok=True)

    @contextmanager
    def _named(self, url: str) -> Iterator[None]:
        """Turn errors into an AvscError that names the URL."""
        try:
            yield
        except AvscError:
            raise
        except NotImplementedError:  # raised by packages that cannot write
            raise _only_read(url) from None
        except Exception as error:  # of whatever package the protocol is spoken by
            _judge(url, error, last=True)
            raise

    def parts(self, shard: str, spans: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """The bytes of each span (offset, size) of a shard."""
        self._connect()
        size = self.sizes[shard]
        wanted = sorted({at for span in spans for at in _blocks(span)})
        if wanted and wanted[-1] * BLOCK >= size:
            raise MediaError(shard, "its index points beyond its end: copy this shard and its index again")
        runs: list[list[int]] = []
        for block in wanted:
            if (shard, block) in self._blocks:
                self._blocks.move_to_end((shard, block))
            elif runs and block <= runs[-1][1] + GAP:
                runs[-1][1] = block
            else:
                runs.append([block, block])
        ranges = [(shard, first * BLOCK, min((last + 1) * BLOCK, size)) for first, last in runs]
        for (_, begin, _), data in zip(ranges, self._fetch(ranges), strict=True):
            assert data is not None  # the file is not optional
            for at in range(0, len(data), BLOCK):
                self._blocks[shard, (begin + at) // BLOCK] = data[at : at + BLOCK]
        found = []
        for offset, count in spans:
            data = b"".join(self._blocks[shard, block] for block in _blocks((offset, count)))
            found.append(np.frombuffer(data, np.uint8, count, offset % BLOCK if count else 0))
        while len(self._blocks) > KEPT:
            self._blocks.popitem(last=False)
        return found

    def copy_whole(self, shard: str, path: Path) -> None:
        """Copy a shard to a file, in parts."""
        size = self.sizes[shard]
        spans = [(shard, begin, min(begin + PART, size)) for begin in range(0, size, PART)]
        with open(path, "wb") as file:
            for data in (data for span in spans for data in self._fetch([span])):
                file.write(data or b"")

    def _connect(self) -> Any:
        """The file system, created in each process, because neither its thread nor its sockets survive a fork."""
        if self._process != os.getpid():
            import fsspec

            web = {}
            if self.url.startswith(("http://", "https://")):
                import aiohttp

                timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
                web = {"client_kwargs": {"timeout": timeout, "trust_env": True}}
            try:
                self._connection, _ = fsspec.url_to_fs(self.url, **web)
            except (ImportError, ValueError) as error:  # a missing package or an unknown protocol
                raise AvscError(f"{self.url}: cannot be opened: {_line(error)}") from None
            self._process, self._blocks, self.requests = os.getpid(), OrderedDict(), 0
        return self._connection

    def _fetch(
        self, ranges: Sequence[tuple[str, int | None, int | None]], optional: bool = False
    ) -> list[bytes | None]:
        """The bytes of each (URL, begin, end). Requests are repeated a few times if that may help."""
        connection = self._connect()
        found: list[Any] = [None] * len(ranges)
        left = list(range(len(ranges)))
        for wait in (*WAITS, None):
            if not left:
                break
            urls, begins, ends = map(list, zip(*(ranges[index] for index in left), strict=True))
            self.requests += len(left)
            try:
                answers = connection.cat_ranges(
                    [connection._strip_protocol(url) for url in urls], begins, ends, on_error="return"
                )
            except Exception as error:  # of whatever package the protocol is spoken by
                answers = [error] * len(left)
            for index, url, begin, end, answer in zip(left, urls, begins, ends, answers, strict=True):
                if begin is not None and not isinstance(answer, Exception) and len(answer) != end - begin:
                    raise AvscError(
                        f"{url}: {len(answer)} bytes came where {end - begin} were asked for: the server does not "
                        "serve ranges, or the file is not the one that its index tells of"
                    )
                if optional and (isinstance(answer, FileNotFoundError) or _refused(answer)):
                    answer = None
                elif isinstance(answer, Exception):
                    _judge(url, answer, last=wait is None)
                found[index] = answer
            left = [index for index in left if isinstance(found[index], Exception)]
            if left:
                assert wait is not None  # the last try raises
                time.sleep(wait)
        return found


def _blocks(span: tuple[int, int]) -> range:
    offset, size = span
    return range(offset // BLOCK, (offset + size - 1) // BLOCK + 1) if size else range(0)


def _judge(url: str, error: Exception, last: bool) -> None:
    """Raises AvscError if repeating the request is of no use."""
    if isinstance(error, FileNotFoundError):
        raise AvscError(f"{url}: is not there: copy the whole store to its place again") from None
    if _refused(error):
        raise AvscError(
            f"{url}: access is refused ({_line(error)}): give the credentials that its protocol asks for"
        ) from None
    if last and refusal(error) == os.strerror(errno.ENOSPC):
        raise AvscError(f"{url}: there is no space left; make room and go on with the same command") from None
    if last:
        raise AvscError(
            f"{url}: cannot be fetched after {len(WAITS) + 1} tries ({_line(error)}): is the address right, and the "
            "network up? Training goes on with --resume"
        ) from None


def _refused(answer: object) -> bool:
    status = getattr(answer, "status", 0)
    return isinstance(answer, PermissionError) or (400 <= status < 500 and status not in PASSING)


def _line(error: Exception) -> str:
    """The message of an error in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def fetch(url: str, path: Path) -> None:
    """Copy a file behind a URL to a new local file, in parts. Raises AvscError."""
    folder = RemoteFolder(url)
    connection = folder._connect()
    try:
        size = connection.info(connection._strip_protocol(url)).get("size")
    except Exception as error:  # of whatever package the protocol is spoken by
        if not isinstance(error, FileNotFoundError):
            raise AvscError(f"{url}: cannot be fetched: {_line(error)}") from None
        raise MediaError(url, "no such file") from None
    with open(path, "wb") as file:
        for begin in range(0, size or 1, PART):
            span = (begin, min(begin + PART, size)) if size else (None, None)  # some servers do not tell the size
            file.write(folder._fetch([(url, *span)])[0] or b"")
