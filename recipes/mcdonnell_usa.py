"""McDonnell_USA's split-frequency ResNet, the audio system that the dataset paper compares with.

    avsc train mcdonnell_usa/audio --data.root ROOT

Published (Gao and McDonnell, DCASE 2019, with code): SGD with momentum 0.9, rates from 0.1 to 1e-5 along cosines that
start again after 3, 7, 15, ... epochs, 510 epochs, batches of 32, mixup 0.4, random crops in time, ears swapped at
random, L2 penalty. The authors crop 8.5 of ten seconds; one second, as everywhere here, is our choice.
"""

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import systems
from avsc_e2e.training.recipe import Augment, Data, Heads, Optim, Recipe
from avsc_e2e.transforms.batch import Mixup, SpecAugment
from avsc_e2e.transforms.frames import HorizontalFlip
from avsc_e2e.transforms.waveform import Waveform

audio = Recipe(
    "mcdonnell_usa/audio",
    model=systems.mcdonnell_usa(),
    data=Data(windows=1),
    augment=Augment(
        flip=HorizontalFlip(0.5),
        waveform=Waveform(gain=0.0),
        spectrum=SpecAugment(0.0, 0.0),
        mixup=Mixup(0.4),
    ),
    optim=Optim(
        "sgd",
        lr=0.1,
        audio_lr=0.1,
        weight_decay=2e-3,  # Keras's l2(1e-3), whose gradient has a factor of two
        warmup=0.0,
        restarts=(3, 7, 15, 31, 63, 127, 255),
        final=1e-4,
        clip=0.0,
    ),
    heads=Heads(audio=1.0),
    epochs=510,
    batch_size=32,
)

if __name__ == "__main__":
    run(audio=audio)
