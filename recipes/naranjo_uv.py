"""Naranjo-Alcazar_UV, rank 32 of DCASE 2021 Task 1B with audio only, and its audio-visual system.

    avsc train naranjo_uv/audio --data.root ROOT
    avsc train naranjo_uv/video --data.root ROOT --video-weights VGG16_PLACES365.h5
    avsc train naranjo_uv/joint --data.root ROOT      # then tuned

Published (Naranjo-Alcazar et al., DCASE 2021, notebooks in Machine-Listeners-Valencia/DCASE2021-Task1b): a
squeeze-excitation CNN on gammatones, Adam with a rate of 1e-3, mixup of 0.4, batches of 32; VGG16 from Places365,
frozen, with a bidirectional GRU, a rate of 1e-4, batches of 16; then a GRU on both frozen nets at 1e-4; then all layers
at 1e-6. No other augmentation. Rates are halved after 15 epochs (video: 20) without a lower validation loss; a run of
200 epochs ends after 80 (video: 40) without one. Differences: the authors validate on the test set of the fold and keep
the epoch with the best accuracy; their crops of audio begin in the first 0.28 s of a recording, because the code uses
the number of bands as the number of frames; the last layer of `video` has an L2 penalty; their gammatones are filters
in time, ours are weights of a spectrum; they squeeze frames without a low-pass filter. Without the file of Places365,
VGG16 starts from ImageNet.
"""

from dataclasses import replace

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import systems
from avsc_e2e.training.recipe import Data, Heads, Optim, Recipe
from avsc_e2e.transforms.augmentation import UNCHANGED
from avsc_e2e.transforms.batch import Mixup

rates = Optim(
    "adam",
    lr=1e-3,
    audio_lr=1e-3,
    video_lr=0.0,
    weight_decay=0.0,
    warmup=0.0,
    schedule="plateau",
    factor=0.5,
    every=15,
    clip=0.0,
)
audio = Recipe(
    "naranjo_uv/audio",
    model=systems.naranjo_uv_audio(),
    data=Data(windows=1),
    augment=replace(UNCHANGED, mixup=Mixup(0.4)),
    optim=rates,
    heads=Heads(audio=1.0, video=1.0, fusion=1.0),
    patience=80,
    epochs=200,
    batch_size=32,
)
video = replace(
    audio,
    name="naranjo_uv/video",
    model=replace(systems.naranjo_uv(), audio=""),
    augment=UNCHANGED,
    optim=replace(rates, lr=1e-4, every=20),
    patience=40,
    batch_size=16,
)
joint = replace(
    video,
    name="naranjo_uv/joint",
    model=systems.naranjo_uv(),
    optim=replace(rates, lr=1e-4, audio_lr=0.0),
    patience=80,
    init=("naranjo_uv/audio", "naranjo_uv/video"),
)
tuned = replace(
    joint,
    name="naranjo_uv/tuned",
    model=replace(systems.naranjo_uv(), tune_heads=True),
    optim=replace(rates, lr=1e-6, audio_lr=1e-6, video_lr=1e-6),
    init=("naranjo_uv/joint",),
)

if __name__ == "__main__":
    run(audio=audio, video=video, joint=joint, tuned=tuned)
