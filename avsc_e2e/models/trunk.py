"""Trunks: any timm net as a branch that turns planes or frames into one embedding a clip."""

from __future__ import annotations

import difflib

import timm
from timm.models import is_model_in_modules
from torch import Tensor, nn

from avsc_e2e.errors import AvscError
from avsc_e2e.models import nets, weights  # noqa: F401, importing nets registers them


class Trunk(nn.Module):
    """A timm net without its classifier. (B, P, H, W) or (B, T, P, H, W) -> (B, width), the mean over T."""

    def __init__(self, name: str, planes: int, bands: int = 0):
        super().__init__()
        if not timm.is_model(name):
            close = difflib.get_close_matches(name, timm.list_models(), n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "`timm.list_models()` names them"
            raise AvscError(f"unknown trunk {name!r}: {hint}")
        self.name = name
        extra = {"bands": bands} if is_model_in_modules(name, ["nets"]) else {}
        self.net = timm.create_model(name, num_classes=0, in_chans=planes, **extra)
        self.width = getattr(self.net, "head_hidden_size", None) or self.net.num_features

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 4:
            return self.net(x)
        clips, frames = x.shape[:2]
        return self.net(x.flatten(0, 1)).unflatten(0, (clips, frames)).mean(dim=1)

    def load_pretrained(self, file: str = "") -> str:
        """Fill the net with pretrained weights and say where they came from: `file` (anything timm reads), the
        package for EfficientNet-Lite0, or timm's hub. Raises AvscError that says which file to put where."""
        planes = next(self.net.parameters()).shape[1]
        package = weights.lite0_file() if self.name == weights.LITE0 else None
        if not file and package:
            weights.load_in_order(self.net, package, weights.LITE0_SHA256)
            return f"ImageNet, from the package {weights.LITE0_PACKAGE}"
        if not timm.is_model_pretrained(self.name) and not file:
            raise AvscError(f"there are no published weights for the trunk {self.name}: use --no-pretrained")
        overlay = {"file": file} if file else None
        try:
            source = timm.create_model(
                self.name, pretrained=True, num_classes=0, in_chans=planes, pretrained_cfg_overlay=overlay
            )
        except Exception as error:  # the hub's client raises its transport's own errors
            config = timm.get_pretrained_cfg(self.name)
            where = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
            cause = str(error).split("\n")[0][:120]
            raise AvscError(
                f"the weights of {self.name} cannot be had ({cause}): download {where} elsewhere and give the file "
                f"with --video-weights FILE, or train with --no-pretrained"
            ) from error
        self.net.load_state_dict(source.state_dict())
        return file or f"timm's hub, {self.name}"
