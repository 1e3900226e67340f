"""BEATs, the dynamic MobileNets and the wavegram CNN against the published code, by numbers of it with weights that a
formula gives: deepaudio-x 0.4.7, which carries BEATs as Microsoft published it; fschmid56/EfficientAT; and
panns_AT_inference 0.1.4, which carries the models of PANNs."""

from dataclasses import replace

import pytest
import timm
import torch
from torch import nn
from torchaudio.compliance import kaldi
from trunks import filled, planes_of, recording

from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.frontend import FrontEnd
from avsc_e2e.models.nets.audionet import parameter_count
from avsc_e2e.models.nets.audioset import WavegramCnn14
from avsc_e2e.models.nets.beats import SHIFT, SPREAD, Beats
from avsc_e2e.models.nets.dymn import DynamicMobileNet
from avsc_e2e.models.weights import conversion
from avsc_e2e.models.zoo import frontends


def small_beats() -> Beats:
    return filled(Beats(1, width=32, depth=2, heads=4, patch_width=16))


def named_as_published(net: Beats) -> dict[str, torch.Tensor]:
    """The tensors of a BEATs under the names of its authors, with their weight norm."""
    given = {}
    for name, value in net.state_dict().items():
        for ours, theirs in (
            ("patch_embed.", "patch_embedding."), ("patch_norm.", "layer_norm."), ("proj.", "post_extract_proj."),
            ("pos_norm.", "encoder.layer_norm."), ("pos_conv.bias", "encoder.pos_conv.0.bias"),
        ):  # fmt: skip
            name = theirs + name.removeprefix(ours) if name.startswith(ours) else name
        name = (
            name.replace("blocks.", "encoder.layers.").replace(".attn.", ".self_attn.").replace(".out.", ".out_proj.")
        )
        name = name.replace(".norm1.", ".self_attn_layer_norm.").replace(".norm2.", ".final_layer_norm.")
        name = name.replace(".gates.", ".grep_linear.")
        if name.endswith(".gain"):
            given[name.replace(".gain", ".grep_a")] = value[None]
        elif ".qkv." in name:
            for part, values in zip("qkv", value.chunk(3), strict=True):
                given[name.replace("qkv", f"{part}_proj")] = values
        elif name == "position.weight":
            for block in range(len(net.blocks)):
                given[f"encoder.layers.{block}.self_attn.relative_attention_bias.weight"] = value
        elif name == "pos_conv.weight":
            given["encoder.pos_conv.0.weight_v"] = value
            given["encoder.pos_conv.0.weight_g"] = value.norm(dim=(0, 1), keepdim=True)
        else:
            given[name] = value
    return given


@pytest.mark.parametrize("seconds", [1.0, 3.0])
def test_front_end_of_beats(seconds):
    """unilm/beats, BEATs.py: Kaldi's fbank of 128 bands on samples of 16 bits."""
    audio = recording(16_000, seconds)
    theirs = kaldi.fbank(audio[0] * 2**15, num_mel_bins=128, sample_frequency=16_000, frame_length=25, frame_shift=10)
    ours = planes_of(frontends.BEATS, audio)
    apart = (ours[0, 0].T - SHIFT) / SPREAD - (theirs - 15.41663) / (2 * 6.55582)
    assert float(apart.abs().max()) < 1e-3


@pytest.mark.parametrize(
    ("frames", "expected"),
    [(98, (0.0985151765, -0.2750425419, 0.1867839503, -0.5409939795)),
     (998, (0.0986554474, -0.2749231239, 0.1867899684, -0.5409952945))],
)  # fmt: skip
def test_beats_is_its_authors(frames, expected):
    """Width 32, 2 layers of 4 heads, patches of 16: the mean over tokens of one second and of ten."""
    x = torch.sin(torch.arange(128 * frames, dtype=torch.float64) * 0.123).view(1, 1, 128, frames)
    with torch.no_grad():
        found = small_beats()(SPREAD * x + SHIFT)[0, :4]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-7, rtol=0)


def test_files_of_beats(tmp_path):
    net = small_beats().float()
    given = {"predictor.weight": torch.zeros(527, 32), "predictor.bias": torch.zeros(527), **named_as_published(net)}
    torch.save({"cfg": {"encoder_layers": 2}, "model": given}, tmp_path / "beats.pt")
    found = conversion.beats(tmp_path / "beats.pt", net)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)
    del given["encoder.layers.1.fc1.weight"]
    torch.save(given, tmp_path / "half.pt")
    with pytest.raises(AvscError, match=r"lacks blocks\.1\.fc1\.weight"):
        conversion.beats(tmp_path / "half.pt", net)


