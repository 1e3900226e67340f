"""The source of each recording, which no split may divide. Without a rule given by the user, it is guessed from the
names. Names given by cameras, phones and sites are one source each. Names of parts (`holiday-3_007`,
`v_Archery_g12_c01`, `speaker03_take2`) belong to the source named by the rest of the name. A plain number is weak
evidence: it is read as a part number only if the class then still has several sources of moderate size. Otherwise each
file is its own source, because one source too many makes the estimate a little less accurate, but one source for a
whole class makes training impossible.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from avsc_e2e.clip import Row
from avsc_e2e.data.sets.table import read_table
from avsc_e2e.errors import AvscError

log = logging.getLogger(__name__)

ADVICE = "--data.group '(.+)' makes each file a source, --data.groups FILE.csv lists them (columns file and group)"
"""Advice in errors about sources."""

_COPY = re.compile(r"(?:[-_. ]*\(\d{1,3}\)|[-_. ]+(?:copy|kopie|copie)(?:[-_. ]*\d+)?|~\d+|[-_. ]edited)$", re.I)
"""Additions of browsers, file managers and phones to the name of a second or an edited copy."""
_PART = r"(?:c|clip|part|pt|seg|segment|chunk|split|slice|take|trial|rep|utt|utterance|sentence|phrase|shot|scene)"
_MARKED = re.compile(rf"(.*?)[-_. ]*(?<![a-z]){_PART}[-_. ]*\d+$", re.I)
"""A number with a word for "part"; a letter before it makes another word."""
_SPAN = re.compile(r"(.+?)[-_. ]+(?:\d{5}[-_. ]+\d{5}|\d{6}[-_. ]+\d{6}|\d+\.\d+[-_ ]+\d+\.\d+)$")
"""Start and end, in seconds or frames, as in Kinetics and AudioSet."""
_LISTED = re.compile(r"(?:\d-(\d{3,7})-[A-Z]-\d{1,2}|(?!(?:19|20)\d\d-)(\d{3,7})-\d{1,2}-\d{1,2}-\d{1,3})$")
"""The recording in names of ESC-50 (fold-recording-take-class) and UrbanSound8K (recording-class-occurrence-slice)."""
_NUMBERED = re.compile(r"(.+?)[-_. ]+\d+$")
_DATE = r"(?:19|20)\d\d([-_.]?)(?:0\d|1[0-2])\1(?:[0-2]\d|3[01])"
_TIME = r"(?:[01]\d|2[0-3])([-_.h:]?)[0-5]\d(?:\2[0-5]\d(?:[-_.]?\d{3})?)?(?!\d)"
_STAMP = re.compile(rf"(?:.*?(?<!\d))?{_DATE}(?:[-_. T]*(?:at|um|à)?[-_. T]*{_TIME}|[-_ ]WA\d+)", re.I)
"""A day and a time, or WhatsApp's number of a day, anywhere in a name."""
_DAY = re.compile(rf"(?:.*?(?<!\d))?{_DATE}$", re.I)
_COUNTER = re.compile(
    r"(?:img|vid|mov|mvi|dsc|dscn|dscf|dji|pxl|cimg|sam|p\d{3}|mah|clip|gopr|gh\d\d|gx\d\d|gp\d\d|wp|hpim|imgp|lrv|"
    r"pict|c|a\d{3}c?)[-_ ]?e?\d{4,6}(?!\d)",
    re.I,
)
"""Names by which cameras count; `IMG_E0001` is the edited `IMG_0001`."""
_GOPRO = re.compile(r"g(?:opr|p\d\d)(\d{4})$|(g[hx])\d\d(\d{4})$", re.I)
"""Chapters of one recording: the number of the chapter comes before that of the recording. Older cameras name the first
GOPR0123 and those that follow GP010123."""
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)
_HASH = re.compile(r"(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{16,64}(?![0-9a-z])", re.I)
_SITE = re.compile(rf"Y?[\w-]{{11}}(?=$|[-_. ]\d|[-_. ]{_PART}[-_. ]*\d)", re.ASCII)
"""An identifier of YouTube; copies of AudioSet have a Y before it."""
_GENERIC = re.compile(
    "|audio|capture|clip|file|frame|image|img|item|movie|output|part|rec|record|recording|sample|scene|seg|segment|"
    "sequence|shot|take|test|track|train|trim|untitled|v|vid|video"
)
"""Words that do not identify a source."""
SOURCES, LARGEST = 3, 0.5
"""Weak evidence is used if a class then has at least this many sources, none with more than this share of its files, or
if this many sources have several files."""


