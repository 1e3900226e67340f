"""The baseline family of the dataset paper, and the baseline of DCASE 2021 Task 1B (rank 24), on OpenL3 embeddings.

    avsc train openl3_baseline/audio --data.root ROOT      # then video, early, late, joint
    avsc train openl3_baseline/audio_tuned --data.root ROOT      # and so on

Published (Wang et al., ICASSP 2021, code in shanwangshan/TAU-urban-audio-visual-scenes): frozen OpenL3 nets on 96
windows of a second from every recording; heads trained by Adam with a rate and a weight decay of 1e-4, batches of 64,
199 epochs, the joint layers 99, the lowest validation loss; embeddings standardised by the whole training set; no
augmentation. Give the authors' validation set with --data.validation baseline_validation.csv. Differences: the windows
are drawn at random in every epoch instead of at every 0.1 s from half a second before the start, and weight decay
leaves out biases and batch norms. OpenL3's weights: `avsc models "openl3*"`.

The stages *_tuned train the L3 nets too, which is not published. All their values are our choice: mixup, SpecAugment,
RandomResizedCrop, horizontal flip, dropped modalities, ten windows of a recording.
"""

from dataclasses import replace

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import systems
from avsc_e2e.training.recipe import Data, Heads, Optim, Recipe
from avsc_e2e.transforms.augmentation import UNCHANGED
from avsc_e2e.transforms.batch import DropModality, Mixup, SpecAugment
from avsc_e2e.transforms.frames import HorizontalFlip, RandomResizedCrop

audio = Recipe(
    "openl3_baseline/audio",
    model=systems.openl3_audio(),
    data=Data(windows=96, statistics=0),
    augment=UNCHANGED,
    optim=Optim(
        "adam", lr=1e-4, audio_lr=0.0, video_lr=0.0, weight_decay=1e-4, warmup=0.0, schedule="constant", clip=0.0
    ),
    heads=Heads(audio=1.0, video=1.0, fusion=1.0),
    epochs=199,
    batch_size=64,
)
video = replace(audio, name="openl3_baseline/video", model=systems.openl3_video())
early = replace(audio, name="openl3_baseline/early", model=systems.openl3_early())
both = ("openl3_baseline/audio", "openl3_baseline/video")
late = replace(
    audio,
    name="openl3_baseline/late",
    # Published: the mean of both outputs. Equal weights are our choice.
    model=replace(systems.openl3_joint(), fusion="", decision=(1.0, 1.0, 0.0), decision_rule="mean"),
    init=both,
    epochs=0,
)
joint = replace(audio, name="openl3_baseline/joint", model=systems.openl3_joint(), init=both, epochs=99)

audio_tuned = replace(
    audio,
    name="openl3_baseline/audio_tuned",
    data=Data(windows=10),
    augment=replace(UNCHANGED, mixup=Mixup(0.2), spectrum=SpecAugment(0.1, 0.1)),
    optim=Optim(lr=1e-4, audio_lr=1e-4),
    init=("openl3_baseline/audio",),
    epochs=20,
)
video_tuned = replace(
    video,
    name="openl3_baseline/video_tuned",
    data=Data(windows=10),
    augment=replace(UNCHANGED, crop=RandomResizedCrop(0.5), flip=HorizontalFlip(0.5), mixup=Mixup(0.2)),
    optim=Optim(lr=1e-4, video_lr=1e-4),
    init=("openl3_baseline/video",),
    epochs=20,
)
tuned = replace(
    audio_tuned,
    augment=replace(video_tuned.augment, spectrum=audio_tuned.augment.spectrum, drop=DropModality(0.1)),
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
    # The single heads continue to learn, as hybrid fusion needs.
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
