"""`avsc data check`: is what lies in a root the set that it should be, and can all of it be read?"""

from __future__ import annotations

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from avsc_e2e.clip import MODALITIES, Row
from avsc_e2e.data.extensions import kind as kind_of
from avsc_e2e.data.foretell import foretell
from avsc_e2e.data.media import Media, probe, read_audio, read_frames
from avsc_e2e.data.sets.listing import scan
from avsc_e2e.data.sets.table import is_table
from avsc_e2e.data.sets.tau import (
    CLIP_SECONDS,
    EVALUATION_SECONDS,
    KNOWN_GAPS,
    Layout,
    Listing,
    compare_with_meta,
    find_layout,
    locate,
    read_evaluation,
    read_listing,
    read_meta,
)
from avsc_e2e.data.store.layout import damage, is_store, read_index, read_manifest, shard_file, verify
from avsc_e2e.data.store.remote import is_url
from avsc_e2e.errors import AvscError, MediaError


class Published(NamedTuple):
    """What the development set has of a class."""

    train: int
    """Clips of the release's fold 1, as are the next three."""
    test: int
    train_locations: int
    test_locations: int
    minutes: float
    """As Table 1 of Wang et al., ICASSP 2021, has them."""


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
SAMPLE_RATE, CHANNELS = 48_000, 2
"""Of the release's sound."""


class Problem(NamedTuple):
    """Something wrong with a set."""

    kind: str
    """list, count, split, missing, extra, empty, unreadable or format."""
    path: str
    """The file or folder that it concerns."""
    reason: str


class ClassCount(NamedTuple):
    """One line of the table."""

    scene: str
    clips: Counter[str]
    """Clips by part."""
    locations: Counter[str]
    """Locations, or source recordings, by part."""
    minutes: float
    """What the lists promise: ten seconds a clip; in class folders the same as `found`."""
    found: float
    """Minutes of recordings whose headers could be read."""


