"""What training starts from: statistics of a fair sample of the training set."""

from dataclasses import replace

import numpy as np
import torch
from support import tiny_recipe

from avsc_e2e.clip import Clip
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.zoo.own import tiny
from avsc_e2e.training.initialisation import initial_model
from avsc_e2e.training.run import corpus_of


def test_statistics_come_from_random_clips_of_all_classes(toy_city, tmp_path, monkeypatch):
    """Rows are listed class by class: the first of them would speak for a few classes only."""
    plan, seen = tiny_recipe(toy_city, tmp_path), []
    corpus = corpus_of(plan)
    count = len(corpus.train) // 2
    plan = replace(plan, data=replace(plan.data, statistics=count))
    monkeypatch.setattr(SceneNet, "fit", lambda self, clips: seen.extend(clips))
    initial_model(plan, corpus)
    files = [file for clip in seen for file in clip.file]
    assert len(set(files)) == len(files) == count
    first = [row.file for row in corpus.train[:count]]
    assert set(files) != set(first)
    assert {row.scene for row in corpus.train if row.file in files} - {row.scene for row in corpus.train[:count]}


def test_statistics_are_of_the_audio_that_is_there():
    """Rows without audio are zeros; they would pull the mean of every band towards silence."""
    arch = replace(tiny(), size=32)
    model, alone = SceneNet(arch), SceneNet(arch)
    draw = torch.Generator().manual_seed(0)
    audio = torch.randn(4, arch.input_channels, arch.sample_rate, generator=draw) * 0.1
    video = torch.zeros(4, arch.frames, 3, 32, 32, dtype=torch.uint8)

    def batch(present):
        present = torch.tensor(present)
        return Clip(
            audio * present[:, None, None], video, torch.zeros(4, dtype=torch.int64),
            torch.stack([present, torch.ones(4, dtype=torch.bool)], dim=1), [""] * 4, torch.zeros(4),
        )  # fmt: skip

    model.fit([batch([True, False, True, False]), batch([False] * 4)])
    kept = batch([True] * 4)
    alone.fit([Clip(*(value[::2] for value in kept))])
    found, expected = model.frontend.mean.numpy(), alone.frontend.mean.numpy()
    assert np.allclose(found, expected, atol=1e-6)
    assert torch.allclose(model.frontend.std, alone.frontend.std, atol=1e-6)
