"""Hou_UGent_4, rank 16 of DCASE 2021 Task 1B: attention over sound embeddings, ResNet-50 on ten frames, late fusion.

    avsc train hou_ugent/joint --data.root ROOT

Published (Hou et al., DCASE 2021): the embedding net of the sound frozen, average and maximum pooling of the frames'
maps, mean and maximum over time, Adam with a rate of 1e-4, batches of 16; 0.416 log loss and 85.6 % on the evaluation
set. Everything else is our choice.
"""

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import systems
from avsc_e2e.training.recipe import Augment, Data, Heads, Optim, Recipe
from avsc_e2e.transforms.batch import Mixup, SpecAugment

joint = Recipe(
    "hou_ugent/joint",
    model=systems.hou_ugent(),
    data=Data(windows=2),
    augment=Augment(mixup=Mixup(0.0), spectrum=SpecAugment(0.0, 0.0)),
    optim=Optim("adam", lr=1e-4, audio_lr=0.0, video_lr=1e-4, weight_decay=0.0, warmup=0.0, schedule="constant"),
    heads=Heads(fusion=1.0),
    epochs=20,
    batch_size=16,
)

if __name__ == "__main__":
    run(joint=joint)
