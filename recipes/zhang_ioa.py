"""Zhang_IOA_3, rank 1 of DCASE 2021 Task 1B: audio and video branches trained separately, then together.

    avsc train zhang_ioa/places --data.root PLACES365
    avsc train zhang_ioa/audio  --data.root ROOT
    avsc train zhang_ioa/video  --data.root ROOT --init zhang_ioa/places     # or from ImageNet without it
    avsc train zhang_ioa/hybrid --data.root ROOT

Published (Wang, Chen et al., DCASE 2021): a 1-D deep CNN on log-mels, scalograms or Bark bands of the average and
difference channels; ResNet-50, EfficientNet-B5, EfficientNetV2-S or Swin from ImageNet, trained on Places365 and then
here; RandomResizedCrop, horizontal flip, mixup; hybrid of model-level and decision-level fusion; 0.195 log loss and
93.8 % on the evaluation set with log-mels and EfficientNet-B5, as in `hybrid`. The flip swaps left and right of the
audio too, in `hybrid`. Everything else is our choice.

Another pair: `train hybrid --model.video resnet50.tv_in1k --model.size 224 --init zhang_ioa/audio
zhang_ioa/video_resnet50`. Another trunk on Places365: `train places --model.video resnet50.tv_in1k --model.size 224
--name zhang_ioa/places_resnet50`.
"""

from dataclasses import replace

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import systems
from avsc_e2e.training.recipe import Data, Heads, Optim, Recipe
from avsc_e2e.transforms.augmentation import UNCHANGED
from avsc_e2e.transforms.batch import Mixup
from avsc_e2e.transforms.frames import HorizontalFlip, RandomResizedCrop

audio = Recipe(
    "zhang_ioa/audio",
    model=replace(systems.zhang_ioa(), video=""),
    data=Data(windows=10),
    augment=replace(UNCHANGED, mixup=Mixup(0.4)),
    optim=Optim(lr=1e-3, audio_lr=1e-3),
    heads=Heads(audio=1.0, video=0.0, fusion=0.0),
    epochs=40,
    batch_size=64,
)
audio_wavelet = replace(audio, name="zhang_ioa/audio_wavelet", model=replace(systems.zhang_ioa_wavelet(), video=""))
audio_bark = replace(audio, name="zhang_ioa/audio_bark", model=replace(systems.zhang_ioa_bark(), video=""))

video = replace(
    audio,
    name="zhang_ioa/video",
    model=replace(systems.zhang_ioa(), audio=""),
    data=Data(windows=2),
    augment=replace(UNCHANGED, crop=RandomResizedCrop(0.5), flip=HorizontalFlip(0.5), mixup=Mixup(0.2)),
    optim=Optim(lr=1e-3, video_lr=1e-4),
    heads=Heads(audio=0.0, video=1.0, fusion=0.0),
    epochs=20,
    batch_size=32,
)
video_resnet50 = replace(video, name="zhang_ioa/video_resnet50", model=replace(systems.zhang_ioa_resnet50(), audio=""))
video_efficientnetv2 = replace(
    video, name="zhang_ioa/video_efficientnetv2", model=replace(systems.zhang_ioa_efficientnetv2(), audio="")
)
video_swin = replace(video, name="zhang_ioa/video_swin", model=replace(systems.zhang_ioa_swin(), audio=""))
video_jft = replace(video, name="zhang_ioa/video_jft", model=replace(systems.zhang_ioa_jft(), audio=""))
places = replace(video, name="zhang_ioa/places", data=Data(windows=1), epochs=5)

hybrid = replace(
    video,
    name="zhang_ioa/hybrid",
    model=systems.zhang_ioa(),
    optim=Optim(lr=1e-3, audio_lr=1e-4, video_lr=3e-5),
    heads=Heads(audio=0.3, video=0.3, fusion=1.0),
    init=("zhang_ioa/audio", "zhang_ioa/video"),
    epochs=10,
)

if __name__ == "__main__":
    run(
        places=places,
        audio=audio,
        audio_wavelet=audio_wavelet,
        audio_bark=audio_bark,
        video=video,
        video_resnet50=video_resnet50,
        video_efficientnetv2=video_efficientnetv2,
        video_swin=video_swin,
        video_jft=video_jft,
        hybrid=hybrid,
    )
