"""The later single system of the winners' group: frames and audio trained jointly from the start.

    avsc train ioa_joint/joint --data.root ROOT

Published (Chen, Wang and Zhang, arXiv 2204.11420): the lower layers of a pretrained image net, a 1-D CNN on log-mels
from scratch and one classifier, optimised together; 0.1517 log loss and 94.59 % on dev. Augmentation (SpecAugment,
mixup, RandomResizedCrop, horizontal flip) and everything else is our choice.
"""

from dataclasses import replace

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import systems
from avsc_e2e.training.recipe import Data, Heads, Optim, Recipe
from avsc_e2e.transforms.augmentation import UNCHANGED
from avsc_e2e.transforms.batch import Mixup, SpecAugment
from avsc_e2e.transforms.frames import HorizontalFlip, RandomResizedCrop

joint = Recipe(
    "ioa_joint/joint",
    model=systems.ioa_joint(),
    data=Data(windows=4),
    augment=replace(
        UNCHANGED,
        crop=RandomResizedCrop(0.5),
        flip=HorizontalFlip(0.5),
        spectrum=SpecAugment(0.1, 0.1),
        mixup=Mixup(0.2),
    ),
    optim=Optim(lr=1e-3, audio_lr=1e-3, video_lr=1e-4),
    heads=Heads(fusion=1.0),
    epochs=30,
    batch_size=32,
)

if __name__ == "__main__":
    run(joint=joint)
