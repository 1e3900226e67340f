"""Okazaki_LDSLVision_4 and _1, ranks 9 and 12 of DCASE 2021 Task 1B: the members, which `avsc fuse` combines.

    avsc train okazaki_ldsl/audio --data.root ROOT      # then resnest, regnet, hrnet, clip
    avsc train okazaki_ldsl/text  --data.root ROOT --init zero_shot.safetensors     # see docs/weights.md
    avsc train okazaki_ldsl/late  --data.root ROOT      # audio and resnest as one model

Published (Okazaki, Kong and Yoshinaga, DCASE 2021): a CNN from AudioSet on log-mels, ResNeSt, RegNet and HRNet on
frames, the image encoder of CLIP guided by text; an ensemble weighted by class-wise confidence (`avsc fuse --method
confidence`) and confidence replacement (`avsc calibrate --method floor`). Augmentation (SpecAugment, mixup,
RandomResizedCrop, horizontal flip) and everything else is our choice.
"""

from dataclasses import replace

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import systems
from avsc_e2e.training.recipe import Data, Heads, Optim, Recipe
from avsc_e2e.transforms.augmentation import UNCHANGED
from avsc_e2e.transforms.batch import Mixup, SpecAugment
from avsc_e2e.transforms.frames import HorizontalFlip, RandomResizedCrop

audio = Recipe(
    "okazaki_ldsl/audio",
    model=systems.okazaki_ldsl_audio(),
    data=Data(windows=10),
    augment=replace(UNCHANGED, mixup=Mixup(0.4), spectrum=SpecAugment(0.15, 0.15)),
    optim=Optim(lr=1e-3, audio_lr=1e-4),
    heads=Heads(audio=1.0, video=1.0),
    epochs=15,
    batch_size=32,
)
resnest = replace(
    audio,
    name="okazaki_ldsl/resnest",
    model=systems.okazaki_ldsl_video(),
    data=Data(windows=2),
    augment=replace(UNCHANGED, crop=RandomResizedCrop(0.5), flip=HorizontalFlip(0.5), mixup=Mixup(0.2)),
    optim=Optim(lr=1e-3, video_lr=1e-4),
    batch_size=16,
)
regnet = replace(resnest, name="okazaki_ldsl/regnet", model=systems.okazaki_ldsl_regnet())
hrnet = replace(resnest, name="okazaki_ldsl/hrnet", model=systems.okazaki_ldsl_hrnet())
clip = replace(
    resnest,
    name="okazaki_ldsl/clip",
    model=systems.okazaki_ldsl_clip(),
    optim=Optim(lr=1e-3, video_lr=1e-5),  # a higher rate destroys pretrained features of a transformer
)
text = replace(clip, name="okazaki_ldsl/text", model=systems.okazaki_ldsl_text())
late = replace(
    resnest,
    name="okazaki_ldsl/late",
    model=systems.okazaki_ldsl(),
    init=("okazaki_ldsl/audio", "okazaki_ldsl/resnest"),
    epochs=0,
)

if __name__ == "__main__":
    run(audio=audio, resnest=resnest, regnet=regnet, hrnet=hrnet, clip=clip, text=text, late=late)
