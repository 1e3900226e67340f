"""EfficientAT, PaSST and AST against other people's implementations: live where a dependency has one, pinned numbers of
hear21passt 0.0.26 and transformers 5.23.0 elsewhere (benchmarks/fidelity.py compares with them anew)."""

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn.functional import conv1d, pad
from torchaudio.compliance import kaldi
from trunks import filled, mobilenets, planes_of, recording

from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.frontend import FrontEnd
from avsc_e2e.models.nets.audionet import parameter_count
from avsc_e2e.models.nets.htsat import Htsat
from avsc_e2e.models.nets.patchtransformer import Ast, Passt
from avsc_e2e.models.trunk import Trunk
from avsc_e2e.models.weights import conversion
from avsc_e2e.models.weights.sources import sources
from avsc_e2e.models.zoo import frontends

# ---- Front ends


@pytest.mark.parametrize("seconds", [1.0, 3.0])
def test_fbank_is_kaldis(seconds):
    """YuanGongND/ast, dataloader.py: Kaldi's fbank of 128 bands, Hanning, no dither, 10 ms."""
    audio = recording(16_000, seconds)
    given = audio[0] - audio.mean()
    theirs = kaldi.fbank(
        given, htk_compat=True, sample_frequency=16_000, use_energy=False, window_type="hanning", num_mel_bins=128,
        dither=0.0, frame_shift=10,
    )  # fmt: skip
    ours = planes_of(frontends.AST, audio)
    assert ours.shape == (1, 1, 128, 98 if seconds == 1 else 298)
    torch.testing.assert_close(ours[0, 0].T, theirs, atol=1e-3, rtol=0)


def test_passt_and_efficientat_hear_the_same():
    """kkoutini/PaSST, preprocess.py: pre-emphasis over the clip, 25 ms every 10 ms, Kaldi's bank, log of x + 1e-5."""
    audio = recording(32_000, 1.0)
    emphasised = conv1d(audio, torch.tensor([[[-0.97, 1.0]]]))[:, 0]
    spectrum = torch.stft(
        emphasised, 1024, 320, 800, torch.hann_window(800, periodic=False), center=True, return_complex=True
    )
    bank, _ = kaldi.get_mel_banks(128, 1024, 32_000, 0.0, 15_000.0, 100.0, -500.0, 1.0)
    theirs = (pad(bank, (0, 1)) @ spectrum.abs().square() + 1e-5).log()
    ours = planes_of(frontends.PASST, audio)
    torch.testing.assert_close(ours[:, 0], theirs, atol=1e-3, rtol=0)
    assert {**frontends.EFFICIENTAT, "audio": "passt_s"} == frontends.PASST


# ---- EfficientAT


def test_efficientat_is_torchvisions_mobilenet():
    """fschmid56/EfficientAT, models/mn: MobileNetV3-Large with another excitation, one input channel."""
    torch.manual_seed(0)
    ours, theirs = mobilenets()
    x = torch.randn(1, 1, 128, 100)
    with torch.no_grad():
        expected = theirs(x).mean((2, 3))
        torch.testing.assert_close(ours(5 * x - 4.5), expected, atol=1e-5 * float(expected.std()), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "width", "millions"),
    [("mn04", 0.4, 0.983), ("mn05", 0.5, 1.43), ("mn10", 1, 4.88), ("mn20", 2, 17.91), ("mn30", 3, 39.09),
     ("mn40", 4, 68.43)],
)  # fmt: skip
def test_efficientat_counts(name, width, millions):
    """README.md of fschmid56/EfficientAT: with the classifier of two layers for 527 classes."""
    with torch.device("meta"):
        net = timm.create_model(name, num_classes=0)
    last = round(1280 * width)
    classifier = net.num_features * last + last + last * 527 + 527
    assert (parameter_count(net) + classifier) / 1e6 == pytest.approx(millions, abs=0.006)


# ---- Transformers