def tamed(net: nn.Module) -> nn.Module:
    """The formula's weights, with positive variances, and kernels that neither grow nor shrink what passes."""
    net = filled(net)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.weight.copy_(1 + module.weight)
            elif hasattr(module, "residuals"):
                module.weight.div_(0.3 * (module.shape[1] * module.shape[2] ** 2) ** 0.5)
            elif isinstance(module, (nn.Conv1d, nn.Conv2d)):
                module.weight.div_(0.3 * module.weight[0].numel() ** 0.5)
    return net


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (100, (-0.1631036251, -0.3746872987, -0.3727874493, -0.1603536488)),
        (257, (-0.163084746, -0.3746859686, -0.3727847733, -0.1603494108)),
    ],
)
def test_dymn_is_its_authors(frames, expected):
    """models/dymn of fschmid56/EfficientAT at width 0.4, with the mixtures' final temperature of 1, on two clips."""
    net = tamed(DynamicMobileNet(1, 0.4))
    x = torch.sin(torch.arange(2 * 128 * frames, dtype=torch.float64) * 0.123).view(2, 1, 128, frames)
    with torch.no_grad():
        found = net(5 * x - 4.5)[1, :4]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-8, rtol=1e-7)


@pytest.mark.parametrize(
    ("name", "width", "millions"), [("dymn04", 0.4, 1.97), ("dymn10", 1, 10.57), ("dymn20", 2, 40.02)]
)
def test_dymn_counts(name, width, millions):
    """README.md of fschmid56/EfficientAT: with the classifier of two layers for 527 classes, and running statistics."""
    with torch.device("meta"):
        net = timm.create_model(name, num_classes=0)
    last = round(1280 * width)
    classifier = net.num_features * last + last + last * 527 + 527
    assert (parameter_count(net, statistics=True) + classifier) / 1e6 == pytest.approx(millions, abs=0.006)


def wavegram_net() -> WavegramCnn14:
    """The wavegram, and CNN14 up to its second block: the others are left out, and only their pooling remains."""
    with torch.device("meta"):
        net = WavegramCnn14(1, 64)
    for index in range(3, 7):
        setattr(net, f"conv_block{index}", nn.Identity())
    net.fc1 = nn.Identity()
    net.to_empty(device="cpu")
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.reset_running_stats()
    return tamed(net).float()


def test_wavegram_is_its_authors():
    """Wavegram_Logmel_Cnn14 up to its second block, from the waveform of a second on: its mean over bands."""
    wave = 0.1 * torch.sin(torch.arange(32_000, dtype=torch.float64) ** 1.5 * 0.001)
    planes = planes_of(frontends.WAVEGRAM, wave.float()[None, None])
    assert planes.shape == (1, 1, 64 + 320, 101)
    torch.testing.assert_close(planes[0, 0, 64:, :100].T.flatten(), wave.float(), atol=0, rtol=0)
    with torch.no_grad():
        found = wavegram_net().tokens(planes)[0, 0, 7:11]
    torch.testing.assert_close(
        found, torch.tensor([0.11869757, 0.18586403, 0.2182678, 0.25065276]), atol=1e-4, rtol=1e-4
    )


def test_count_of_wavegram():
    """Kong et al., arXiv 1912.10211, Table XII: 81,065,487 with the classifier of 527 classes."""
    with torch.device("meta"):
        net = timm.create_model("wavegram_cnn14", num_classes=0)
    assert parameter_count(net) + 2048 * 527 + 527 == 81_065_487


def test_wavegram_says_what_it_takes():
    with torch.device("meta"):
        net = WavegramCnn14(1, 64)
    with pytest.raises(AvscError, match=r"64 bands and the 320 samples .* model\.waveform"):
        net(torch.zeros(1, 1, 64, 101))


@pytest.mark.parametrize("front", [frontends.BEATS, {**frontends.EFFICIENTAT, "audio": "dymn04"}])
def test_clips_of_one_second_to_ten(front):
    """One net, made once, whose parameters all learn."""
    arch = Architecture(**front, video="")
    net = Beats(1, 32, 1, 4, 16) if front is frontends.BEATS else timm.create_model("dymn04", num_classes=0)
    for seconds in (1, 10):
        planes = FrontEnd(replace(arch, window=seconds)).planes(torch.randn(2, 1, seconds * arch.sample_rate))
        embeddings = net(planes)
        assert embeddings.shape == (2, net.num_features)
    embeddings.square().sum().backward()
    assert [name for name, value in net.named_parameters() if value.grad is None] == []
