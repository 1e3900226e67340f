"""How true the published systems and trunks are to their sources: parameters, forward passes, front ends, differences.

    python benchmarks/fidelity.py [--audio FOLDER] [--packages FOLDER]

A forward pass is compared on shared random weights, and a front end on real recordings, with an implementation in a
package: hear21passt (PaSST, and the front end of EfficientAT, which is the same), transformers (AST), torchaudio's
Kaldi (AST's front end), torchvision (EfficientAT: its MobileNetV3 with another excitation), librosa, scipy. The first
two are no dependency: `pip install --no-deps --target FOLDER hear21passt transformers tokenizers`, then --packages
FOLDER. What is absent is said. "<" is a bound that a test holds against the authors' equations.
"""

import argparse
import contextlib
import importlib
import io
import math
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import soundfile
import timm
import torch
import torchaudio
from torch import Tensor, nn
from torch.nn.functional import conv2d

from avsc_e2e.models import trunk
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.filterbanks import erb_centres
from avsc_e2e.models.frontend import FrontEnd
from avsc_e2e.models.nets.audionet import parameter_count
from avsc_e2e.models.nets.efficientat import STEPS
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights import conversion
from avsc_e2e.models.weights.sources import sources
from avsc_e2e.models.zoo import frontends
from avsc_e2e.models.zoo.catalogue import architecture
from avsc_e2e.models.zoo.complexity import complexity
from avsc_e2e.models.zoo.published import TRUNKS, short_count

AUDIO = Path(__file__).parents[2] / "shared" / "data" / "real_audio"


class Row(NamedTuple):
    """One system or trunk."""

    name: str
    published: int
    """Parameters as its authors count, or its package does; 0: none published."""
    ours: int
    forward: str
    """Largest difference of a forward pass with shared random weights."""
    front_end: str
    """Largest difference of the planes of real recordings, in the net's own units."""
    remaining: str
    """What is known to differ."""


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


def difference(one: Tensor, other: Tensor) -> str:
    return f"{float((one - other).abs().max()):.1e}"


def tried(compare: Callable[[], str]) -> str:
    """The difference, or which package is absent."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            return compare()
    except ImportError as error:
        return f"no {error.name}"


# ---- Trunks


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


class _Sigmoid(nn.Module):
    """torchvision's excitation with our layers' weights and the sigmoid of EfficientAT."""

    def __init__(self, given: nn.Module):
        super().__init__()
        self.given = given

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.given.conc_se_layers[0].children()
        squeezed = conv2d(x.mean((2, 3), keepdim=True), first.weight[..., None, None], first.bias).relu()
        return x * conv2d(squeezed, second.weight[..., None, None], second.bias).sigmoid()


def efficientat_forward() -> str:
    package = importlib.import_module("torchvision.models.mobilenetv3")
    theirs = package.mobilenet_v3_large().features.eval()
    ours = timm.create_model("mn10", num_classes=0).eval()
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    theirs[0][0] = nn.Conv2d(1, 16, 3, 2, 1, bias=False)
    for index, step in enumerate(STEPS, start=1):
        if step.excites:
            place = next(i for i, part in enumerate(theirs[index].block) if "SqueezeExcitation" in type(part).__name__)
            theirs[index].block[place] = _Sigmoid(ours.features[index].block[place])
    mine = dict(ours.features.named_parameters()) | dict(ours.features.named_buffers())
    theirs.load_state_dict({name: mine[name.replace(".given.", ".")] for name in theirs.state_dict()})
    x = torch.randn(1, 1, 128, 100)
    expected = theirs(x).mean((2, 3))
    return difference(expected / expected.std(), ours(5 * x - 4.5) / expected.std())


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


def mcdonnell_front(audio: Path) -> str:
    librosa = importlib.import_module("librosa")
    sound = recordings(audio, 48_000, 10.0)[:, :, :479_000].expand(-1, 2, -1)
    ours = planes(frontends.MCDONNELL, sound)[:, 0]
    theirs = []
    for one in sound:
        mel = librosa.feature.melspectrogram(
            y=one[0].numpy(), sr=48_000, n_fft=2048, hop_length=1024, n_mels=128, fmin=0.0, fmax=24_000, htk=True,
            norm=None, pad_mode="reflect",
        )  # fmt: skip
        theirs.append(torch.from_numpy(mel).add(1e-8).log()[:, 4:-4])
    return difference(ours, torch.stack(theirs))


def gammatone_front(audio: Path) -> str:
    """In time: each band shifted to 0 Hz through four poles of its width (a gammatone of order 4), then the mean power
    of 40 ms. The median difference in dB, without the band at 0 Hz, the ends and a constant."""
    signal = importlib.import_module("scipy.signal")
    sound = recordings(audio, 44_100, 2.0)[:2]
    arch = Architecture(**frontends.NARANJO, video="")
    ours = planes(frontends.NARANJO | {"rescale": False}, sound.expand(-1, 2, -1))[:, 0, 1:]
    time = torch.arange(sound.shape[-1], dtype=torch.float64) / 44_100
    theirs = []
    for one in sound[:, 0].double():
        bands = []
        for centre in erb_centres(64, arch.low, arch.high)[1:].tolist():
            pole = math.exp(-2 * math.pi * 1.019 * 24.7 * (1 + 4.37e-3 * centre) / 44_100)
            low = (one * torch.exp(-2j * math.pi * centre * time)).numpy()
            for _ in range(4):
                low = signal.lfilter([1 - pole], [1, -pole], low)
            power = torch.nn.functional.pad(torch.from_numpy(abs(low) ** 2), (441, 441)).unfold(0, 1764, 882).mean(-1)
            bands.append(10 * power.clamp(min=1e-20).log10())
        theirs.append(torch.stack(bands))
    other = torch.stack(theirs).float()
    count = min(ours.shape[-1], other.shape[-1])
    apart = (ours[..., :count] - other[..., :count])[..., 2:-2]
    return f"{float((apart - apart.median()).abs().median()):.2f} dB median"


def trunks(audio: Path) -> list[Row]:
    def count(name: str) -> int:
        return parameter_count(timm.create_model(name, num_classes=0))

    mn10 = count("mn10") + 960 * 1280 + 1280 + 1280 * 527 + 527
    cnn14 = count("cnn14") + 2048 * 527 + 527
    return [
        Row("mn10 (EfficientAT)", 4_880_000, mn10, tried(efficientat_forward), tried(lambda: passt_front(audio)),
            "classifier left out, counted here; front end equals PaSST's"),
        Row("passt_s", 85_341_696, count("passt_s"), tried(passt_forward), tried(lambda: passt_front(audio)),
            "no patchout in training; longer clips interpolate positions"),
        Row("ast_base", 0, count("ast_base"), tried(ast_forward),
            tried(lambda: ast_front(audio)), "short clips are not padded to 10.24 s but take the middle positions"),
        Row("htsat_tiny (CLAP)", 0, count("htsat_tiny"), tried(clap_forward), tried(lambda: clap_front(audio)),
            "short clips are repeated as planes, not as waveforms"),
        Row("cnn14", 80_753_615, cnn14, "", tried(lambda: pann_front(frontends.PANN, audio)),
            "classifier left out, counted here"),
        Row("cnn14_16k", 0, count("cnn14_16k"), "as cnn14", tried(lambda: pann_front(frontends.PANN_16K, audio)), ""),
    ]  # fmt: skip


# ---- Systems


def systems(audio: Path) -> list[Row]:
    def model(name: str) -> SceneNet:
        with torch.device("meta"):
            return SceneNet(architecture(name))

    naranjo, hou, mcdonnell = model("naranjo_uv"), model("hou_ugent"), model("mcdonnell_usa")
    joint = model("openl3_joint")
    return [
        Row("openl3_joint", 711_454, parameter_count(joint.heads), "< 2e-4", "< 0.02 dB",
            "windows drawn afresh; biases and norms do not decay"),
        Row("mcdonnell_usa", 3_254_468, parameter_count(mcdonnell, True), "< 1e-9",
            tried(lambda: mcdonnell_front(audio)), "crops of the waveform, not of its spectrogram"),
        Row("hou_ugent", 28_329_010, parameter_count(hou) - parameter_count(hou.audio) + 2_049_000, "< 1e-4",
            "as openl3", "one flip for all frames; unused classifier counted; length of training"),
        Row("naranjo_uv_audio", 323_274, parameter_count(model("naranjo_uv_audio"), True), "",
            tried(lambda: gammatone_front(audio)), "gammatones from a spectrum; crops of all the recording"),
        Row("naranjo_uv", 15_416_148, parameter_count(naranjo, True), "< 1e-5", "as its audio",
            "validation part; L2 penalty of video"),
    ]  # fmt: skip


FRONTS = {
    "passt_s": frontends.PASST, "ast_base": frontends.AST, "cnn14": frontends.PANN, "cnn14_16k": frontends.PANN_16K,
    "htsat_tiny": frontends.CLAP,
    "yamnet": frontends.YAMNET, "vggish": frontends.VGGISH, "l3_audio": frontends.OPENL3_MEL256,
    "aisfx": frontends.AISFX,
}  # fmt: skip
"""Of audio trunks other than EfficientAT's."""


