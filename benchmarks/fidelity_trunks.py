"""The rows of audio trunks of benchmarks/fidelity.py: each against an implementation in a package."""

import contextlib
import importlib
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import soundfile
import timm
import torch
import torchaudio
from torch import Tensor

from avsc_e2e.models import trunk  # noqa: F401, registers our nets with timm
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.frontend import FrontEnd
from avsc_e2e.models.nets.audionet import parameter_count
from avsc_e2e.models.nets.beats import SHIFT, SPREAD
from avsc_e2e.models.weights import conversion
from avsc_e2e.models.zoo import frontends

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from trunks import mobilenets

LATER = "tests/models/nets/test_later_trunks.py"


class Row(NamedTuple):
    """One system or trunk."""

    name: str
    published: int
    """Parameters as its authors count, or its package does; 0: none published."""
    ours: int
    forward: str
    """Largest difference of a forward pass with shared random weights; "<" is the bound of `test`."""
    front_end: str
    """Largest difference of the planes of real recordings, in the net's own units."""
    remaining: str
    """What is known to differ."""
    test: str = ""
    """That holds `forward`, where no package has the net to measure it with."""


def recordings(folder: Path, rate: int, seconds: float) -> Tensor:
    """The beginnings of real recordings (files, 1, N), the mean of both channels."""
    found = []
    for path in sorted(folder.glob("*.wav")):
        sound, given = soundfile.read(path, dtype="float32", always_2d=True)
        mono = torch.from_numpy(sound).mean(dim=1)
        found.append(torchaudio.functional.resample(mono, given, rate)[: int(rate * seconds)])
    shortest = min(map(len, found))
    return torch.stack([one[:shortest] for one in found])[:, None]


def planes(front: dict, audio: Tensor) -> Tensor:
    return FrontEnd(Architecture(**front, video="")).planes(audio)


def rounding(front: dict, audio: Path) -> str:
    """The largest difference of the planes in float32 from those in float64, in dB."""
    arch = Architecture(**front, video="")
    sound = recordings(audio, arch.sample_rate, 10.0)
    apart = planes(front, sound).double() - FrontEnd(arch).double().planes(sound.double())
    return f"the front end's float32 alone rounds by {float(apart.abs().max()):.1e} dB"


def difference(one: Tensor, other: Tensor) -> str:
    return f"{float((one - other).abs().max()):.1e}"


