"""Published systems as their authors' public code has them: each value is a fact of the source that is named."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

from avsc_e2e.clip import Clip
from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.filterbanks import erb_centres
from avsc_e2e.models.frontend import mix
from avsc_e2e.models.heads import PointwiseHead
from avsc_e2e.models.moments import Moments
from avsc_e2e.models.nets.audionet import parameter_count
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.sequencefusion import SequenceFusion
from avsc_e2e.models.trunk import Trunk, settled
from avsc_e2e.models.zoo.catalogue import architecture, list_models
from avsc_e2e.models.zoo.complexity import complexity
from avsc_e2e.outputs.fusion import fit
from avsc_e2e.training.optimiser import rate_share, schedule
from avsc_e2e.training.recipe import Optim
from avsc_e2e.transforms.frames import CentreCrop

# ---- Video trunks: what timm's configurations say


CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
SEEN = {
    "vit_large_patch16_siglip_256.v2_webli": (256, *HALVES),
    "vit_large_patch14_dinov2.lvd142m": (518, *IMAGENET),
    "vit_large_patch16_dinov3.lvd1689m": (256, *IMAGENET),
    "eva02_large_patch14_224.mim_in22k": (224, *CLIP),
    "vit_large_patch14_clip_224.openai": (224, *CLIP),
    "convnext_base.fb_in22k_ft_in1k": (224, *IMAGENET),
    "vit_pe_core_large_patch14_336.fb": (336, *HALVES),
}
"""Side, mean and deviation of the frames that each net was trained on, as its authors have them."""


@pytest.mark.parametrize("name", SEEN)
def test_frames_are_normalised_as_the_trunk_was_trained(name):
    """Size, mean and deviation are the trunk's own, and it is made for them."""
    arch = settled(Architecture(audio="", video=name))
    assert (arch.size, arch.mean, arch.std) == SEEN[name]
    with torch.device("meta"):
        trunk = Trunk(name, 3, size=arch.size)
        assert trunk(torch.zeros(2, 1, 3, arch.size, arch.size)).shape == (2, trunk.width)
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


# ---- Naranjo-Alcazar_UV: Machine-Listeners-Valencia/DCASE2021-Task1b, the notebooks


def test_naranjo_keeps_bands_and_halves_time_twice():
    """train_audio.ipynb: 64 x 50, poolings (1, 2), (1, 2), (1, 1), no dropout; 323,274 parameters in Keras' count."""
    torch.manual_seed(0)
    model = SceneNet(architecture("naranjo_uv_audio")).eval()
    planes = model.frontend.planes(torch.randn(2, 2, 44_100))
    assert planes.shape == (2, 3, 64, 50)
    lengths = []
    for block in model.audio.net.layers:
        block.register_forward_hook(lambda _block, _given, out: lengths.append(tuple(out.shape[1:])))
    with torch.no_grad():
        assert model.audio.net.tokens(planes).shape == (2, 12, 128)
    blocks, pools = lengths[::2], lengths[1::2]
    assert blocks == [(32, 64, 50), (64, 64, 25), (128, 64, 12)]
    assert pools == [(32, 64, 25), (64, 64, 12), (128, 64, 12)]
    assert not any(part.p for part in model.modules() if isinstance(part, torch.nn.Dropout))
    assert parameter_count(model, statistics=True) == 323_274


def normal(x: torch.Tensor, norm: torch.nn.Module) -> torch.Tensor:
    """Batch norm in evaluation with Keras' epsilon."""
    shape = (1, -1, *[1] * (x.dim() - 2))
    x = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + 1e-3).sqrt()
    return x * norm.weight.view(shape) + norm.bias.view(shape) if norm.affine else x


def shaken(*modules: torch.nn.Module) -> None:
    """Values of batch norms that no default has."""
    for part in [part for module in modules for part in module.modules()]:
        if isinstance(part, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2)
            if part.affine:
                torch.nn.init.normal_(part.weight)
                torch.nn.init.normal_(part.bias)


