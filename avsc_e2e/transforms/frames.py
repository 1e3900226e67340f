"""Transforms of the frames of a clip, with albumentations: drawn once, the same for all frames of the clip."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from avsc_e2e.arguments import checked_fields
from avsc_e2e.clip import Clip
from avsc_e2e.errors import AvscError

# albumentations asks the network for its newest version when imported, unless told not to.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of the frame, resized to the model's square (Szegedy et al., 2015)."""

    smallest: float = 0.5
    """Smallest share of the frame's area; 1 crops the centre instead."""
    ratio: float = 1.333
    """Largest ratio of the sides of the part; the smallest is its inverse."""
    size: int = 0
    """Pixels of a side; 0: the size of the model."""
    share: float = 1.0
    """Side of the centre crop as a share of the shorter side; the model's `crop`."""

    def __call__(self, clip: Clip) -> Clip:
        if not clip.video.numel():
            return clip
        if self.smallest >= 1:
            return CentreCrop(self.size, self.share)(clip)
        return _apply(clip, _random_resized_crop(self.smallest, self.ratio, self.size))


@dataclass(frozen=True)
class CentreCrop:
    """The square in the middle of a frame, resized."""

    size: int
    """Pixels of a side."""
    share: float = 1.0
    """Side of the square as a share of the frame's shorter side; 0: the whole frame, squeezed into a square."""

    def __call__(self, clip: Clip) -> Clip:
        if not clip.video.numel():
            return clip
        if not self.share:
            return _resized(clip, self.size, self.size)
        video = _shorter_side(clip, round(self.size / self.share)).video
        top, left = ((side - self.size) // 2 for side in video.shape[-2:])
        return clip._replace(video=video[:, :, top : top + self.size, left : left + self.size])


@dataclass(frozen=True)
class HorizontalFlip:
    """Mirrors the frames and swaps the left and right audio channels with them."""

    probability: float = 0.5
    """Probability of mirroring a clip; 0 switches it off."""

    def __call__(self, clip: Clip) -> Clip:
        if random.random() >= self.probability:
            return clip
        return clip._replace(video=clip.video.flip(-1), audio=clip.audio.flip(0))


@dataclass(frozen=True)
class ColourJitter:
    """Random brightness, contrast, saturation and hue, the same for all frames of a clip."""

    strength: float = 0.3
    """Largest relative change of brightness, contrast and saturation; 0 switches it off, hue included."""
    hue: float = 0.05
    """Largest rotation of the hue circle, as a share of the whole circle."""

    def __call__(self, clip: Clip) -> Clip:
        if not self.strength:
            return clip
        return _apply(clip, _colour_jitter(self.strength, self.hue))


@dataclass(frozen=True)
class RandAugment:
    """A few random changes that keep the scene recognisable, the same for all frames of a clip (Cubuk et al., 2020):
    autocontrast, local contrast, gamma, sharpness, blur, fewer tones, rotation, shear and shift."""

    operations: int = 0
    """Number of changes of a clip; 0 switches it off."""
    magnitude: float = 0.3
    """Strength of the changes, from 0 to 1."""

    def __call__(self, clip: Clip) -> Clip:
        if self.operations <= 0 or self.magnitude <= 0:
            return clip
        return _apply(clip, _rand_augment(self.operations, self.magnitude))


@dataclass(frozen=True)
class Crops:
    """Several square crops of each frame, one after the other along T: (count * T, 3, size, size)."""

    size: int
    """Pixels of a side."""
    count: int = 1
    """1: the centre; 3: along the longer side; 5: the corners and the centre."""

    def __call__(self, clip: Clip) -> Clip:
        if self.count == 1 or not clip.video.numel():
            one = CentreCrop(self.size)(clip)
            return one._replace(video=one.video.repeat(self.count, 1, 1, 1))
        # The corners differ only if the frame is larger than the square.
        shorter = self.size if self.count == 3 else -(-self.size * 8 // 7)
        video = _shorter_side(clip, shorter).video
        down, right = (side - self.size for side in video.shape[-2:])
        if self.count == 3:
            corners = [(down * step // 2, right * step // 2) for step in range(3)]
        else:
            corners = [(y, x) for y in (0, down) for x in (0, right)] + [(down // 2, right // 2)]
        parts = [video[:, :, y : y + self.size, x : x + self.size] for y, x in corners]
        import torch

        return clip._replace(video=torch.cat(parts))


def _apply(clip: Clip, compose) -> Clip:
    """Run an albumentations pipeline over the frames (T, 3, H, W) as (T, H, W, 3), which is how they lie in memory."""
    import torch

    if not clip.video.numel():
        return clip
    # Its own generator repeats itself in every worker and epoch: seed it from the clip's key.
    compose.set_random_seed(random.getrandbits(32))
    frames = compose(images=clip.video.permute(0, 2, 3, 1).contiguous().numpy())["images"]
    return clip._replace(video=torch.from_numpy(frames).permute(0, 3, 1, 2))


def _shorter_side(clip: Clip, size: int) -> Clip:
    """Resize frames so that their shorter side has `size` pixels."""
    scale = size / min(clip.video.shape[-2:])
    return _resized(clip, *(max(1, round(side * scale)) for side in clip.video.shape[-2:]))


def _resized(clip: Clip, height: int, width: int) -> Clip:
    """Resize frames without albumentations, whose import takes a third of a second and which prediction does not need
    otherwise. Averaging over areas avoids aliasing of fine texture."""
    import cv2
    import numpy as np
    import torch

    before = clip.video.shape[-2:]
    if before == (height, width):
        return clip
    how = cv2.INTER_AREA if height < before[0] or width < before[1] else cv2.INTER_LINEAR
    frames = clip.video.permute(0, 2, 3, 1).contiguous().numpy()
    resized = np.stack([cv2.resize(frame, (width, height), interpolation=how) for frame in frames])
    return clip._replace(video=torch.from_numpy(resized).permute(0, 3, 1, 2))


@lru_cache(maxsize=64)
def _random_resized_crop(smallest: float, ratio: float, size: int):
    import albumentations

    crop = albumentations.RandomResizedCrop((size, size), scale=(smallest, 1.0), ratio=(1 / ratio, ratio), p=1.0)
    return albumentations.Compose([crop])


@lru_cache(maxsize=64)
def _colour_jitter(strength: float, hue: float):
    import albumentations

    span = (max(0.0, 1 - strength), 1 + strength)
    jitter = albumentations.ColorJitter(brightness=span, contrast=span, saturation=span, hue=(-hue, hue), p=1.0)
    return albumentations.Compose([jitter])


@lru_cache(maxsize=64)
def _rand_augment(operations: int, magnitude: float):
    import albumentations as a

    edge = {"border_mode": 2, "p": 1.0}  # mirrored: no black corners
    changes = [
        a.AutoContrast(p=1.0),
        a.CLAHE(clip_limit=(1.0, 1.0 + 4 * magnitude), p=1.0),
        a.RandomGamma(gamma_limit=(100 - 60 * magnitude, 100 + 150 * magnitude), p=1.0),
        a.Sharpen(alpha=(0.0, magnitude), lightness=(1.0, 1.0), p=1.0),
        a.GaussianBlur(sigma_limit=(0.1, 0.1 + 2 * magnitude), p=1.0),
        a.Posterize(num_bits=(round(8 - 4 * magnitude), 8), p=1.0),
        a.Affine(rotate=(-30 * magnitude, 30 * magnitude), **edge),
        a.Affine(shear=(-20 * magnitude, 20 * magnitude), **edge),
        a.Affine(translate_percent=(-0.3 * magnitude, 0.3 * magnitude), **edge),
    ]
    return a.Compose([a.SomeOf(changes, n=min(operations, len(changes)), replace=False, p=1.0)])


@dataclass(frozen=True)
class TestTime:
    """Views of a clip whose probabilities are averaged when a trained model is evaluated or submits."""

    flip: bool = False
    """Also predict the mirrored frames with the audio channels swapped."""
    crops: Literal[1, 3, 5] = 1
    """Square crops of a frame: 1: the centre; 3: along the longer side; 5: the four corners and the centre."""
    views: int = 1
    """Number of sets of frames, each taken at other times."""

    __test__ = False  # not a test class, despite its name

    def __post_init__(self):
        checked_fields(self, "--test-time.")
        if self.views < 1:
            raise AvscError(f"--test-time.views {self.views}: give 1 or more")
