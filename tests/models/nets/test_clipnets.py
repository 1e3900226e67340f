"""Video nets over several frames: torchvision's, as one trunk."""

from dataclasses import replace

import pytest
import timm
import torch
from torchvision.models import video
from trunks import filled

from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.nets.audionet import parameter_count
from avsc_e2e.models.nets.clipnets import VideoMae
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.trunk import Trunk, settled
from avsc_e2e.models.weights import conversion
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
    assert timm.get_pretrained_cfg(name).input_size == (3, arch.size, arch.size)
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


def small_videomae() -> VideoMae:
    """Weights that a formula gives; keys have no bias, as published."""
    net = filled(VideoMae(32, 2, 4))
    with torch.no_grad():
        for block in net.blocks:
            block.attn.qkv.bias[32:64] = 0
    return net


def test_videomae_is_that_of_transformers():
    """VideoMAEForVideoClassification of transformers 5.24.0 before its classifier: hidden_size 32, 2 layers of 4 heads,
    intermediate_size 128, 16 frames of 32 pixels, the authors' epsilon of 1e-6."""
    x = torch.sin(torch.arange(16 * 3 * 32 * 32, dtype=torch.float64) * 0.123).view(1, 16, 3, 32, 32)
    with torch.no_grad():
        found = small_videomae()(x)[0, :4]
    expected = torch.tensor((-0.3047572169, -0.1950230371, -0.1017056011, -0.545573767), dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_files_of_videomae(tmp_path):
    """Names of OpenGVLab/VideoMAE2, distill/vit_b_k710_dl_from_giant.pth, in half precision."""
    net = small_videomae().float()
    given = {"head.weight": torch.zeros(710, 32), "head.bias": torch.zeros(710)}
    for name, value in net.state_dict().items():
        if name.endswith("qkv.bias"):
            given[name.replace("qkv.bias", "q_bias")], _, given[name.replace("qkv.bias", "v_bias")] = value.chunk(3)
        else:
            given[name] = value
    torch.save({"module": {name: value.half() for name, value in given.items()}}, tmp_path / "videomae.pth")
    found = conversion.videomae(tmp_path / "videomae.pth", net)
    assert all(torch.equal(found[name], value.half().float()) for name, value in net.state_dict().items())
    assert [source.name for source in sources("videomae2_base")] == ["videomae"]


def test_videomae_says_what_it_takes():
    with torch.device("meta"):
        trunk = Trunk("videomae2_base", 3)
        with pytest.raises(AvscError, match=r"takes 16 frames .* add model\.frames 16 and model\.size 224"):
            trunk(torch.zeros(1, 8, 3, 224, 224))
        assert trunk(torch.zeros(1, 16, 3, 224, 224)).shape == (1, 768)
    assert settled(Architecture(audio="", video="videomae2_base")).size == 224


@pytest.mark.parametrize("name", ["tv_mvit_v2_s", "tv_swin3d_t"])
def test_models_with_such_a_trunk(name):
    arch = Architecture(audio="audio_test", bands=32, hop=1024, video=name, frames=16)
    assert complexity(arch).parameters > 28e6
    if name == "tv_mvit_v2_s":
        with torch.device("meta"):
            model = SceneNet(replace(arch, frames=8))
            with pytest.raises(AvscError, match=r"takes 16 frames: add model\.frames 16"):
                model(blank_batch(model))
