"""Dynamic MobileNets of EfficientAT (Schmid et al., IEEE/ACM TASLP 2024): MobileNetV3 whose convolutions, rectifiers
and attention depend on a context vector of each clip. Layers have the names and shapes of the published code; the front
end is EfficientAT's."""

from __future__ import annotations

import torch
from timm.layers import make_divisible
from timm.models import register_model
from torch import Tensor, nn
from torch.nn.functional import conv2d

from avsc_e2e.models.nets.audionet import AudioNet, no_classifier
from avsc_e2e.models.nets.efficientat import SHIFT, SPREAD, STEPS, Step, conv_norm, norm

KERNELS = 4
"""Kernels that a dynamic convolution mixes."""


class _Context(nn.Module):
    """The context of a map (B, C, F, T): a vector (B, H) for convolutions and rectifiers, and logits of an attention
    over bands (B, W, F', 1) and over time (B, W, 1, T')."""

    def __init__(self, width_in: int, width: int, context: int, stride: int):
        super().__init__()
        self.joint_conv = nn.Conv2d(width_in, context, 1, bias=False)
        self.joint_norm, self.joint_act = norm(context), nn.Hardswish()
        self.conv_f, self.conv_t = nn.Conv2d(context, width, 1), nn.Conv2d(context, width, 1)
        self.pool = nn.AvgPool2d((3, 1), (stride, 1), (1, 0)) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        bands, times = x.mean(dim=3, keepdim=True), x.mean(dim=2)[..., None]
        both = self.joint_act(self.joint_norm(self.joint_conv(torch.cat([bands, times], dim=2))))
        over_bands, over_time = (self.pool(part) for part in both.split([bands.shape[2], times.shape[2]], dim=2))
        return both.mean(dim=(2, 3)), self.conv_f(over_bands), self.conv_t(over_time).transpose(2, 3)


class _DynamicConv(nn.Module):
    """A convolution whose kernel is, for each clip, a mixture of four."""

    def __init__(self, width_in: int, width: int, context: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__()
        self.shape = (width, width_in // groups, kernel, kernel)
        self.stride, self.padding, self.groups = stride, kernel // 2, groups
        self.residuals = nn.Sequential(nn.Linear(context, KERNELS))
        kernels = [nn.init.kaiming_normal_(torch.empty(self.shape), mode="fan_out") for _ in range(KERNELS)]
        self.weight = nn.Parameter(torch.stack(kernels).flatten(1)[None, None])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        shares = self.residuals(context).softmax(dim=1)
        kernels = (shares @ self.weight[0, 0].to(shares)).unflatten(1, self.shape).flatten(0, 1)
        # One grouped convolution processes all clips, each in its own group of channels.
        out = conv2d(x.flatten(0, 1)[None], kernels.to(x), None, self.stride, self.padding, 1, self.groups * len(x))
        return out[0].unflatten(0, (len(x), -1))


class _DynamicRelu(nn.Module):
    """The maximum of two linear maps of each channel, whose coefficients depend on the context (Chen et al., 2020)."""

    def __init__(self, width: int, context: int):
        super().__init__()
        self.coef_net = nn.Sequential(nn.Linear(context, 4 * width))
        self.register_buffer("lambdas", torch.tensor([1.0, 1.0, 0.5, 0.5]))
        self.register_buffer("init_v", torch.tensor([1.0, 0.0, 0.0, 0.0]))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        moves = 2 * self.coef_net(context).sigmoid() - 1
        maps = moves.unflatten(1, (x.shape[1], 1, 1, 4)) * self.lambdas + self.init_v
        first, second, shift_first, shift_second = maps.unbind(dim=-1)
        return torch.maximum(x * first + shift_first, x * second + shift_second)


class _DynamicResidual(nn.Module):
    def __init__(self, width_in: int, step: Step, width: float):
        super().__init__()
        expanded, out = (make_divisible(size * width, 8) for size in (step.expanded, step.out))
        least, most = (make_divisible(size * width, 8) for size in (32, 128))
        context = min(max(make_divisible(expanded // 4, 8), least), most)
        self.expands = expanded != width_in
        if self.expands:
            self.exp_conv, self.exp_norm = _DynamicConv(width_in, expanded, context), norm(expanded)
            self.exp_act = nn.Hardswish() if step.swish else nn.ReLU()
        self.depth_conv = _DynamicConv(expanded, expanded, context, step.kernel, step.stride, expanded)
        self.depth_norm, self.depth_act = norm(expanded), _DynamicRelu(expanded, context)
        self.proj_conv, self.proj_norm = _DynamicConv(expanded, out, context), norm(out)
        self.context_gen = _Context(width_in, expanded, context, step.stride)
        self.carried = step.stride == 1 and width_in == out

    def forward(self, x: Tensor) -> Tensor:
        given = x
        context, over_bands, over_time = self.context_gen(x)
        if self.expands:
            x = self.exp_act(self.exp_norm(self.exp_conv(x, context)))
        x = self.depth_act(self.depth_norm(self.depth_conv(x, context)), context)
        x = x * over_bands.sigmoid() * over_time.sigmoid()
        x = self.proj_norm(self.proj_conv(x, context))
        return x + given if self.carried else x


class DynamicMobileNet(AudioNet):
    """Tokens, embedding and widths are those of `MobileNet`. The temperature of the mixtures is 1, to which it falls in
    the authors' training."""

    def __init__(self, in_chans: int, width: float):
        before = make_divisible(16 * width, 8)
        last = make_divisible(STEPS[-1].out * width, 8)
        super().__init__(6 * last)
        self.in_c = conv_norm(in_chans, before, 3, 2, act=nn.Hardswish())
        layers = []
        for step in STEPS:
            layers.append(_DynamicResidual(before, step, width))
            before = make_divisible(step.out * width, 8)
        self.layers = nn.ModuleList(layers)
        self.out_c = conv_norm(last, 6 * last, act=nn.Hardswish())

    def tokens(self, x: Tensor) -> Tensor:
        x = self.in_c((x - SHIFT) / SPREAD)
        for layer in self.layers:
            x = layer(x)
        return self.out_c(x).mean(dim=2).transpose(1, 2)


@register_model
def dymn04(pretrained: bool = False, in_chans: int = 1, **options) -> DynamicMobileNet:
    no_classifier(options)
    return DynamicMobileNet(in_chans, 0.4)


@register_model
def dymn10(pretrained: bool = False, in_chans: int = 1, **options) -> DynamicMobileNet:
    no_classifier(options)
    return DynamicMobileNet(in_chans, 1.0)


@register_model
def dymn20(pretrained: bool = False, in_chans: int = 1, **options) -> DynamicMobileNet:
    no_classifier(options)
    return DynamicMobileNet(in_chans, 2.0)
