"""The two nets of OpenL3 (Cramer et al., "Look, listen, and learn more", ICASSP 2019): they give the embeddings of the
DCASE 2021 Task 1B baseline. Both can be trained; the baseline's recipe freezes them."""

from __future__ import annotations

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from avsc_e2e.models.nets.audionet import AudioNet, no_classifier

WIDTHS = (64, 128, 256, 512)

default_cfgs = generate_default_cfgs(  # frames from 0 to 1
    {"l3_image.env_mel256": {"input_size": (3, 224, 224), "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}}
)


class L3(AudioNet):
    """Four blocks of two 3x3 convolutions; the maximum over the last map is the embedding of 512.

    Audio: (B, 1, 256 mel, 199 frames), raw dB below the clip's maximum; images: (B, 3, 224, 224) in [0, 1].
    """

    def __init__(self, in_chans: int, norm_last: bool):
        super().__init__(WIDTHS[-1])
        self.bn0 = _norm(in_chans)
        blocks, before = [], in_chans
        for index, width in enumerate(WIDTHS):
            layers = [nn.Conv2d(before, width, 3, padding=1), _norm(width), nn.ReLU()]
            layers.append(nn.Conv2d(width, width, 3, padding=1))
            if index < len(WIDTHS) - 1:  # the last convolution is linear
                tail = [_norm(width), nn.ReLU()]
                # In the authors' image net, the second pair of the first block is in reverse order.
                layers += [*(tail[::-1] if norm_last and not index else tail), nn.MaxPool2d(2)]
            blocks.append(nn.Sequential(*layers))
            before = width
        self.blocks = nn.Sequential(*blocks)

    def tokens(self, x: Tensor) -> Tensor:
        # The published pooling windows, (32, 24) and (28, 28), are the whole maps of inputs of the published sizes.
        return self.blocks(self.bn0(x)).amax(dim=(2, 3))[:, None]


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)  # Keras's defaults


@register_model
def l3_audio(pretrained: bool = False, in_chans: int = 1, **options) -> L3:
    """OpenL3's audio net for mel256: 4,689,860 parameters with the running statistics."""
    no_classifier(options)
    return L3(in_chans, norm_last=False)


@register_model
def l3_image(pretrained: bool = False, in_chans: int = 3, **options) -> L3:
    """OpenL3's image net: 4,691,020 parameters with the running statistics."""
    no_classifier(options)
    return L3(in_chans, norm_last=True)