def test_naranjo_audio_as_its_code():
    """train_audio.ipynb: a 1x1 shortcut is added before the ELU and after the excitation, which is the sum of a channel
    one (ratio 2) and a spatial one; the embedding is the mean over the map."""
    torch.manual_seed(0)
    net = timm.create_model("naranjo_se", num_classes=0).double().eval()
    shaken(net)
    conv, elu = torch.nn.functional.conv2d, torch.nn.functional.elu
    x = planes = torch.randn(2, 3, 64, 50).double()
    with torch.no_grad():
        for block, pool in zip(net.layers[::2], (2, 2, 1), strict=True):
            first, norm, _, second, other = block.convs
            y = elu(normal(conv(x, first.weight, first.bias, padding=1), norm))
            y = normal(conv(y, second.weight, second.bias, padding=1), other)
            short = normal(conv(x, block.shortcut[0].weight, block.shortcut[0].bias), block.shortcut[1])
            y, excitation = elu(y + short), block.excitation
            assert excitation.squeeze.out_features * 2 == excitation.squeeze.in_features
            channel = (y.mean((2, 3)) @ excitation.squeeze.weight.T).relu() @ excitation.excite.weight.T
            y = y * channel.sigmoid()[..., None, None] + y * conv(y, excitation.spatial.weight).sigmoid() + short
            x = (
                y.unflatten(3, (-1, pool)).amax(4)
                if y.shape[3] % pool == 0
                else y[..., :-1].unflatten(3, (-1, 2)).amax(4)
            )
        torch.testing.assert_close(net(planes), x.mean((2, 3)), atol=1e-9, rtol=1e-9)
    assert block.shortcut[1].momentum == pytest.approx(0.01)  # Keras' 0.99


def test_naranjo_scales_each_crop_by_its_own_extremes():
    model = SceneNet(architecture("naranjo_uv_audio"))
    quiet = torch.randn(1, 2, 44_100) * torch.linspace(0.001, 0.1, 44_100)
    planes = model.frontend.planes(torch.cat([quiet, 5 * quiet]))
    torch.testing.assert_close(planes[0], planes[1], atol=1e-3, rtol=0)
    assert (float(planes[0].min()), float(planes[0].max())) == (-1.0, 1.0)
    silence = model.frontend.planes(torch.zeros(1, 2, 44_100))
    assert torch.equal(silence, torch.full_like(silence, -1.0))


def test_naranjo_gammatones_begin_at_zero():
    """generate_tfrecords_gammatone.ipynb: gtgram with 64 channels from 0 Hz at 44.1 kHz, 40 ms every 20 ms. Its centres
    are Slaney's, which leave out the upper end."""
    arch = architecture("naranjo_uv_audio")
    assert (arch.win_length / arch.sample_rate, arch.hop / arch.sample_rate) == (0.04, 0.02)
    q, width, top = 9.26449, 24.7, 44_100 / 2
    step = np.arange(1, 65) / 64
    slaney = -q * width + np.exp(step * (-np.log(top + q * width) + np.log(q * width))) * (top + q * width)
    ours = erb_centres(64, arch.low, arch.high).numpy()[::-1]
    np.testing.assert_allclose(ours[:-1], slaney[:-1], rtol=2e-4)
    assert abs(ours[-1]) < 1e-3


def test_naranjo_joint_counts():
    """train_audiovisual.ipynb: 15,416,148 parameters, of which 272,704 learn while the two nets are frozen."""
    with torch.device("meta"):
        model = SceneNet(architecture("naranjo_uv"))
        tuned = SceneNet(replace(architecture("naranjo_uv"), tune_heads=True))
    assert parameter_count(model, statistics=True) == 15_416_148
    assert parameter_count(model.heads["fusion"]) == 272_704
    assert parameter_count(model.video) + parameter_count(model.heads["video"]) == 14_820_170
    assert not any(p.requires_grad for name in ("audio", "video") for p in model.heads[name].parameters())
    assert all(p.requires_grad for p in tuned.parameters())


