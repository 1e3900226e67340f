"""ResNet-50 on single frames, the video system in the comparison of the dataset paper.

    avsc train resnet50_video/video --data.root ROOT

Published (Wang et al., ICASSP 2021): ResNet-50, a random frame of every second; in late fusion with McDonnell_USA the
best system of the paper (see the table in recipes/README.md). RandomResizedCrop, horizontal flip and everything else is
our choice.
"""

from dataclasses import replace

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import systems
from avsc_e2e.training.recipe import Data, Heads, Optim, Recipe
from avsc_e2e.transforms.augmentation import UNCHANGED
from avsc_e2e.transforms.frames import HorizontalFlip, RandomResizedCrop

video = Recipe(
    "resnet50_video/video",
    model=systems.resnet50_video(),
    data=Data(windows=10),
    augment=replace(UNCHANGED, crop=RandomResizedCrop(0.5), flip=HorizontalFlip(0.5)),
    optim=Optim(lr=1e-3, video_lr=1e-4),
    heads=Heads(video=1.0),
    epochs=10,
    batch_size=32,
)

if __name__ == "__main__":
    run(video=video)
