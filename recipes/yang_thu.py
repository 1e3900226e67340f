"""Yang_THU_3, rank 10 of DCASE 2021 Task 1B: early fusion of large pretrained nets.

    avsc train yang_thu/joint --data.root ROOT

Published (challenge analysis): early fusion, 121 M parameters, 0.279 log loss and 92.1 % on the evaluation set.
Everything else is our choice.
"""

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import systems
from avsc_e2e.training.recipe import Augment, Data, Heads, Optim, Recipe
from avsc_e2e.transforms.batch import Mixup, SpecAugment

joint = Recipe(
    "yang_thu/joint",
    model=systems.yang_thu(),
    data=Data(windows=2),
    augment=Augment(mixup=Mixup(0.2), spectrum=SpecAugment(0.1, 0.1)),
    optim=Optim(lr=1e-3, audio_lr=1e-4, video_lr=1e-4),
    heads=Heads(fusion=1.0),
    epochs=15,
    batch_size=32,
)

if __name__ == "__main__":
    run(joint=joint)
