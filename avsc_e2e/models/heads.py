"""Heads of single branches, model-level fusion of both, and the decision-level fusion of the heads' probabilities.

A fusion head takes embeddings (B, width) or, where `takes_tokens`, sequences (B, L, width) of audio and video with
present (B, 2), and gives logits (B, K). What it puts in place of a missing modality is learned, except where the
published net has no parameter for it: there it is zero, which is the training mean of standardised values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d

from avsc_e2e.errors import AvscError
from avsc_e2e.models.segmentmodel import SegmentModel, join_frames
from avsc_e2e.models.texthead import TextHead


class ZScore(nn.Module):
    """Standardises embeddings by statistics of training data, which the checkpoint keeps. (B, width) -> (B, width)."""

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    @property
    def fitted(self) -> bool:
        """Whether it has statistics of anything."""
        return bool(self.mean.any())

    @torch.no_grad()
    def fit(self, embeddings: Tensor) -> None:
        """Take mean and deviation from (N, width)."""
        self.mean.copy_(embeddings.mean(dim=0))
        self.std.copy_(embeddings.std(dim=0).clamp(min=1e-5))


class BaselineHead(nn.Module):
    """The head of the DCASE 2021 Task 1B baseline (Wang et al., ICASSP 2021): z-score, then 512, 128 and 64 units, each
    with batch norm, ReLU and dropout. 338,634 parameters for embeddings of 512, 600,778 for 1024."""

    def __init__(self, width: int, classes: int, dropout: float = 0.2):
        super().__init__()
        self.standardise = ZScore(width)
        self.first = nn.Linear(width, 512)
        self.to_second = _after(512, dropout)
        self.second = nn.Linear(512, 128)
        self.to_third = _after(128, dropout)
        self.third = nn.Linear(128, 64)
        self.to_last = _after(64, dropout)
        self.last = nn.Linear(64, classes)

    def inner(self, embedding: Tensor) -> Tensor:
        """(B, 128): the second layer's output, before its batch norm and ReLU."""
        return self.second(self.to_second(self.first(self.standardise(embedding))))

    def forward(self, embedding: Tensor) -> Tensor:
        return self.last(self.to_last(self.third(self.to_third(self.inner(embedding)))))


def _after(width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout))


class PointwiseHead(nn.Module):
    """Classifies every token and then takes the mean, between batch norms without parameters (Gao and McDonnell, 2019).
    (B, L, width) -> (B, K)."""

    takes_tokens = True

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.layer = nn.Conv1d(width, classes, 1, bias=False)
        self.last = nn.BatchNorm1d(classes, affine=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.last(self.layer(self.norm(tokens.transpose(1, 2)))).mean(dim=2)


def single_head(
    kind: str, width: int, token_width: int, classes: int, dropout: float, text_width: int = 512
) -> nn.Module:
    """The head of one modality."""
    if kind == "text":
        return TextHead(width, text_width, classes)
    if kind == "baseline":
        return BaselineHead(width, classes, dropout)
    if kind == "pointwise":
        return PointwiseHead(token_width, classes)
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, classes))


class _Inputs(nn.Module):
    """Normalises each input and puts a learned one where a modality is missing."""

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
    """Joins two embeddings, each normalised, before a head with one hidden layer."""

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
    """Each hidden unit weighs sound against pictures by a gate that sees both (gated multimodal unit, Arevalo et al.,
    2017)."""

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
    """All products of the two embeddings at low rank: the product of their projections (Kim et al., 2017)."""

    def __init__(self, widths: Sequence[int], hidden: int, classes: int, dropout: float):
        super().__init__(widths)
        self.layers = nn.ModuleList(nn.Linear(width, hidden) for width in widths)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, classes))

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> Tensor:
        audio, video = (layer(x).tanh() for layer, x in zip(self.layers, self.inputs(embeddings, present), strict=True))
        return self.head(audio * video)


class CrossAttentionFusion(_Inputs):
    """The steps of the sound attend to the frames and the frames to the sound (Vaswani et al., 2017; Lu et al., 2019);
    the means of both, joined, are classified."""

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