def table_of_trunks() -> Iterator[str]:
    """The table of recipes/README.md: audio trunks on a second, video trunks on a frame, or on 16 if over several."""
    yield "| trunk | parameters | multiply-adds | published figure | weights | licence |"
    yield "|---|---|---|---|---|---|"
    for name, figure in TRUNKS.items():
        front = FRONTS.get(name, {**frontends.EFFICIENTAT, "audio": name} if name.startswith("mn") else None)
        if front:
            cost = complexity(Architecture(**front, video=""))
            head = 10 * (timm.create_model(name, num_classes=0).num_features + 1)
        else:
            cost = complexity(Architecture(audio="", video=name, frames=16 if name.startswith("tv_") else 1))
            with torch.device("meta"):
                head = 10 * (trunk.Trunk(name, 3).width + 1)
        known = sources(name)
        named = ", ".join(f"`{one.name}` ({one.data})" for one in known)
        licence = ", ".join(dict.fromkeys(one.licence for one in known))
        count = short_count(cost.parameters - head), short_count(cost.multiply_adds)
        yield f"| `{name}` | {count[0]} | {count[1]} | {figure or '-'} | {named} | {licence} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--audio", type=Path, default=AUDIO, help="folder of real recordings, .wav")
    parser.add_argument("--packages", type=Path, help="folder with hear21passt and transformers")
    parser.add_argument("--trunks", action="store_true", help="print the table of trunks of recipes/README.md instead")
    options = parser.parse_args()
    if options.trunks:
        print("\n".join(table_of_trunks()))
        return 0
    if options.packages:
        sys.path.append(str(options.packages))
    if not any(options.audio.glob("*.wav")):
        print(f"{options.audio}: no recordings there; name a folder with --audio")
        return 2
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    print(f"{'':<20}{'parameters':^26}  {'largest difference of':^30}")
    print(f"{'':<20}{'published':>12}{'ours':>14}  {'forward pass':<14}{'front end':<16}remaining differences")
    for row in (*systems(options.audio), *trunks(options.audio)):
        published = f"{row.published:,}" if row.published else "-"
        print(f"{row.name:<20}{published:>12}{row.ours:>14,}  {row.forward:<14}{row.front_end:<16}{row.remaining}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