def gru(x: torch.Tensor, layer: torch.nn.GRU, suffix: str) -> torch.Tensor:
    """A GRU as Keras has it since version 2, reset after the product: (B, T, width) -> (B, T, hidden)."""
    w, u, b, c = (getattr(layer, f"{name}_l0{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    state, found = x.new_zeros(len(x), layer.hidden_size), []
    for step in x.unbind(1):
        (r, z, n), (hr, hz, hn) = (step @ w.T + b).chunk(3, 1), (state @ u.T + c).chunk(3, 1)
        z = (z + hz).sigmoid()
        state = z * state + (1 - z) * (n + (r + hr).sigmoid() * hn).tanh()
        found.append(state)
    return torch.stack(found, 1)


def bidirectional(x: torch.Tensor, layer: torch.nn.GRU) -> torch.Tensor:
    return torch.cat([gru(x, layer, ""), gru(x.flip(1), layer, "_reverse").flip(1)], dim=2)


def test_naranjo_joins_three_softmaxes():
    """train_audiovisual.ipynb: twelve steps of audio to five, GRUs of 64 on both, a softmax of their mean beside those
    of both nets, and a last layer on these thirty values."""
    torch.manual_seed(0)
    arch = replace(architecture("naranjo_uv"), video="test_efficientnet", size=32)
    model = SceneNet(arch).eval()
    clip = Clip(
        torch.randn(2, 2, 44_100), torch.randint(256, (2, 5, 3, 32, 32), dtype=torch.uint8), torch.tensor([0, 1]),
        torch.ones(2, 2, dtype=torch.bool), ["a", "b"], torch.zeros(2),
    )  # fmt: skip
    with torch.no_grad():
        clip = model.preprocess(clip)
        found = model(clip)["fusion"]
        audio, video = model.branches(clip).values()
        head, fusion = model.heads["video"], model.heads["fusion"]
        heard = model.heads["audio"][1](audio.tokens.mean(1)).softmax(1)
        seen = head.last[1](bidirectional(video.tokens, head.gru)).softmax(2).mean(1)
        five = torch.stack([audio.tokens[:, 2 * step : 2 * step + 3].mean(1) for step in range(5)], 1)
        joint = fusion.steps(bidirectional(torch.cat([five, video.tokens], 2), fusion.gru).mean(1)).softmax(1)
        expected = fusion.last(torch.cat([joint, heard, seen], 1))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(head(video.tokens).softmax(1), seen, atol=1e-6, rtol=1e-4)
    assert clip.present.all()
    with torch.no_grad():  # a missing modality says nothing, whatever is in its place
        clip = clip._replace(present=torch.tensor([[True, False], [True, False]]))
        first = model(clip)["fusion"]
        torch.testing.assert_close(first, model(clip._replace(video=clip.video + 1))["fusion"])


def test_naranjo_sees_the_maximum_of_each_map():
    """train_video.ipynb: GlobalMaxPooling2D over VGG16's last map of frames from 0 to 255."""
    torch.manual_seed(0)
    net = timm.create_model("vgg16_features", num_classes=0).eval()
    frames = 255 * torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(frames), net.features(frames).amax((2, 3)))
    assert settled(replace(architecture("naranjo_uv"), mean=(), std=())).std == (1 / 255,) * 3
    assert architecture("naranjo_uv").crop == 0  # frames squeezed to 224 x 224


# ---- Hou_UGent: Yuanbo2020/DCASE2021-T1B, model_1_v2.py and sub_attention.py


def test_hou_as_its_code():
    """Attention without scaling and norms after the sums; convolutions; a layer for each frame; mean plus maximum."""
    torch.manual_seed(0)
    head = SequenceFusion((512, 64), 32, 10).eval()
    for part in head.modules():
        if isinstance(part, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    audio, video = torch.randn(2, 96, 512), torch.randn(2, 10, 64)
    encoder = head.attention
    with torch.no_grad():
        q, k, v = (one.reshape(2, 96, 8, 64) for one in encoder.qkv(audio).chunk(3, 2))
        products = torch.einsum("bqhd,bkhd->bhqk", q, k)  # not divided by 8
        context = torch.einsum("bhqk,bkhd->bqhd", products.softmax(-1), v).reshape(2, 96, 512)
        x = encoder.norm1(encoder.out(context) + audio)
        x = encoder.norm2(encoder.mlp[2](encoder.mlp[0](x).relu()) + x)
        steps = head.convs(x[:, None]).mean(3).transpose(1, 2)
        frames = torch.stack([head.frame(one) for one in video.unbind(1)], 1)
        each = head.classifier(torch.cat([steps, frames], 2))
        expected = each.mean(1) + each.amax(1)
        found = head([audio, video], torch.ones(2, 2, dtype=torch.bool))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_hou_adds_average_and_maximum_of_the_map():
    arch = architecture("hou_ugent")
    assert (arch.map_pool, arch.crop, arch.frames) == ("sum", 0.0, 10)
    torch.manual_seed(0)
    trunk = Trunk("test_resnet", 3, map_pool=arch.map_pool).eval()
    frames = torch.randn(1, 2, 3, 64, 64)
    with torch.no_grad():
        maps = trunk.net.forward_features(frames[0])
        expected = maps.mean((2, 3)) + maps.amax((2, 3))
        torch.testing.assert_close(trunk.branch(frames).tokens[0], expected)


# ---- McDonnell_USA: McDonnell-Lab/DCASE2019-Task1, DCASE2019_network.py


def same(x: torch.Tensor, stride: int) -> torch.Tensor:
    """TensorFlow's "same" padding of three positions in both axes, with `stride` in time."""
    length = x.shape[3]
    more = max((-(-length // stride) - 1) * stride + 3 - length, 0)
    return torch.nn.functional.pad(x, (more // 2, more - more // 2, 1, 1))


@pytest.mark.parametrize("length", [400, 461, 39])
def test_mcdonnell_as_its_code(length):
    torch.manual_seed(0)
    net = timm.create_model("mcdonnell_resnet", num_classes=0).double().eval()
    head = PointwiseHead(768, 10).double().eval()
    shaken(net, head)
    conv = torch.nn.functional.conv2d

    def step(x, part, stride):  # norm, ReLU, convolution
        return conv(same(normal(x, part[0]).relu(), stride), part[2].weight, stride=(1, stride))

    def path(x, layers):
        x = conv(same(normal(x, layers[0]), 2), layers[1].weight, stride=(1, 2))
        for stack in range(4):
            for block in range(2):
                part, stride = layers[2 + 2 * stack + block].convs, 2 if stack and not block else 1
                y = step(step(x, part[0], stride), part[1], 1)
                if stride == 2:
                    ones = torch.ones_like(x)
                    pool = [torch.nn.functional.avg_pool2d(same(one, 2), 3, (1, 2)) for one in (x, ones)]
                    x = torch.cat([pool[0] / pool[1], torch.zeros_like(pool[0])], 1)
                x = x + y
        return x

    planes = torch.randn(1, 6, 128, length).double()
    with torch.no_grad():
        joined = torch.cat([path(planes[:, :, :64], net.low), path(planes[:, :, 64:], net.high)], 2)
        x = conv(normal(joined, net.join[0]).relu(), net.join[2].weight)
        x = conv(normal(x, head.norm), head.layer.weight[..., None])
        expected = normal(x, head.last).mean((2, 3))
        torch.testing.assert_close(head(net.tokens(planes)), expected, atol=1e-9, rtol=1e-9)
    assert net.low[0].momentum == pytest.approx(0.01)  # Keras' 0.99


def test_mcdonnell_scores_ten_seconds_at_once():
    """DCASE_training.ipynb: 461 frames of a recording, of which training crops 400."""
    arch = architecture("mcdonnell_usa")
    model = SceneNet(arch)
    assert arch.window == 10.0
    assert model.frontend.planes(torch.randn(1, 2, 480_000)).shape == (1, 6, 128, 461)


def test_du_doubles_the_width():
    """MihawkHu/DCASE2020_task1, task1a/10class/resnet/train_resnet.py: num_filters=48."""
    assert timm.create_model("du_resnet17", num_classes=0).low[1].out_channels == 48
    assert timm.create_model("mcdonnell_resnet", num_classes=0).low[1].out_channels == 24


def test_du_fcnn_as_its_code():
    """MihawkHu/DCASE2020_task1, task1a/10class/fcnn/fcnn_att.py, up to the layer of the classes: norms as in Keras, 24,
    48 and 96 filters a plane, maxima over whole pairs only."""
    torch.manual_seed(0)
    net = timm.create_model("du_fcnn", num_classes=0).double().eval()
    shaken(net)
    layers = [part for part in net.layers if isinstance(part, torch.nn.Conv2d | torch.nn.BatchNorm2d)]
    x = planes = torch.randn(2, 6, 128, 39).double()
    with torch.no_grad():
        x = normal(x, layers.pop(0))
        for block, count in enumerate((2, 2, 4)):
            for index in range(count):
                first = not block and not index
                conv, norm = layers.pop(0), layers.pop(0)
                assert conv.out_channels == 6 * (24, 48, 96)[block]
                x = torch.nn.functional.conv2d(x, conv.weight, stride=1 + first, padding=1 + first)
                x = normal(x, norm).relu()
            x = x[..., : x.shape[3] // 2 * 2].unflatten(3, (-1, 2)).amax(4).unflatten(2, (-1, 2)).amax(3)
        assert not layers
        assert x.shape[2:] == (8, 2)  # 39 frames: 20, 10, 5, 2
        torch.testing.assert_close(net(planes), x.mean((2, 3)), atol=1e-9, rtol=1e-9)


def test_hou_halves_its_rate_every_twenty_epochs():
    """train.py: the rate times 0.5 after every decay_epoch of 20."""
    optim = Optim("adam", lr=1e-4, warmup=0.0, schedule="steps", factor=0.5, every=20)
    shares = [rate_share(optim, step, steps=600, epochs=60) for step in (1, 199, 200, 399, 400, 599)]
    assert shares == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_naranjo_halves_its_rate_on_a_plateau():
    """train_audio.ipynb: ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=15), as Keras counts."""
    optim = Optim("adam", lr=1e-3, warmup=0.0, schedule="plateau", factor=0.5, every=15)
    weights = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=optim.lr)
    made = schedule(weights, optim, steps=100, epochs=200)
    assert (made["interval"], made["monitor"]) == ("epoch", "validation_log_loss")
    rates = []
    for loss in [1.0] * 16 + [0.5] + [0.49995] * 15:  # a fall of less than 1e-4 is none
        made["scheduler"].step(loss)
        rates.append(weights.param_groups[0]["lr"])
    assert rates.index(5e-4) == 15
    assert rates.index(2.5e-4) == 31
    with pytest.raises(AvscError, match="has no warm-up"):
        replace(optim, warmup=0.1)


@pytest.mark.parametrize("sizes", [(7,), (3, 1, 5), (1, 1)])
def test_moments_are_those_of_all_values(sizes):
    """The baseline's repository standardises by the whole training set, which does not fit into memory here."""
    torch.manual_seed(0)
    parts = [1e4 + torch.randn(size, 3) for size in sizes]
    moments = Moments()
    for part in parts:
        moments.add(part)
    whole = torch.cat(parts).double()
    torch.testing.assert_close(moments.mean, whole.mean(0))
    torch.testing.assert_close(moments.std, whole.std(0))


# ---- The baseline: shanwangshan/TAU-urban-audio-visual-scenes, train_audio/train.py and train_combine/train.py


def test_baseline_heads_and_their_joint_layer():
    """Linear layers 512-512-128-64-10, 1024-512-128-64-10, and 256-128-10, batch norms between the inner ones."""
    dense = [(512, 512), (512, 128), (128, 64), (64, 10)]
    layers = sum(given * out + out for given, out in dense) + sum(2 * out for _given, out in dense[:-1])
    joint = 256 * 128 + 128 + 128 * 10 + 10
    with torch.device("meta"):
        heads = SceneNet(architecture("openl3_joint")).heads
        early = SceneNet(architecture("openl3_early")).heads["fusion"]
    assert [parameter_count(heads[name]) for name in ("audio", "video", "fusion")] == [layers, layers, joint]
    assert (layers, joint, 2 * layers + joint) == (338_634, 34_186, 711_454)
    assert parameter_count(early) == layers + 512 * 512 == 600_778


# ---- Systems without public code: what their reports and papers state


STATED = {
    # Wang et al., ICASSP 2021, section 4: one random frame a second
    "resnet50_video": {"audio": "", "video": "resnet50.tv_in1k", "frames": 1, "window": 1.0},
    # Wang, Chen et al., DCASE 2021: average and difference of the channels, model and decision level
    "zhang_ioa": {"audio": "audio_cnn1d", "channels": "mid_side", "features": "log_mel", "fusion": "concat"},
    "zhang_ioa_wavelet": {"features": "wavelet", "channels": "mid_side"},
    "zhang_ioa_bark": {"features": "bark", "channels": "mid_side"},
    # Chen, Wang and Zhang, arXiv 2204.11420: one classifier on both, trained jointly
    "ioa_joint": {"audio": "audio_cnn1d", "fusion": "concat", "decision": (0.0, 0.0, 1.0)},
    # Wang, Zheng et al., DCASE 2021, and Wang et al., arXiv 2203.04114
    "du_ustc": {"audio": "du_fcnn", "features": "log_mel", "fusion": "concat", "decision": (0.0, 0.0, 1.0)},
    "du_ustc_vggish": {"audio": "vggish", "video": ""},
    "du_ustc_pann": {"audio": "cnn14", "video": ""},
    # Okazaki, Kong and Yoshinaga, DCASE 2021: an ensemble, so no model-level fusion
    "okazaki_ldsl": {"audio": "cnn14", "fusion": "", "decision_rule": "mean"},
    "okazaki_ldsl_regnet": {"audio": "", "video": "regnety_064.pycls_in1k"},
    "okazaki_ldsl_hrnet": {"audio": "", "video": "hrnet_w48.ms_in1k"},
    # The challenge's analysis, Wang et al., DCASE Workshop 2021, Table 1: early fusion
    "yang_thu": {"fusion": "concat", "decision": (0.0, 0.0, 1.0)},
}


@pytest.mark.parametrize("name", STATED)
def test_systems_without_public_code_follow_their_reports(name):
    arch = architecture(name)
    assert {field: getattr(arch, field) for field in STATED[name]} == STATED[name]


def test_zhang_hears_average_and_difference():
    """Wang, Chen et al., DCASE 2021; ours halves the difference, so that no plane is louder than the recording."""
    left, right = torch.tensor([0.5, -0.25]), torch.tensor([0.25, 0.75])
    mixed = mix(torch.stack([left, right])[None], "mid_side")[0]
    torch.testing.assert_close(mixed, torch.stack([(left + right) / 2, (left - right) / 2]))


def test_okazaki_weighs_systems_by_their_confidence_in_each_class():
    """Okazaki et al., DCASE 2021: an ensemble weighted class-wise by confidence; the rule itself is ours."""
    sure, unsure = np.array([[0.8, 0.2], [0.4, 0.6]]), np.array([[0.5, 0.5], [0.1, 0.9]])
    rule = fit(np.stack([sure, unsure]), np.array([0, 1]), np.array(["a", "b"]), "confidence")
    np.testing.assert_allclose(rule.weights, [[0.8 / 1.3, 0.6 / 1.5], [0.5 / 1.3, 0.9 / 1.5]])


# ---- Image transformers as audio trunks


@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224", "test_efficientnet"])
def test_a_transformer_over_images_takes_planes(name):
    """Its size follows the planes of the front end, which are filled up to whole patches."""
    torch.manual_seed(0)
    arch = Architecture(audio=name, video="", bands=40, hop=960)
    with torch.device("meta"):
        assert parameter_count(SceneNet(arch)) > 0
    model = SceneNet(arch).eval()
    clip = Clip(
        torch.randn(2, 2, 48_000), torch.zeros(2, 1, 3, 0, 0), torch.tensor([0, 1]), torch.tensor([[True, False]] * 2),
        ["a", "b"], torch.zeros(2),
    )  # fmt: skip
    with torch.no_grad():
        logits = model(model.preprocess(clip))["audio"]
        assert logits.shape == (2, 10)
        assert not torch.equal(logits[0], logits[1])
    if name != "test_efficientnet":
        assert model.audio.sides == (64, 64)
        with pytest.raises(AvscError, match=r"let data\.window be no longer"), torch.no_grad():
            model(model.preprocess(clip._replace(audio=torch.randn(2, 2, 96_000))))


def test_the_flagship_is_made_of_what_it_says():
    """On the meta device: 377 M parameters; what it teaches has about four million."""
    flagship, student = (complexity(architecture(name)) for name in ("flagship", "flagship_student"))
    assert 370e6 < flagship.parameters < 400e6
    assert 3.5e6 < student.parameters < 5e6
    assert flagship.multiply_adds > 100e9
