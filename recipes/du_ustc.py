"""Du_USTC_4, rank 5 of DCASE 2021 Task 1B: the members of its ensemble, which `avsc fuse` combines.

    avsc train du_ustc/fcnn --data.root ROOT      # then resnet17, vggish, pann, video
    avsc train du_ustc/joint --data.root ROOT     # then segments

Published (Wang, Zheng et al., DCASE 2021, and arXiv 2203.04114): FCNN and a 17-layer ResNet on log-mels from scratch;
VGGish and CNN14 by transfer learning; image nets from ImageNet and Places365; SpecAugment, channel confusion, pitch
shift, joint training with RandAugment of the frames and mixup of both modalities; an audio-visual segment model as a
third branch. Channel confusion is implemented as the swap of left and right by `flip`. RandomResizedCrop and flip of
the frames, and everything else, are our choice.
"""

from dataclasses import replace

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import systems
from avsc_e2e.training.recipe import Data, Heads, Optim, Recipe
from avsc_e2e.transforms.augmentation import UNCHANGED
from avsc_e2e.transforms.batch import Mixup, SpecAugment
from avsc_e2e.transforms.frames import HorizontalFlip, RandAugment, RandomResizedCrop
from avsc_e2e.transforms.waveform import Waveform

fcnn = Recipe(
    "du_ustc/fcnn",
    model=systems.du_ustc_fcnn(),
    data=Data(windows=10),
    augment=replace(
        UNCHANGED,
        flip=HorizontalFlip(0.5),
        waveform=Waveform(gain=0.0, pitch=2.0),
        spectrum=SpecAugment(0.1, 0.1),
        mixup=Mixup(0.4),
    ),
    optim=Optim(lr=1e-3, audio_lr=1e-3),
    heads=Heads(audio=1.0),
    epochs=40,
    batch_size=32,
)
resnet17 = replace(fcnn, name="du_ustc/resnet17", model=systems.du_ustc_resnet17())
vggish = replace(
    fcnn,
    name="du_ustc/vggish",
    model=systems.du_ustc_vggish(),
    optim=Optim(lr=1e-3, audio_lr=1e-4),
    epochs=15,
)
pann = replace(vggish, name="du_ustc/pann", model=systems.du_ustc_pann())
video = replace(
    fcnn,
    name="du_ustc/video",
    model=systems.du_ustc_video(),
    data=Data(windows=2),
    augment=replace(UNCHANGED, crop=RandomResizedCrop(0.5), flip=HorizontalFlip(0.5), mixup=Mixup(0.2)),
    optim=Optim(lr=1e-3, video_lr=1e-4),
    heads=Heads(video=1.0),
    video_weights="places365",
    epochs=15,
)
joint = replace(
    video,
    name="du_ustc/joint",
    model=systems.du_ustc(),
    augment=replace(fcnn.augment, crop=video.augment.crop, mixup=Mixup(0.2), randaugment=RandAugment(2)),
    optim=Optim(lr=1e-3, audio_lr=1e-4, video_lr=3e-5),
    heads=Heads(fusion=1.0),
    video_weights="",
    init=("du_ustc/fcnn", "du_ustc/video"),
    epochs=10,
)
segments = replace(
    joint,
    name="du_ustc/segments",
    model=systems.du_ustc_segments(),
    # The units are fitted to the trunks of `joint`, so the trunks are frozen.
    optim=Optim(lr=1e-3, audio_lr=0.0, video_lr=0.0),
    init=("du_ustc/joint",),
)

if __name__ == "__main__":
    run(fcnn=fcnn, resnet17=resnet17, vggish=vggish, pann=pann, video=video, joint=joint, segments=segments)