def waves(frames: int) -> torch.Tensor:
    return torch.sin(torch.arange(128 * frames, dtype=torch.float64) * 0.123).view(1, 1, 128, frames)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [(100, (-0.1013897776, -0.0871178777, -0.1986757864, 0.3400842039)),
     (998, (-0.1107154532, -0.0947683199, -0.1804443492, 0.3428252552))],
)  # fmt: skip
def test_passt_is_its_authors(frames, expected):
    """hear21passt.models.passt.PaSST(stride=10, distilled=True, embed_dim=32, depth=2, num_heads=4)."""
    net = filled(Passt(1, width=32, depth=2, heads=4))
    with torch.no_grad():
        found = net(5 * waves(frames) - 4.5)[0, :4]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-8, rtol=0)


def test_ast_is_that_of_transformers():
    """ASTModel of hidden_size 32, 2 layers of 4 heads, intermediate_size 128 and timm's epsilon, on 1024 frames."""
    net = filled(Ast(1, width=32, depth=2, heads=4))
    with torch.no_grad():
        found = net(9.1379948 * waves(1024) - 4.2677393)[0, :4]
    expected = (0.4632135918, 0.3202990637, 0.3195842373, 0.2638779335)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [(500, (0.0033634423, 0.5204287317, 0.1352536104, 0.4656425748)),
     (100, (0.0033622774, 0.5204301140, 0.1352522015, 0.4656431760))],
)  # fmt: skip
def test_htsat_is_that_of_transformers(frames, expected):
    """ClapAudioEncoder of width 8, depths 2, 1, 1, 1, heads 1, 1, 2, 2, windows of 4, 128 pixels of 32 bands; its ten
    seconds are 500 frames, and a fifth of them is repeated five times."""
    net = filled(Htsat(1, bands=32, width=8, depths=(2, 1, 1, 1), heads=(1, 1, 2, 2), window=4))
    x = torch.sin(torch.arange(32 * frames, dtype=torch.float64) * 0.123).view(1, 1, 32, frames)
    with torch.no_grad():
        found = net(x)[0, :4]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-8, rtol=0)
    with torch.no_grad():
        assert net.tokens(x).shape == (1, 16, 64)


def test_htsat_has_the_heads_of_clap():
    """hidden_size 768, num_attention_heads (4, 8, 16, 32) of laion/clap-htsat-unfused."""
    trunk = Trunk("htsat_tiny", 1, bands=64)
    stages = [{block.attn.num_heads for block in stage.blocks} for stage in trunk.net.swin.layers]
    assert stages == [{4}, {8}, {16}, {32}]
    assert trunk.width == trunk.token_width == trunk.net.swin.num_features == 768


SWIN = {
    ".attn.proj.": ".attention.output.dense.", ".attn.relative": ".attention.self.relative", "bn0.": "batch_norm.",
    ".norm1.": ".layernorm_before.", ".norm2.": ".layernorm_after.", ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
}  # fmt: skip


