"""The model: front end, trunks, heads and their fusion."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from avsc_e2e.clip import Clip
from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.frontend import FrontEnd
from avsc_e2e.models.fusionheads import EarlyFusion, SegmentFusion, fusion_head
from avsc_e2e.models.heads import BaselineHead, decide, single_head, takes_tokens
from avsc_e2e.models.moments import Moments, joined
from avsc_e2e.models.segmentmodel import join_frames
from avsc_e2e.models.trunk import Branch, Trunk, settled


class SceneNet(nn.Module):
    """An audio-visual scene classifier built from an Architecture.

    preprocess(clip) -> clip: waveform (B, C, N) to planes, frames (B, T, 3, H, W) uint8 to normalised float32
    model(clip) -> {"audio", "video", "fusion"}: logits (B, K) of the heads that the model has
    decide(logits, present) -> probabilities (B, K)
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = arch = settled(architecture)
        classes = len(arch.classes)
        if arch.audio:
            self.frontend = FrontEnd(arch)
            self.audio = Trunk(
                arch.audio,
                arch.planes,
                bands=arch.bands,
                pool=arch.audio_pool,
                drop_path=arch.drop_path,
                planes_of=self.frontend,
            )
        if arch.video:
            self.video = Trunk(
                arch.video, 3, size=arch.size, map_pool=arch.map_pool, pool=arch.video_pool, drop_path=arch.drop_path
            )
            # They follow from the architecture, so checkpoints do not store them.
            self.register_buffer("mean", 255 * torch.tensor(arch.mean).view(3, 1, 1), persistent=False)
            self.register_buffer("std", 255 * torch.tensor(arch.std).view(3, 1, 1), persistent=False)
        trunks = {name: getattr(self, name) for name in arch.modalities}
        if arch.drop_path and not any(trunk.drops_paths for trunk in trunks.values()):
            names = " and ".join(trunk.name for trunk in trunks.values())
            raise AvscError(f"--model.drop-path {arch.drop_path:g}: {names} cannot leave out blocks; set it to 0")
        on_heads = arch.fusion in ("two_heads", "product", "recurrent") and "fusion" in arch.heads
        self.heads = nn.ModuleDict(
            {
                name: single_head(
                    arch.head, name, trunk.width, trunk.token_width, classes, arch.dropout, arch.text_width
                )
                for name, trunk in trunks.items()
                if name in arch.heads or on_heads
            }
        )
        if "fusion" in arch.heads:
            widths, token_widths = zip(*((trunk.width, trunk.token_width) for trunk in trunks.values()), strict=True)
            self.heads["fusion"] = fusion_head(arch.fusion, widths, token_widths, arch.hidden, classes, arch.dropout)
        for name, head in self.heads.items():
            if name not in arch.heads and not arch.tune_heads:  # the fusion builds on trained heads
                freeze(head)

    def train(self, mode: bool = True) -> SceneNet:
        """Frozen parts and frozen layers of trunks stay in evaluation mode: dropout is off and batch norm's statistics
        do not change in them."""
        super().train(mode)
        for part in (*(getattr(self, name) for name in self.architecture.modalities), *self.heads.values()):
            if not any(p.requires_grad for p in part.parameters()):
                part.eval()
            rest_frozen_layers(part)
        return self

    @torch.no_grad()
    def preprocess(self, clip: Clip) -> Clip:
        """Compute the inputs of the trunks on the model's device, in float32, outside of any autocast."""
        with torch.autocast(clip.present.device.type, enabled=False):
            if self.architecture.audio:
                audio = clip.audio.float()
                clip = clip._replace(audio=self.frontend(audio * 2**-15 if clip.audio.dtype == torch.int16 else audio))
            if self.architecture.video:
                clip = clip._replace(video=(clip.video.float() - self.mean) / self.std)
        return clip

    def forward(self, clip: Clip) -> dict[str, Tensor]:
        """Logits of each head from a preprocessed batch."""
        branches = self.branches(clip)
        logits = {name: self._head(name, branches[name]) for name in self.architecture.heads if name != "fusion"}
        if "fusion" in self.heads:
            fusion = self.heads["fusion"]
            if self.architecture.fusion in ("product", "recurrent"):
                inputs: list = [logits[n] if n in logits else self._head(n, b) for n, b in branches.items()]
                if takes_tokens(fusion):
                    inputs = [(b.tokens, said) for b, said in zip(branches.values(), inputs, strict=True)]
            elif self.architecture.fusion == "two_heads":
                inputs = [self.heads[name].inner(branch.embedding) for name, branch in branches.items()]
            else:
                inputs = [b.tokens if takes_tokens(fusion) else b.embedding for b in branches.values()]
            logits["fusion"] = fusion(inputs, clip.present)
        return logits

    def branches(self, clip: Clip) -> dict[str, Branch]:
        """Tokens and embedding of each modality, from a preprocessed batch."""
        found = {}
        for name in self.architecture.modalities:
            planes = getattr(clip, name)
            if name == "audio" and not self.architecture.standardise:
                planes = self.frontend.undo(planes.float())
            found[name] = getattr(self, name).branch(planes)
        return found

    def _head(self, name: str, branch: Branch) -> Tensor:
        head = self.heads[name]
        return head(branch.tokens if takes_tokens(head) else branch.embedding)

    @property
    def standardises_embeddings(self) -> bool:
        """Whether `fit` also needs the embeddings, and so the frames, of training clips."""
        return any(isinstance(head, (BaselineHead, SegmentFusion)) for head in self.heads.values())

    @property
    def embeddings_fitted(self) -> bool:
        """Whether the statistics of every head that standardises embeddings, and the segment model, are fitted."""
        fitted = [head.standardise.fitted for head in self.heads.values() if isinstance(head, BaselineHead)]
        return all(fitted + [head.segments.fitted for head in self.heads.values() if isinstance(head, SegmentFusion)])

    @torch.no_grad()
    def fit(self, clips: Iterable[Clip]) -> None:
        """Compute the statistics for standardisation, of the front end's bands and of the baseline's embeddings, from
        batches of training clips as the loader yields them. `clips` must be iterable twice."""
        if self.architecture.audio:
            self.frontend.fit(clip.audio[clip.present[:, 0]] for clip in clips if clip.present[:, 0].any())
        if not self.standardises_embeddings:
            return
        mode = self.training
        self.eval()
        found = {name: Moments() for name in self.architecture.modalities}
        frames: list[Tensor] = []
        where = next(self.parameters()).device
        for clip in clips:
            clip = clip._replace(**{n: getattr(clip, n).to(where) for n in ("audio", "video", "present")})
            branches = self.branches(self.preprocess(clip))
            if any(isinstance(head, SegmentFusion) for head in self.heads.values()):
                frames += join_frames(*(b.tokens for b in branches.values()))[clip.present.all(dim=1)].cpu().unbind()
            for name, branch in branches.items():
                present = clip.present[:, ("audio", "video").index(name)]
                if present.any():
                    found[name].add(branch.embedding[present])
        for name, head in self.heads.items():
            if isinstance(head, EarlyFusion):
                head.standardise.fit(joined(list(found.values())))
            elif isinstance(head, BaselineHead):
                head.standardise.fit(found[name])
            elif isinstance(head, SegmentFusion):
                head.segments.fit(frames)
        self.train(mode)

    def decide(self, logits: dict[str, Tensor], present: Tensor) -> Tensor:
        """Probabilities (B, K) by the architecture's decision weights."""
        weights = dict(zip(self.architecture.heads, self.architecture.weights, strict=True))
        return decide(logits, weights, present, self.architecture.decision_rule, self.architecture.sharpness)


def keep_statistics(model: SceneNet) -> None:
    """Keep the running means and variances of trained trunks, and normalise by them in training."""
    for trunk in (getattr(model, name) for name in model.architecture.modalities):
        for module in trunk.modules():
            if trunk.trained and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def rest_frozen_layers(part: nn.Module) -> None:
    """Put layers with frozen weights into evaluation mode."""
    for layer in part.modules():
        own = list(layer.parameters(recurse=False))
        if own and not any(p.requires_grad for p in own):
            layer.eval()


def freeze(part: nn.Module) -> None:
    """Freeze a part: no gradient, and evaluation mode, which the model's `train` does not change."""
    part.requires_grad_(False)
    part.eval()
