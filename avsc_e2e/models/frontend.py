"""From waveforms to planes over bands and time frames, on the model's device, in float32."""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor, nn

from avsc_e2e.models.architecture import Architecture

FLOOR = 1e-7
"""Added to the mel power before the logarithm: about 70 dB below full scale."""


class LogMel(nn.Module):
    """Log-mel energies of the channels, standardised per plane and band by statistics that `fit` takes from training
    data and the checkpoint keeps. (B, C, N) -> (B, P, bands, frames)."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.channels = architecture.channels
        self.planes = 1 if architecture.channels == "mono" else 2
        with torch.device("cpu"):  # torchaudio looks at the filters that it makes, which a meta device does not allow
            self.mel = torchaudio.transforms.MelSpectrogram(
                sample_rate=architecture.sample_rate,
                n_fft=architecture.fft,
                hop_length=architecture.hop,
                n_mels=architecture.bands,
                f_min=architecture.low,
                f_max=min(architecture.high, architecture.sample_rate / 2),
                norm="slaney",
            )
        # The window and the filters follow from the architecture: no checkpoint needs them.
        for module in self.mel.modules():
            module._non_persistent_buffers_set.update(module._buffers)
        self.register_buffer("mean", torch.full((self.planes, architecture.bands, 1), -8.0))
        self.register_buffer("std", torch.full((self.planes, architecture.bands, 1), 3.0))

    def forward(self, audio: Tensor) -> Tensor:
        return (self.log_mel(audio) - self.mean) / self.std

    def log_mel(self, audio: Tensor) -> Tensor:
        """Natural logarithm of the mel power, not standardised."""
        return torch.log(self.mel(mix(audio, self.channels)) + FLOOR)

    @torch.no_grad()
    def fit(self, waveforms: list[Tensor]) -> None:
        """Take mean and deviation of every band from batches (B, C, N)."""
        planes = torch.cat([self.log_mel(audio.float()) for audio in waveforms])
        self.mean.copy_(planes.mean(dim=(0, 3))[..., None])
        # A plane without sound (the difference of a mono recording) must not be blown up to noise.
        self.std.copy_(planes.std(dim=(0, 3)).clamp(min=0.5)[..., None])


def mix(audio: Tensor, channels: str) -> Tensor:
    """(B, C, N) -> (B, P, N) by the channel mode; "mid_side" is average and half the difference of left and right."""
    if channels == "mono":
        return audio.mean(dim=1, keepdim=True)
    if channels == "mid_side":
        left, right = audio[:, :1], audio[:, 1:2]
        return torch.cat([(left + right) / 2, (left - right) / 2], dim=1)
    return audio
