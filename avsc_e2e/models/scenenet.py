"""The model: front end, trunks, heads and their fusion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avsc_e2e.clip import Clip
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.frontend import LogMel
from avsc_e2e.models.fusion import ConcatFusion, decide
from avsc_e2e.models.trunk import Trunk


class SceneNet(nn.Module):
    """An audio-visual scene classifier built from an Architecture.

    preprocess(clip) -> clip: waveform (B, C, N) to planes, frames (B, T, 3, H, W) uint8 to normalised float32
    model(clip) -> {"audio", "video", "fusion"}: logits (B, K), as many heads as there are
    decide(logits, present) -> probabilities (B, K)
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = arch = architecture
        classes = len(arch.classes)
        widths = []
        if arch.audio:
            self.frontend = LogMel(arch)
            self.audio = Trunk(arch.audio, planes=self.frontend.planes, bands=arch.bands)
            widths.append(self.audio.width)
        if arch.video:
            self.video = Trunk(arch.video, planes=3)
            widths.append(self.video.width)
            # Given by the architecture, so no checkpoint repeats them.
            self.register_buffer("mean", 255 * torch.tensor(arch.mean).view(3, 1, 1), persistent=False)
            self.register_buffer("std", 255 * torch.tensor(arch.std).view(3, 1, 1), persistent=False)
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Dropout(arch.dropout), nn.Linear(width, classes))
                for name, width in zip(arch.modalities, widths, strict=True)
                if name in arch.heads
            }
        )
        if "fusion" in arch.heads:
            self.heads["fusion"] = ConcatFusion(widths, arch.hidden, classes, arch.dropout)

    @torch.no_grad()
    def preprocess(self, clip: Clip) -> Clip:
        """On the model's device, in float32, outside of any autocast."""
        with torch.autocast(clip.present.device.type, enabled=False):
            if self.architecture.audio:
                clip = clip._replace(audio=self.frontend(clip.audio.float()))
            if self.architecture.video:
                clip = clip._replace(video=(clip.video.float() - self.mean) / self.std)
        return clip

    def forward(self, clip: Clip) -> dict[str, Tensor]:
        """Takes a preprocessed batch."""
        embeddings = {name: getattr(self, name)(getattr(clip, name)) for name in self.architecture.modalities}
        logits = {name: head(embeddings[name]) for name, head in self.heads.items() if name != "fusion"}
        if "fusion" in self.heads:
            logits["fusion"] = self.heads["fusion"](list(embeddings.values()), clip.present)
        return logits

    def decide(self, logits: dict[str, Tensor], present: Tensor) -> Tensor:
        """Probabilities (B, K) by the architecture's decision weights."""
        weights = dict(zip(self.architecture.heads, self.architecture.weights, strict=True))
        return decide(logits, weights, present)
