"""Our own nets: exact counts, embeddings of the width they promise, gradients in every parameter."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import nn

from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.frontend import FrontEnd
from avsc_e2e.models.nets.audionet import AudioNet, parameter_count
from avsc_e2e.models.nets.audioset import Cnn14, patches
from avsc_e2e.models.nets.dcase import SplitResNet
from avsc_e2e.models.pooling import Pool
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.trunk import Trunk
from avsc_e2e.models.zoo.own import tiny

SMALL = {
    "audio_resnet10": (2, 64, 51), "audio_resnet18": (2, 32, 51), "audio_cnn1d": (2, 16, 40),
    "audio_test": (1, 32, 51), "l3_audio": (1, 64, 48), "l3_image": (3, 32, 32), "mcdonnell_resnet": (6, 16, 39),
    "du_resnet17": (2, 16, 39), "du_fcnn": (2, 64, 39), "naranjo_se": (3, 16, 51), "vgg16_features": (3, 32, 32),
    "cnn14": (1, 64, 64), "yamnet": (1, 64, 98),
    "speech_embedding": (1, 32, 100),
}  # fmt: skip
"""Nets and inputs (P, bands, frames) that are quick; VGGish, 72 M parameters, has its own test."""


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_learns(name):
    torch.manual_seed(0)
    planes, bands, frames = SMALL[name]
    trunk = Trunk(name, planes, bands=bands).train()
    for module in trunk.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    embedding = trunk(torch.randn(3, planes, bands, frames))
    assert embedding.shape == (3, trunk.width)
    assert embedding.isfinite().all()
    (embedding * torch.randn_like(embedding)).sum().backward()
    idle = [key for key, value in trunk.named_parameters() if value.grad is None or not value.grad.any()]
    assert not idle


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"l3_image", "vgg16_features"}))
def test_tokens_make_the_embedding(name):
    planes, bands, frames = SMALL[name]
    trunk = Trunk(name, planes, bands=bands).eval()
    x = torch.randn(2, 3, planes, bands, frames)  # three windows of each clip
    with torch.no_grad():
        branch = trunk.branch(x)
        each = torch.stack([trunk(x[:, index]) for index in range(3)], dim=1)
    assert branch.tokens.shape[0] == 2
    assert branch.tokens.shape[2] == trunk.token_width
    assert branch.tokens.shape[1] % 3 == 0
    torch.testing.assert_close(branch.embedding, each.mean(dim=1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "planes", "statistics", "count"),
    [
        ("l3_audio", 1, True, 4_689_860),  # as Keras counts
        ("l3_image", 3, True, 4_691_020),
        ("cnn14", 1, False, 80_753_615 - 2048 * 527 - 527),  # arXiv 1912.10211, Table XII, less the classifier
        ("vggish", 1, False, 72_141_184),
        ("vgg16_features", 3, False, 14_714_688),
        ("audio_resnet10", 1, False, 1_225_824),  # our own
        ("audio_resnet18", 1, False, 11_167_680),
        ("audio_cnn1d", 1, False, 12_772_352),
        ("du_fcnn", 2, False, 1_310_884),
    ],
)
def test_counts(name, planes, statistics, count):
    with torch.device("meta"):
        assert parameter_count(Trunk(name, planes, bands=64).net, statistics) == count


def test_cnn14_has_the_names_and_shapes_of_the_published_code():
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in Trunk("cnn14", 1, bands=64).net.state_dict().items()}
    widths = (1, 64, 128, 256, 512, 1024, 2048)
    expected = {"fc1.weight": (2048, 2048), "fc1.bias": (2048,)}
    norms = {"bn0": 64}
    for block, (before, after) in enumerate(itertools.pairwise(widths), start=1):
        expected[f"conv_block{block}.conv1.weight"] = (after, before, 3, 3)
        expected[f"conv_block{block}.conv2.weight"] = (after, after, 3, 3)
        norms |= {f"conv_block{block}.bn1": after, f"conv_block{block}.bn2": after}
    for name, width in norms.items():
        expected |= {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
        expected[f"{name}.num_batches_tracked"] = ()
    assert shapes == expected


def test_cnn14_joins_the_mean_and_the_maximum_over_time():
    tokens = torch.tensor([[[1.0, -4.0], [2.0, -1.0], [6.0, -1.0]]])
    found = Cnn14.pool(SimpleNamespace(fc1=torch.nn.Identity(), training=False), tokens)
    assert found.tolist() == [[9.0, 0.0]]  # 6 + 3; -1 - 2, below zero


def test_vggish_has_the_names_of_its_port_and_sees_whole_patches():
    torch.manual_seed(0)
    net = Trunk("vggish", 1).net
    assert [name for name in net.state_dict() if name.endswith("weight")] == [
        *(f"features.{index}.weight" for index in (0, 3, 6, 8, 11, 13)),
        *(f"embeddings.{index}.weight" for index in (0, 2, 4)),
    ]
    x = torch.randn(2, 1, 64, 200)
    with torch.no_grad():
        tokens = net.tokens(x)
        assert tokens.shape == (2, 2, 128)
        torch.testing.assert_close(tokens[:, 1], net(x[..., 96:192]))
    # The first full layer reads time, then bands, then channels, as TensorFlow lays them out.
    with torch.no_grad():
        maps = net.features(x[..., :96].transpose(2, 3))  # (B, 512, 6, 4)
        flat = torch.stack([maps[:, c, t, f] for t in range(6) for f in range(4) for c in range(512)], dim=1)
        torch.testing.assert_close(net.embeddings(flat), tokens[:, 0])


def test_patches_leave_the_end_out_and_fill_what_is_short():
    x = torch.arange(250.0).expand(1, 1, 2, 250)
    found, count = patches(x, 48)
    assert count == 4
    assert found.shape == (4, 1, 2, 96)
    assert found[:, 0, 0, 0].tolist() == [0, 48, 96, 144]
    short, count = patches(x[..., :90], 96)
    assert count == 1
    assert short[0, 0, 1, 89:].tolist() == [89.0] * 7


def test_yamnet_is_mobilenet_with_shifts_alone():
    net = Trunk("yamnet", 1, bands=64).net
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 27
    assert all(not isinstance(norm.weight, nn.Parameter) for norm in norms)
    # timm's MobileNet v1 has the same convolutions, on three planes, and scales too.
    with torch.device("meta"):
        other = timm.create_model("mobilenetv1_100", num_classes=0, in_chans=1)
    convolutions = sum(m.weight.numel() for m in other.modules() if isinstance(m, nn.Conv2d))
    assert sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d)) == convolutions


def test_split_resnet_keeps_low_and_high_bands_apart():
    torch.manual_seed(0)
    net = SplitResNet(1).eval()
    x = torch.randn(1, 1, 16, 39)
    other = x.clone()
    other[:, :, 8:] += 1
    with torch.no_grad():
        first, second = net.tokens(x).unflatten(1, (16, -1)), net.tokens(other).unflatten(1, (16, -1))
    assert first.shape == (1, 16, 3, 768)  # five halvings of 39 frames, all bands
    torch.testing.assert_close(first[:, :8], second[:, :8])
    assert not torch.allclose(first[:, 8:], second[:, 8:])


def test_classifiers_are_the_models():
    with pytest.raises(AvscError, match="num_classes=0"):
        timm.create_model("audio_test", num_classes=10)


@pytest.mark.parametrize("kind", ["mean", "max", "mean_max", "attention", "gru"])
def test_pooling(kind):
    torch.manual_seed(0)
    pool = Pool(kind, 6)
    x = torch.randn(4, 5, 6, requires_grad=True)
    found = pool(x)
    assert found.shape == (4, pool.width)
    found.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in pool.parameters())
    if kind in ("mean", "max", "mean_max", "attention"):  # the order of the frames says nothing
        torch.testing.assert_close(pool(x[:, [3, 1, 4, 0, 2]]), found)
    if kind == "attention":
        one = pool(x[:, :1])
        torch.testing.assert_close(one, x[:, 0])
        low, high = x.amin(dim=1), x.amax(dim=1)
        assert ((found >= low - 1e-6) & (found <= high + 1e-6)).all()
    if kind == "mean_max":
        torch.testing.assert_close(found, torch.cat([x.mean(1), x.amax(1)], dim=1))


def test_learned_poolings_belong_to_the_last_layer():
    """Their rate is that of a trunk's end, whatever the decay from layer to layer."""
    for pool in ("attention", "gru"):
        layers = Trunk("test_efficientnet", 3, pool=pool).layers()
        learned = [layer for name, layer in layers.items() if name.startswith("pool.")]
        assert len(learned) >= 3
        assert set(learned) == {max(layers.values())}


