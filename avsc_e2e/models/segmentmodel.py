"""The audio-visual segment model: a scene as a sequence of units (Du_USTC, DCASE 2021; after the acoustic segment
models of Lee et al., ICASSP 1988, and text categorisation of their transcripts).

Audio-visual frames -> units, each a Gaussian mixture, found by Viterbi re-segmentation -> counts of units and of pairs
of neighbouring units -> tf-idf -> latent semantic analysis -> one embedding. Which features, how many units and how
many topics the team used is not published: they are our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from avsc_e2e.errors import AvscError

LEAST_FRAMES = 8
"""Frames that a unit needs for each of its Gaussians to be estimated again."""


class SegmentModel(nn.Module):
    """(B, L, width) frames -> (B, topics) unit vectors. `fit` sets its buffers. It has no parameters, so checkpoints
    store it and no gradient passes through it."""

    def __init__(self, width: int, units: int = 32, gaussians: int = 2, components: int = 16, topics: int = 32):
        super().__init__()
        self.units, self.topics = units, topics
        components = min(components, width)
        shapes = {
            "centre": (width,),
            "axes": (width, components),
            "log_weights": (units, gaussians),
            "means": (units, gaussians, components),
            "variances": (units, gaussians, components),
            "log_start": (units,),
            "log_transitions": (units, units),
            "idf": (units + units**2,),
            "lsa": (units + units**2, topics),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.ones(shape) if name == "variances" else torch.zeros(shape))

    @property
    def fitted(self) -> bool:
        return bool(self.idf.any())

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        counts = self.counts(self.transcribe(frames))
        # Sublinear counts for latent semantic analysis: 1 + ln(count).
        terms = torch.where(counts > 0, 1 + counts.clamp(min=1).log(), 0.0) * self.idf
        return normalize(normalize(terms, dim=1) @ self.lsa, dim=1)

    @torch.no_grad()
    def transcribe(self, frames: Tensor) -> Tensor:
        """The units of each frame, (B, L) int64: the most probable path (Viterbi)."""
        # Meta tensors, used to count operations, do not support autocast.
        with nullcontext() if frames.is_meta else torch.autocast(frames.device.type, enabled=False):
            scores = self._log_likelihood((frames.float() - self.centre) @ self.axes)
        best = self.log_start + scores[:, 0]
        back = []
        for step in range(1, scores.shape[1]):
            best, came = (best[:, :, None] + self.log_transitions).max(dim=1)
            best = best + scores[:, step]
            back.append(came)
        path = [best.argmax(dim=1)]
        for came in reversed(back):
            path.append(came.gather(1, path[-1][:, None])[:, 0])
        return torch.stack(path[::-1], dim=1)

    def counts(self, units: Tensor) -> Tensor:
        """(B, U + U * U): frames of each unit, and the number of changes from each unit to each other."""
        batch, length = units.shape
        found = torch.zeros(batch, self.units + self.units**2, device=units.device)
        found.scatter_add_(1, units, torch.ones(batch, length, device=units.device))
        pairs = self.units + units[:, :-1] * self.units + units[:, 1:]
        return found.scatter_add_(1, pairs, (units[:, 1:] != units[:, :-1]).float())

    def _log_likelihood(self, x: Tensor) -> Tensor:
        """(B, L, components) -> (B, L, U)."""
        flat = x.flatten(0, 1)[:, None, None]
        distance = ((flat - self.means) ** 2 / self.variances + self.variances.log() + np.log(2 * np.pi)).sum(dim=-1)
        return (self.log_weights - distance / 2).logsumexp(dim=-1).unflatten(0, x.shape[:2])

    @torch.no_grad()
    def fit(self, recordings: Sequence[Tensor], seed: int = 0, rounds: int = 5) -> None:
        """Learn units and topics, without labels, from frames (L, width) of training recordings of any length. Raises
        AvscError if there are too few."""
        from sklearn.decomposition import PCA, TruncatedSVD  # slow, and rarely needed
        from sklearn.feature_extraction.text import TfidfTransformer
        from sklearn.mixture import GaussianMixture

        frames = torch.cat([one.float().cpu() for one in recordings]).numpy().astype(np.float64)
        if len(frames) < 2 * self.units or len(recordings) < 2:
            raise AvscError(
                f"the segment model learns {self.units} units: {len(frames)} frames of {len(recordings)} recordings "
                f"are too few"
            )
        count = min(self.axes.shape[1], len(frames) - 1)
        deviation = np.maximum(frames.std(axis=0), 1e-6)  # neither modality dominates because of its scale
        pca = PCA(count, random_state=seed).fit(frames / deviation)
        scales = np.sqrt(np.maximum(pca.explained_variance_, 1e-8 * pca.explained_variance_[0]))
        self.centre.copy_(torch.from_numpy(frames.mean(axis=0)))
        self.axes.zero_()[:, :count] = torch.from_numpy((pca.components_ / scales[:, None] / deviation).T.copy())
        points = (frames - frames.mean(axis=0)) @ self.axes.double().numpy()
        first = GaussianMixture(self.units, covariance_type="diag", reg_covar=1e-3, random_state=seed).fit(points)
        gaussians = self.means.shape[1]
        self.means.copy_(torch.from_numpy(first.means_)[:, None])
        self.variances.copy_(torch.from_numpy(first.covariances_)[:, None])
        self.log_weights.fill_(-np.log(gaussians))
        self.log_start.fill_(-np.log(self.units))
        self.log_transitions.fill_(-np.log(self.units))
        before = None
        for _ in range(rounds):
            paths = self._transcripts(recordings)
            labels = np.concatenate(paths)
            if before is not None and np.array_equal(labels, before):
                break
            before = labels
            self._estimate(points, paths, seed)
        paths = self._transcripts(recordings)
        counts = torch.cat([self.counts(torch.from_numpy(path)[None]) for path in paths]).numpy().astype(np.float64)
        tfidf = TfidfTransformer(sublinear_tf=True).fit(counts)
        self.idf.copy_(torch.from_numpy(tfidf.idf_))
        topics = min(self.topics, len(recordings) - 1, counts.shape[1] - 1)
        svd = TruncatedSVD(topics, algorithm="arpack", random_state=seed).fit(tfidf.transform(counts))
        self.lsa.zero_()[:, :topics] = torch.from_numpy(svd.components_.T.copy())

    def _transcripts(self, recordings: Sequence[Tensor]) -> list[np.ndarray]:
        """Units of each recording; recordings of equal length are processed together."""
        found: list[np.ndarray] = [np.empty(0)] * len(recordings)
        for length in {len(one) for one in recordings}:
            indices = [index for index, one in enumerate(recordings) if len(one) == length]
            paths = self.transcribe(
                torch.stack([recordings[index].float() for index in indices]).to(self.centre.device)
            )
            for index, path in zip(indices, paths.cpu().numpy(), strict=True):
                found[index] = path
        return found

    def _estimate(self, points: np.ndarray, paths: Sequence[np.ndarray], seed: int) -> None:
        """Mixtures and transitions from the last segmentation; a unit that lost its frames is kept unchanged."""
        from sklearn.mixture import GaussianMixture

        labels, gaussians = np.concatenate(paths), self.means.shape[1]
        for unit in range(self.units):
            own = points[labels == unit]
            if len(own) < LEAST_FRAMES * gaussians or len(np.unique(own, axis=0)) < gaussians:
                continue
            mixture = GaussianMixture(gaussians, covariance_type="diag", reg_covar=1e-2, random_state=seed).fit(own)
            self.log_weights[unit] = torch.from_numpy(np.log(mixture.weights_))
            self.means[unit] = torch.from_numpy(mixture.means_)
            self.variances[unit] = torch.from_numpy(mixture.covariances_)
        start, steps = np.ones(self.units), np.ones((self.units, self.units))
        for path in paths:
            start[path[0]] += 1
            np.add.at(steps, (path[:-1], path[1:]), 1)
        self.log_start.copy_(torch.from_numpy(np.log(start / start.sum())))
        self.log_transitions.copy_(torch.from_numpy(np.log(steps / steps.sum(axis=1, keepdims=True))))


def join_frames(audio: Tensor, video: Tensor) -> Tensor:
    """Tokens (B, L, width) of both modalities, resampled to the longer sequence and concatenated: (B, max L, both
    widths)."""
    length = max(audio.shape[1], video.shape[1])

    def stretched(tokens: Tensor) -> Tensor:
        at = (torch.arange(length, device=tokens.device) * tokens.shape[1]).div(length, rounding_mode="floor")
        return tokens[:, at]

    return torch.cat([stretched(audio), stretched(video)], dim=-1)
