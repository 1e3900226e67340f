"""Published systems as their authors' public code has them: each value is a fact of the source that is named."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

from avsc_e2e.clip import Clip
from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.trunk import settled
from avsc_e2e.models.zoo.catalogue import architecture, list_models
from avsc_e2e.transforms.frames import CentreCrop

# ---- Video trunks: what timm's configurations say


@pytest.mark.parametrize(
    "name", ["vit_large_patch16_siglip_256.v2_webli", "eva02_large_patch14_224", "vit_pe_core_large_patch14_336"]
)
def test_frames_are_normalised_as_the_trunk_was_trained(name):
    """Size, mean and deviation are those of the trunk's configuration, not ImageNet's."""
    config = timm.get_pretrained_cfg(name)
    arch = settled(Architecture(audio="", video=name))
    assert (arch.size, arch.mean, arch.std) == (config.input_size[-1], config.mean, config.std)
    given = settled(Architecture(audio="", video=name, size=64, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)))
    assert (given.size, given.mean, given.std) == (64, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_a_model_holds_what_its_trunk_decided():
    """A checkpoint does not depend on timm's configurations of tomorrow."""
    model = SceneNet(Architecture(audio="", video="test_vit", size=32))  # trained with 0.5 and 0.5
    assert model.architecture.mean == model.architecture.std == (0.5, 0.5, 0.5)
    frames = torch.full((1, 1, 3, 32, 32), 255, dtype=torch.uint8)
    clip = Clip(torch.zeros(1, 2, 0), frames, torch.tensor([0]), torch.tensor([[False, True]]), ["a"], torch.zeros(1))
    assert model.preprocess(clip).video.unique().tolist() == [1.0]


def test_weights_of_a_tag_that_is_not_there():
    with pytest.raises(AvscError, match=r"'imagenet' of the trunk resnet50: timm has .*tv_in1k"):
        settled(Architecture(audio="", video="resnet50.imagenet"))
    with pytest.raises(AvscError, match="did you mean resnet50"):
        settled(Architecture(audio="", video="resnet5o"))


PRETRAINED = {
    "zhang_ioa": "tf_efficientnet_b5.aa_in1k",  # ImageNet (Wang, Chen et al., DCASE 2021), not JFT-300M
    "zhang_ioa_resnet50": "resnet50.tv_in1k",
    "zhang_ioa_efficientnetv2": "tf_efficientnetv2_s.in1k",
    "zhang_ioa_swin": "swin_base_patch4_window7_224.ms_in1k",
    "okazaki_ldsl_clip": "vit_base_patch32_clip_quickgelu_224.openai",  # CLIP (Radford et al., 2021)
    "hou_ugent": "resnet50.tv_in1k",  # torchvision's file, Yuanbo2020/DCASE2021-T1B, resnet_model.py
    "zhang_ioa_jft": "tf_efficientnet_b5.ns_jft_in1k",
}


def test_trunks_start_from_what_the_papers_name():
    assert {name: architecture(name).video for name in PRETRAINED} == PRETRAINED
    for name in list_models():
        config = timm.get_pretrained_cfg(architecture(name).video) if architecture(name).video else None
        larger = config is not None and any(part in (config.tag or "") for part in ("jft", "in21k", "in22k", "in12k"))
        assert larger == (name == "zhang_ioa_jft"), name


# ---- OpenL3: Cramer et al., ICASSP 2019; marl/openl3, core.py


def frame(height: int, width: int) -> Clip:
    """A frame whose red is its row and whose green is its column, of 255."""
    rows, columns = (torch.linspace(0, 255, length) for length in (height, width))
    image = torch.stack(
        [rows[:, None].expand(height, width), columns.expand(height, width), torch.zeros(height, width)]
    )
    video = image.round().to(torch.uint8)[None]
    return Clip(torch.zeros(1, 0), video, torch.tensor(0), torch.tensor([False, True]), "a", torch.tensor(0.0))


def test_openl3_sees_the_centre_of_a_frame():
    """The shorter side becomes 256 pixels and the centre of 224 remains: rows 45 to 675 of 720."""
    arch = architecture("openl3_video")
    seen = CentreCrop(arch.size, arch.crop)(frame(720, 1280)).video[0].numpy().astype(float)
    assert seen.shape == (3, 224, 224)
    rows, columns = seen[0, :, 0] / 255 * 719, seen[1, 0] / 255 * 1279
    np.testing.assert_allclose([rows[0], rows[-1]], [45, 675], atol=4)
    np.testing.assert_allclose([columns[0], columns[-1]], [640 - 315, 640 + 315], atol=4)
    whole = CentreCrop(224)(frame(720, 1280)).video[0].numpy().astype(float)
    np.testing.assert_allclose(whole[0, [0, -1], 0] / 255 * 719, [0, 719], atol=4)


def test_a_squeezed_frame_is_whole():
    seen = CentreCrop(56, 0.0)(frame(180, 320)).video[0].numpy().astype(float)
    assert seen.shape == (3, 56, 56)
    np.testing.assert_allclose(seen[0, [0, -1], 0], [0, 255], atol=4)
    np.testing.assert_allclose(seen[1, 0, [0, -1]], [0, 255], atol=4)


def test_crop_is_a_share():
    with pytest.raises(AvscError, match="it is a share from 0 to 1"):
        replace(architecture("openl3_video"), crop=1.5)
