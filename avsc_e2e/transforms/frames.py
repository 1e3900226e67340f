"""Transforms of the pictures of a clip, through albumentations: drawn once, the same for all its frames."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from functools import lru_cache

import torch

from avsc_e2e.clip import Clip

# albumentations asks the network for its newest version when imported, unless told not to.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of the picture, resized to the model's square (Szegedy et al., 2015)."""

    smallest: float = 0.5
    """Smallest share of the picture's area; 1 crops the centre instead."""
    ratio: float = 1.333
    """Largest ratio of the part's sides, either way."""
    size: int = 0
    """Pixels of a side; 0 is the model's."""

    def __call__(self, clip: Clip) -> Clip:
        if self.smallest >= 1:
            return CentreCrop(self.size)(clip)
        return _apply(clip, _random_resized_crop(self.smallest, self.ratio, self.size))


@dataclass(frozen=True)
class CentreCrop:
    """The picture resized so that its shorter side fits, then the square in its middle."""

    size: int
    """Pixels of a side."""

    def __call__(self, clip: Clip) -> Clip:
        return _apply(clip, _centre_crop(self.size))


@dataclass(frozen=True)
class HorizontalFlip:
    """Mirrors the picture, and swaps the ears with it: what was heard from the left is now seen on the right."""

    probability: float = 0.5
    """Of a clip to be mirrored; 0 is off."""

    def __call__(self, clip: Clip) -> Clip:
        if random.random() >= self.probability:
            return clip
        return clip._replace(video=clip.video.flip(-1), audio=clip.audio.flip(0))


@dataclass(frozen=True)
class ColourJitter:
    """Random brightness, contrast, saturation and hue, the same for all frames of a clip."""

    strength: float = 0.3
    """Largest relative change of brightness, contrast and saturation; 0 is off, hue included."""
    hue: float = 0.05
    """Largest turn of the hue circle, of 1."""

    def __call__(self, clip: Clip) -> Clip:
        if not self.strength:
            return clip
        return _apply(clip, _colour_jitter(self.strength, self.hue))


def _apply(clip: Clip, compose) -> Clip:
    """Run an albumentations pipeline over the frames (T, 3, H, W) as (T, H, W, 3), which is how they lie in memory."""
    if not clip.video.numel():
        return clip
    # Its own generator repeats itself in every worker and epoch: seed it from the clip's key.
    compose.set_random_seed(random.getrandbits(32))
    frames = compose(images=clip.video.permute(0, 2, 3, 1).contiguous().numpy())["images"]
    return clip._replace(video=torch.from_numpy(frames).permute(0, 3, 1, 2))


@lru_cache(maxsize=64)
def _random_resized_crop(smallest: float, ratio: float, size: int):
    import albumentations

    crop = albumentations.RandomResizedCrop((size, size), scale=(smallest, 1.0), ratio=(1 / ratio, ratio), p=1.0)
    return albumentations.Compose([crop])


@lru_cache(maxsize=64)
def _centre_crop(size: int):
    import albumentations

    # area_for_downscale keeps fine texture from aliasing when a frame was decoded much larger than the square
    smallest = albumentations.SmallestMaxSize(size, area_for_downscale="image", p=1.0)
    return albumentations.Compose([smallest, albumentations.CenterCrop(size, size, p=1.0)])


@lru_cache(maxsize=64)
def _colour_jitter(strength: float, hue: float):
    import albumentations

    span = (max(0.0, 1 - strength), 1 + strength)
    jitter = albumentations.ColorJitter(brightness=span, contrast=span, saturation=span, hue=(-hue, hue), p=1.0)
    return albumentations.Compose([jitter])
