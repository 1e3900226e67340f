"""EfficientAT (Schmid et al., ICASSP 2023): MobileNetV3 on log-mels at several widths, distilled from transformers on
AudioSet. Layers have the names and shapes of the published code; the front end is in zoo/frontends.py."""

from __future__ import annotations

from typing import NamedTuple

from timm.layers import make_divisible
from timm.models import register_model
from torch import Tensor, nn

from avsc_e2e.models.nets.audionet import AudioNet, no_classifier

SHIFT, SPREAD = -4.5, 5.0
"""Mean and divisor with which the published net normalises log-mels."""


class Step(NamedTuple):
    """One inverted residual of MobileNetV3-Large (Howard et al., 2019) at width 1."""

    kernel: int
    expanded: int
    out: int
    excites: bool
    swish: bool
    stride: int


STEPS = (
    Step(3, 16, 16, False, False, 1), Step(3, 64, 24, False, False, 2), Step(3, 72, 24, False, False, 1),
    Step(5, 72, 40, True, False, 2), Step(5, 120, 40, True, False, 1), Step(5, 120, 40, True, False, 1),
    Step(3, 240, 80, False, True, 2), Step(3, 200, 80, False, True, 1), Step(3, 184, 80, False, True, 1),
    Step(3, 184, 80, False, True, 1), Step(3, 480, 112, True, True, 1), Step(3, 672, 112, True, True, 1),
    Step(5, 672, 160, True, True, 2), Step(5, 960, 160, True, True, 1), Step(5, 960, 160, True, True, 1),
)  # fmt: skip


def norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)


def conv_norm(
    width_in: int, width: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: nn.Module | None = None
) -> nn.Sequential:
    """Convolution with "same" padding, batch norm, activation."""
    conv = nn.Conv2d(width_in, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    return nn.Sequential(conv, norm(width), *([act] if act else []))


class _Excitation(nn.Module):
    """Squeeze and excitation over channels, with a sigmoid instead of MobileNetV3's piecewise linear one."""

    def __init__(self, width: int):
        super().__init__()
        self.conc_se_layers = nn.ModuleList([nn.Module()])
        inner = make_divisible(width // 4, 8)
        self.conc_se_layers[0].fc1, self.conc_se_layers[0].fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        layer = self.conc_se_layers[0]
        return x * layer.fc2(layer.fc1(x.mean(dim=(2, 3))).relu()).sigmoid()[:, :, None, None]


class _Residual(nn.Module):
    def __init__(self, width_in: int, step: Step, width: float):
        super().__init__()
        expanded, out = (make_divisible(size * width, 8) for size in (step.expanded, step.out))
        act = nn.Hardswish if step.swish else nn.ReLU
        layers = [conv_norm(width_in, expanded, act=act())] if expanded != width_in else []
        layers.append(conv_norm(expanded, expanded, step.kernel, step.stride, expanded, act()))
        layers += [_Excitation(expanded)] if step.excites else []
        self.block = nn.Sequential(*layers, conv_norm(expanded, out))
        self.carried = step.stride == 1 and width_in == out

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + x if self.carried else self.block(x)


class MobileNet(AudioNet):
    """Its tokens are the last map's mean over bands; their mean over time is the embedding of 960 times the width. It
    does not contain the published classifier of two layers."""

    def __init__(self, in_chans: int, width: float):
        before = make_divisible(16 * width, 8)
        last = make_divisible(STEPS[-1].out * width, 8)
        super().__init__(6 * last)
        layers: list[nn.Module] = [conv_norm(in_chans, before, 3, 2, act=nn.Hardswish())]
        for step in STEPS:
            layers.append(_Residual(before, step, width))
            before = make_divisible(step.out * width, 8)
        self.features = nn.Sequential(*layers, conv_norm(last, 6 * last, act=nn.Hardswish()))

    def tokens(self, x: Tensor) -> Tensor:
        return self.features((x - SHIFT) / SPREAD).mean(dim=2).transpose(1, 2)


@register_model
def mn04(pretrained: bool = False, in_chans: int = 1, **options) -> MobileNet:
    no_classifier(options)
    return MobileNet(in_chans, 0.4)


@register_model
def mn05(pretrained: bool = False, in_chans: int = 1, **options) -> MobileNet:
    no_classifier(options)
    return MobileNet(in_chans, 0.5)


@register_model
def mn10(pretrained: bool = False, in_chans: int = 1, **options) -> MobileNet:
    no_classifier(options)
    return MobileNet(in_chans, 1.0)


@register_model
def mn20(pretrained: bool = False, in_chans: int = 1, **options) -> MobileNet:
    no_classifier(options)
    return MobileNet(in_chans, 2.0)


@register_model
def mn30(pretrained: bool = False, in_chans: int = 1, **options) -> MobileNet:
    no_classifier(options)
    return MobileNet(in_chans, 3.0)


@register_model
def mn40(pretrained: bool = False, in_chans: int = 1, **options) -> MobileNet:
    no_classifier(options)
    return MobileNet(in_chans, 4.0)