@pytest.mark.parametrize(
    "name", ["l3_audio", "l3_image", "mcdonnell_resnet", "du_resnet17", "naranjo_se", "mn04", "cnn14"]
)
def test_batch_norms_as_published(name):
    """Those of Keras keep 0.99 of the old statistics, as do those of torchvision's MobileNetV3; PyTorch's own 0.9."""
    planes, bands, _ = SMALL.get(name, (1, 128, 0))
    with torch.device("meta"):
        net = timm.create_model(name, num_classes=0, in_chans=planes, bands=bands)
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms
    expected = (0.1, 1e-5) if name == "cnn14" else (0.01, 1e-3)
    assert {(norm.momentum, norm.eps) for norm in norms} == {expected}


VIDEO = [
    "resnet50", "tf_efficientnet_b5", "tf_efficientnetv2_s", "swin_tiny_patch4_window7_224", "resnest50d",
    "regnety_016", "hrnet_w18_small", "vit_base_patch32_clip_224", "tf_efficientnet_lite0", "mobilenetv3_small_100",
    "vgg16", "convnext_atto", "test_resnet", "l3_image", "vgg16_features",
]  # fmt: skip


@pytest.mark.parametrize("name", VIDEO)
def test_width_of_video_trunks(name):
    """Some nets of timm have a last layer behind `num_features`."""
    with torch.device("meta"), torch.no_grad():
        trunk = Trunk(name, 3, size=224, pool="mean_max").eval()
        branch = trunk.branch(torch.zeros(2, 3, 3, 224, 224))
    assert branch.embedding.shape == (2, trunk.width)
    assert branch.tokens.shape == (2, 3, trunk.token_width)


