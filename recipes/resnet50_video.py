"""ResNet-50 on single frames, the video system that the dataset paper compares with.

    avsc train resnet50_video/video --data.root ROOT

Published (Wang et al., ICASSP 2021): ResNet-50, a random frame of every second; in late fusion with McDonnell_USA the
best system of the paper (see the table in recipes/README.md). Everything else is our choice.
"""

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import systems
from avsc_e2e.training.recipe import Augment, Data, Heads, Optim, Recipe
from avsc_e2e.transforms.batch import Mixup

video = Recipe(
    "resnet50_video/video",
    model=systems.resnet50_video(),
    data=Data(windows=10),
    augment=Augment(mixup=Mixup(0.0)),
    optim=Optim(lr=1e-3, video_lr=1e-4),
    heads=Heads(video=1.0),
    epochs=10,
    batch_size=32,
)

if __name__ == "__main__":
    run(video=video)
