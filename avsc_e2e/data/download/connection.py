"""One HTTP connection that may fail at any byte."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from avsc_e2e.data.download.unpacking import CHUNK

TIMEOUT = 60.0
"""Seconds without any data after which a connection is closed and opened again."""


class Unreachable(Exception):
    """A failure of the network, not of the disk."""


@contextmanager
def connected(request: Request) -> Iterator[http.client.HTTPResponse]:
    """An open response. Raises Unreachable, or HTTPError if the server refuses."""
    try:
        response = urlopen(request, timeout=TIMEOUT)
    except HTTPError:
        raise
    except OSError as error:
        raise Unreachable(str(getattr(error, "reason", error))) from None
    with response:
        yield response


def read_chunk(response: http.client.HTTPResponse) -> bytes:
    """The next bytes, at most CHUNK; empty at the end. Raises Unreachable."""
    try:
        return response.read1(CHUNK)
    except OSError as error:
        raise Unreachable(str(error)) from None


def announced(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """The index of the first byte, and the size of the whole file if the server gives it."""
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if match is None:
            raise http.client.HTTPException("a partial answer that does not say which part")
        return int(match[1]), int(match[2]) if match[2].isdecimal() else None
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def retry_after(error: HTTPError) -> float:
    """Seconds that a refusal asks to wait, at most five minutes."""
    value = error.headers.get("Retry-After", "") if error.headers else ""
    return min(float(value), 300.0) if value.isdecimal() else 0.0
