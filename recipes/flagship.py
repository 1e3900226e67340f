"""Our single model, meant to beat the ensembles: SigLIP2 ViT-L and EfficientAT mn40, joined by bottleneck tokens.

    avsc train flagship/probe --data.root ROOT      # then audio, video, joint
    avsc train flagship/student --data.root ROOT    # about four million parameters, taught by joint

To beat on dev, 1 s: 0.1517 / 94.59 % (a single model, Chen et al., 2022) and 0.149 / 96.1 % (an ensemble, Okazaki et
al.). It has not been trained on the challenge's data yet.

Stages: `probe` fits heads on frozen trunks, so that fine-tuning does not distort pretrained features at its beginning
(Kumar et al., ICLR 2022); each branch is fine-tuned alone, then both jointly, as the winners did. Learning rates decay
by layer towards the input, by 0.75 for the ViT-L (Bao et al., ICLR 2022) and 0.85 jointly. The checkpoint is a moving
average of the weights, interpolated with its start if that is better on validation locations (Wortsman et al., CVPR
2022). Crops, flips, masks and joint mixup are those of the published recipes that use them, but weak, because trunks of
this size learn in a few epochs. All other values are our choice.
"""

from dataclasses import replace

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import own
from avsc_e2e.training.recipe import Averaging, Data, Distil, Heads, Optim, Recipe
from avsc_e2e.transforms.augmentation import UNCHANGED
from avsc_e2e.transforms.batch import DropModality, Mixup, SpecAugment
from avsc_e2e.transforms.frames import HorizontalFlip, RandomResizedCrop

probe = Recipe(
    "flagship/probe",
    model=own.flagship(),
    data=Data(windows=2),
    augment=replace(UNCHANGED, crop=RandomResizedCrop(0.5), flip=HorizontalFlip(0.5)),
    optim=Optim(lr=1e-3, audio_lr=0.0, video_lr=0.0),
    heads=Heads(audio=0.3, video=0.3, fusion=1.0),
    epochs=4,
    batch_size=32,
)
audio = replace(
    probe,
    name="flagship/audio",
    model=replace(own.flagship(), video="", drop_path=0.0),
    data=Data(windows=10),
    augment=replace(UNCHANGED, spectrum=SpecAugment(0.1, 0.1), mixup=Mixup(0.3)),
    optim=Optim(lr=3e-4, audio_lr=1e-4, layer_decay=0.85),
    averaging=Averaging(decay=0.999, start=True),
    init=("flagship/probe",),
    epochs=10,
)
video = replace(
    audio,
    name="flagship/video",
    model=replace(own.flagship(), audio=""),
    data=Data(windows=2),
    augment=replace(probe.augment, mixup=Mixup(0.2)),
    optim=Optim(lr=3e-4, video_lr=2e-5, layer_decay=0.75),
    epochs=8,
)
joint = replace(
    video,
    name="flagship/joint",
    model=own.flagship(),
    augment=replace(video.augment, spectrum=audio.augment.spectrum, drop=DropModality(0.1)),
    optim=Optim(lr=3e-4, audio_lr=3e-5, video_lr=5e-6, layer_decay=0.85),
    heads=Heads(audio=0.3, video=0.3, fusion=1.0),
    init=("flagship/probe", "flagship/audio", "flagship/video"),
    epochs=6,
)
student = replace(
    joint,
    name="flagship/student",
    model=own.flagship_student(),
    data=Data(windows=4),
    optim=Optim(lr=1e-3, audio_lr=5e-4, video_lr=3e-4),
    averaging=Averaging(decay=0.999),
    distil=Distil(("flagship/joint",), weight=0.7, temperature=2.0),
    init=(),
    epochs=30,
)

if __name__ == "__main__":
    run(probe=probe, audio=audio, video=video, joint=joint, student=student)