def tried(compare: Callable[[], str]) -> str:
    """The difference, or which package is absent."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            return compare()
    except ImportError as error:
        return f"no {error.name}"


def passt_front(audio: Path) -> str:
    made = importlib.import_module("hear21passt.models.preprocess").AugmentMelSTFT
    theirs = made(n_mels=128, sr=32_000, win_length=800, hopsize=320, n_fft=1024, fmax_aug_range=2000).eval()
    sound = recordings(audio, 32_000, 10.0)
    return difference((planes(frontends.PASST, sound)[:, 0] + 4.5) / 5, theirs(sound[:, 0]))


def passt_forward() -> str:
    theirs = importlib.import_module("hear21passt.models.passt").PaSST(stride=10, distilled=True).eval()
    ours = timm.create_model("passt_s", num_classes=0).eval()
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("head")})
    worst = []
    for frames in (100, 500, 998):  # one second to ten
        x = torch.randn(1, 1, 128, frames)
        worst.append(float((theirs(x)[1] - ours(5 * x - 4.5)).abs().max()))
    return f"{max(worst):.1e}"


def ast_front(audio: Path) -> str:
    sound = recordings(audio, 16_000, 10.0)
    theirs = [
        torchaudio.compliance.kaldi.fbank(
            one - one.mean(), htk_compat=True, sample_frequency=16_000, use_energy=False, window_type="hanning",
            num_mel_bins=128, dither=0.0, frame_shift=10,
        )
        for one in sound
    ]  # fmt: skip
    return difference((planes(frontends.AST, sound)[:, 0] + 4.2677393) / 9.1379948,
                      (torch.stack(theirs).transpose(1, 2) + 4.2677393) / 9.1379948)  # fmt: skip


def ast_forward() -> str:
    package = importlib.import_module("transformers")
    theirs = package.ASTModel(package.ASTConfig(layer_norm_eps=1e-6)).eval()  # the authors' net has timm's epsilon
    ours = timm.create_model("ast_base", num_classes=0).eval()
    names = (
        ("layers.", "blocks."), (".attention.o_proj.", ".attn.proj."),
        ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
        ("embeddings.distillation_token", "dist_token"), ("embeddings.position_embeddings", "pos_embed"),
        ("embeddings.cls_token", "cls_token"), (".layernorm_before.", ".norm1."), (".layernorm_after.", ".norm2."),
        ("layernorm.", "norm."),
    )  # fmt: skip
    tensors = {}
    for name, value in theirs.state_dict().items():
        for their, our in names:
            name = name.replace(their, our)
        tensors[name] = value.normal_(0, 0.05) if "token" in name or "pos_embed" in name else value
    for block in range(12):
        for kind in ("weight", "bias"):
            parts = [tensors.pop(f"blocks.{block}.attention.{part}_proj.{kind}") for part in "qkv"]
            tensors[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat(parts)
    ours.load_state_dict(tensors)
    x = torch.randn(1, 1024, 128)
    return difference(theirs(x).pooler_output, ours((9.1379948 * x - 4.2677393).transpose(1, 2)[:, None]))


def clap_front(audio: Path) -> str:
    made = importlib.import_module("transformers").ClapFeatureExtractor(frequency_min=50)  # as LAION trained
    sound = recordings(audio, 48_000, 10.0)
    theirs = made([one[0].numpy() for one in sound], sampling_rate=48_000, return_tensors="pt", truncation="rand_trunc")
    ours = planes(frontends.CLAP, sound)[:, 0]
    return difference(ours[..., :999], theirs["input_features"][:, 0].transpose(1, 2)[..., :999])


def clap_forward() -> str:
    package = importlib.import_module("transformers.models.clap.modeling_clap")
    theirs = package.ClapAudioEncoder(package.ClapAudioConfig(enable_fusion=False)).eval()
    ours = timm.create_model("htsat_tiny", num_classes=0).eval()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clap.bin"
        torch.save({f"audio_model.audio_encoder.{name}": value for name, value in theirs.state_dict().items()}, file)
        ours.load_state_dict(conversion.htsat(file, ours))
    x = torch.randn(1, 1, 64, 1001)
    return difference(theirs(x.transpose(2, 3)).pooler_output, ours(x))


def efficientat_forward() -> str:
    ours, theirs = mobilenets()
    x = torch.randn(1, 1, 128, 100)
    expected = theirs(x).mean((2, 3))
    return difference(expected / expected.std(), ours(5 * x - 4.5) / expected.std())


def beats_modules() -> ModuleType:
    return importlib.import_module("deepaudiox.modules.backbones.beats.beats_modules.BEATs")


def beats_forward() -> str:
    package = beats_modules()
    theirs = package.BEATs(package.BEATsConfig({"input_patch_size": 16, "embed_dim": 512})).eval()
    for name, values in theirs.named_parameters():
        if "grep" in name or "relative" in name:
            values.normal_(0, 0.5)
    ours = timm.create_model("beats", num_classes=0).eval()
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"model": theirs.state_dict()}, Path(folder) / "beats.pt")
        ours.load_state_dict(conversion.beats(Path(folder) / "beats.pt", ours))
    worst = []
    for frames in (98, 998):  # one second and ten
        x = torch.randn(1, 1, frames, 128)
        worst.append(float((theirs(x).mean(dim=1) - ours(SPREAD * x.transpose(2, 3) + SHIFT)).abs().max()))
    return f"{max(worst):.1e}"


def beats_front(audio: Path) -> str:
    theirs = beats_modules().BEATs(beats_modules().BEATsConfig({"input_patch_size": 16, "encoder_layers": 1}))
    sound = recordings(audio, 16_000, 10.0)
    ours = (planes(frontends.BEATS, sound)[:, 0] - SHIFT) / SPREAD
    return difference(ours.transpose(1, 2), theirs.extract_features(sound[:, 0])[:, 0])


def pann_front(front: dict, audio: Path) -> str:
    librosa = importlib.import_module("librosa")
    arch = Architecture(**front, video="")
    sound = recordings(audio, arch.sample_rate, 10.0)
    mel = [
        librosa.feature.melspectrogram(
            y=one[0].numpy(), sr=arch.sample_rate, n_fft=arch.fft, hop_length=arch.hop, n_mels=64, fmin=arch.low,
            fmax=arch.high, pad_mode="reflect",
        )
        for one in sound
    ]  # fmt: skip
    theirs = torch.stack([torch.from_numpy(librosa.power_to_db(one, ref=1.0, amin=1e-10, top_db=None)) for one in mel])
    return difference(planes(front, sound)[:, 0], theirs)


def trunks(audio: Path) -> list[Row]:
    def count(name: str) -> int:
        return parameter_count(timm.create_model(name, num_classes=0))

    mn10, dymn10 = (
        parameter_count(timm.create_model(name, num_classes=0), name == "dymn10") + 961 * 1280 + 1281 * 527
        for name in ("mn10", "dymn10")
    )
    cnn14, wavegram = (count(name) + 2049 * 527 for name in ("cnn14", "wavegram_cnn14"))
    return [
        Row("mn10 (EfficientAT)", 4_880_000, mn10, tried(efficientat_forward), tried(lambda: passt_front(audio)),
            "classifier left out, counted here; front end equals PaSST's"),
        Row("passt_s", 85_341_696, count("passt_s"), tried(passt_forward), tried(lambda: passt_front(audio)),
            "no patchout in training; longer clips interpolate positions"),
        Row("ast_base", 0, count("ast_base"), tried(ast_forward),
            tried(lambda: ast_front(audio)), "short clips are not padded to 10.24 s but take the middle positions"),
        Row("htsat_tiny (CLAP)", 0, count("htsat_tiny"), tried(clap_forward), tried(lambda: clap_front(audio)),
            f"short clips are repeated as planes, not as waveforms; {rounding(frontends.CLAP, audio)}"),
        Row("beats", 0, count("beats"), tried(beats_forward), tried(lambda: beats_front(audio)),
            "no dropout in training"),
        Row("dymn10 (EfficientAT)", 10_570_000, dymn10, "< 1e-7", "as mn10",
            "classifier left out, counted here with running statistics", f"{LATER}::test_dymn_is_its_authors"),
        # Both counts are of Table XII of the PANNs paper, arXiv 1912.10211.
        Row("wavegram_cnn14", 81_065_487, wavegram, "< 1e-4", "as cnn14", "classifier left out, counted here",
            f"{LATER}::test_wavegram_is_its_authors"),
        Row("cnn14", 80_753_615, cnn14, "as wavegram", tried(lambda: pann_front(frontends.PANN, audio)),
            "classifier left out, counted here"),
        Row("cnn14_16k", 0, count("cnn14_16k"), "as cnn14", tried(lambda: pann_front(frontends.PANN_16K, audio)),
            rounding(frontends.PANN_16K, audio)),
    ]  # fmt: skip
