"""Yang_THU_3, rank 10 of DCASE 2021 Task 1B: early fusion of large pretrained nets.

    avsc train yang_thu/joint --data.root ROOT

Published (challenge analysis): early fusion, 121 M parameters, 0.279 log loss and 92.1 % on the evaluation set.
Augmentation (SpecAugment, mixup, RandomResizedCrop, horizontal flip) and everything else is our choice.
"""

from dataclasses import replace

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import systems
from avsc_e2e.training.recipe import Data, Heads, Optim, Recipe
from avsc_e2e.transforms.augmentation import UNCHANGED
from avsc_e2e.transforms.batch import Mixup, SpecAugment
from avsc_e2e.transforms.frames import HorizontalFlip, RandomResizedCrop

joint = Recipe(
    "yang_thu/joint",
    model=systems.yang_thu(),
    data=Data(windows=2),
    augment=replace(
        UNCHANGED,
        crop=RandomResizedCrop(0.5),
        flip=HorizontalFlip(0.5),
        spectrum=SpecAugment(0.1, 0.1),
        mixup=Mixup(0.2),
    ),
    optim=Optim(lr=1e-3, audio_lr=1e-4, video_lr=1e-4),
    heads=Heads(fusion=1.0),
    epochs=15,
    batch_size=32,
)

if __name__ == "__main__":
    run(joint=joint)
