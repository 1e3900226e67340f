"""Recordings from, and results to, what others hold them in: lists, pandas tables, rows of Hugging Face datasets."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsc_e2e.arguments import checked
from avsc_e2e.clip import Corpus, Row
from avsc_e2e.data.extensions import kind
from avsc_e2e.errors import AvscError
from avsc_e2e.outputs.output import SystemOutput
from avsc_e2e.segments import Prediction

if TYPE_CHECKING:
    import datasets
    import pandas

Recordings = Iterable[str | os.PathLike[str] | Row | Mapping[str, Any]]
"""Paths, rows of a corpus, or mappings with file and, where they are known, audio, label and group; or a pandas table
with these columns."""
SUFFIX = {"audio": ".wav", "video": ".mp4"}
"""Of bytes without a name. What they hold is told by their content."""


@checked
def rows_from(
    recordings: Recordings, labels: Iterable[Any] | None = None, groups: Iterable[Any] | None = None
) -> list[Row]:
    """A row, not yet measured, of each recording, in order; its name is its path without extension. `labels` and
    `groups` replace those of the recordings. Raises AvscError for lengths that differ and for what is no recording."""
    if isinstance(recordings, Row):
        raise AvscError(f"{recordings}: give a list of recordings, not one")
    if hasattr(recordings, "to_dict"):  # a table of pandas, or one column of it
        table: Any = recordings
        recordings = table.to_dict("records") if hasattr(table, "columns") else table.tolist()
    rows = [_row(one, number) for number, one in enumerate(recordings)]
    for field, values in (("scene", labels), ("location", groups)):
        if values is None:
            continue
        values = list(values)
        if len(values) != len(rows):
            what = "labels" if field == "scene" else "groups"
            raise AvscError(f"{len(rows)} recordings and {len(values)} {what}: give one for each")
        changes: list[dict[str, Any]] = [{field: str(value)} for value in values]
        rows = [row._replace(**change) for row, change in zip(rows, changes, strict=True)]
    return rows


def _row(one: str | os.PathLike[str] | Row | Mapping[str, Any], number: int) -> Row:
    if isinstance(one, Row):
        return one
    cells = one if isinstance(one, Mapping) else {"file": one}
    file, audio, label, group = (_cell(cells.get(name)) for name in ("file", "audio", "label", "group"))
    if not isinstance(file, (str, os.PathLike)) or not os.fspath(file):
        raise AvscError(f"recording {number}: {one!r:.100} is no path, and has no column file with one")
    file = os.path.abspath(file)
    if not os.path.isfile(file):
        raise AvscError(f"recording {number}: {file}: no such file")
    video = "" if kind(file) == "audio" else file
    audio = os.path.abspath(audio) if audio else file
    return Row(os.path.splitext(file)[0], audio, video, scene=str(label), location=str(group))


def _cell(value: Any) -> Any:
    """Empty for None, and for nan, which pandas has where a cell is empty."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


@checked
def rows_from_dataset(dataset: datasets.Dataset, folder: str | os.PathLike[str], label: str = "label") -> list[Row]:
    """Rows of a Hugging Face dataset with a column of videos, one of audio, or both, and one of labels. Media that are
    part of the dataset are written to `folder`, those that lie on the disk are used there. Raises AvscError."""
    from datasets import Audio, Video

    features = dataset.features or {}
    media: dict[str, str] = {}
    for kind_of, modality in ((Video, "video"), (Audio, "audio")):
        for name in [name for name, feature in features.items() if isinstance(feature, kind_of)][:1]:
            media[modality] = name
            dataset = dataset.cast_column(name, kind_of(decode=False))
    if not media:
        raise AvscError(f"none of the columns {', '.join(features)} is of videos or audio: cast one to datasets.Video")
    if label not in features:
        raise AvscError(f"no column {label!r}: name that of the labels; there are {', '.join(features)}")
    name_of = getattr(features[label], "int2str", str)
    rows = []
    for number, one in enumerate(dataset):
        paths = {
            modality: _placed(one[name], Path(folder) / f"{number:07d}", modality)
            for modality, name in media.items()
            if one[name]
        }
        if not paths:
            raise AvscError(f"row {number} of the dataset has neither video nor audio: filter it out")
        video = paths.get("video", "")
        rows.append(Row(f"{number:07d}", paths.get("audio", video), video, scene=str(name_of(one[label]))))
    return rows


def _placed(value: Mapping[str, Any], stem: Path, modality: str) -> str:
    """Where a medium lies on the disk."""
    path, data = value.get("path") or "", value.get("bytes")
    if data is None:
        return os.path.abspath(path)
    to = stem.with_suffix(os.path.splitext(path)[1] or SUFFIX[modality])
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(data)
    return str(to)


@checked
def to_pandas(found: Corpus | Sequence[Row] | Prediction | Sequence[Prediction] | SystemOutput) -> pandas.DataFrame:
    """A pandas table. Of a corpus or rows: file, audio, label, group, split and duration, which `to_csv` makes a table
    of `avsc train`. Of predictions: path, start, end, scene and confidence of each segment, and the error of what could
    not be read. Of a system output: file, start where it is known, and a column of probabilities a class. Raises
    AvscError where pandas is not installed."""
    try:
        import pandas
    except ImportError:
        raise AvscError("pandas is not installed: pip install 'avsc-e2e[pandas]'") from None

    if isinstance(found, SystemOutput):
        start = {} if found.start is None else {"start": found.start}
        columns = dict(zip(found.classes, found.probabilities.T, strict=True))
        return pandas.DataFrame({"file": found.files, **start, **columns})
    if isinstance(found, Corpus):
        parts = zip(("train", "validation", "test"), found[1:], strict=True)
        return pandas.DataFrame([_cells(row) | {"split": part} for part, rows in parts for row in rows])
    several: list[Any] = [found] if isinstance(found, Prediction) else list(found)
    if any(isinstance(one, Prediction) for one in several):
        return pandas.DataFrame([line for one in several for line in _lines(one)])
    return pandas.DataFrame([_cells(row) for row in several])


def _cells(row: Row) -> dict[str, Any]:
    file = row.video or row.audio
    audio = row.audio if row.audio != file else ""
    return {"file": file, "audio": audio, "label": row.scene, "group": row.location, "duration": row.duration}


def _lines(one: Prediction) -> list[dict[str, Any]]:
    lines = [{"path": one.path, **segment._asdict(), "error": ""} for segment in one.segments]
    return lines or [{"path": one.path, "error": one.error}]
