"""Detection of copies of one recording under several names, which no split may divide.

Exact copies have the same bytes. Near copies, such as another encoding, size or container, last equally long, show the
same frame in their middle (a grey thumbnail of 16 x 16 pixels, so brightness and composition must agree) and have the
same audio there (signs of changes of energy between bands and instants: Haitsma and Kalker, ISMIR 2002). Without audio,
the frames at a fifth and at four fifths must agree too. A silent or black middle is not used as evidence. Files are
only opened if another source has the same length.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from avsc_e2e.clip import Row
from avsc_e2e.data.media import mix_channels, read_audio, read_frames
from avsc_e2e.errors import MediaError

log = logging.getLogger(__name__)

LENGTH = 0.1
"""Largest difference in length of near copies, seconds, because encoders pad."""
SIDE = 16
"""Side of a thumbnail, pixels."""
LEVELS, MEAN_LEVELS, CONTRAST = 14.0, 3.0, 4.0
"""Largest and mean difference between thumbnails of the same frame, and smallest deviation of a usable thumbnail, on a
scale of 255."""
RATE, FRAME, HOP, SECONDS = 8000, 2048, 256, 1.5
"""Audio fingerprint: sample rate (Hz), samples of a spectrum, hop, and length (seconds)."""
QUIET = 1e-4
"""Audio with a smaller root mean square counts as silence."""
ERRORS, LAGS = 0.25, 4
"""Largest share of different bits in fingerprints of the same recording (half of them differ by chance), and largest
shift by an encoder, in spectra."""
MOST = 4000
"""Largest number of files that are opened; sets with more candidates are searched for exact copies only."""


class Fingerprint(NamedTuple):
    """The frame and the audio in the middle of a recording, as bits."""

    frame: np.ndarray | None
    """(SIDE, SIDE) uint8; None if there is no usable frame."""
    audio: np.ndarray | None
    """(spectra, bands) bool; None if it is silent."""


class Copies(NamedTuple):
    """Two files with the same recording."""

    first: Row
    second: Row
    exact: bool


def join(parts: dict[str, list[Row]], copies: Sequence[tuple[str, str]]) -> dict[str, list[Row]]:
    """The rows, with a common location for all sources that share a recording according to `copies`. Joined sources are
    logged."""
    place = {row.file: row.location for rows in parts.values() for row in rows}
    joined: dict[str, str] = {}

    def root(name: str) -> str:
        while name in joined:
            name = joined[name]
        return name

    told = [pair for pair in copies if len({place.get(file) for file in pair}) == 2 and all(f in place for f in pair)]
    for pair in told:
        one, *others = sorted({root(place[file]) for file in pair})
        for other in others:
            joined[other] = one
    if told:
        log.warning(
            "%d recordings occur under more than one name, such as %s and %s: they count as one source "
            "(`avsc data check` lists them)",
            *(len({second for _, second in told}), *told[0]),
        )
    return {part: [row._replace(location=root(row.location)) for row in rows] for part, rows in parts.items()}


def find_copies(rows: Sequence[Row]) -> Iterator[Copies]:
    """Pairs of measured rows of different sources with the same recording: each row with the first one that it
    copies."""
    copies: set[str] = set()
    same_size: dict[tuple[int, ...], list[Row]] = defaultdict(list)
    for row in rows:
        sizes = tuple(_status(path)[0] for path in _paths(row))
        if sizes and min(sizes) > 0:
            same_size[sizes].append(row)
    for of_size in same_size.values():
        if len({row.location for row in of_size}) < 2:
            continue
        first_of: dict[bytes, Row] = {}
        for row in of_size:
            digest = b"".join(_digest(path, *_status(path)) for path in _paths(row))
            first = first_of.setdefault(digest, row)
            if first is not row:
                copies.add(row.file)
                if first.location != row.location:
                    yield Copies(first, row, exact=True)
    left = sorted((row for row in rows if row.duration > 0 and row.file not in copies), key=lambda row: row.duration)
    windows = list(_of_one_length(left))
    candidates = list(dict.fromkeys(row for window in windows for row in window))
    if not candidates or len(candidates) > MOST:
        return
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        fingerprints = dict(zip(candidates, pool.map(fingerprint, candidates), strict=True))
    for window in windows:
        yield from _alike(window, fingerprints)


def _of_one_length(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Groups of rows of several sources with equal length."""
    run: list[Row] = []
    for row in rows:
        if run and row.duration - run[-1].duration > LENGTH:
            if len({one.location for one in run}) > 1:
                yield run
            run = []
        run.append(row)
    if len({one.location for one in run}) > 1:
        yield run