class EarlyFusion(BaselineHead):
    """The baseline's head on both embeddings joined (Fig. 1a of Wang et al., ICASSP 2021): 600,778 parameters for two
    of 512."""

    def __init__(self, widths: Sequence[int], hidden: int, classes: int, dropout: float):
        super().__init__(sum(widths), classes, dropout)
        self.widths = tuple(widths)

    def forward(self, embeddings: Sequence[Tensor], present: Tensor) -> Tensor:
        means = self.standardise.mean.split(self.widths)
        filled = [
            torch.where(present[:, i : i + 1], embedding, mean.to(embedding.dtype))
            for i, (embedding, mean) in enumerate(zip(embeddings, means, strict=True))
        ]
        return super().forward(torch.cat(filled, dim=1))


class TwoHeadsFusion(nn.Module):
    """The baseline's joint model (Fig. 1b of Wang et al., ICASSP 2021): the 128 inner values of both trained heads, 128
    units, K, no non-linearity between; 34,186 parameters."""

    def __init__(self, classes: int):
        super().__init__()
        self.hidden = nn.Linear(2 * 128, 128)
        self.last = nn.Linear(128, classes)

    def forward(self, inner: Sequence[Tensor], present: Tensor) -> Tensor:
        return self.last(self.hidden(torch.cat([x * present[:, i : i + 1] for i, x in enumerate(inner)], dim=1)))


class ProductFusion(nn.Module):
    """The weighted sum of both trained heads' logits: up to a constant, the product of their probabilities (Hinton,
    2002), which is right where, given the scene, sound and pictures err independently. A missing modality drops out."""

    def __init__(self, classes: int):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(2))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, logits: Sequence[Tensor], present: Tensor) -> Tensor:
        """Logits (B, K) of audio and video, present (B, 2) -> logits (B, K)."""
        votes = [self.weights[i] * x * present[:, i : i + 1] for i, x in enumerate(logits)]
        return votes[0] + votes[1] + self.bias


