"""Hou_UGent_4, rank 16 of DCASE 2021 Task 1B: attention over audio embeddings, ResNet-50 on ten frames, late fusion.

    avsc train hou_ugent/joint --data.root ROOT

Published (Hou et al., DCASE 2021, code in Yuanbo2020/DCASE2021-T1B): OpenL3 frozen, ten seconds of audio and ten frames
squeezed to 224 x 224 in training, one second in the evaluation set; average plus maximum of the frames' maps, mean plus
maximum over time; Adam with a rate of 1e-4 that is halved every 20 epochs, batches of 16, horizontal flip, no other
augmentation; 0.416 log loss and 85.6 % on the evaluation set. Differences: the authors flip each frame by itself, in
validation too, halve the rate an epoch earlier, validate on ten seconds and average up to some epochs. 60 epochs are
our choice: their best epoch was number 21 of at most 300.
"""

from dataclasses import replace

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import systems
from avsc_e2e.training.recipe import Data, Heads, Optim, Recipe
from avsc_e2e.transforms.augmentation import UNCHANGED
from avsc_e2e.transforms.frames import HorizontalFlip

joint = Recipe(
    "hou_ugent/joint",
    model=systems.hou_ugent(),
    data=Data(windows=1, window=10.0),
    augment=replace(UNCHANGED, flip=HorizontalFlip(0.5)),
    optim=Optim(
        "adam",
        lr=1e-4,
        audio_lr=0.0,
        video_lr=1e-4,
        weight_decay=0.0,
        warmup=0.0,
        schedule="steps",
        factor=0.5,
        every=20,
        clip=0.0,
    ),
    heads=Heads(fusion=1.0),
    epochs=60,
    batch_size=16,
)

if __name__ == "__main__":
    run(joint=joint)
