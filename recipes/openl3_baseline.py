"""The baseline family of the dataset paper, and the baseline of DCASE 2021 Task 1B (rank 24), on OpenL3 embeddings.

    avsc train openl3_baseline/audio --data.root ROOT      # then video, early, late, joint
    avsc train openl3_baseline/audio_tuned --data.root ROOT      # and so on

Published (Wang et al., ICASSP 2021): frozen OpenL3 nets, heads trained by Adam with a rate and a weight decay of 1e-4,
batches of 64, 200 epochs, the best validation loss. Give the authors' validation part with --data.validation
baseline_validation.csv. OpenL3's weights: `avsc models "openl3*"`. The stages *_tuned train the L3 nets too, which is
not published: all their values are our choice.
"""

from dataclasses import replace

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import systems
from avsc_e2e.training.recipe import Augment, Data, Heads, Optim, Recipe
from avsc_e2e.transforms.batch import DropModality, Mixup, SpecAugment
from avsc_e2e.transforms.frames import ColourJitter, HorizontalFlip, RandomResizedCrop
from avsc_e2e.transforms.waveform import Waveform

audio = Recipe(
    "openl3_baseline/audio",
    model=systems.openl3_audio(),
    # The authors' epoch has the 96 windows of every recording; drawn afresh each epoch, ten do: our choice.
    data=Data(windows=10),
    augment=Augment(
        crop=RandomResizedCrop(1.0),
        flip=HorizontalFlip(0.0),
        colour=ColourJitter(0.0, 0.0),
        waveform=Waveform(gain=0.0),
        spectrum=SpecAugment(0.0, 0.0),
        mixup=Mixup(0.0),
    ),
    optim=Optim(
        "adam", lr=1e-4, audio_lr=0.0, video_lr=0.0, weight_decay=1e-4, warmup=0.0, schedule="constant", clip=0.0
    ),
    heads=Heads(audio=1.0, video=1.0, fusion=1.0),
    epochs=200,
    batch_size=64,
)
video = replace(audio, name="openl3_baseline/video", model=systems.openl3_video())
early = replace(audio, name="openl3_baseline/early", model=systems.openl3_early())
both = ("openl3_baseline/audio", "openl3_baseline/video")
late = replace(
    audio,
    name="openl3_baseline/late",
    # That the two weigh the same is our choice.
    model=replace(systems.openl3_joint(), fusion="", decision=(1.0, 1.0, 0.0)),
    init=both,
    epochs=0,
)
joint = replace(audio, name="openl3_baseline/joint", model=systems.openl3_joint(), init=both)

audio_tuned = replace(
    audio,
    name="openl3_baseline/audio_tuned",
    augment=Augment(mixup=Mixup(0.2), spectrum=SpecAugment(0.1, 0.1)),
    optim=Optim(lr=1e-4, audio_lr=1e-4),
    init=("openl3_baseline/audio",),
    epochs=20,
)
video_tuned = replace(
    video,
    name="openl3_baseline/video_tuned",
    augment=Augment(mixup=Mixup(0.2)),
    optim=Optim(lr=1e-4, video_lr=1e-4),
    init=("openl3_baseline/video",),
    epochs=20,
)
tuned = replace(
    audio_tuned,
    augment=replace(audio_tuned.augment, drop=DropModality(0.1)),
    optim=Optim(lr=1e-4, audio_lr=3e-5, video_lr=3e-5),
    init=("openl3_baseline/audio_tuned", "openl3_baseline/video_tuned"),
)
early_tuned = replace(
    tuned, name="openl3_baseline/early_tuned", model=early.model, init=("openl3_baseline/early",), epochs=20
)
late_tuned = replace(late, name="openl3_baseline/late_tuned", init=tuned.init)
joint_tuned = replace(
    tuned,
    name="openl3_baseline/joint_tuned",
    # Its single heads learn on, as hybrid fusion needs it.
    model=replace(joint.model, decision=(1.0, 1.0, 2.0)),
    heads=Heads(audio=0.3, video=0.3, fusion=1.0),
    epochs=10,
)

if __name__ == "__main__":
    run(
        audio=audio,
        video=video,
        early=early,
        late=late,
        joint=joint,
        audio_tuned=audio_tuned,
        video_tuned=video_tuned,
        early_tuned=early_tuned,
        late_tuned=late_tuned,
        joint_tuned=joint_tuned,
    )
