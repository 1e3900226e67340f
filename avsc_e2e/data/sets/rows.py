"""Functions that readers of all layouts share: measuring recordings, and splitting them by whole locations."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

from avsc_e2e.clip import MODALITIES, Row
from avsc_e2e.data.media import probe
from avsc_e2e.errors import AvscError, MediaError


def hold_out(rows: Iterable[Row], share: float, *, seed: int, part: str, way_out: str) -> tuple[list[Row], list[Row]]:
    """Divide rows into (kept, held out for `part`) by whole locations, class by class.

    Per class, locations are drawn in an order keyed by `seed` and `part` until 1 - `share` of the class's clips are
    kept; the locations left over, at least one, are held out. A location of several classes is assigned by the class
    with the fewest locations. The order of the rows is kept; a share of 0 holds nothing out. Raises AvscError, which
    ends with `way_out`, if a class cannot be in both halves.
    """
    rows = list(rows)
    if not 0 <= share < 1:
        raise AvscError(f"a {part} set of {share:g}: give a share from 0 to below 1")
    if share == 0:
        return rows, []
    clips: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        clips[row.scene][row.location] += 1
    held: dict[str, bool] = {}
    for scene, counts in sorted(clips.items(), key=lambda item: (len(item[1]), item[0])):
        # A hash orders them: the order is the same on every machine, and a new location does not change the order of
        # the others.
        order = sorted(counts, key=lambda name: blake2b(f"{seed}/{part}/{scene}/{name}".encode()).digest())
        free = [location for location in order if location not in held]
        kept = sum(counts[location] for location in order if held.get(location) is False)
        wanted = (1 - share) * counts.total() - 1e-9
        for location in free:
            held_already = any(held.get(other) for other in order)
            held[location] = kept >= wanted or (location == free[-1] and not held_already)
            kept += 0 if held[location] else counts[location]
        if len({held[location] for location in order}) < 2:
            only = f"one location or source recording, {order[0]!r}" if len(order) == 1 else "shared locations only"
            raise AvscError(f"class {scene!r} has {only}, too few to cut a {part} set from: {way_out}")
    return [row for row in rows if not held[row.location]], [row for row in rows if held[row.location]]


def measure(
    rows: Iterable[Row], modalities: Sequence[str] = MODALITIES, *, lenient: bool = False, drop: bool = False
) -> list[Row]:
    """Read the headers of all files: fill in the duration that video and audio share, and clear the path of a missing
    modality and of one that is not requested. Raises MediaError for a file that cannot be read, and AvscError for one
    with none of the modalities, which `drop` leaves out instead. If `lenient`, an unreadable file stays in its row,
    with the duration of the other file or 0.
    """

    def measured(row: Row) -> Row | None:
        paths, durations, unreadable = {"audio": row.audio, "video": row.video}, [], False
        for modality, path in paths.items():
            try:
                media = probe(path) if path and modality in modalities else None
            except MediaError:
                if not lenient:
                    raise
                unreadable = True
                continue
            if media and (media.has_audio if modality == "audio" else media.has_video):
                durations.append(media.duration)
            else:
                paths[modality] = ""
        if not durations and not unreadable:
            if drop:
                return None
            raise AvscError(f"{row.video or row.audio}: has none of {', '.join(modalities)}: remove it from the set")
        return row._replace(**paths, duration=min(durations, default=0.0))

    with ThreadPoolExecutor(max_workers=min(8, (os.cpu_count() or 1) + 2)) as pool:
        return [row for row in pool.map(measured, rows) if row is not None]
