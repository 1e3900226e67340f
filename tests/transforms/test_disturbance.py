"""What is done to clips to see how a model stands it, by value."""

import pytest
import torch

from avsc_e2e.clip import Clip
from avsc_e2e.errors import AvscError
from avsc_e2e.transforms.disturbance import Dark, Disturbances, Noise, Without


def batch(files=("a", "b"), starts=(0.0, 1.0)) -> Clip:
    audio = 0.1 * torch.randn(2, 2, 48_000, generator=torch.Generator().manual_seed(1))
    audio[1] *= 0.01
    video = torch.full((2, 1, 3, 4, 4), 200, dtype=torch.uint8)
    return Clip(audio, video, torch.zeros(2).long(), torch.ones(2, 2).bool(), list(files), torch.tensor(starts))


def test_without():
    clip = batch()
    alone = Without("audio")(clip)
    assert not alone.audio.any()
    assert alone.present.tolist() == [[False, True]] * 2
    assert torch.equal(alone.video, clip.video)
    assert clip.present.all(), "the batch itself is left as it was"


def test_noise_is_as_loud_as_said_of_every_clip():
    clip = batch()
    for ratio in (20.0, 0.0, -5.0):
        noise = Noise(ratio)(clip).audio - clip.audio
        power = [part.square().mean(dim=(1, 2)) for part in (clip.audio, noise)]
        assert 10 * torch.log10(power[0] / power[1]) == pytest.approx([ratio, ratio], abs=0.1)


def test_noise_of_a_clip_is_its_own():
    whole = Noise(10.0)(batch()).audio
    clip = batch()
    second = Clip(*(value[1:] for value in clip))
    assert torch.equal(Noise(10.0)(second).audio[0], whole[1])
    other = Noise(10.0)(batch(starts=(0.0, 2.0))).audio
    assert torch.equal(other[0], whole[0])
    assert not torch.equal(other[1], whole[1])
    silent = clip._replace(audio=torch.zeros_like(clip.audio))
    assert not Noise(10.0)(silent).audio.any()


def test_dark():
    assert Dark(0.5)(batch()).video.unique().tolist() == [100]
    assert Dark(0.25)(batch()).video.dtype == torch.uint8
    assert Dark(1.0)(batch()).video.unique().tolist() == [0]


def test_what_is_asked_for_in_order():
    asked = Disturbances(("video", "audio"), (0.0, 20.0), (0.5, 0.25))
    expected = [Without("video"), Without("audio"), Noise(20.0), Noise(0.0), Dark(0.25), Dark(0.5)]
    assert asked.of(("audio", "video")) == expected
    assert [one.level for one in expected] == ["without video", "without audio", "20 dB", "0 dB", 25.0, 50.0]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (Disturbances(noise_db=(10.0,)), "noise_db: the model takes no audio"),
        (Disturbances(without=("audio",)), "without: the model takes no audio"),
        (Disturbances(without=("video",)), "without video: video is the only modality of the model"),
    ],
)
def test_what_a_model_has_not(asked, reason):
    with pytest.raises(AvscError, match=reason):
        asked.of(("video",))


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_share_of_darkness(share):
    with pytest.raises(AvscError, match=r"dark .*: give a share above 0 and up to 1"):
        Disturbances(dark=(share,))
