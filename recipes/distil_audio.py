"""An audio-only student with an audio-visual teacher (knowledge distillation), for devices without a camera.

    avsc train distil_audio/teacher --data.root VIDEOS   # audio and video
    avsc train distil_audio/student --data.root VIDEOS   # audio only, learns from the teacher
    avsc train distil_audio/alone   --data.root VIDEOS   # the same network without a teacher, to compare

Any stage or checkpoint can be the teacher (--distil.teachers runs/mine/model.safetensors). Several teachers are
averaged. The output of any system for the training set, such as an ensemble's, can be one too:

    avsc teach distil_audio/teacher --data.root VIDEOS   # writes training.output.csv into the run's folder
    avsc train distil_audio/student --data.root VIDEOS --distil.teachers ENSEMBLE.csv

The method is that of Hinton et al., 2015; the teacher gets the same clips as the student, before mixup (Beyer et al.,
2022). All values are our choice.
"""

from dataclasses import replace

from avsc_e2e.cli import run
from avsc_e2e.models.zoo import own
from avsc_e2e.training.recipe import Averaging, Data, Distil, Heads, Optim, Recipe
from avsc_e2e.transforms.augmentation import Augment
from avsc_e2e.transforms.batch import DropModality, Mixup, SpecAugment
from avsc_e2e.transforms.waveform import Waveform

teacher = Recipe(
    "distil_audio/teacher",
    model=own.lite0(),
    data=Data(windows=2, validation="0.15"),
    augment=Augment(spectrum=SpecAugment(0.15, 0.15), mixup=Mixup(0.0), drop=DropModality(0.1)),
    optim=Optim(lr=1e-3, audio_lr=1e-3, video_lr=1e-4, keep_statistics=True),
    epochs=8,
)
student = replace(
    teacher,
    name="distil_audio/student",
    model=replace(own.lite0(), video=""),
    data=Data(windows=4, validation="0.15"),
    augment=Augment(waveform=Waveform(gain=6.0, noise=0.3), mixup=Mixup(0.3), spectrum=SpecAugment(0.15, 0.15)),
    optim=Optim(lr=1e-3, audio_lr=1e-3),
    heads=Heads(audio=1.0, video=1.0, fusion=1.0),
    averaging=Averaging(decay=0.99),
    distil=Distil(("distil_audio/teacher",), weight=0.5, temperature=2.0),
    epochs=15,
)
alone = replace(student, name="distil_audio/alone", distil=Distil())

if __name__ == "__main__":
    run(teacher=teacher, student=student, alone=alone)
