"""Model-level fusion of both branches.

The attribute `takes` of a fusion head names its inputs of audio and video: embeddings (B, width), sequences (B, L,
width), or outputs of the single heads. With present (B, 2), it returns logits (B, K). A learned vector replaces a
missing modality. Where the published net has no parameter for it, zero replaces it, which is the training mean of
standardised values.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from avsc_e2e.models.heads import BaselineHead, takes_tokens
from avsc_e2e.models.segmentmodel import SegmentModel, join_frames
from avsc_e2e.models.sequencefusion import RecurrentFusion, SequenceFusion


class _Inputs(nn.Module):
    """Normalises each input and replaces a missing modality by a learned vector."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.missing = nn.ParameterList(nn.Parameter(torch.zeros(width)) for width in widths)

    def inputs(self, values: Sequence[Tensor], present: Tensor) -> list[Tensor]:
        return [
            torch.where(
                present[:, i].reshape(-1, *[1] * (value.dim() - 1)),
                self.norms[i](value),
                self.missing[i].to(value.dtype),
            )
            for i, value in enumerate(values)
        ]


class ConcatFusion(_Inputs):
    """Normalises and concatenates both embeddings; a head with one hidden layer follows."""

    def __init__(self, widths: Sequence[int], hidden: int, classes: int, dropout: float):
        super().__init__(widths)
        self.head = nn.Sequential(
            nn.Linear(sum(widths), hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> Tensor:
        """Embeddings (B, width) of audio and video, present (B, 2) -> logits (B, K)."""
        return self.head(torch.cat(self.inputs(embeddings, present), dim=1))


class GatedFusion(_Inputs):
    """A gate for each hidden unit, computed from both modalities, weighs audio against video (gated multimodal unit,
    Arevalo et al., 2017)."""

    def __init__(self, widths: Sequence[int], hidden: int, classes: int, dropout: float):
        super().__init__(widths)
        self.layers = nn.ModuleList(nn.Linear(width, hidden) for width in widths)
        self.gate = nn.Linear(sum(widths), hidden)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, classes))

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> Tensor:
        inputs = self.inputs(embeddings, present)
        audio, video = (layer(x).tanh() for layer, x in zip(self.layers, inputs, strict=True))
        return self.head(torch.lerp(video, audio, self.gate(torch.cat(inputs, dim=1)).sigmoid()))


class BilinearFusion(_Inputs):
    """Bilinear pooling of low rank: the elementwise product of projections of both embeddings (Kim et al., 2017)."""

    def __init__(self, widths: Sequence[int], hidden: int, classes: int, dropout: float):
        super().__init__(widths)
        self.layers = nn.ModuleList(nn.Linear(width, hidden) for width in widths)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, classes))

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> Tensor:
        audio, video = (layer(x).tanh() for layer, x in zip(self.layers, self.inputs(embeddings, present), strict=True))
        return self.head(audio * video)


class CrossAttentionFusion(_Inputs):
    """The steps of the audio attend to the frames and the frames to the audio (Vaswani et al., 2017; Lu et al., 2019);
    the concatenated means of both are classified."""

    takes_tokens = True

    def __init__(self, widths: Sequence[int], hidden: int, classes: int, dropout: float):
        super().__init__(widths)
        heads = next(count for count in (8, 4, 2, 1) if hidden % count == 0)
        self.layers = nn.ModuleList(nn.Linear(width, hidden) for width in widths)
        self.attention = nn.ModuleList(nn.MultiheadAttention(hidden, heads, batch_first=True) for _ in widths)
        self.after = nn.ModuleList(nn.LayerNorm(hidden) for _ in widths)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * hidden, classes))

    def forward(self, tokens: Sequence[Tensor], present: Tensor) -> Tensor:
        pair = [layer(x) for layer, x in zip(self.layers, self.inputs(tokens, present), strict=True)]
        means = []
        for mine, other, attention, after in zip(pair, pair[::-1], self.attention, self.after, strict=True):
            heard = attention(mine, other, other, need_weights=False)[0]
            means.append(after(mine + heard).mean(dim=1))
        return self.head(torch.cat(means, dim=1))


