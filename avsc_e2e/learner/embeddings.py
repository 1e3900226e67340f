"""Features of frozen trunks for segments of a data set, computed once."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avsc_e2e.clip import Corpus, Row, Segment
from avsc_e2e.data.dataset import ClipDataset, fixed_segments
from avsc_e2e.data.loader import loader
from avsc_e2e.data.store.reader import Store
from avsc_e2e.devices import device
from avsc_e2e.durable import replacing
from avsc_e2e.inference import sampling
from avsc_e2e.learner.budget import in_turn
from avsc_e2e.models import cut
from avsc_e2e.models.ensemble import Member, Tower, inputs_of, statistics
from avsc_e2e.models.trunk import settled
from avsc_e2e.models.weights.sources import chosen
from avsc_e2e.models.zoo import own
from avsc_e2e.models.zoo.frontends import AISFX, SPEECH
from avsc_e2e.transforms.frames import CentreCrop

FRAMES = 3
"""Of a segment that the video members see; a store has as many a second."""
SIZE = 160
"""Pixels of the square that the video members see."""


def members_at_hand() -> list[Member]:
    """What features can be taken of, without a network: video trunks whose weights are there, audio trunks likewise,
    and log-mel bands, which need no weights."""
    effects = replace(own.lite0_aisfx(), video="", fusion="")
    frames = settled(replace(own.lite0(), audio="", fusion="", size=SIZE, frames=FRAMES))
    bands = replace(effects, **{**AISFX, "audio": "audio_bands", "bands": 64, "hop": 441, "deltas": 1})
    found = [
        Member("lite0", frames, ("mean", "deviation")),
        Member("lite2", replace(frames, video="tf_efficientnet_lite2"), ("mean", "deviation")),
        Member("aisfx", effects, ("mean", "deviation", "maximum")),
        Member("speech", replace(effects, **SPEECH), ("mean", "deviation", "maximum")),
        Member("log-mel", bands, ("mean", "deviation")),
    ]
    return [member for member in found if not pretrained(member) or at_hand(member)]


def pretrained(member: Member) -> bool:
    """Whether a member's trunk is of use with published weights only."""
    return member.architecture.audio != "audio_bands"


def at_hand(member: Member) -> bool:
    """Whether published weights of its trunk can be had without a network."""
    trunk = member.architecture.audio or member.architecture.video
    source = chosen(trunk, "")
    return source is not None and source.available


def tower(member: Member) -> Tower:
    """A member's tower with its published weights, on the device, in evaluation mode."""
    made = Tower(member)
    if pretrained(member):
        made.trunk.load_pretrained()
    return made.to(device()).eval()


@dataclass(frozen=True, eq=False)
class Segments:
    """Which segments are looked at, and what is known of them. Axis: N segments."""

    segments: tuple[Segment, ...]
    targets: np.ndarray
    """(N,) class."""
    groups: np.ndarray
    """(N,) source."""
    weights: np.ndarray
    """(N,) segments of the recording that each stands for."""

    def __len__(self) -> int:
        return len(self.segments)

    def chosen(self, rows: np.ndarray) -> Segments:
        """Those of a selection (N,) bool; what is left of a recording stands for all of it."""
        kept = tuple(one for one, there in zip(self.segments, rows, strict=True) if there)
        _, place = self._recordings
        all_of, left_of = (np.bincount(place, self.weights * part, place.max() + 1) for part in (1, rows))
        share = all_of / np.where(left_of > 0, left_of, 1)
        return Segments(kept, self.targets[rows], self.groups[rows], (self.weights * share[place])[rows])

    def spread(self, count: int) -> Segments:
        """So many of them at most, evenly from the first to the last."""
        at = np.unique(np.linspace(0, len(self) - 1, count).astype(int))
        return self.chosen(np.isin(np.arange(len(self)), at))

    def within(self, count: float) -> np.ndarray:
        """(N,) bool: as many of them as `count` allows: all; or of each recording as many as fit, evenly, and one more
        of some; or one of each of some recordings. Some are of all classes and sources in turn; one of each class is
        always there."""
        if len(self) <= count:
            return np.ones(len(self), bool)
        first, place = self._recordings
        lengths = np.bincount(place)
        most = next((m for m in range(int(lengths.max()), 1, -1) if np.minimum(lengths, m).sum() <= count), 1)
        taken = np.minimum(lengths, most if len(lengths) <= count else 0)
        turns = in_turn([(str(self.targets[at]), str(self.groups[at]), self.segments[at].row.file) for at in first])
        turns = [place for place in turns if lengths[place] > taken[place]]
        more = max(int(count), len(np.unique(self.targets))) - taken.sum()
        taken[turns[:more]] += 1
        kept = np.zeros(len(self), bool)
        for at, wanted in zip(np.split(np.argsort(place, kind="stable"), np.cumsum(lengths)[:-1]), taken, strict=True):
            kept[at[np.round((np.arange(wanted) + 0.5) * len(at) / max(wanted, 1) - 0.5).astype(int)]] = True
        return kept

    @property
    def _recordings(self) -> tuple[np.ndarray, np.ndarray]:
        """(R,) the first segment of each recording, and (N,) the recording of each segment."""
        _, first, place = np.unique([one.row.file for one in self.segments], return_index=True, return_inverse=True)
        return first, place