@dataclass(frozen=True)
class Check:
    """What was found in a root."""

    root: str
    kind: str
    """What the root was taken for, and what it was compared with."""
    parts: tuple[str, ...]
    counts: tuple[ClassCount, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    """What is worth knowing and not wrong."""
    files: int
    """Media files looked at."""
    size: int
    """Bytes of them."""
    published: dict[str, Published] = field(default_factory=dict)
    """What the table is compared with; empty where nothing is published."""

    @property
    def ok(self) -> bool:
        return not self.problems

    def table(self) -> str:
        """Clips, locations and minutes by class, beside what is published where the root is that set."""
        header = ["class", *self.parts, "clips", *(["release"] if self.published else []), "locations", "min listed",
                  "min found", *(["min paper"] if self.published else [])]  # fmt: skip
        lines = [header]
        for count in self.counts:
            known = self.published.get(count.scene)
            lines.append(
                [
                    count.scene,
                    *(str(count.clips[part]) for part in self.parts),
                    str(count.clips.total()),
                    *([str(known.train + known.test) if known else "-"] if self.published else []),
                    "/".join(str(count.locations[part]) for part in self.parts),
                    f"{count.minutes:.1f}",
                    f"{count.found:.1f}",
                    *([f"{known.minutes:.1f}" if known else "-"] if self.published else []),
                ]
            )
        known = list(self.published.values())
        lines.append(
            [
                "total",
                *(str(sum(count.clips[part] for count in self.counts)) for part in self.parts),
                str(sum(count.clips.total() for count in self.counts)),
                *([str(sum(one.train + one.test for one in known))] if known else []),
                "/".join(str(sum(count.locations[part] for count in self.counts)) for part in self.parts),
                f"{sum(count.minutes for count in self.counts):.1f}",
                f"{sum(count.found for count in self.counts):.1f}",
                *([f"{sum(one.minutes for one in known):.1f}"] if known else []),
            ]
        )
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [f"{self.root}: {self.kind}"]
        for line in lines:
            cells = [line[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            text.append("  ".join(cells))
        text += [f"note: {note}" for note in self.notes]
        kinds = Counter(problem.kind for problem in self.problems)
        found = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common()) or "none"
        text.append(f"{self.files} media files, {self.size / 1e9:.2f} GB; problems: {found}")
        return "\n".join(text)

    def problem_list(self, limit: int = 20) -> str:
        """The first problems, one a line with its file; empty where there are none."""
        lines = [f"{problem.kind}: {problem.path}: {problem.reason}" for problem in self.problems[:limit]]
        if len(self.problems) > limit:
            lines.append(f"and {len(self.problems) - limit} more problems")
        return "\n".join(lines)

    def write_problems(self, path: str | os.PathLike[str]) -> None:
        """Write all problems as a CSV: kind, path, reason."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([Problem._fields, *self.problems])


Progress = Callable[[int, int], None]
"""Called with the number of files looked at and of all files."""


def check(
    root: str | os.PathLike[str],
    *,
    fast: bool = False,
    part: str = "",
    fold: int = 1,
    modalities: Sequence[str] = MODALITIES,
    group: str = "",
    groups: str | os.PathLike[str] = "",
    test: float = 0.2,
    validation: float = 0.1,
    progress: Progress | None = None,
) -> Check:
    """Check a development set, an evaluation set, a set of one's own in their layout, class folders, or a table.

    `fast` reads names and headers; otherwise every frame and sample is decoded as well. Without a `part`
    ("development" or "evaluation") the root is taken for what it looks like. A set nearly as large as the release is
    compared with it, any other only with itself. Class folders are judged by what a run with `group`, `groups`, `test`
    and `validation` would refuse or leave out. Raises AvscError only where there is no set to check; whatever is wrong
    with one is among the problems.
    """
    if is_store(root) and not is_url(root):
        return _check_store(Path(os.path.abspath(root)), progress)
    layout = find_layout(root)
    if part not in ("", "development", "evaluation"):
        raise AvscError(f"part {part!r}: give development or evaluation")
    listed = layout.find("meta.csv") or layout.find(f"evaluation_setup/fold{fold}_train.csv")
    if part == "development" or (listed and not part):
        return _check_development(layout, fold, modalities, fast, progress)
    if part == "evaluation" or _looks_like_evaluation(root):
        return _check_evaluation(root, modalities, fast, progress)
    return _check_folders(root, group, groups, test, validation, fast, progress)


# ---- the official layout


def _check_development(
    layout: Layout, fold: int, modalities: Sequence[str], fast: bool, progress: Progress | None
) -> Check:
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
        problems.append(Problem("split", name, "is in the training and in the test part"))
    for name in sorted(known.keys() - names["train"] - names["test"]):
        problems.append(Problem("split", name, "is in neither part"))
    places = {part: {known[name].location for name in of_part} for part, of_part in names.items()}
    for place in sorted(places["train"] & places["test"]):
        problems.append(Problem("split", place, "this location is in the training and in the test part"))

    entries = list(known.values())
    paths = locate(layout, entries, modalities, verify=False)
    found, extra = _present(layout, entries, paths, modalities)
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
    media, size = _look_at(files, fast, problems, progress)
    expected = CLIP_SECONDS if official else None
    problems += _compare_media(files, media, seconds=expected, sample_rate=SAMPLE_RATE if official else 0)

    seconds: Counter[str] = Counter()
    for entry in entries:
        lengths = [media[paths[path]].duration for path in (entry.audio, entry.video) if paths.get(path) in media]
        seconds[entry.scene] += min(lengths, default=0.0)
    counts = _count(
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
        problems.append(Problem("list", str(path), str(error).removeprefix(f"{path}: ")))
        return []
    return entries


def _present(
    layout: Layout, entries: Iterable[Listing], paths: dict[str, str], modalities: Sequence[str]
) -> tuple[set[str], set[str]]:
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
            problems.append(Problem("count", scene, "no class of the release" if scene in by_scene else "has no clips"))
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


def _looks_like_evaluation(root: str | os.PathLike[str]) -> bool:
    layout = find_layout(root, "evaluation")
    return bool(layout.find("audio/0.wav") or layout.find("video/0.mp4"))


def _check_evaluation(
    root: str | os.PathLike[str], modalities: Sequence[str], fast: bool, progress: Progress | None
) -> Check:
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
    media, size = _look_at(files, fast, problems, progress)
    problems += _compare_media(files, media, seconds=EVALUATION_SECONDS, sample_rate=SAMPLE_RATE if official else 0)
    found = sum(min((media[path].duration for path in (row.audio, row.video) if path in media), default=0)
                for row in rows)  # fmt: skip
    counts = (ClassCount("unlabelled", Counter(evaluation=len(rows)), Counter(), len(rows) / 60, found / 60),)
    kind = "evaluation set of TAU Urban Audio-Visual Scenes 2021, compared with the release"
    if not official:
        kind = f"own set of {len(rows)} files in the layout of the evaluation set, checked against itself only"
    return Check(str(layout.root), kind, ("evaluation",), counts, tuple(problems), (), len(files), size)


# ---- class folders


def _check_folders(
    root: str | os.PathLike[str],
    group: str,
    groups: str | os.PathLike[str],
    test: float,
    validation: float,
    fast: bool,
    progress: Progress | None,
) -> Check:
    root = os.path.abspath(root)
    found = scan(root)
    order = [part for part in ("", "train", "validation", "test") if part in found.parts]
    files: dict[str, list[str]] = defaultdict(list)
    for row in (row for part in order for row in found.parts[part]):
        for modality, path in (("audio", row.audio), ("video", row.video)):
            if path:
                files[path].append(modality)
    problems: list[Problem] = []
    media, size = _look_at(files, fast, problems, progress)
    told = foretell(root, found, group=group, groups=groups, test=test, validation=validation)
    parts = {part: told.parts[part] for part in order}
    problems += [Problem(kind, fault.path, f"{fault.reason}: {fault.mend}") for kind, fault in told.faults]
    for path, header in media.items():
        if header.duration < 1 and kind_of(path) != "image":
            problems.append(Problem("format", path, f"lasts {header.duration:.2f} s, less than a clip of 1 s"))
    places = {part: {row.location for row in rows} for part, rows in parts.items()}
    for part in ("validation", "test"):
        for place in sorted(places.get(part, set()) & places.get("train", set())):
            problems.append(Problem("split", place, f"this source recording is in the training and the {part} part"))
    seconds: Counter[str] = Counter()
    for rows in parts.values():
        for row in rows:
            seconds[row.scene] += min(
                (media[path].duration for path in {row.audio, row.video} if path in media), default=0.0
            )
    counts = _count({part or "all": rows for part, rows in parts.items()}, seconds, None)
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


# ---- a store


def _check_store(path: Path, progress: Progress | None) -> Check:
    """Every byte of a store against the checksums that were taken when it was written."""
    manifest = read_manifest(path)
    mend = f"run `avsc data prepare {manifest['root']} {path}` again"
    problems: list[Problem] = []
    clips: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    rows: list[Row] = []
    size = 0
    for number, files in enumerate(manifest["shards"]):
        shard = shard_file(path, number)
        if not shard.is_file():
            problems.append(Problem("missing", str(shard), f"is not finished: {mend}"))
            continue
        records = read_index(shard)
        size += shard.stat().st_size
        reason = damage(shard, records, files)
        if reason:
            problems.append(Problem("unreadable", str(shard), f"{reason}: {mend}"))
        problems += [Problem("unreadable", str(shard), f"{file}: {why}: {mend}") for file, why in verify(shard)]
        for record in records:
            row = record["row"]
            rows.append(Row(row["file"], scene=row.get("scene", ""), location=row.get("location", "")))
            clips[row["file"]] += 1
            seconds[rows[-1].scene] += min(record["duration"].values(), default=0.0)
            for modality, why in record["bad"].items():
                problems.append(Problem("unreadable", row["file"], f"its {modality} could not be decoded ({why})"))
        if progress:
            progress(number + 1, len(manifest["shards"]))
    problems += [Problem("extra", file, f"is {n} times in the store: {mend}") for file, n in clips.items() if n > 1]
    about = f"store of the {manifest['layout']} layout, compared with its checksums"
    counts = _count({"all": rows}, seconds, None)
    return Check(str(path), about, ("all",), counts, tuple(problems), (), len(manifest["shards"]), size)


# ---- shared


def _count(
    parts: dict[str, Sequence[Row | Listing]], seconds: Counter[str], clip_seconds: float | None
) -> tuple[ClassCount, ...]:
    clips: dict[str, Counter[str]] = defaultdict(Counter)
    places: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for part, rows in parts.items():
        for row in rows:
            clips[row.scene][part] += 1
            places[row.scene][part].add(row.location)
    return tuple(
        ClassCount(
            scene,
            of_class,
            Counter({part: len(of_part) for part, of_part in places[scene].items()}),
            (of_class.total() * clip_seconds if clip_seconds else seconds[scene]) / 60,
            seconds[scene] / 60,
        )
        for scene, of_class in sorted(clips.items())
    )


def _look_at(
    files: dict[str, list[str]], fast: bool, problems: list[Problem], progress: Progress | None
) -> tuple[dict[str, Media], int]:
    """Read the headers of files, and unless `fast` all that they hold; what cannot be read becomes a problem."""
    media: dict[str, Media] = {}
    unreadable: list[Problem] = []
    size = 0
    pool = ThreadPoolExecutor(max_workers=min(32, (os.cpu_count() or 1) + 2))  # decoders let go of the interpreter
    try:
        tasks = {pool.submit(_read, path, of_file, fast): path for path, of_file in files.items()}
        for number, task in enumerate(as_completed(tasks), 1):
            path = tasks[task]
            try:
                media[path] = task.result()
                size += media[path].size
            except MediaError as error:
                empty = error.path == path and os.path.isfile(path) and not os.path.getsize(path)
                unreadable.append(Problem("empty" if empty else "unreadable", path, error.reason))
            if progress:
                progress(number, len(files))
    finally:
        pool.shutdown(cancel_futures=True)
    problems += sorted(unreadable, key=lambda problem: (problem.kind, problem.path))
    return media, size


def _read(path: str, modalities: Sequence[str], fast: bool) -> Media:
    if not os.path.getsize(path):
        raise MediaError(path, "is empty")
    media = probe(path)
    if fast:
        return media
    if media.has_video and "video" in modalities:
        # Every frame is decoded, and made small at once, so that a long video stays small in memory.
        frames = max(media.frames, round(media.duration * media.frame_rate), 1)
        for first in range(0, frames, 256):
            times = (np.arange(first, min(first + 256, frames)) + 0.5) / (media.frame_rate or 1)
            read_frames(path, np.minimum(times, media.duration), short_side=32)
    if media.has_audio and "audio" in modalities:
        for start in range(0, int(np.ceil(media.duration)), 60):
            read_audio(path, start, min(60.0, media.duration - start), media.sample_rate)
    return media


def _compare_media(
    files: dict[str, list[str]], media: dict[str, Media], *, seconds: float | None, sample_rate: int
) -> list[Problem]:
    """Lengths, rates, channels and frame counts, against the release's or else what most files of the set have."""
    problems = []
    for modality in MODALITIES:
        headers = {path: header for path, header in media.items() if modality in files[path]}
        if not headers:
            continue
        length = seconds or _usual(round(header.duration, 1) for header in headers.values())
        rate = sample_rate or _usual(header.sample_rate for header in headers.values())
        channels = CHANNELS if sample_rate else _usual(header.channels for header in headers.values())
        shape = _usual((header.width, header.height) for header in headers.values())
        frames = _usual(header.frames for header in headers.values())
        frame_rate = _usual(round(header.frame_rate, 1) for header in headers.values())
        for path, header in headers.items():
            faults = []
            if abs(header.duration - length) > 0.1:
                faults.append(f"lasts {header.duration:.3f} s, not {length:g}")
            if modality == "audio":
                if header.sample_rate != rate:
                    faults.append(f"{header.sample_rate} Hz, not {rate}")
                if header.channels != channels:
                    faults.append(f"{header.channels} channels, not {channels}")
            elif not header.has_video:
                faults.append("has no pictures")
            else:
                if (header.width, header.height) != shape:
                    faults.append(f"{header.width} x {header.height} pixels, most have {shape[0]} x {shape[1]}")
                if abs(header.frame_rate - frame_rate) > 0.1:
                    faults.append(f"{header.frame_rate:.2f} frames a second, most have {frame_rate:g}")
                if header.frames and abs(header.frames - frames) > max(2, 0.01 * frames):
                    faults.append(f"{header.frames} frames, most have {frames}")
            if faults:
                problems.append(Problem("format", path, "; ".join(faults)))
    return sorted(problems, key=lambda problem: problem.path)


def _usual(values: Iterable):
    return Counter(values).most_common(1)[0][0]
