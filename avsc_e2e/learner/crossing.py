"""Sources that occur in several classes: a speaker, a camera or a place, which a fold must hold out as a whole."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from avsc_e2e.clip import Row

LEAST = 4
"""Values that a part of the names must have to be a source: fewer say a take or a sentence."""
SPREAD = 0.5
"""Share of the classes in which a value must occur to be of several classes, and share of the values that must."""

_SEPARATORS = re.compile(r"[^0-9A-Za-zÀ-ɏ]+")


def crossing(rows: Sequence[Row]) -> dict[str, str]:
    """Source -> the part of its name that it shares with sources of other classes, such as "speaker03" of
    "speaker03_eight"; empty where the names tell of none. Of several such parts the one with the most values counts."""
    sources = {row.location: row.scene for row in rows}
    parts = {source: _parts(source, scene) for source, scene in sources.items()}
    count = len(set(sources.values()))
    if count < 2 or len({len(found) for found in parts.values()}) != 1:
        return {}
    best: dict[str, str] = {}
    for place in range(len(next(iter(parts.values())))):
        scenes = defaultdict(set)
        for source, found in parts.items():
            scenes[found[place]].add(sources[source])
        wide = [value for value, of in scenes.items() if len(of) >= max(2, SPREAD * count)]
        numbered = all(any(c.isdigit() for c in value) for value in scenes)
        if (
            numbered
            and len(scenes) >= LEAST
            and len(wide) >= SPREAD * len(scenes)
            and len(scenes) > len(set(best.values()))
        ):
            best = {source: found[place] for source, found in parts.items()}
    return best


def _parts(source: str, scene: str) -> list[str]:
    """The parts of a source's name, below the folder of its class and without the name of it."""
    folders = PurePosixPath(source).parts
    below = folders[folders.index(scene) + 1 :] if scene in folders else folders
    of_class = set(_SEPARATORS.split(scene.lower()))
    found = [part for name in below for part in _SEPARATORS.split(name) if part]
    return [part for part in found if part.lower() not in of_class]