def _alike(rows: Sequence[Row], fingerprints: dict[Row, Fingerprint]) -> Iterator[Copies]:
    frames = np.stack([fingerprints[row].frame if fingerprints[row].frame is not None else np.zeros((SIDE, SIDE))
                       for row in rows]).astype(np.int16)  # fmt: skip
    durations = np.array([row.duration for row in rows])
    for index, row in enumerate(rows):
        mine = fingerprints[row]
        if mine.frame is None and mine.audio is None:
            continue
        end = int(np.searchsorted(durations, durations[index] + LENGTH, side="right"))
        difference = np.abs(frames[index + 1 : end] - frames[index])
        near = (difference.max(axis=(1, 2)) <= LEVELS) & (difference.mean(axis=(1, 2)) <= MEAN_LEVELS)
        for other in (np.flatnonzero(near) + index + 1).tolist():
            theirs = fingerprints[rows[other]]
            if rows[other].location != row.location and _agree(mine, theirs) and _agree_further(row, rows[other], mine):
                yield Copies(row, rows[other], exact=False)


def _agree(one: Fingerprint, other: Fingerprint) -> bool:
    """Whether all evidence that both have agrees; thumbnails have been compared before."""
    if (one.frame is None) != (other.frame is None) or (one.audio is None) != (other.audio is None):
        return False
    if one.audio is None:
        return one.frame is not None
    return _bit_errors(one.audio, other.audio) <= ERRORS


def _agree_further(one: Row, other: Row, evidence: Fingerprint) -> bool:
    """Compare further frames, because without audio one frame is little evidence: a fixed camera's recordings differ
    only in moving objects. A copy at another frame rate may show the frame before, so a larger difference is allowed
    than in the middle."""
    if evidence.audio is not None:
        return True
    pairs = [[_frame(row, share) for row in (one, other)] for share in (0.21, 0.79)]
    return all(first is not None and second is not None and _near(first, second) for first, second in pairs)


def _near(one: np.ndarray, other: np.ndarray) -> bool:
    difference = np.abs(one.astype(np.int16) - other)
    return bool(difference.max() <= 2 * LEVELS and difference.mean() <= 2 * MEAN_LEVELS)


def _frame(row: Row, share: float) -> np.ndarray | None:
    """The thumbnail at a share of a recording's length."""
    try:
        return _thumbnail(read_frames(row.video, [share * row.duration], 4 * SIDE)[0]) if row.video else None
    except MediaError:
        return None


def _bit_errors(one: np.ndarray, other: np.ndarray) -> float:
    """The smallest share of different bits over shifts of a few spectra."""
    length = min(len(one), len(other)) - LAGS
    if length < 8:
        return 1.0
    shares = [np.mean(one[:length] != other[lag : lag + length]) for lag in range(LAGS + 1)]
    shares += [np.mean(one[lag : lag + length] != other[:length]) for lag in range(1, LAGS + 1)]
    return float(min(shares))


def fingerprint(row: Row) -> Fingerprint:
    """The fingerprint of the middle of a measured recording; parts that cannot be read are None."""
    statuses = [_status(path) for path in (row.audio, row.video)]
    return _fingerprint(row.audio, row.video, row.duration, *statuses)


@lru_cache(maxsize=2 * MOST)
def _fingerprint(audio: str, video: str, duration: float, *_statuses: tuple[int, int]) -> Fingerprint:
    frame, audible = _frame(Row("", audio, video, duration=duration), 0.5), None
    try:
        if audio:
            length = min(SECONDS, duration)
            audible = _bits(mix_channels(read_audio(audio, (duration - length) / 2, length, RATE), 1)[0])
    except MediaError:
        pass
    return Fingerprint(frame, audible)


def _thumbnail(frame: np.ndarray) -> np.ndarray | None:
    grey = frame @ np.array([0.299, 0.587, 0.114], np.float32)
    for axis in (0, 1):
        edges = np.linspace(0, grey.shape[axis], SIDE + 1).astype(int)
        cells = np.add.reduceat(grey, edges[:-1], axis=axis)
        grey = cells / np.expand_dims(np.diff(edges), 1 - axis)
    return grey.astype(np.uint8) if grey.std() >= CONTRAST else None


def _bits(samples: np.ndarray) -> np.ndarray | None:
    """Whether the energy of a band rises against its neighbour from one spectrum to the next."""
    if len(samples) < FRAME + 16 * HOP or float(np.sqrt(np.mean(samples**2))) < QUIET:
        return None
    starts = np.arange(0, len(samples) - FRAME + 1, HOP)
    spectra = np.abs(np.fft.rfft(samples[starts[:, None] + np.arange(FRAME)] * np.hanning(FRAME), axis=1)) ** 2
    edges = np.unique(np.round(np.geomspace(200, 3000, 34) / RATE * FRAME).astype(int))
    bands = np.log(np.add.reduceat(spectra, edges, axis=1)[:, :-1] + 1e-12)
    return np.diff(np.diff(bands, axis=1), axis=0) > 0


def _paths(row: Row) -> list[str]:
    return sorted({row.audio, row.video} - {""})


def _status(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=65536)
def _digest(path: str, size: int, _changed: int) -> bytes:
    """Digest of a file's content; an unreadable file is equal to no other."""
    digest = blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return os.urandom(16)
    return digest.digest()
