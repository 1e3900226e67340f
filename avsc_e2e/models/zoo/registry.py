"""The decorator that registers a function as an entry of the zoo. It imports no entry, so every entry can import it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from avsc_e2e.models.architecture import Architecture

Entry = Callable[[], Architecture]
entries: dict[str, Entry] = {}


def system(entry: Entry) -> Entry:
    """Register a function that returns an Architecture as an entry of the zoo, under its own name."""

    def named() -> Architecture:
        return replace(entry(), name=entry.__name__)

    named.__name__, named.__doc__, named.__module__ = entry.__name__, entry.__doc__, entry.__module__
    entries[entry.__name__] = named
    return named
