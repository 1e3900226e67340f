"""Videos of your own in class folders: a strong audio-visual classifier on a laptop's CPU or any GPU.

    avsc train own_videos/audio  --data.root VIDEOS
    avsc train own_videos/video  --data.root VIDEOS
    avsc train own_videos/hybrid --data.root VIDEOS
    avsc predict runs/own_videos/hybrid/model.safetensors ANY_VIDEO.mp4

VIDEOS has one folder per class, or train/ and test/ with such folders in them. EfficientNet-Lite0 from ImageNet for the
frames, a small residual network from scratch for the audio, hybrid fusion. With few recordings, take the stages aisfx
and hybrid_aisfx in place of audio and hybrid (`pip install --no-deps aisfx`): their audio net knows sound effects
before it hears your videos. `avsc train VIDEOS` chooses all of this by itself and is the better start; these stages are
for those who choose each value. The number of epochs follows from the number of steps, the decision is fitted on the
validation part, and the epoch that is kept is the one with the lowest log loss there. All values are our choice.
"""

from dataclasses import replace

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import own
from avsc_e2e.training.recipe import Averaging, Data, Heads, Optim, Recipe
from avsc_e2e.transforms.augmentation import Augment
from avsc_e2e.transforms.batch import DropModality, Mixup, SpecAugment
from avsc_e2e.transforms.frames import RandomResizedCrop
from avsc_e2e.transforms.waveform import Waveform

audio = Recipe(
    "own_videos/audio",
    model=replace(own.lite0(), video=""),
    data=Data(by_length=True, validation="0.2", on_bad="mask"),
    augment=Augment(waveform=Waveform(gain=6.0, noise=0.3), mixup=Mixup(0.3), spectrum=SpecAugment(0.15, 0.15)),
    optim=Optim(lr=1e-3, audio_lr=1e-3),
    heads=Heads(audio=1.0, video=1.0, fusion=1.0),
    epochs=80,
    steps=1500,
    batch_size=32,
)
aisfx = replace(  # the audio branch from a net trained on sound effects (pip install --no-deps aisfx)
    audio,
    name="own_videos/aisfx",
    model=replace(own.lite0_aisfx(), video=""),
    # Only the last block learns, from what those below know: audio as it is, without masks or other levels.
    augment=Augment(waveform=Waveform(gain=0.0), mixup=Mixup(0.3), spectrum=SpecAugment(0.0, 0.0)),
    optim=Optim(lr=1e-2, audio_lr=1e-3, layers=1, keep_statistics=True),
    averaging=Averaging(decay=0.95),
    smoothing=0.1,
    epochs=40,
    steps=300,
)
video = replace(
    audio,
    name="own_videos/video",
    model=replace(own.lite0(), audio=""),
    # No mixup, small rates, the batch norms' statistics kept: on some hundred recordings all three are worth much.
    augment=Augment(crop=RandomResizedCrop(0.4), mixup=Mixup(0.0)),
    optim=Optim(lr=1e-3, video_lr=1e-4, keep_statistics=True),
    averaging=Averaging(decay=0.95),
    epochs=20,
    steps=200,
)
hybrid = replace(
    video,
    name="own_videos/hybrid",
    model=replace(own.lite0(), decision=(0.1, 1.0, 2.0)),
    augment=replace(video.augment, spectrum=audio.augment.spectrum, drop=DropModality(0.1)),
    optim=Optim(lr=1e-3, audio_lr=1e-4, video_lr=1e-5, keep_statistics=True),
    heads=Heads(audio=0.3, video=0.3, fusion=1.0),
    init=("own_videos/audio", "own_videos/video"),
    epochs=10,
    steps=150,
)
hybrid_aisfx = replace(
    video,
    name="own_videos/hybrid_aisfx",
    model=own.lite0_aisfx(),
    augment=replace(
        video.augment, waveform=aisfx.augment.waveform, spectrum=aisfx.augment.spectrum, drop=DropModality(0.1)
    ),
    optim=Optim(lr=1e-3, audio_lr=1e-5, video_lr=1e-5, layers=1, keep_statistics=True),
    init=("own_videos/aisfx", "own_videos/video"),
    epochs=10,
    steps=150,
)

if __name__ == "__main__":
    run(audio=audio, aisfx=aisfx, video=video, hybrid=hybrid, hybrid_aisfx=hybrid_aisfx)
