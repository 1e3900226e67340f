"""HTSAT, the audio encoder of LAION's CLAP (Chen et al., ICASSP 2022; Wu et al., ICASSP 2023): a Swin transformer over
a spectrogram that is cut into four parts in time, stacked one below the other. The front end is in zoo/frontends.py."""

from __future__ import annotations

from timm.models import SwinTransformer, register_model
from torch import Tensor, nn
from torch.nn.functional import interpolate

from avsc_e2e.models.nets.audionet import AudioNet, no_classifier

STRETCHES = 4


class Htsat(AudioNet):
    """Its input is dB of 64 bands at 48 kHz. Ten seconds, 1001 frames, are interpolated to 1024. A shorter clip is
    repeated up to ten seconds, as in CLAP; a longer one is compressed. Its tokens are 32 steps in time, the mean over
    bands; their mean is the embedding of 768."""

    def __init__(
        self,
        in_chans: int,
        bands: int = 64,
        width: int = 96,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        heads: tuple[int, ...] = (4, 8, 16, 32),
        window: int = 8,
        drop_path: float = 0.0,
    ):
        super().__init__(width * 2 ** (len(depths) - 1))
        self.side = STRETCHES * bands
        self.bn0 = nn.BatchNorm2d(bands)
        self.swin = SwinTransformer(
            img_size=self.side, patch_size=4, in_chans=in_chans, num_classes=0, embed_dim=width, depths=depths,
            num_heads=heads, window_size=window, drop_path_rate=drop_path,
        )  # fmt: skip

    def tokens(self, x: Tensor) -> Tensor:
        whole = STRETCHES * self.side
        ten_seconds = whole * 1001 // 1024
        if x.shape[3] < ten_seconds:
            x = x.repeat(1, 1, 1, -(-ten_seconds // x.shape[3]))[..., :ten_seconds]
        x = self.bn0(x.transpose(1, 2)).transpose(1, 2)
        if x.shape[3] != whole:
            x = interpolate(x, (x.shape[2], whole), mode="bicubic", align_corners=True)
        x = x.unflatten(3, (STRETCHES, self.side)).transpose(2, 3).flatten(2, 3)
        x = self.swin.forward_features(x)  # (B, rows, columns, width)
        return x.unflatten(1, (STRETCHES, -1)).mean(dim=2).flatten(1, 2)


@register_model
def htsat_tiny(
    pretrained: bool = False, in_chans: int = 1, bands: int = 64, drop_path_rate: float = 0.0, **options
) -> Htsat:
    """27 M parameters."""
    no_classifier(options)
    return Htsat(in_chans, bands, drop_path=drop_path_rate)
