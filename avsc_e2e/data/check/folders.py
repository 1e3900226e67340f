"""Checks of class folders against the requirements of training and evaluation."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from pathlib import Path

from avsc_e2e.data.check.findings import Check, Problem, Progress, count_classes
from avsc_e2e.data.check.foretell import foretell
from avsc_e2e.data.check.media import look_at
from avsc_e2e.data.extensions import kind as kind_of
from avsc_e2e.data.sets.listing import scan
from avsc_e2e.data.sets.table import is_table

MEND = "remove it, or copy it anew"
"""Advice for a file that cannot be read, if its error gives none."""


def check_folders(
    root: str | os.PathLike[str],
    group: str,
    groups: str | os.PathLike[str],
    test: float,
    validation: float,
    fast: bool,
    progress: Progress | None,
) -> Check:
    """Find everything in class folders that a run would refuse or leave out, and files that cannot be read."""
    root = os.path.abspath(root)
    found = scan(root)
    order = [part for part in ("", "train", "validation", "test") if part in found.parts]
    files: dict[str, list[str]] = defaultdict(list)
    for row in (row for part in order for row in found.parts[part]):
        for modality, path in (("audio", row.audio), ("video", row.video)):
            if path:
                files[path].append(modality)
    problems: list[Problem] = []
    media, size = look_at(files, fast, problems, progress)
    problems = [
        problem if problem.reason.endswith("remove it") else problem._replace(reason=f"{problem.reason}: {MEND}")
        for problem in problems
    ]
    told = foretell(root, found, group=group, groups=groups, test=test, validation=validation)
    parts = {part: told.parts[part] for part in order}
    problems += [Problem(kind, fault.path, f"{fault.reason}: {fault.mend}") for kind, fault in told.faults]
    for path, header in media.items():
        if header.duration < 1 and kind_of(path) != "image":
            problems.append(
                Problem("format", path, f"lasts {header.duration:.2f} s, less than a clip of 1 s: remove it")
            )
    places = {part: {row.location for row in rows} for part, rows in parts.items()}
    for part in ("validation", "test"):
        for place in sorted(places.get(part, set()) & places.get("train", set())):
            problems.append(Problem("split", place, f"this source recording is in the training and the {part} set"))
    seconds: dict[str, float] = defaultdict(float)
    for rows in parts.values():
        for row in rows:
            seconds[row.scene] += min(
                (media[path].duration for path in {row.audio, row.video} if path in media), default=0.0
            )
    counts = count_classes({part or "all": rows for part, rows in parts.items()}, seconds, None)
    shown = {
        "files": [Path(path).suffix.lower() for path in media],
        "audio": [f"{one.sample_rate} Hz x {one.channels}" for one in media.values() if one.has_audio],
        "video": [f"{one.width} x {one.height}, {one.frame_rate:.4g} /s" for one in media.values() if one.has_video],
    }
    notes = [
        f"{what}: {', '.join(f'{value} ({number} files)' for value, number in Counter(values).most_common(4))}"
        for what, values in shown.items()
        if values
    ]
    kind = "a table of recordings" if is_table(root) else "class folders"
    about = f"{kind}, judged by what training and evaluation ask of them"
    return Check(root, about, tuple(part or "all" for part in parts), counts, tuple(problems),
                 (*notes, *told.notes), len(files), size)  # fmt: skip
