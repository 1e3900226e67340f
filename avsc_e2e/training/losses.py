"""Losses of the heads."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from avsc_e2e.clip import MODALITIES, Clip


def head_losses(logits: dict[str, Tensor], clip: Clip, temperature: float = 1.0) -> dict[str, Tensor]:
    """Cross-entropy of each head with targets (B, K), or (B, 2, K) of audio and video for mixed clips. The head of a
    modality learns only from clips that have it. The target of the fusion head is the mean over the modalities that are
    present. With a temperature, logits are divided by it and the loss is multiplied by its square (Hinton et al.,
    2015)."""
    losses = {}
    for name, values in logits.items():
        target = target_of(name, clip)
        each = -(target * log_softmax(values.float() / temperature, dim=1)).sum(dim=1) * temperature**2
        if name == "fusion":
            losses[name] = each.mean()
        else:
            has = clip.present[:, MODALITIES.index(name)].float()
            losses[name] = (each * has).sum() / has.sum().clamp(min=1.0)
    return losses


def target_of(head: str, clip: Clip) -> Tensor:
    """The targets (B, K) of a head, for the modalities of its input."""
    if clip.target.dim() == 2:
        return clip.target
    if head in MODALITIES:
        return clip.target[:, MODALITIES.index(head)]
    share = clip.present.float()
    share = share / share.sum(dim=1, keepdim=True).clamp(min=1.0)
    return (clip.target * share[:, :, None]).sum(dim=1)


def smooth(target: Tensor, share: float) -> Tensor:
    """Label smoothing: targets (B, K) of which `share` is spread equally over all classes (Szegedy et al., 2016)."""
    return target if share <= 0 else torch.lerp(target, torch.full_like(target, 1 / target.shape[1]), share)


def distilled_losses(logits: dict[str, Tensor], clip: Clip, weight: float, temperature: float) -> dict[str, Tensor]:
    """Losses for targets (..., 2K), the true classes followed by the teacher's probabilities at `temperature`. The
    latter have the share `weight` of the loss."""
    truth, taught = clip.target.chunk(2, dim=-1)
    own = head_losses(logits, clip._replace(target=truth))
    from_teacher = head_losses(logits, clip._replace(target=taught), temperature)
    return {name: torch.lerp(own[name], from_teacher[name], weight) for name in own}
