"""A net in two parts: the lower one stays as it is, so that what it gives can be computed once, and the upper learns.

tokens(net, lower(net, x)) is what the trunk makes of x, for every net.
"""

from __future__ import annotations

from torch import Tensor, nn

from avsc_e2e.models.nets.aisfx import Aisfx
from avsc_e2e.models.nets.audionet import AudioNet

LEARNING = 2
"""Stages of an EfficientNet, counted from its end, that belong to the upper part."""


def lower(net: nn.Module, x: Tensor) -> Tensor:
    """(B, P, H, W) -> the activations at the cut; the planes themselves where the whole net learns."""
    if is_efficientnet(net):
        return net.blocks[: len(net.blocks) - LEARNING](net.bn1(net.conv_stem(x)))
    if isinstance(net, Aisfx):
        return net.below(x)
    return x


def tokens(net: nn.Module, x: Tensor) -> Tensor:
    """Activations at the cut -> (B, L, token_width)."""
    if is_efficientnet(net):
        x = net.bn2(net.conv_head(net.blocks[len(net.blocks) - LEARNING :](x)))
        return net.forward_head(x)[:, None]
    if isinstance(net, Aisfx):
        return net.above(x)
    return net.tokens(x) if isinstance(net, AudioNet) else net(x)[:, None]


def upper_parameters(net: nn.Module) -> list[nn.Parameter]:
    """Those that learn."""
    if is_efficientnet(net):
        parts = [*net.blocks[len(net.blocks) - LEARNING :], net.conv_head, net.bn2]
    elif isinstance(net, Aisfx):
        parts = [net.conv_block4]
    else:
        parts = [net]
    return [parameter for part in parts for parameter in part.parameters()]


def is_efficientnet(net: nn.Module) -> bool:
    return all(hasattr(net, name) for name in ("conv_stem", "bn1", "blocks", "conv_head", "bn2"))
