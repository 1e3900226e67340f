"""Checks of a set in the official layout against its own lists, the release, and the paper's table."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from avsc_e2e.clip import MODALITIES
from avsc_e2e.data.check.findings import Check, ClassCount, Problem, Progress, Published, count_classes
from avsc_e2e.data.check.media import SAMPLE_RATE, compare_media, look_at
from avsc_e2e.data.sets.tau import CLIP_SECONDS, EVALUATION_SECONDS, read_evaluation
from avsc_e2e.data.sets.taulayout import (
    KNOWN_GAPS,
    Layout,
    Listing,
    compare_with_meta,
    find_layout,
    locate,
    read_listing,
    read_meta,
)
from avsc_e2e.errors import AvscError

PUBLISHED = {
    "airport": Published(697, 281, 21, 8, 163.0),
    "bus": Published(806, 327, 38, 15, 189.0),
    "metro": Published(705, 360, 37, 16, 177.5),
    "metro_station": Published(893, 386, 32, 14, 213.2),
    "park": Published(1006, 386, 29, 11, 232.0),
    "public_square": Published(982, 387, 29, 12, 228.2),
    "shopping_mall": Published(841, 387, 22, 9, 204.7),
    "street_pedestrian": Published(968, 421, 31, 14, 231.5),
    "street_traffic": Published(985, 402, 30, 12, 231.2),
    "tram": Published(763, 308, 36, 15, 178.5),
}
"""The development set by class: 12,291 clips. The paper counts 1,134 bus clips, one more than the release has."""


EVALUATION_FILES = 72_000


def check_development(
    layout: Layout, fold: int, modalities: Sequence[str], fast: bool, progress: Progress | None
) -> Check:
    """Check lists, parts, files and headers of a development set, against the release if it is about as large."""
    known = read_meta(layout)
    problems: list[Problem] = []
    parts = {"train": _read_list(layout, f"fold{fold}_train.csv", known, problems)}
    evaluated = _read_list(layout, f"fold{fold}_evaluate.csv", known, problems)
    tested = _read_list(layout, f"fold{fold}_test.csv", known, problems)
    parts["test"] = evaluated or tested
    if evaluated and tested and {entry.file for entry in evaluated} != {entry.file for entry in tested}:
        problems.append(Problem("split", tested[0].csv, f"lists other clips than {Path(evaluated[0].csv).name}"))
    names = {part: {entry.file for entry in entries} for part, entries in parts.items()}
    for name in sorted(names["train"] & names["test"]):
        problems.append(Problem("split", name, "is in the training and in the test set"))
    for name in sorted(known.keys() - names["train"] - names["test"]):
        problems.append(Problem("split", name, "is in neither part"))
    places = {part: {known[name].location for name in of_part} for part, of_part in names.items()}
    for place in sorted(places["train"] & places["test"]):
        problems.append(Problem("split", place, "this location is in the training and in the test set"))

    entries = list(known.values())
    paths = locate(layout, entries, modalities, verify=False)
    found, extra = _present(layout, paths, modalities)
    notes = []
    for entry in entries:
        for path in (entry.audio, entry.video):
            if path in paths and paths[path] not in found:
                if path in KNOWN_GAPS:
                    notes.append(f"{path} is absent, as reported of the release too")
                else:
                    problems.append(Problem("missing", paths[path], f"listed in meta.csv, line {entry.line}"))
    problems += [Problem("extra", path, "not listed in meta.csv") for path in sorted(extra)]

    official = len(known) > sum(one.train + one.test for one in PUBLISHED.values()) / 2
    files: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        for modality, path in zip(MODALITIES, (entry.audio, entry.video), strict=True):
            if paths.get(path) in found:
                files[paths[path]].append(modality)
    media, size = look_at(files, fast, problems, progress)
    expected = CLIP_SECONDS if official else None
    problems += compare_media(files, media, seconds=expected, sample_rate=SAMPLE_RATE if official else 0)

    seconds: dict[str, float] = defaultdict(float)
    for entry in entries:
        lengths = [media[paths[path]].duration for path in (entry.audio, entry.video) if paths.get(path) in media]
        seconds[entry.scene] += min(lengths, default=0.0)
    counts = count_classes(
        {part: [known[name] for name in sorted(of_part)] for part, of_part in names.items()}, seconds, CLIP_SECONDS
    )
    if official:
        problems += _compare_counts(layout, counts, {part: len(of_part) for part, of_part in places.items()})
        notes.append("the paper counts 1,134 bus clips (189.0 min) and 12,292 in all; the release has one less")
    kind = (
        "development set of TAU Urban Audio-Visual Scenes 2021, compared with the release and the paper's table"
        if official
        else f"own set of {len(known)} clips in the official layout, checked against its own lists only"
    )
    return Check(str(layout.root), kind, ("train", "test"), counts, tuple(problems), tuple(notes), len(files), size,
                 PUBLISHED if official else {})  # fmt: skip


def _read_list(layout: Layout, name: str, known: dict[str, Listing], problems: list[Problem]) -> list[Listing]:
    path = layout.find(f"evaluation_setup/{name}")
    if path is None:
        problems.append(Problem("list", str(layout.root / "evaluation_setup" / name), "is absent"))
        return []
    try:
        entries = read_listing(path)
        compare_with_meta(entries, known)
    except AvscError as error:
        problems.append(Problem("list", str(path), f"{error}".removeprefix(f"{path}: ")))
        return []
    return entries


def _present(layout: Layout, paths: dict[str, str], modalities: Sequence[str]) -> tuple[set[str], set[str]]:
    """Files of the lists that exist, and files beside them that are in no list; one scan per folder."""
    wanted = set(paths.values())
    folders = {os.path.dirname(path) for path in wanted}
    folders |= {str(folder / modality) for folder in layout.folders for modality in modalities}
    there: set[str] = set()
    for folder in folders:
        if os.path.isdir(folder):
            with os.scandir(folder) as scanned:
                there |= {entry.path for entry in scanned if not entry.name.startswith(".") and not entry.is_dir()}
    return wanted & there, there - wanted


def _compare_counts(layout: Layout, counts: Iterable[ClassCount], places: dict[str, int]) -> list[Problem]:
    problems = []
    by_scene = {count.scene: count for count in counts}
    for scene in sorted(by_scene.keys() | PUBLISHED.keys()):
        if scene not in PUBLISHED or scene not in by_scene:
            problems.append(
                Problem("count", scene, "is not a class of the release" if scene in by_scene else "has no clips")
            )
            continue
        count, known = by_scene[scene], PUBLISHED[scene]
        for what, have, should in (
            ("training clips", count.clips["train"], known.train),
            ("test clips", count.clips["test"], known.test),
            ("training locations", count.locations["train"], known.train_locations),
            ("test locations", count.locations["test"], known.test_locations),
        ):
            if have != should:
                problems.append(Problem("count", scene, f"{have} {what}, the release has {should}"))
    for part, should in (("train", 305), ("test", 126)):
        if places[part] != should:
            problems.append(Problem("count", str(layout.root), f"{places[part]} {part} locations, not {should}"))
    return problems


def looks_like_evaluation(root: str | os.PathLike[str]) -> bool:
    """Whether a root holds the first file of an evaluation set."""
    layout = find_layout(root, "evaluation")
    return bool(layout.find("audio/0.wav") or layout.find("video/0.mp4"))


def check_evaluation(
    root: str | os.PathLike[str], modalities: Sequence[str], fast: bool, progress: Progress | None
) -> Check:
    """Check names, numbers and headers of an evaluation set, against the release if it is about as large."""
    layout = find_layout(root, "evaluation")
    rows = read_evaluation(root, modalities=modalities, verify=False)
    problems: list[Problem] = []
    files: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        for modality in modalities:
            path = row.audio if modality == "audio" else row.video
            if path and os.path.isfile(path):
                files[path].append(modality)
            else:
                problems.append(Problem("missing", path or row.file, f"the {modality} of {row.file}"))
    wanted = {path for row in rows for path in (row.audio, row.video)}
    for folder in sorted({os.path.dirname(path) for path in files}):
        for name in sorted(os.listdir(folder)):
            if os.path.join(folder, name) not in wanted and not name.startswith("."):
                problems.append(Problem("extra", os.path.join(folder, name), "not a file of the evaluation set"))
    official = len(rows) > EVALUATION_FILES / 2
    expected = EVALUATION_FILES if official else len(rows)
    numbers = {int(row.file) for row in rows}
    problems += [Problem("missing", str(number), "no file of this number") for number in range(expected)
                 if number not in numbers]  # fmt: skip
    problems += [Problem("extra", str(number), f"the set ends at {expected - 1}") for number in sorted(numbers)
                 if official and number >= expected]  # fmt: skip
    media, size = look_at(files, fast, problems, progress)
    problems += compare_media(files, media, seconds=EVALUATION_SECONDS, sample_rate=SAMPLE_RATE if official else 0)
    found = sum(min((media[path].duration for path in (row.audio, row.video) if path in media), default=0)
                for row in rows)  # fmt: skip
    counts = (ClassCount("unlabelled", Counter(evaluation=len(rows)), Counter(), len(rows) / 60, found / 60),)
    kind = "evaluation set of TAU Urban Audio-Visual Scenes 2021, compared with the release"
    if not official:
        kind = f"own set of {len(rows)} files in the layout of the evaluation set, checked against itself only"
    return Check(str(layout.root), kind, ("evaluation",), counts, tuple(problems), (), len(files), size)