class Guess(NamedTuple):
    """The evidence in a file name."""

    source: str
    evidence: str
    """own: a counter or a number; in another folder it is another recording. known: an identifier or a time, which is
    the same recording everywhere; name: a name without a number, likewise. marked: a part, marked by a word. weak: a
    number that may be a part number."""


def guess(name: str, scene: str = "") -> Guess:
    """Guess the source from the name of a file without extension; `scene` is its class."""
    plain = name
    while (shorter := _COPY.sub("", plain)) != plain and shorter and not _is_generic(shorter, scene):
        plain = shorter
    told = _guess(plain, scene)
    # `name (2)` is a browser's second copy of `name`, or the second of several files that were renamed together.
    return (
        told._replace(evidence="weak") if told.evidence == "name" and told.source == plain and plain != name else told
    )


def _guess(name: str, scene: str) -> Guess:
    if found := _LISTED.match(name):
        return Guess(found[1] or found[2], "known")
    for pattern in (_UUID, _HASH, _STAMP):
        if found := pattern.match(name):
            return Guess(found[0], "known")
    if (found := _SITE.match(name)) and _is_random(found[0]):
        return Guess(found[0], "known")
    if found := _COUNTER.match(name):
        shared = _GOPRO.sub(lambda of: f"{of[2] or 'GOPR'}{of[1] or of[3]}", found[0])
        return Guess(re.sub(r"(?<=img_)e(?=\d)", "", shared, flags=re.I), "own")
    if not _DAY.fullmatch(name):
        for pattern, evidence in ((_SPAN, "marked"), (_MARKED, "marked"), (_NUMBERED, "weak")):
            if found := pattern.fullmatch(name):
                if not _is_generic(found[1], scene):
                    return Guess(found[1], evidence)
                # `video1_clip2` is a part of a counted file, `clip_2` is one.
                counted = evidence == "marked" and any(letter.isdigit() for letter in found[1])
                return Guess(found[1] if counted else name, "own")
    return Guess(name, "own" if _is_generic(name, scene) else "name")


def group_rows(
    parts: dict[str, list[Row]], group: str = "", groups: str | os.PathLike[str] = ""
) -> dict[str, list[Row]]:
    """The rows of recordings by their part, with their source as location: by the CSV `groups`, by the first group of
    the regular expression `group` (matched against the whole name without extension, case ignored), else by the
    location that they have, else by `guess`. Raises AvscError for a rule or a list that is not valid or that leaves a
    recording out.
    """
    if group and groups:
        raise AvscError("--data.group and --data.groups exclude each other: give one of them")
    if groups:
        listed = read_groups(groups)
        return {part: [row._replace(location=_listed(row, listed, groups)) for row in rows]
                for part, rows in parts.items()}  # fmt: skip
    if group:
        pattern = _compiled(group)
        return {part: [row._replace(location=_matched(row, pattern)) for row in rows] for part, rows in parts.items()}
    return _guessed(parts)


def _guessed(parts: dict[str, list[Row]]) -> dict[str, list[Row]]:
    guesses = {row.file: guess(PurePosixPath(row.file).name, row.scene) for rows in parts.values() for row in rows}
    by_class: dict[str, list[Row]] = defaultdict(list)
    for row in (row for rows in parts.values() for row in rows if not row.location):
        by_class[row.scene].append(row)
    kept: set[str] = set()
    doubtful: list[str] = []
    for scene, rows in sorted(by_class.items()):
        counts = Counter(_source(row, guesses[row.file]) for row in rows)
        weak = {_source(row, guesses[row.file]) for row in rows if guesses[row.file].evidence == "weak"}
        merging = sum(count > 1 for source, count in counts.items() if source in weak)
        several = len(counts) >= SOURCES and counts.most_common(1)[0][1] <= LARGEST * len(rows)
        if several or merging >= SOURCES or not merging:
            kept |= weak
        else:
            doubtful.append(scene)
    if doubtful:
        log.warning(
            "%s: numbers end the names of class %r%s, but the names do not tell sources apart: each file counts as a "
            "source. If files are parts of longer recordings, say how: %s",
            *(by_class[doubtful[0]][0].file, doubtful[0]),
            *(f" and {len(doubtful) - 1} more" if len(doubtful) > 1 else "", ADVICE),
        )

    def located(row: Row) -> Row:
        if row.location:
            return row
        told = guesses[row.file]
        source = _source(row, told)
        return row._replace(location=row.file if told.evidence == "weak" and source not in kept else source)

    return {part: [located(row) for row in rows] for part, rows in parts.items()}