class BottleneckFusion(_Inputs):
    """Each modality has its own transformer layers, and they exchange information only through a few tokens (attention
    bottlenecks, Nagrani et al., NeurIPS 2021). Each layer takes its modality's tokens, a class token first, and the
    bottleneck tokens; the two updates of the bottleneck tokens are averaged. The logits are the mean of those of both
    class tokens."""

    takes_tokens = True
    LAYERS, BOTTLENECKS = 2, 4
    """The paper fuses in the last four of twelve layers with four tokens; here the layers follow complete trunks."""

    def __init__(self, widths: Sequence[int], hidden: int, classes: int, dropout: float):
        super().__init__(widths)
        heads = next(count for count in (8, 4, 2, 1) if hidden % count == 0)
        self.layers = nn.ModuleList(nn.Linear(width, hidden) for width in widths)
        self.first = nn.ParameterList(nn.Parameter(0.02 * torch.randn(1, 1, hidden)) for _ in widths)
        self.bottlenecks = nn.Parameter(0.02 * torch.randn(1, self.BOTTLENECKS, hidden))
        layer = partial(nn.TransformerEncoderLayer, activation="gelu", batch_first=True, norm_first=True)
        self.blocks = nn.ModuleList(
            nn.ModuleList(layer(hidden, heads, 4 * hidden, dropout) for _ in widths) for _ in range(self.LAYERS)
        )
        self.norms_after = nn.ModuleList(nn.LayerNorm(hidden) for _ in widths)
        self.heads = nn.ModuleList(nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, classes)) for _ in widths)

    def forward(self, tokens: Sequence[Tensor], present: Tensor) -> Tensor:
        pair = [layer(x) for layer, x in zip(self.layers, self.inputs(tokens, present), strict=True)]
        pair = [torch.cat([one.expand(len(x), -1, -1), x], 1) for one, x in zip(self.first, pair, strict=True)]
        shared = self.bottlenecks.expand(len(present), -1, -1)
        for block in self.blocks:
            seen = [layer(torch.cat([x, shared], dim=1)) for layer, x in zip(block, pair, strict=True)]
            pair = [x[:, : -self.BOTTLENECKS] for x in seen]
            shared = (seen[0][:, -self.BOTTLENECKS :] + seen[1][:, -self.BOTTLENECKS :]) / 2
        ends = zip(self.heads, self.norms_after, pair, strict=True)
        return sum(head(norm(x[:, 0])) for head, norm, x in ends) / 2


class EarlyFusion(BaselineHead):
    """The baseline's head on both concatenated embeddings (Fig. 1a of Wang et al., ICASSP 2021): 600,778 parameters for
    two of 512."""

    def __init__(self, widths: Sequence[int], hidden: int, classes: int, dropout: float):
        super().__init__(sum(widths), classes, dropout)
        self.widths = tuple(widths)

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> Tensor:  # type: ignore[override]  # a fusion head
        means = self.standardise.mean.split(self.widths)
        filled = [
            torch.where(present[:, i : i + 1], embedding, mean.to(embedding.dtype))
            for i, (embedding, mean) in enumerate(zip(embeddings, means, strict=True))
        ]
        return super().forward(torch.cat(filled, dim=1))


class TwoHeadsFusion(nn.Module):
    """The baseline's joint model (Fig. 1b of Wang et al., ICASSP 2021): the 128 inner values of each trained head, a
    layer of 128 units and one of K, without a non-linearity between them; 34,186 parameters."""

    def __init__(self, classes: int):
        super().__init__()
        self.hidden = nn.Linear(2 * 128, 128)
        self.last = nn.Linear(128, classes)

    def forward(self, inner: Sequence[Tensor], present: Tensor) -> Tensor:
        return self.last(self.hidden(torch.cat([x * present[:, i : i + 1] for i, x in enumerate(inner)], dim=1)))


class ProductFusion(nn.Module):
    """The weighted sum of both trained heads' logits: up to a constant, the product of their probabilities (Hinton,
    2002), which is correct if audio and video are independent given the scene. A missing modality is left out."""

    def __init__(self, classes: int):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(2))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, logits: Sequence[Tensor], present: Tensor) -> Tensor:
        """Logits (B, K) of audio and video, present (B, 2) -> logits (B, K)."""
        votes = [self.weights[i] * x * present[:, i : i + 1] for i, x in enumerate(logits)]
        return votes[0] + votes[1] + self.bias


class SegmentFusion(_Inputs):
    """Concatenates both embeddings and that of the audio-visual segment model (Du_USTC, DCASE 2021). A frame of the
    segment model joins the audio and video tokens of one time. The segment model is fitted to the trunks before
    training, so the trunks must come from earlier stages or be frozen."""

    takes_tokens = True

    def __init__(self, widths: Sequence[int], hidden: int, classes: int, dropout: float):
        super().__init__(widths)
        self.segments = SegmentModel(sum(widths))
        self.missing_segments = nn.Parameter(torch.zeros(self.segments.topics))
        self.head = nn.Sequential(
            nn.Linear(sum(widths) + self.segments.topics, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )

    def forward(self, values: Sequence[Tensor], present: Tensor) -> Tensor:
        """Tokens (B, L, width) of audio and video, present (B, 2) -> logits (B, K)."""
        written = torch.where(present.all(dim=1)[:, None], self.segments(join_frames(*values)), self.missing_segments)
        return self.head(torch.cat([*self.inputs([tokens.mean(dim=1) for tokens in values], present), written], dim=1))


def fusion_head(
    kind: str, widths: Sequence[int], token_widths: Sequence[int], hidden: int, classes: int, dropout: float
) -> nn.Module:
    """The fusion head that an architecture names."""
    if kind == "two_heads":
        return TwoHeadsFusion(classes)
    if kind == "product":
        return ProductFusion(classes)
    if kind == "sequence":
        return SequenceFusion(token_widths, hidden, classes)
    if kind == "recurrent":
        return RecurrentFusion(token_widths, hidden, classes)
    head = {
        "concat": ConcatFusion,
        "gated": GatedFusion,
        "bilinear": BilinearFusion,
        "cross_attention": CrossAttentionFusion,
        "bottleneck": BottleneckFusion,
        "early": EarlyFusion,
        "segments": SegmentFusion,
    }[kind]
    return head(token_widths if takes_tokens(head) else widths, hidden, classes, dropout)