def test_sizes_and_pooling_of_video_trunks():
    with torch.device("meta"), torch.no_grad():
        clip = Trunk("vit_base_patch32_clip_224", 3, size=160).eval()  # has a fixed size unless told
        assert clip(torch.zeros(2, 3, 160, 160)).shape == (2, 768)
        both = Trunk("test_resnet", 3, map_pool="catavgmax").eval()
        assert both(torch.zeros(2, 3, 64, 64)).shape == (2, both.width)
    torch.manual_seed(0)
    trunk = Trunk("test_resnet", 3, map_pool="avgmax").eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = trunk.net.forward_features(x)
        torch.testing.assert_close(trunk(x), (features.mean((2, 3)) + features.amax((2, 3))) / 2)


def test_spectrograms_go_into_any_trunk():
    trunk = Trunk("test_efficientnet", 2, bands=64).eval()
    with torch.no_grad():
        assert trunk(torch.randn(2, 2, 64, 101)).shape == (2, trunk.width)
    assert not isinstance(trunk.net, AudioNet)


def test_unknown_trunk_names_the_likely_one():
    with pytest.raises(AvscError, match="did you mean l3_audio"):
        Trunk("l3_audi", 1)


def test_stochastic_depth_carries_whole_clips_past_blocks():
    torch.manual_seed(0)
    trunk = Trunk("audio_resnet10", 1, drop_path=0.5)
    shares = [module.drop_prob for module in trunk.modules() if isinstance(module, DropPath)]
    assert shares == pytest.approx([0.5 / 3, 1.0 / 3, 0.5])  # none at the first of four blocks
    x = torch.randn(1, 1, 64, 40).expand(64, -1, -1, -1)
    trunk.eval()
    with torch.no_grad():
        assert torch.equal(trunk(x)[0], trunk(x)[0])
        for module in trunk.modules():
            module.training = isinstance(module, DropPath)
        kinds = torch.unique(trunk(x).round(decimals=3), dim=0)
    assert 4 <= len(kinds) <= 8  # three blocks, each there or not
    plain = Trunk("audio_resnet10", 1)
    assert plain.state_dict().keys() == trunk.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "able"),
    [("test_resnet", True), ("test_efficientnet", True), ("audio_cnn1d", True), ("du_resnet17", False)],
)
def test_trunks_tell_whether_they_leave_out_blocks(name, able):
    bands = {"bands": 16} if name.startswith(("audio", "du")) else {}
    assert Trunk(name, 2, **bands, drop_path=0.2).drops_paths is able
    assert not Trunk(name, 2, **bands).drops_paths


def test_stochastic_depth_without_blocks_is_refused():
    arch = replace(tiny(), video="", audio="cnn14", bands=64, drop_path=0.1)
    with pytest.raises(AvscError, match=r"model.drop_path 0\.1: cnn14"):
        SceneNet(arch)
    with pytest.raises(AvscError, match=r"model\.drop_path"):
        replace(tiny(), drop_path=1.0)


def test_images_and_kernels_are_channels_last():
    trunk, seen = Trunk("test_efficientnet", 3), []
    stem = trunk.net.conv_stem
    stem.register_forward_pre_hook(lambda _, given: seen.extend([*given, stem.weight]))
    trunk(torch.zeros(2, 3, 32, 32))
    assert [tensor.is_contiguous(memory_format=torch.channels_last) for tensor in seen] == [True, True]


def test_planes_longer_than_a_net_of_fixed_size_are_refused():
    trunk = Trunk("test_vit", 1, bands=64, planes_of=FrontEnd(Architecture(channels="mono", bands=64, video="")))
    with pytest.raises(AvscError, match=r"bands and frames, not \(64, 400\): let data\.window"):
        trunk(torch.zeros(1, 1, 64, 400))
