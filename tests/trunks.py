"""What tests of audio trunks share: real recordings, planes of a front end, weights that a
formula gives, torchvision's MobileNet with those of ours."""

import soundfile
import timm
import torch
import torchaudio
from support import real
from torch import nn
from torch.nn.functional import conv2d
from torchvision.models import mobilenet_v3_large

from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.frontend import FrontEnd
from avsc_e2e.models.nets.efficientat import STEPS


def recording(rate: int, seconds: float) -> torch.Tensor:
    """The beginning of a real recording in mono (1, 1, N)."""
    sound, given = soundfile.read(sorted(real("real_audio").glob("*.wav"))[0], dtype="float32", always_2d=True)
    mono = torch.from_numpy(sound).mean(1)
    return torchaudio.functional.resample(mono, given, rate)[None, None, : int(rate * seconds)]


def planes_of(front: dict, audio: torch.Tensor) -> torch.Tensor:
    return FrontEnd(Architecture(**front, video="")).planes(audio)


def filled(net: nn.Module) -> nn.Module:
    """Weights that a formula gives, in float64."""
    with torch.no_grad():
        for index, (_, values) in enumerate(sorted(net.named_parameters())):
            steps = torch.arange(values.numel(), dtype=torch.float64) * (0.37 + 0.01 * (index % 7)) + index
            values.copy_(0.3 * torch.sin(steps).view(values.shape))
    return net.double().eval()


class Excitation(nn.Module):
    """torchvision's squeeze and excitation with a net's weights and the sigmoid of EfficientAT."""

    def __init__(self, given: nn.Module):
        super().__init__()
        self.given = given

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.given.conc_se_layers[0].children()
        squeezed = conv2d(x.mean((2, 3), keepdim=True), first.weight[..., None, None], first.bias).relu()
        return x * conv2d(squeezed, second.weight[..., None, None], second.bias).sigmoid()


def mobilenets() -> tuple[nn.Module, nn.Module]:
    """mn10 and torchvision's MobileNetV3-Large with its weights, which torch's generator draws."""
    theirs = mobilenet_v3_large().features.eval()
    ours = timm.create_model("mn10", num_classes=0).eval()
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    theirs[0][0] = nn.Conv2d(1, 16, 3, 2, 1, bias=False)
    for index, step in enumerate(STEPS, start=1):
        if step.excites:
            place = next(i for i, part in enumerate(theirs[index].block) if "SqueezeExcitation" in type(part).__name__)
            theirs[index].block[place] = Excitation(ours.features[index].block[place])
    mine = ours.features.state_dict()
    theirs.load_state_dict({name: mine[name.replace(".given.", ".")] for name in theirs.state_dict()})
    return ours, theirs
