"""Video nets over several frames: torchvision's, as one trunk."""

from dataclasses import replace

import pytest
import torch
from torchvision.models import video

from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.nets.audionet import parameter_count
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.trunk import Trunk, settled
from avsc_e2e.models.weights.sources import sources
from avsc_e2e.models.zoo.complexity import blank_batch, complexity

NETS = {
    "tv_mvit_v2_s": (video.MViT_V2_S_Weights.KINETICS400_V1, 769 * 400),
    "tv_swin3d_t": (video.Swin3D_T_Weights.KINETICS400_V1, 769 * 400),
    "tv_s3d": (video.S3D_Weights.KINETICS400_V1, 1025 * 400),
    "tv_r2plus1d_18": (video.R2Plus1D_18_Weights.KINETICS400_V1, 513 * 400),
}
"""torchvision's weights, and the parameters of their classifiers."""


@pytest.mark.parametrize("name", NETS)
def test_size_normalisation_and_source_are_those_of_the_weights(name):
    given, classifier = NETS[name]
    seen = given.transforms()
    arch = settled(Architecture(audio="", video=name))
    assert (arch.size, arch.mean, arch.std) == (seen.crop_size[0], tuple(seen.mean), tuple(seen.std))
    (source,) = sources(name)
    assert source.url == given.url
    assert source.digest.removeprefix("sha256:") in given.url
    with torch.device("meta"):
        trunk = Trunk(name, 3)
    assert parameter_count(trunk) + classifier == given.meta["num_params"]


def test_a_clip_goes_through_as_a_whole(tmp_path):
    torch.manual_seed(0)
    theirs = video.r2plus1d_18().eval()
    torch.save(theirs.state_dict(), tmp_path / "published.pth")
    trunk = Trunk("tv_r2plus1d_18", 3).eval()
    trunk.load_pretrained(str(tmp_path / "published.pth"))
    theirs.fc = torch.nn.Identity()
    frames = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        found = trunk.branch(frames)
        torch.testing.assert_close(found.embedding, theirs(frames.transpose(1, 2)), atol=1e-5, rtol=1e-4)
    assert found.tokens.shape == (2, 1, 512)


@pytest.mark.parametrize("name", ["tv_mvit_v2_s", "tv_swin3d_t"])
def test_models_with_such_a_trunk(name):
    arch = Architecture(audio="audio_test", bands=32, hop=1024, video=name, frames=16)
    assert complexity(arch).parameters > 28e6
    if name == "tv_mvit_v2_s":
        with torch.device("meta"):
            model = SceneNet(replace(arch, frames=8))
            with pytest.raises(AvscError, match=r"takes 16 frames: add --model\.frames 16"):
                model(blank_batch(model))
