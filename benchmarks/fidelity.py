"""How true the published systems and trunks are to their sources: parameters, forward passes, front ends, differences.

    python benchmarks/fidelity.py [--audio FOLDER] [--packages FOLDER]

A forward pass is compared on shared random weights, and a front end on real recordings, with an implementation in a
package: hear21passt (PaSST, and the front end of EfficientAT, which is the same), transformers (AST, CLAP), deepaudio-x
(BEATs), torchaudio's Kaldi (AST's front end), torchvision (EfficientAT: its MobileNetV3 with another excitation),
librosa, scipy. The first three are no dependency: `pip install --no-deps --target FOLDER hear21passt transformers
tokenizers deepaudio-x`, then --packages FOLDER. What is absent is said. "<" is a bound that a test holds against the
authors' equations or numbers of their code; the tests are named below the table.
"""

import argparse
import importlib
import math
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import timm
import torch

from avsc_e2e.models import trunk
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.filterbanks import erb_centres
from avsc_e2e.models.nets.audionet import parameter_count
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.sources import sources
from avsc_e2e.models.zoo import frontends
from avsc_e2e.models.zoo.catalogue import architecture
from avsc_e2e.models.zoo.complexity import complexity
from avsc_e2e.models.zoo.published import TRUNKS, short_count

from fidelity_trunks import Row, difference, planes, recordings, rounding, tried, trunks  # isort: skip

AUDIO = Path(__file__).parents[2] / "shared" / "data" / "real_audio"


# ---- Systems


FAITHFUL = "tests/models/test_faithful.py"


def openl3_front(audio: Path) -> str:
    """dB, but for bands that no bin of the spectrum meets, where both have nothing."""
    librosa = importlib.import_module("librosa")
    arch = Architecture(**frontends.OPENL3_MEL256, video="")
    sound = recordings(audio, 48_000, 1.0)
    mel = librosa.filters.mel(
        sr=48_000, n_fft=arch.fft, n_mels=arch.bands, fmin=0, fmax=24_000, htk=True, norm="slaney"
    )
    window = torch.hann_window(arch.fft, dtype=torch.float64)
    frames = torch.nn.functional.pad(sound[:, 0].double(), (arch.pad, arch.pad)).unfold(-1, arch.fft, arch.hop) * window
    energies = torch.from_numpy(mel).double() @ torch.fft.rfft(frames).abs().square().transpose(1, 2)
    decibel = 10 * energies.sqrt().clamp(min=1e-10).log10()
    theirs = (decibel - decibel.amax(dim=(1, 2), keepdim=True)).clamp(min=-80)
    return difference(planes(frontends.OPENL3_MEL256, sound)[:, 0], theirs.float()) + " dB"


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


def systems(audio: Path) -> list[Row]:
    def model(name: str) -> SceneNet:
        with torch.device("meta"):
            return SceneNet(architecture(name))

    naranjo, hou, mcdonnell = model("naranjo_uv"), model("hou_ugent"), model("mcdonnell_usa")
    joint = model("openl3_joint")
    return [
        Row("openl3_joint", 711_454, parameter_count(joint.heads), "< 2e-4", tried(lambda: openl3_front(audio)),
            f"windows drawn afresh; biases and norms do not decay; {rounding(frontends.OPENL3_MEL256, audio)}",
            "tests/models/weights/test_weights.py::test_openl3_equals_keras"),
        Row("mcdonnell_usa", 3_254_468, parameter_count(mcdonnell, True), "< 1e-9",
            tried(lambda: mcdonnell_front(audio)), "crops of the waveform, not of its spectrogram",
            f"{FAITHFUL}::test_mcdonnell_as_its_code"),
        Row("du_ustc_fcnn", 0, parameter_count(model("du_ustc_fcnn"), True), "< 1e-9", "as mcdonnell",
            "linear head on means, not attention over classes; stereo", f"{FAITHFUL}::test_du_fcnn_as_its_code"),
        Row("hou_ugent", 28_329_010, parameter_count(hou) - parameter_count(hou.audio) + 2_049_000, "< 1e-4",
            "as openl3", "one flip for all frames; unused classifier counted; length of training",
            f"{FAITHFUL}::test_hou_as_its_code"),
        Row("naranjo_uv_audio", 323_274, parameter_count(model("naranjo_uv_audio"), True), "< 1e-9",
            tried(lambda: gammatone_front(audio)), "gammatones from a spectrum; crops of all the recording",
            f"{FAITHFUL}::test_naranjo_audio_as_its_code"),
        Row("naranjo_uv", 15_416_148, parameter_count(naranjo, True), "< 1e-5", "as its audio",
            "validation set; L2 penalty of video",
            f"{FAITHFUL}::test_naranjo_joins_three_softmaxes"),
    ]  # fmt: skip


FRONTS = {
    "beats": frontends.BEATS, "wavegram_cnn14": frontends.WAVEGRAM, "passt_s": frontends.PASST,
    "ast_base": frontends.AST,
    "cnn14": frontends.PANN, "cnn14_16k": frontends.PANN_16K,
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
        front = FRONTS.get(name, {**frontends.EFFICIENTAT, "audio": name} if "mn" in name[:4] else None)
        if front:
            cost = complexity(Architecture(**front, video=""))
            head = 10 * (timm.create_model(name, num_classes=0).num_features + 1)
        else:
            cost = complexity(
                Architecture(audio="", video=name, frames=16 if name.startswith(("tv_", "videomae")) else 1)
            )
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
        for line in table_of_trunks():
            print(line, flush=True)
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
    rows = [*systems(options.audio), *trunks(options.audio)]
    for row in rows:
        published = f"{row.published:,}" if row.published else "-"
        print(f"{row.name:<20}{published:>12}{row.ours:>14,}  {row.forward:<14}{row.front_end:<16}{row.remaining}")
    print("\n" + "\n".join(f"{row.name} {row.forward}: {row.test}" for row in rows if row.test))
    return 0


if __name__ == "__main__":
    sys.exit(main())
