"""Trunks: any timm net as a branch that turns planes or frames into one embedding a clip."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import timm
import torch
from timm.layers import DropPath
from timm.models import PretrainedCfg, group_parameters, is_model_in_modules
from torch import Tensor, nn
from torch.nn.functional import pad

from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.blockwise import in_blocks
from avsc_e2e.models.frontend import FrontEnd
from avsc_e2e.models.nets import (  # noqa: F401, importing them registers nets with timm
    aisfx,
    audioset,
    beats,
    clipnets,
    dcase,
    dymn,
    efficientat,
    htsat,
    l3,
    logmel,
    patchtransformer,
    residual,
    speech,
)
from avsc_e2e.models.nets.audionet import AudioNet
from avsc_e2e.models.pooling import Pool
from avsc_e2e.models.weights import sources as weights

OURS = (
    "aisfx",
    "audioset",
    "beats",
    "clipnets",
    "dcase",
    "dymn",
    "efficientat",
    "htsat",
    "l3",
    "logmel",
    "patchtransformer",
    "residual",
    "speech",
)
"""The modules of our own nets in timm's registry."""
PATCHES = 32
"""For a net of patches (a ViT or a Swin), numbers of bands and frames are padded to a multiple of this."""


def settled(arch: Architecture) -> Architecture:
    """The architecture with frame size, mean and deviation filled in from the video trunk's configuration in timm where
    they are not given. Raises AvscError for an unknown trunk."""
    if not arch.video or (arch.size and arch.mean and arch.std):
        return arch
    check_name(arch.video)
    config = timm.get_pretrained_cfg(arch.video, allow_unregistered=True) or PretrainedCfg()
    return replace(
        arch,
        size=arch.size or config.input_size[-1],
        mean=arch.mean or tuple(config.mean),
        std=arch.std or tuple(config.std),
    )


