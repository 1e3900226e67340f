"""McDonnell_USA's split-frequency ResNet, the audio system in the comparison of the dataset paper.

    avsc train mcdonnell_usa/audio --data.root ROOT

Published (Gao and McDonnell, DCASE 2019, code in McDonnell-Lab/DCASE2019-Task1): SGD with momentum 0.9, rates from 0.1
to 1e-5 along cosines that start again after epochs 2, 6, 14, 30, 62, 126 and 254, 510 epochs, batches of 32, mixup of
0.4, a random crop of 400 of 461 frames, swap of left and right at random, L2 penalty of 1e-3, the last epoch is kept; a
recording is classified as a whole. Differences: the crop is of the waveform, so that its first and last frames are
padded, and a tenth of the training set is left out for validation.
One-second segments, as in the challenge: --model.window 1 --data.window 0.
"""

from dataclasses import replace

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import systems
from avsc_e2e.training.recipe import Data, Heads, Optim, Recipe
from avsc_e2e.transforms.augmentation import UNCHANGED
from avsc_e2e.transforms.batch import Mixup
from avsc_e2e.transforms.frames import HorizontalFlip

audio = Recipe(
    "mcdonnell_usa/audio",
    model=systems.mcdonnell_usa(),
    data=Data(windows=1, window=407 * 1024 / 48_000),  # 408 frames, of which the deltas cost 8
    augment=replace(UNCHANGED, flip=HorizontalFlip(0.5), mixup=Mixup(0.4)),
    optim=Optim(
        "sgd",
        lr=0.1,
        audio_lr=0.1,
        weight_decay=2e-3,  # Keras's l2(1e-3), whose gradient has a factor of two
        warmup=0.0,
        restarts=(2, 6, 14, 30, 62, 126, 254),
        final=1e-4,
        clip=0.0,
    ),
    heads=Heads(audio=1.0),
    keep="last",
    epochs=510,
    batch_size=32,
)

if __name__ == "__main__":
    run(audio=audio)
