"""A net cut in two. The lower part stays as it is, so its activations can be computed once; the upper part learns.

For every net, tokens(net, lower(net, x)) are the tokens of the trunk for x.
"""

from __future__ import annotations

from torch import Tensor, nn

from avsc_e2e.models.nets.aisfx import Aisfx
from avsc_e2e.models.nets.audionet import AudioNet
from avsc_e2e.models.nets.speech import SpeechEmbedding

LEARNING = 2
"""Stages of an EfficientNet, counted from its end, that belong to the upper part; blocks of the speech net that are
its last layers."""


def lower(net: nn.Module, x: Tensor) -> Tensor:
    """(B, P, H, W) -> the activations at the cut; the input itself where the whole net learns."""
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


def learning(net: nn.Module) -> tuple[list[nn.Parameter], ...]:
    """The parameters of the upper part that may learn: of its last layers alone, and of all its layers."""
    if is_efficientnet(net):
        stages, end = list(net.blocks[len(net.blocks) - LEARNING :]), [net.conv_head, net.bn2]
        parts = [stages[-1:] + end, stages + end]
    elif isinstance(net, Aisfx):
        block = net.conv_block4
        parts = [[block.conv2, block.bn2], [block]]
    elif isinstance(net, SpeechEmbedding):
        parts = [[*net.blocks[len(net.blocks) - LEARNING :], net.last], [net]]
    else:
        parts = [[net]]
    return tuple([parameter for module in modules for parameter in module.parameters()] for modules in parts)


def is_efficientnet(net: nn.Module) -> bool:
    return all(hasattr(net, name) for name in ("conv_stem", "bn1", "blocks", "conv_head", "bn2"))