class SequenceFusion(nn.Module):
    """The model of Hou_UGent (DCASE 2021, rank 16): the sequence of the sound's embeddings goes through self-attention
    and convolutions down to ten steps of `hidden`; each frame's embedding through one layer; step by step both are
    joined and classified, and mean and maximum over time are added. With ResNet-50 and its ImageNet classifier, which
    the authors count though they do not use it, 28,329,010 parameters at width 256."""

    takes_tokens = True
    LENGTH = 96
    """Embeddings that the convolutions expect; fewer are repeated, as the authors do for clips of one second."""
    NARROWEST = 232
    """Values of an embedding of which the convolutions leave something."""

    def __init__(self, widths: Sequence[int], hidden: int, classes: int):
        super().__init__()
        audio, video = widths
        if audio < self.NARROWEST or audio % 8:
            raise AvscError(
                f"--model.fusion sequence: its convolutions need sound embeddings of at least {self.NARROWEST} values, "
                f"a multiple of 8, and --model.audio gives {audio}"
            )
        # Published without the scaling of the products by the root of their width, which this layer has.
        self.attention = nn.TransformerEncoderLayer(audio, 8, audio, dropout=0.0, batch_first=True)
        layers: list[nn.Module] = []
        kernels, strides = (7, 5, 5, 5), ((3, 4), (3, 3), (1, 3), (1, 3))
        for index, (kernel, stride) in enumerate(zip(kernels, strides, strict=True)):
            before, after = (1, 64, 128, 256, hidden)[index : index + 2]
            layers += [nn.Conv2d(before, after, (1, kernel), stride), nn.BatchNorm2d(after), nn.ReLU()]
            if index < 2:
                layers.append(nn.MaxPool2d(2, 1))
        self.convs = nn.Sequential(*layers)
        self.frame = nn.Sequential(nn.Linear(video, hidden), nn.ReLU(), nn.BatchNorm1d(hidden))
        self.classifier = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(hidden, classes)
        )

    def forward(self, tokens: Sequence[Tensor], present: Tensor) -> Tensor:
        audio, video = (x * present[:, i, None, None] for i, x in enumerate(tokens))
        frames = self.frame(video.flatten(0, 1)).unflatten(0, video.shape[:2])
        audio = audio.repeat(1, -(-self.LENGTH // audio.shape[1]), 1)[:, : self.LENGTH]
        steps = self.convs(self.attention(audio)[:, None]).mean(dim=3)  # (B, hidden, 10)
        steps = adaptive_avg_pool1d(steps, frames.shape[1]).transpose(1, 2)
        logits = self.classifier(torch.cat([steps, frames], dim=2))
        return logits.mean(dim=1) + logits.amax(dim=1)


class RecurrentFusion(_Inputs):
    """Sound and frames joined step by step before a bidirectional GRU (Naranjo-Alcazar et al., 2021); its width, and
    the mean over its steps, are our choice."""

    takes_tokens = True

    def __init__(self, widths: Sequence[int], hidden: int, classes: int, dropout: float):
        super().__init__(widths)
        self.gru = nn.GRU(sum(widths), hidden // 2, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden // 2 * 2, classes))

    def forward(self, tokens: Sequence[Tensor], present: Tensor) -> Tensor:
        audio, video = self.inputs(tokens, present)
        audio = adaptive_avg_pool1d(audio.transpose(1, 2), video.shape[1]).transpose(1, 2)
        return self.head(self.gru(torch.cat([audio, video], dim=2))[0].mean(dim=1))


class SegmentFusion(_Inputs):
    """Concatenation of both embeddings and that of the audio-visual segment model over their tokens, each frame of
    which is what is heard and seen at the time (Du_USTC, DCASE 2021). The segment model is fitted before training, on
    the trunks as they are then, so they come from earlier stages or are frozen."""

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
    """The model-level fusion that an architecture names."""
    if kind == "two_heads":
        return TwoHeadsFusion(classes)
    if kind == "product":
        return ProductFusion(classes)
    if kind == "sequence":
        return SequenceFusion(token_widths, hidden, classes)
    head = {
        "concat": ConcatFusion,
        "gated": GatedFusion,
        "bilinear": BilinearFusion,
        "cross_attention": CrossAttentionFusion,
        "early": EarlyFusion,
        "recurrent": RecurrentFusion,
        "segments": SegmentFusion,
    }[kind]
    return head(token_widths if takes_tokens(head) else widths, hidden, classes, dropout)


def takes_tokens(head: nn.Module | type[nn.Module]) -> bool:
    """Whether a head takes sequences rather than embeddings."""
    return getattr(head, "takes_tokens", False)


def decide(logits: Mapping[str, Tensor], weights: Mapping[str, float], present: Tensor) -> Tensor:
    """The weighted mean of the heads' probabilities, (B, K) float32. The head of a modality that a clip lacks has no
    vote; where only heads without a vote are left, they are all heard."""
    votes, total = 0.0, 0.0
    for name, values in logits.items():
        heard = present[:, ("audio", "video").index(name)] if name != "fusion" else torch.ones_like(present[:, 0])
        weight = heard.float()[:, None] * max(weights[name], 1e-6)
        votes = votes + weight * values.float().softmax(dim=1)
        total = total + weight
    fallback = torch.stack([values.float().softmax(dim=1) for values in logits.values()]).mean(dim=0)
    return torch.where(total > 0, votes / total.clamp(min=1e-12), fallback)


def fit_decision(probabilities: Mapping[str, Tensor], targets: Tensor, iterations: int = 500) -> dict[str, float]:
    """The weights of `decide` with the least macro log loss on validation clips that have both modalities: the heads'
    probabilities (N, K) and targets (N,) -> weights that sum to one. The loss is convex in them, and expectation
    maximisation, which knows no step size, goes downhill in every iteration. Raises AvscError without clips."""
    if not len(targets):
        raise AvscError("the decision weights need validation clips to be fitted on")
    targets = torch.as_tensor(targets)
    truth = torch.stack(
        [torch.as_tensor(p).double().gather(1, targets[:, None])[:, 0] for p in probabilities.values()]
    ).clamp(min=1e-15)
    counts = torch.bincount(targets)
    share = 1.0 / counts[targets].double()
    share = share / share.sum()  # every class weighs the same
    weights = torch.full((len(truth),), 1 / len(truth), dtype=torch.float64)
    for _ in range(iterations):
        votes = weights[:, None] * truth
        weights = (votes / votes.sum(dim=0) * share).sum(dim=1)
    return dict(zip(probabilities, weights.tolist(), strict=True))