def segments_of(rows: Sequence[Row], classes: Sequence[str]) -> Segments:
    """The fixed segments of recordings."""
    label = {name: index for index, name in enumerate(classes)}
    kept = [segment for row in rows for segment in fixed_segments(row)]
    return Segments(
        tuple(kept),
        np.array([label[segment.row.scene] for segment in kept]),
        np.array([segment.row.location or segment.row.file for segment in kept]),
        np.ones(len(kept)),
    )


@dataclass(frozen=True, eq=False)
class Embedded:
    """Features of segments. Axes: N segments, F features."""

    features: Mapping[str, np.ndarray]
    """Member -> (N, F) float32; rows without the modality are of no meaning."""
    present: np.ndarray
    """(N, 2) bool: audio, video could be read."""


def write_arrays(path: Path, segments: Segments, arrays: Mapping[str, np.ndarray]) -> None:
    """Leave arrays over these segments for a run that goes on."""
    with replacing(path) as partial, open(partial, "wb") as file:
        named: dict[str, Any] = {"segments": _names(segments), **arrays}
        np.savez(file, **named)


def read_arrays(path: Path, segments: Segments) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What an earlier run left, and for each of these segments its place in that, -1 where it has none."""
    try:
        with np.load(path) as file:
            values = dict(file)
        place = {name: index for index, name in enumerate(values.pop("segments").tolist())}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # absent, cut off, or another program's
        return {}, np.full(len(segments), -1)
    return values, np.array([place.get(name, -1) for name in _names(segments).tolist()])


def _names(segments: Segments) -> np.ndarray:
    return np.array([f"{one.start:.6f} {one.row.scene} {one.row.file}" for one in segments.segments])


@torch.inference_mode()
def embed(
    towers: Iterable[Tower],
    segments: Segments,
    corpus: Corpus,
    store: Store | None,
    progress: Callable[[int, int], None] | None = None,
) -> Embedded:
    """Features of segments by each tower. Segments that cannot be read at all are without any modality."""
    towers, count, where = list(towers), len(segments), device()
    found: dict[str, np.ndarray] = {}
    present = np.zeros((count, 2), bool)
    place = {(one.row.file, one.start): index for index, one in enumerate(segments.segments)}
    done = 0
    for clip in loader(dataset_of(towers, segments, corpus, store), 32, shuffle=False):
        at = [place[file, start] for file, start in zip(clip.file, clip.start.tolist(), strict=True)]  # type: ignore[attr-defined]  # a batch
        clip = clip._replace(**{n: getattr(clip, n).to(where) for n in ("audio", "video", "present")})
        present[at] = clip.present.cpu().numpy()
        for one in towers:
            values = one(clip).float().cpu().numpy()
            found.setdefault(one.member.name, np.zeros((count, values.shape[1]), np.float32))[at] = values
        done += len(at)
        if progress:
            progress(done, count)
    return Embedded(found, present)


@torch.inference_mode()
def activations(
    frozen: Tower,
    names: Sequence[str],
    segments: Segments,
    corpus: Corpus,
    store: Store | None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[torch.Tensor, np.ndarray]:
    """What the lower part of a trunk makes of each segment, (N, V, ...): its frames and their mirror images in float16,
    or its planes; and the statistics `names` (N, F) of its tokens without the mirror images."""
    found: torch.Tensor | None = None
    features: list[np.ndarray] = []
    place = {(one.row.file, one.start): index for index, one in enumerate(segments.segments)}
    video, where, order = frozen.member.modality == "video", device(), []
    for clip in loader(dataset_of([frozen], segments, corpus, store), 32, shuffle=False):
        clip = clip._replace(**{n: getattr(clip, n).to(where) for n in ("audio", "video", "present")})
        at = [place[file, start] for file, start in zip(clip.file, clip.start.tolist(), strict=True)]  # type: ignore[attr-defined]  # a batch
        x = frozen.inputs(clip)
        frames = x.shape[1] if video else 1
        x = torch.cat([x, x.flip(-1)], dim=1) if video else x[:, None]
        net = frozen.trunk.net
        below = cut.lower(net, x.flatten(0, 1).contiguous(memory_format=torch.channels_last)).unflatten(0, x.shape[:2])
        tokens = cut.tokens(net, below[:, :frames].flatten(0, 1)).unflatten(0, (len(at), frames)).flatten(1, 2)
        features.append(statistics(tokens, names).cpu().numpy())
        order += at
        if found is None:
            found = torch.zeros(len(segments), *below.shape[1:], dtype=torch.float16 if video else torch.float32)
        found[at] = below.to(found).cpu()
        if progress:
            progress(len(order), len(segments))
    assert found is not None  # there is a segment at least
    joined = np.concatenate(features)
    values = np.zeros_like(joined, shape=(len(segments), joined.shape[1]))
    values[order] = joined
    return found.clone(), values


def dataset_of(towers: Sequence[Tower], segments: Segments, corpus: Corpus, store: Store | None) -> ClipDataset:
    """Clips of the segments, in their order, as the towers take them."""
    arch = inputs_of(corpus.classes, [one.member for one in towers])
    rows = list({segment.row.file: segment.row for segment in segments.segments}.values())
    want = sampling(arch, store.short_side if store else 0)
    dataset = ClipDataset(rows, corpus.classes, want, CentreCrop(arch.size, arch.crop), store=store, on_bad="mask")
    dataset.segments = list(segments.segments)
    return dataset
