"""What a data set holds, before anything is learnt from it: parts, classes, sources, and what will hurt."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avsc_e2e.clip import MODALITIES, Corpus, Row
from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.data.sets.table import folder_of
from avsc_e2e.data.store.layout import is_store, read_manifest
from avsc_e2e.data.store.prepare import Options, prepare, recordings
from avsc_e2e.data.store.reader import Store, open_store
from avsc_e2e.errors import AvscError
from avsc_e2e.learner.budget import Clock, in_turn
from avsc_e2e.learner.crossing import crossing

IMBALANCE = 10.0
"""Segments of the largest class over those of the smallest that are worth a warning."""
DECODED = {"": 0.25, "test": 0.15}
"""Of the budget, what decoding of the test part and of all others may take; what exceeds it is left out."""
PILOT = 64
"""Recordings that are decoded first: they tell the machine's rate, and a first checkpoint is made of them."""
SHARD = 4 << 20
"""Bytes of media in a shard of the learner's store: small ones keep all cores busy to the end."""


@dataclass(frozen=True)
class Look:
    """A data set that is ready to be learnt from."""

    corpus: Corpus
    """Validation recordings are part of its training part: the learner holds out sources by itself."""
    store: Store
    warnings: tuple[str, ...]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that some training recordings have."""
        return tuple(name for name in MODALITIES if any(getattr(row, name) for row in self.corpus.train))

    def text(self) -> str:
        """A line on the training part, one on the test part where there is one, and the warnings."""
        lines = [f"training part: {_told(self.corpus.train)}, {len(self.corpus.classes)} classes"]
        if self.corpus.test:
            lines.append(f"test part: {_told(self.corpus.test)}")
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


def look(
    data: str | os.PathLike,
    folder: Path,
    options: Options,
    clock: Clock,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Look]:
    """Decode a data set into a store below `folder`, unless it is one, as far as the clock allows, and read its parts.
    A large set is yielded twice, first when some recordings of all classes are decoded. Raises AvscError where there is
    nothing to learn."""
    if is_store(data):
        yield _read(data, data)
        return
    store = folder / "store"
    root = Path(os.path.abspath(data))
    _, rows = recordings(root)
    order = [rows[place] for place in in_turn([(r["scene"], r["location"] or r["file"], r["file"]) for r in rows])]
    chosen = {file for files in read_manifest(store)["shards"] for file in files} if is_store(store) else set()
    pilot = [row for row in order if row["file"] not in chosen and row["part"] != "test"][:PILOT]
    if len(rows) - len(chosen) <= 2 * len(pilot) or {row["scene"] for row in pilot} != {row["scene"] for row in rows}:
        yield _read(data, store, prepare(data, store, options, shard_size=SHARD, progress=progress).bad)
        return
    size = sum(path.stat().st_size for row in pilot for path in _paths(root, row) if path.exists())
    began = clock.used
    chosen |= {row["file"] for row in pilot}
    shard = min(SHARD, size // (4 * (os.cpu_count() or 1)))  # several for each core
    prepare(data, store, options, shard_size=shard, files=chosen, progress=progress)
    each = (clock.used - began) / len(pilot)
    yield _read(data, store)
    for part, share in DECODED.items():
        of_part = [row["file"] for row in order if (row["part"] == "test") == (part == "test")]
        left = int(share * clock.seconds / each) - len(chosen.intersection(of_part))
        chosen.update([file for file in of_part if file not in chosen][: max(left, 0)])
    bad = prepare(data, store, options, shard_size=SHARD, files=chosen, progress=progress).bad
    yield _read(data, store, bad, len(rows) - len(chosen))


def _paths(root: Path, row: Mapping[str, str]) -> set[Path]:
    return {Path(folder_of(root)) / row[name] for name in MODALITIES if row[name]}


def _read(
    data: str | os.PathLike,
    store: str | os.PathLike,
    bad: Sequence[tuple[str, str, str]] = (),
    left: int = 0,
) -> Look:
    """A store as something to learn from; `left` recordings are not in it."""
    corpus = read_corpus(store, validation=0.0, test=0.0, lenient=True)
    opened = open_store(store)
    train = _readable((*corpus.train, *corpus.validation), opened)
    corpus = Corpus(tuple(sorted({row.scene for row in train})), train, (), _readable(corpus.test, opened))
    corpus = corpus._replace(test=tuple(row for row in corpus.test if row.scene in corpus.classes))
    if len(corpus.classes) < 2:
        raise AvscError(f"{data}: recordings of {len(corpus.classes)} class can be read; two or more are needed")
    sources = {row.location or row.file for row in train}
    if len(sources) < 2:
        raise AvscError(
            f"{data}: all training recordings are of one source, {next(iter(sources))}; "
            "the learner holds out whole sources and needs two or more"
        )
    warnings = _warnings(corpus, bad)
    if left:
        warnings.append(
            f"{left} recordings are left out, since decoding them would take more than "
            f"{100 * DECODED['']:.0f} % of the minutes: --resume with more --minutes takes more of them"
        )
    shared = crossing(train)
    if shared:
        corpus = corpus._replace(train=tuple(row._replace(location=shared[row.location]) for row in corpus.train))
        names = sorted(set(shared.values()))
        warnings.append(
            f"{len(names)} sources, {names[0]} to {names[-1]}, are in several classes by their names: each is held out "
            "as a whole"
        )
    return Look(corpus, opened, tuple(warnings))


def _readable(rows: tuple[Row, ...], store: Store) -> tuple[Row, ...]:
    """The rows that have a modality that could be decoded, with that one alone where the other could not."""
    found = []
    for row in rows:
        for name in store.recordings[row.file].bad:
            row = row._replace(audio="") if name == "audio" else row._replace(video="")
        if row.audio or row.video:
            found.append(row)
    return tuple(found)


def _told(rows: tuple[Row, ...]) -> str:
    sources = len({row.location or row.file for row in rows})
    kinds = Counter(" and ".join(name for name in MODALITIES if getattr(row, name)) for row in rows)
    told = ", ".join(f"{count} with {kind}" for kind, count in kinds.most_common())
    seconds = sum(row.duration for row in rows)
    length = f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
    return f"{len(rows)} recordings ({told}) of {sources} sources, {length}"


def _warnings(corpus: Corpus, bad: Sequence[tuple[str, str, str]]) -> list[str]:
    found = []
    if bad:
        file, modality, reason = bad[0]
        found.append(
            f"{len({name for name, *_ in bad})} recordings cannot be decoded, such as {file}: {modality} {reason}"
        )
    sources: dict[str, set[str]] = defaultdict(set)
    seconds: Counter[str] = Counter()
    for row in corpus.train:
        sources[row.scene].add(row.location or row.file)
        seconds[row.scene] += max(row.duration, 1.0)  # type: ignore[assignment]  # need not be whole
    alone = sorted(scene for scene, of_scene in sources.items() if len(of_scene) == 1)
    if alone:
        found.append(
            f"one source alone for class {', '.join(alone)}: out of fold it is always new, and its figures are too low"
        )
    (most, largest), (least, smallest) = seconds.most_common(1)[0], seconds.most_common()[-1]
    if largest > IMBALANCE * smallest:
        found.append(f"class {most} has {largest / smallest:.0f} times as many seconds as {least}")
    both = {row.location for row in corpus.train} & {row.location for row in corpus.test} - {""}
    if both:
        found.append(f"{len(both)} sources are in the training and in the test part, such as {min(both)}")
    return found