def _source(row: Row, told: Guess) -> str:
    """Name of a source in the set: counters are distinct in each folder, names and time stamps are not."""
    folder = PurePosixPath(row.file).parent
    if told.evidence == "own":
        return (folder / told.source).as_posix()
    return (below_class(row) / told.source).as_posix()


def below_class(row: Row) -> PurePosixPath:
    """The folders between a row's class folder and its file."""
    folders = PurePosixPath(row.file).parts[:-1]
    at = folders.index(row.scene) + 1 if row.scene in folders[:2] else 0
    return PurePosixPath(*folders[at:])


def _is_generic(text: str, scene: str) -> bool:
    """Whether a text does not identify a source: it is empty, a number, a generic word, or the class."""
    letters = re.sub(r"[\W\d_]+", "", text.lower())
    return bool(_GENERIC.fullmatch(letters)) or letters == re.sub(r"[\W\d_]+", "", scene.lower())


def _is_random(text: str) -> bool:
    """Whether letters and digits alternate too often for words with numbers."""
    kinds = ["l" if c.islower() else "u" if c.isupper() else "d" if c.isdigit() else "-" for c in text]
    changes = sum(one != other for one, other in itertools.pairwise(kinds))
    return len(set(kinds) - {"-"}) >= 2 and changes >= 5


def _compiled(group: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(group, re.IGNORECASE)
    except re.error as error:
        raise AvscError(f"--data.group {group!r}: is not a regular expression: {error}") from None
    if pattern.groups != 1:
        raise AvscError(
            f"--data.group {group!r}: must have exactly one pair of round brackets, around the name of the source"
        )
    return pattern


def _matched(row: Row, pattern: re.Pattern[str]) -> str:
    found = pattern.fullmatch(PurePosixPath(row.file).name)
    if found is None or not found[1]:
        raise AvscError(f"{row.video or row.audio}: its name does not match --data.group {pattern.pattern!r}")
    return (below_class(row) / found[1]).as_posix()


def read_groups(path: str | os.PathLike[str]) -> dict[str, str]:
    """File -> source of a CSV with the columns file and group, separated by commas, semicolons or tabs. Files are paths
    below the root, with or without extension, or only names. Raises AvscError, naming the line."""
    listed: dict[str, str] = {}
    for number, cells in read_table(path, ("file", "group"), flag="--data.groups")[0]:
        name, source = cells["file"], cells["group"]
        if not name or not source:
            raise AvscError(f"--data.groups {path}: line {number}: no file or no group")
        if listed.setdefault(name, source) != source:
            raise AvscError(f"--data.groups {path}: line {number}: {name} is in group {listed[name]!r} already")
    return listed


def _listed(row: Row, listed: dict[str, str], groups: str | os.PathLike[str]) -> str:
    names = [row.file, *(row.file + os.path.splitext(path)[1] for path in (row.video, row.audio) if path)]
    names += [PurePosixPath(name).name for name in names]
    found = next((listed[name] for name in names if name in listed), None)
    if found is None:
        raise AvscError(f"--data.groups {groups}: {row.file} is not listed: every recording needs a group")
    return found


def tell_far_shares(whole: Sequence[Row], held: Iterable[Row], share: float, part: str) -> None:
    """Warn of classes whose held-out part is far from the requested share, and name the source that causes it."""
    counts, of_part = Counter(row.scene for row in whole), Counter(row.scene for row in held)
    for scene, count in sorted(counts.items()):
        wanted = share * count
        if share and abs(of_part[scene] - wanted) > max(2.0, wanted / 2):
            [(source, size)] = Counter(row.location for row in whole if row.scene == scene).most_common(1)
            log.warning(
                "class %r: %d of %d recordings are in the %s set, where %.0f %% were asked for: sources are not "
                "divided, and the largest, %r, has %d. %s",
                *(scene, of_part[scene], count, part, 100 * share, source, size, ADVICE),
            )
