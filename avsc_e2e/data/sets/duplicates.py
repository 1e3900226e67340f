"""Detection of copies of one recording under several names, which no split may divide.

Exact copies have the same bytes. Near copies, such as another encoding, size or container, last equally long, show the
same frame in their middle (a grey thumbnail of 16 x 16 pixels, so brightness and composition must agree) and have the
same audio there (signs of changes of energy between bands and instants: Haitsma and Kalker, ISMIR 2002). Without audio,
the frames at a fifth and at four fifths must agree too. A silent or black middle is not used as evidence. Files are
only opened if another source has the same length, and frames are only decoded if the audio agrees or there is none.
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
BLOCK = 256
"""Number of recordings that are compared with all others at a time."""
MOST = 4000
"""Largest number of files that are opened; sets with more candidates are searched for exact copies only."""


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
        audible = dict(zip(candidates, pool.map(_audio, candidates), strict=True))
        mute = [row for row in candidates if audible[row] is None]
        list(pool.map(_middle, mute))  # for the cache
    for window in windows:
        heard = {row: bits for row in window if (bits := audible[row]) is not None}
        for one, other in _sound_alike(list(heard), list(heard.values())):
            frames = _middle(one), _middle(other)
            if all(frame is None for frame in frames) or _near(*frames, LEVELS, MEAN_LEVELS):
                yield Copies(one, other, exact=False)
        yield from _look_alike([row for row in window if audible[row] is None and _middle(row) is not None])


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


def _sound_alike(rows: Sequence[Row], bits: Sequence[np.ndarray]) -> Iterator[tuple[Row, Row]]:
    """Pairs of rows, sorted by length, of different sources, that last equally long and whose bits (spectra, bands)
    differ little at one of a few shifts."""
    durations = np.array([row.duration for row in rows])
    of_length: dict[int, list[int]] = defaultdict(list)
    for index, values in enumerate(bits):
        of_length[len(values)].append(index)
    signs = {length: np.stack([bits[i] for i in found]) * np.float32(2) - 1 for length, found in of_length.items()}
    pairs = []
    for length, found in of_length.items():
        for longer, others in of_length.items():
            if longer < length or length - LAGS < 8:
                continue
            for first in range(0, len(found), BLOCK):
                block = found[first : first + BLOCK]
                errors = _bit_errors(signs[length][first : first + BLOCK], signs[longer][:, :length])
                apart = np.abs(durations[block, None] - durations[others])
                for one, other in np.argwhere((errors <= ERRORS) & (apart <= LENGTH)).tolist():
                    pair = sorted((block[one], others[other]))
                    if rows[pair[0]].location != rows[pair[1]].location:
                        pairs.append(tuple(pair))
    return ((rows[one], rows[other]) for one, other in sorted(set(pairs)))


def _bit_errors(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The least share of differing bits over shifts of a few spectra, of each (N, spectra, bands) of -1 and 1 with each
    (M, spectra, bands)."""
    length = ones.shape[1] - LAGS
    flat = lambda values, lag: values[:, lag : lag + length].reshape(len(values), -1)  # noqa: E731
    lags = [(0, lag) for lag in range(LAGS + 1)] + [(lag, 0) for lag in range(1, LAGS + 1)]
    agreement = np.max([flat(ones, one) @ flat(others, other).T for one, other in lags], axis=0)
    return (1 - agreement / (length * ones.shape[2])) / 2


def _look_alike(rows: Sequence[Row]) -> Iterator[Copies]:
    """Copies among rows, sorted by length, without audio. One frame is little evidence then: those of a camera that
    stands still differ in what moves. A copy at another rate may show the frame before, so more difference is allowed
    than in the middle. All rows have a middle frame."""
    if not rows:
        return
    frames = np.stack([frame for row in rows if (frame := _middle(row)) is not None]).astype(np.int16)
    durations = np.array([row.duration for row in rows])
    for index, row in enumerate(rows):
        end = int(np.searchsorted(durations, durations[index] + LENGTH, side="right"))
        difference = np.abs(frames[index + 1 : end] - frames[index])
        near = (difference.max(axis=(1, 2)) <= LEVELS) & (difference.mean(axis=(1, 2)) <= MEAN_LEVELS)
        for other in (rows[place] for place in (np.flatnonzero(near) + index + 1).tolist()):
            if other.location != row.location and all(
                _near(_frame(row, share), _frame(other, share), 2 * LEVELS, 2 * MEAN_LEVELS) for share in (0.21, 0.79)
            ):
                yield Copies(row, other, exact=False)


def _near(one: np.ndarray | None, other: np.ndarray | None, most: float, mean: float) -> bool:
    if one is None or other is None:
        return False
    difference = np.abs(one.astype(np.int16) - other)
    return bool(difference.max() <= most and difference.mean() <= mean)


def _frame(row: Row, share: float) -> np.ndarray | None:
    """The thumbnail at a share of a recording's length."""
    try:
        return _thumbnail(read_frames(row.video, [share * row.duration], 4 * SIDE)[0]) if row.video else None
    except MediaError:
        return None


def _middle(row: Row) -> np.ndarray | None:
    """The thumbnail of the middle of a measured recording, (SIDE, SIDE) uint8; None where none tells frames apart."""
    return _middle_frame(row.video, row.duration, *_status(row.video))


@lru_cache(maxsize=2 * MOST)
def _middle_frame(video: str, duration: float, *_status: int) -> np.ndarray | None:
    return _frame(Row("", "", video, duration=duration), 0.5)


def _audio(row: Row) -> np.ndarray | None:
    """The audio in the middle of a measured recording as bits (spectra, bands) bool; None where it is silent."""
    return _middle_bits(row.audio, row.duration, *_status(row.audio)) if row.audio else None


@lru_cache(maxsize=2 * MOST)
def _middle_bits(audio: str, duration: float, *_status: int) -> np.ndarray | None:
    length = min(SECONDS, duration)
    try:
        return _bits(mix_channels(read_audio(audio, (duration - length) / 2, length, RATE), 1)[0])
    except MediaError:
        return None


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
