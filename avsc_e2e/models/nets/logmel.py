"""A trunk without weights: its tokens are the bands of each time frame, so that a head can take their statistics."""

from __future__ import annotations

from timm.models import register_model
from torch import Tensor

from avsc_e2e.models.nets.audionet import AudioNet, no_classifier


class Bands(AudioNet):
    """(B, P, bands, frames) -> tokens (B, frames, P * bands)."""

    def tokens(self, x: Tensor) -> Tensor:
        return x.flatten(1, 2).transpose(1, 2)


@register_model
def audio_bands(pretrained: bool = False, in_chans: int = 1, bands: int = 64, **options) -> Bands:
    """No parameters."""
    no_classifier(options)
    return Bands(in_chans * bands)
