"""Transforms of a batch on its device, after `preprocess`. They draw a few numbers for each clip on the CPU, so the
same key gives the same batch on every device. torch is imported when a transform is called, so that recipes and their
options are read without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from avsc_e2e.clip import Clip

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class SpecAugment:
    """Masks ranges of bands and of time frames, drawn for each clip (Park et al., 2019)."""

    bands: float = 0.2
    """Largest share of the bands in one mask; 0 switches it off."""
    times: float = 0.2
    """Largest share of the time frames in one mask; 0 switches it off."""
    masks: int = 2
    """Number of masks along each axis."""

    def __call__(self, clip: Clip) -> Clip:
        if not clip.audio.numel():
            return clip
        planes = clip.audio
        count, bands, times = len(planes), *planes.shape[-2:]
        each = (count, *[1] * (planes.dim() - 3))  # all planes, and all windows of a clip, have the same masks
        if self.bands > 0:
            planes = planes * _to(self._keep(count, bands, self.bands), planes.device).reshape(*each, bands, 1)
        if self.times > 0:
            planes = planes * _to(self._keep(count, times, self.times), planes.device).reshape(*each, 1, times)
        return clip._replace(audio=planes)

    def _keep(self, clips: int, length: int, largest: float) -> Tensor:
        """(B, length) bool: False under a mask. Planes are standardised, so zero is their mean."""
        import torch

        widths = torch.rand(clips, self.masks, 1) * largest * length
        starts = torch.rand(clips, self.masks, 1) * (length - widths)
        position = torch.arange(length)
        return ~((position >= starts) & (position < starts + widths)).any(dim=1)


@dataclass(frozen=True)
class Mixup:
    """Mixes each clip with another of the batch. Audio, video and target have the same partner and the same weight
    (Zhang et al., 2018)."""

    alpha: float = 0.2
    """Parameter of the Beta distribution of the weight; 0 switches it off."""

    def __call__(self, clip: Clip) -> Clip:
        """Takes targets as (B, K) float32 weights of the classes."""
        import torch

        count = clip.target.shape[0]
        if self.alpha <= 0:
            return clip
        weight = torch.distributions.Beta(self.alpha, self.alpha).sample((count,))
        other = torch.randperm(count)
        weight, other = (
            _to(torch.maximum(weight, 1 - weight), clip.target.device),
            _to(other, clip.target.device),
        )
        present = clip.present | clip.present[other]
        # If one of the two lacks a modality, the other's is used unchanged: mixing with zeros would only attenuate it.
        mine = torch.where(clip.present, torch.where(clip.present[other], weight[:, None], 1.0), 0.0)
        return clip._replace(
            audio=_blend(clip.audio, other, mine[:, 0]),
            video=_blend(clip.video, other, mine[:, 1]),
            target=_blend_targets(clip.target, other, mine),
            present=present,
        )


@dataclass(frozen=True)
class CutMix:
    """Replaces a box of the frames and a range of the audio by those of another clip, with the same share in both, and
    mixes the targets by this share (Yun et al., 2019)."""

    alpha: float = 0.0
    """Parameter of the Beta distribution of the share; 0 switches it off."""
    probability: float = 0.5
    """Probability that a batch gets CutMix instead of Mixup."""

    def __call__(self, clip: Clip) -> Clip:
        """Takes targets as (B, K) float32 weights of the classes."""
        import torch

        if self.alpha <= 0:
            return clip
        count, device = clip.target.shape[0], clip.target.device
        share = torch.distributions.Beta(self.alpha, self.alpha).sample((count,))
        places, other = torch.rand(3, count), torch.randperm(count)
        height, width = clip.video.shape[-2:]
        tall, wide = (share.sqrt() * height).round(), (share.sqrt() * width).round()
        if clip.video.numel():
            share = tall * wide / (height * width)  # the share that the box of whole pixels covers
        length = (share * clip.audio.shape[-1]).round()
        if not clip.video.numel() and clip.audio.numel():
            share = length / clip.audio.shape[-1]
        top, left = (places[0] * (height - tall + 1)).floor(), (places[1] * (width - wide + 1)).floor()
        first = (places[2] * (clip.audio.shape[-1] - length + 1)).floor()
        numbers = _to(torch.stack([share, top, tall, left, wide, first, length]), device)
        other = _to(other, device)
        share, top, tall, left, wide, first, length = numbers
        rows, columns = _within(top, tall, height)[:, :, None], _within(left, wide, width)[:, None, :]
        times = _within(first, length, clip.audio.shape[-1])
        mine, theirs = clip.present, clip.present[other]
        # If one of the two lacks a modality, the other's is used unchanged, as in Mixup.
        take = torch.where(theirs, torch.where(mine, 0, 1), -1)  # all of the other clip's, a part, or nothing
        kept = torch.where(take == 0, 1 - share[:, None], (take < 0).float())
        return clip._replace(
            audio=_put(clip.audio, other, times, take[:, 0]),
            video=_put(clip.video, other, rows & columns, take[:, 1]),
            target=_blend_targets(clip.target, other, kept),
            present=mine | theirs,
        )


@dataclass(frozen=True)
class Mixing:
    """Mixup or CutMix, chosen at random for each batch."""

    mixup: Mixup
    cutmix: CutMix

    def __call__(self, clip: Clip) -> Clip:
        import torch

        if self.cutmix.alpha > 0 and float(torch.rand(())) < self.cutmix.probability:
            return self.cutmix(clip)
        return self.mixup(clip)


@dataclass(frozen=True)
class DropModality:
    """Hides the audio or the video of some clips, so that the model learns to work with either alone."""

    probability: float = 0.0
    """Probability of hiding one of the two; 0 switches it off. A clip never loses its only modality."""

    def __call__(self, clip: Clip) -> Clip:
        import torch

        if self.probability <= 0:
            return clip
        count = clip.present.shape[0]
        drop = torch.rand(count) < self.probability
        which = torch.randint(2, (count,))
        hide = _to(torch.nn.functional.one_hot(which, 2).bool() & drop[:, None], clip.present.device)
        present = clip.present & ~(hide & clip.present.all(dim=1, keepdim=True))
        return clip._replace(present=present)


def _within(first: Tensor, length: Tensor, size: int) -> Tensor:
    """(B, size) bool: the positions from `first` on, `length` of them."""
    import torch

    position = torch.arange(size, device=first.device)
    return (position >= first[:, None]) & (position < (first + length)[:, None])


def _put(values: Tensor, other: Tensor, inside: Tensor, take: Tensor) -> Tensor:
    """Values (B, ...), replaced by those of `other` where `inside` is true; its axes after B are the last axes of the
    values. If `take` is 1, all are replaced; if it is -1, none."""
    import torch

    if not values.numel():
        return values
    inside = (inside | (take == 1).reshape(-1, *[1] * (inside.dim() - 1))) & (take >= 0).reshape(
        -1, *[1] * (inside.dim() - 1)
    )
    inside = inside.reshape(len(values), *[1] * (values.dim() - inside.dim()), *inside.shape[1:])
    return torch.where(inside, values[other], values)


def _blend(values: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    weight = weight.reshape(-1, *[1] * (values.dim() - 1)).to(values.dtype)
    return values[other].lerp_(values, weight) if values.numel() else values


def _blend_targets(target: Tensor, other: Tensor, mine: Tensor) -> Tensor:
    """Targets (B, K) -> (B, 2, K) of audio and video; `mine` (B, 2) are the weights of each clip's own target."""
    import torch

    return torch.lerp(target[other, None], target[:, None], mine[:, :, None])


def _to(values: Tensor, device: torch.device) -> Tensor:
    return values.to(device, non_blocking=True)
