"""All augmentation of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

from avsc_e2e.transforms.batch import CutMix, DropModality, Mixup, SpecAugment
from avsc_e2e.transforms.frames import ColourJitter, HorizontalFlip, RandAugment, RandomResizedCrop
from avsc_e2e.transforms.waveform import Waveform


@dataclass(frozen=True)
class Augment:
    """Random changes of training clips. Each is off at strength 0 (a crop at 1)."""

    crop: RandomResizedCrop = RandomResizedCrop()
    flip: HorizontalFlip = HorizontalFlip()
    colour: ColourJitter = ColourJitter()
    randaugment: RandAugment = RandAugment()
    waveform: Waveform = Waveform()
    spectrum: SpecAugment = SpecAugment()
    mixup: Mixup = Mixup()
    cutmix: CutMix = CutMix()
    drop: DropModality = DropModality()


UNCHANGED = Augment(
    crop=RandomResizedCrop(1.0),
    flip=HorizontalFlip(0.0),
    colour=ColourJitter(0.0, 0.0),
    waveform=Waveform(gain=0.0),
    spectrum=SpecAugment(0.0, 0.0),
    mixup=Mixup(0.0),
)
"""No augmentation: the start of the recipes of published systems."""