@pytest.mark.parametrize("hub", [True, False])
def test_files_of_clap(tmp_path, hub):
    """Names of laion/clap-htsat-unfused and of LAION's own checkpoints."""
    net = filled(Htsat(1, bands=32, width=8, depths=(2, 1, 1, 1), heads=(1, 1, 2, 2), window=4)).float()
    given = {}
    for name, value in net.state_dict().items():
        parts = name.removeprefix("swin.").split(".")
        if "downsample" in parts:
            parts[1] = str(int(parts[1]) - 1)
        name = ".".join(parts)
        if not hub:
            given[f"module.audio_branch.{name}"] = value
            continue
        if ".attn.qkv." in name:
            for part, values in zip(("query", "key", "value"), value.chunk(3), strict=True):
                given[name.replace("attn.qkv", f"attention.self.{part}")] = values
            continue
        for ours, theirs in SWIN.items():
            name = name.replace(ours, theirs)
        given[name] = value
    if hub:
        given = {f"audio_model.audio_encoder.{name}": value for name, value in given.items()}
        others = {"text_model.embeddings.weight": torch.zeros(2), "logit_scale_a": torch.zeros(1)}
    else:
        others = {"module.audio_branch.head.weight": torch.zeros(2, 2), "module.logit_scale_a": torch.zeros(1)}
    given = others | given  # in any order
    torch.save(given, tmp_path / "clap.bin")
    found = conversion.htsat(tmp_path / "clap.bin", net)
    assert all(torch.equal(found[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("kind", [Passt, Ast])
@pytest.mark.parametrize("frames", [98, 500, 1024, 1500])
def test_positions_for_clips_of_any_length(kind, frames):
    """Cut for shorter clips, interpolated for longer ones; equal patches at other times differ by their position."""
    torch.manual_seed(0)
    net = kind(1, width=32, depth=1, heads=4).eval()
    with torch.no_grad():
        tokens = net.tokens(torch.zeros(1, 1, 128, frames))
    steps = (frames - 16) // 10 + 1
    assert tokens.shape == (1, 2 + steps, 32)
    assert not torch.allclose(tokens[:, 2], tokens[:, -1])


def test_ast_takes_the_middle_positions_of_a_short_clip():
    """ast_models.py: from 50 less half of the clip's patches on."""
    net = Ast(1, width=8, depth=1, heads=2)
    with torch.no_grad():
        net.pos_embed[:, 2:] = torch.arange(12 * 101).remainder(101)[None, :, None].float()
        placed, _ = net.placed(torch.zeros(1, 8, 12, 9))
    assert placed[0, 0, 0].tolist() == [46.0 + step for step in range(9)]


@pytest.mark.parametrize("name", ["mn04", "passt_s", "ast_base", "cnn14_16k", "htsat_tiny"])
def test_trunks_have_sources(name):
    assert sources(name)[0].name in ("efficientat", "passt", "ast", "panns", "clap")


def test_files_of_ast_from_the_hub_and_from_its_authors(tmp_path):
    """Names of MIT/ast-finetuned-audioset-10-10-0.4593 and of the authors' .pth."""
    net = filled(Ast(1, width=8, depth=1, heads=2)).float()
    own = {name: value.clone().contiguous() for name, value in net.state_dict().items()}
    hub, block = {}, "encoder.layer.0."
    names = {
        "cls_token": "embeddings.cls_token", "dist_token": "embeddings.distillation_token",
        "pos_embed": "embeddings.position_embeddings", "norm.": "layernorm.",
        "patch_embed.proj.": "embeddings.patch_embeddings.projection.", "blocks.0.norm1.": f"{block}layernorm_before.",
        "blocks.0.norm2.": f"{block}layernorm_after.", "blocks.0.attn.proj.": f"{block}attention.output.dense.",
        "blocks.0.mlp.fc1.": f"{block}intermediate.dense.", "blocks.0.mlp.fc2.": f"{block}output.dense.",
    }  # fmt: skip
    for name, value in own.items():
        if "qkv" in name:
            kind = name.rpartition(".")[2]
            for part, values in zip(("query", "key", "value"), value.chunk(3), strict=True):
                hub[f"{block}attention.attention.{part}.{kind}"] = values.clone()
        else:
            ours = next(one for one in names if name.startswith(one))
            hub[name.replace(ours, names[ours])] = value
    hub = {f"audio_spectrogram_transformer.{name}": value for name, value in hub.items()}
    hub = {"classifier.layernorm.weight": torch.ones(8), "classifier.dense.weight": torch.zeros(3, 8)} | hub
    save_file(hub, tmp_path / "hub.safetensors")
    torch.save(hub, tmp_path / "hub.bin")  # its tensors are in this order, not in that of their names
    authors = {"module.mlp_head.1.weight": torch.zeros(527, 8), "module.v.head.weight": torch.zeros(1000, 8)}
    authors |= {f"module.v.{name}": value for name, value in own.items()}
    torch.save(authors, tmp_path / "authors.pth")
    for file in ("hub.safetensors", "hub.bin", "authors.pth"):
        found = conversion.ast(tmp_path / file, net)
        assert found.keys() == own.keys()
        assert all(torch.equal(found[name], own[name]) for name in own)


def test_a_mobilenet_hears_one_second_and_four():
    """The trunk is made once; clips of any length go through it."""
    trunk = Trunk("mn04", 1, bands=128).eval()
    arch = Architecture(**frontends.EFFICIENTAT, video="")
    with torch.no_grad():
        for seconds in (1, 4):
            front = FrontEnd(replace(arch, window=seconds))
            assert trunk(front.planes(torch.randn(1, 1, seconds * 32_000))).shape == (1, trunk.width)