def check_name(name: str) -> None:
    """Raises AvscError, with the likely names, if timm has no such net or no such weights of it."""
    if timm.is_model(name):
        net, _, tag = name.partition(".")
        tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{net}.*")] if tag else []
        if tag and tag not in tags:
            raise AvscError(f"unknown weights {tag!r} of the trunk {net}: timm has {', '.join(tags) or 'none'}")
        return
    close = difflib.get_close_matches(name, timm.list_models(), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "`timm.list_models()` names them"
    raise AvscError(f"unknown trunk {name!r}: {hint}")


AT_A_TIME = 1 << 18
"""Pixels of the images that a CPU is given at a time."""


class Branch(NamedTuple):
    """Outputs of a trunk for its part of a clip."""

    tokens: Tensor
    """(B, L, token_width): time steps of the audio net, or frames."""
    embedding: Tensor
    """(B, width)."""


class Trunk(nn.Module):
    """A timm net without its classifier. (B, P, H, W) or (B, T, P, H, W) -> (B, width), pooled over T."""

    def __init__(
        self,
        name: str,
        planes: int,
        bands: int = 0,
        size: int = 0,
        map_pool: str = "",
        pool: str = "mean",
        drop_path: float = 0.0,
        planes_of: FrontEnd | None = None,
    ):
        """`planes_of`: the front end; a net of a fixed size is created for the size of its planes."""
        super().__init__()
        check_name(name)
        self.name = name
        self.sides: tuple[int, ...] = ()
        """Bands and frames to which planes are padded with zeros, for a net of a fixed size."""
        self.options: dict[str, Any] = {"num_classes": 0, "in_chans": planes}
        """Arguments with which timm creates the net."""
        if map_pool:
            self.options["global_pool"] = map_pool.replace("sum", "avgmax")
        self.gain = 2.0 if map_pool == "sum" else 1.0  # timm's avgmax is half the sum
        if is_model_in_modules(name, list(OURS)):
            self.options |= {"bands": bands} if bands else {}
        elif getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):  # nets registered elsewhere have none
            if planes_of is not None:
                self.sides = tuple(-(-side // PATCHES) * PATCHES for side in planes_of.shape()[-2:])
                self.options["img_size"] = self.sides
            elif size:
                self.options["img_size"] = size
        # Channels last in memory: on CPU and GPU convolutions are as fast or faster (benchmarks/trunks.py).
        self.net = _created(name, self.options, drop_path)
        if not getattr(self.net, "takes_clips", False):
            self.net = self.net.to(memory_format=torch.channels_last)
        one = getattr(self.net, "head_hidden_size", None) or self.net.num_features
        self.token_width = getattr(self.net, "token_width", one)
        self.pool = Pool(pool, one)
        self.width = self.pool.width
        self.trained = False
        """Whether it holds published weights, or those of an earlier stage, rather than random ones."""

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x).embedding

    def branch(self, x: Tensor) -> Branch:
        """Embedding and tokens in one pass."""
        if x.dim() == 4:
            x = x[:, None]
        clips, steps = x.shape[:2]
        if getattr(self.net, "takes_clips", False):
            each = self.net(x)[:, None]
            return Branch(each, self.pool(each))
        x = x.flatten(0, 1)
        if self.sides:
            more = [side - given for side, given in zip(self.sides, x.shape[-2:], strict=True)]
            if min(more) < 0:
                raise AvscError(
                    f"--model.audio {self.name} is made for planes of at most {self.sides} bands and frames, not "
                    f"{tuple(x.shape[-2:])}: let --data.window be no longer than --model.window"
                )
            x = pad(x, (0, more[1], 0, more[0]))
        x = x.contiguous(memory_format=torch.channels_last)
        if isinstance(self.net, AudioNet):
            tokens = self._few_at_a_time(self.net.tokens, x)
            each = self.net.pool(tokens).unflatten(0, (clips, steps))
            return Branch(tokens.unflatten(0, (clips, steps)).flatten(1, 2), self.pool(each))
        each = self.gain * self._few_at_a_time(self.net, x).unflatten(0, (clips, steps))
        return Branch(each, self.pool(each))

    def _few_at_a_time(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """A function of images (N, C, H, W). Without gradients, a CPU is given as many at a time as its caches hold the
        activations of: larger ones cost up to twice the time, most of it for memory from the system."""
        rows = max(AT_A_TIME // (x.shape[-2] * x.shape[-1]), 1)
        return function(x) if self.training or torch.is_grad_enabled() else in_blocks(function, x, rows)

    def layers(self) -> dict[str, int]:
        """Parameter -> its layer, from 0 at the input, by timm's groups. One of our own nets has a layer for each
        block; pooling over T is part of the last one."""
        names = [name for name, _ in self.net.named_parameters()]
        if hasattr(self.net, "group_matcher"):
            found = group_parameters(self.net, self.net.group_matcher(coarse=False), reverse=True)
        else:
            blocks = [re.sub(r"^([^.]+(\.\d+)?).*", r"\1", name) for name in names]
            order = {block: index for index, block in enumerate(dict.fromkeys(blocks))}
            found = {name: order[block] for name, block in zip(names, blocks, strict=True)}
        # Parameters that timm assigns to no group, such as a norm after the last block, belong to the end.
        used = sorted({found[name] for name in names if name in found})
        rank = {layer: index for index, layer in enumerate(used)}
        last = len(used) - 1
        layer_of = {f"net.{name}": rank[found[name]] if name in found else last for name in names}
        return {name: layer_of.get(name, last) for name, _ in self.named_parameters()}

    @property
    def drops_paths(self) -> bool:
        """Whether training skips residual blocks of the net (stochastic depth)."""
        return any(isinstance(module, DropPath) and module.drop_prob > 0 for module in self.net.modules())

    def load_pretrained(self, file: str = "", flag: str = "--video-weights") -> str:
        """Load pretrained weights and return where they came from. `file` is a file or the name of a source; empty: the
        trunk's own source. `flag` is the option that error messages name. Raises AvscError that says which file to put
        where."""
        told = weights.load_pretrained(self.net, self.name, self.options, file, flag)
        self.trained = True
        return told


def _created(name: str, options: dict, drop_path: float) -> nn.Module:
    if drop_path:
        with contextlib.suppress(TypeError):  # nets without residual blocks do not know the option
            return timm.create_model(name, drop_path_rate=drop_path, **options)
    return timm.create_model(name, **options)
