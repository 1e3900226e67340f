"""Naranjo-Alcazar_UV, rank 32 of DCASE 2021 Task 1B with sound alone, and its audio-visual system.

    avsc train naranjo_uv/audio --data.root ROOT
    avsc train naranjo_uv/video --data.root ROOT --video-weights VGG16_PLACES365
    avsc train naranjo_uv/joint --data.root ROOT

Published (Naranjo-Alcazar et al., DCASE 2021 and arXiv 2107.13180): a squeeze-excitation CNN on gammatones, mixup 0.4,
Adam with a rate of 1e-3; VGG16 from Places365 with a bidirectional GRU; both trained apart, then a GRU on both joined,
and all three decide. Everything else is our choice.
"""

from dataclasses import replace

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import systems
from avsc_e2e.training.recipe import Augment, Data, Heads, Optim, Recipe
from avsc_e2e.transforms.batch import Mixup, SpecAugment
from avsc_e2e.transforms.waveform import Waveform

audio = Recipe(
    "naranjo_uv/audio",
    model=systems.naranjo_uv_audio(),
    data=Data(windows=10),
    augment=Augment(waveform=Waveform(gain=0.0), spectrum=SpecAugment(0.0, 0.0), mixup=Mixup(0.4)),
    optim=Optim("adam", lr=1e-3, audio_lr=1e-3, weight_decay=0.0),
    heads=Heads(audio=1.0, video=1.0, fusion=1.0),
    epochs=100,
    batch_size=32,
)
video = replace(
    audio,
    name="naranjo_uv/video",
    model=replace(systems.naranjo_uv(), audio=""),
    data=Data(windows=2),
    augment=Augment(mixup=Mixup(0.4)),
    optim=Optim("adam", lr=1e-3, video_lr=1e-4, weight_decay=0.0),
    epochs=20,
)
joint = replace(
    video,
    name="naranjo_uv/joint",
    model=systems.naranjo_uv(),
    optim=Optim("adam", lr=1e-3, audio_lr=1e-4, video_lr=1e-5, weight_decay=0.0),
    init=("naranjo_uv/audio", "naranjo_uv/video"),
)

if __name__ == "__main__":
    run(audio=audio, video=video, joint=joint)
