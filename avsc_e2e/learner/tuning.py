"""Fine-tuning of the upper part of a trunk from the solution of its regression, judged on sources held out.

The head starts with the regression's weights (Kumar et al., ICLR 2022); batch norms keep their statistics; the rates
rise and fall within the epochs. Weights between the start and the end are tried as well (Wortsman et al., CVPR 2022).
Axes: N segments, V cached views, K classes.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from avsc_e2e.devices import device
from avsc_e2e.learner.folds import Folds, loss_of
from avsc_e2e.learner.probe import Probe, balanced, fit_probe
from avsc_e2e.models import cut
from avsc_e2e.models.ensemble import statistics

BATCH = 32
LEAST_FOLDS = 3
"""Of those of the regressions, that tuning is judged on: on fewer sources, luck chooses. On as many, learning of the
last layers alone is compared with that of all."""
SHARES = (0.33, 0.67)
"""Between the start and the last epoch, that are tried beside the epochs themselves."""


@dataclass(frozen=True)
class Plan:
    """How a trunk is tuned."""

    epochs: int
    lr: float
    """Highest, of trunk and head."""
    mixup: float = 0.0
    """Of the Beta distribution; 0 is off."""
    masks: float = 0.0
    """Largest share of the time frames and of the bands in one mask; 0 is off."""
    weight_decay: float = 0.01


PLANS = {
    "speech": Plan(24, 5e-4, mixup=0.3, masks=0.15),
    "lite2": Plan(3, 1e-4),
    "lite0": Plan(3, 1e-4),
    "aisfx": Plan(8, 3e-4, mixup=0.3),
}
"""How trunks are fine-tuned, the cheapest first; epochs are the most, of which those out of fold choose."""
CHANCE = 0.95
"""Share of the log loss of equal probabilities, above which a regression has learnt next to nothing."""


def plans(alone: Mapping[str, float], video: Sequence[str], classes: int) -> list[tuple[str, Plan]]:
    """Which trunks are fine-tuned, and how, by the losses out of fold of their regressions: audio trunks for long and
    with masks and mixup, the better one of the `video` trunks for short; last those whose regression is hardly better
    than chance."""
    best = min((name for name in video if name in alone), key=alone.__getitem__, default="")
    found = [(name, plan) for name, plan in PLANS.items() if name in alone and (name not in video or name == best)]
    return sorted(found, key=lambda one: alone[one[0]] > CHANCE * math.log(classes))


@dataclass(frozen=True, eq=False)
class Cache:
    """What the lower part of a trunk makes of segments: (N, V, ...) activations, or planes."""

    values: Tensor
    several: bool
    """The first view of each segment is its frames, of which one is trained on at a time."""

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, eq=False)
class Tuned:
    """The best way found, refitted on all rows."""

    logits: np.ndarray
    """(N, K) out of fold; of no meaning for rows that were not judged."""
    judged: np.ndarray
    """(N,) bool."""
    net: nn.Module
    probe: Probe
    """Its head."""
    note: str
    start: np.ndarray
    """(N, K) out of fold, of the regressions that it started from; as far as `logits`."""


class Student(nn.Module):
    """The upper part of a net and its head; `depth` is the place of what learns among `cut.learning(net)`."""

    def __init__(self, net: nn.Module, names: Sequence[str], probe: Probe, depth: int = -1):
        super().__init__()
        self.net, self.names = copy.deepcopy(net), tuple(names)
        self.net.requires_grad_(False)
        for parameter in cut.learning(self.net)[depth]:
            parameter.requires_grad_(True)
        self.weights = nn.Parameter(torch.from_numpy(probe.weights.astype(np.float32)))
        self.bias = nn.Parameter(torch.from_numpy(probe.bias.astype(np.float32)))
        self.to(device()).eval()  # batch norms keep their statistics; there is no dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, ...) activations of T frames, or of one plane -> logits (B, K)."""
        found = cut.tokens(self.net, x.flatten(0, 1).to(self.bias.device).float())
        return statistics(found.unflatten(0, x.shape[:2]).flatten(1, 2), self.names) @ self.weights + self.bias

    def state(self) -> dict[str, Tensor]:
        """What learns."""
        return {name: p.detach().clone() for name, p in self.named_parameters() if p.requires_grad}

    def take(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, p in self.named_parameters():
                if name in state:
                    p.copy_(state[name])

    @torch.inference_mode()
    def logits(self, cache: Cache, rows: np.ndarray) -> np.ndarray:
        """(rows, K), from all frames as they are."""
        return np.concatenate([self(cache.values[at, : self.frames(cache)]).cpu().numpy() for at in _batches(rows)])

    @staticmethod
    def frames(cache: Cache) -> int:
        return cache.values.shape[1] // 2 if cache.several else 1


def tune(
    net: nn.Module,
    names: Sequence[str],
    cache: Cache,
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    folds: Folds,
    classes: int,
    plan: Plan,
    strength: float,
    seed: int,
    seconds: float,
) -> Tuned | None:
    """Fine-tune in each fold, or in as many and for as many epochs as `seconds` allow, choose layers, epoch and share
    for all folds, and refit on all rows. None where not even one fold can be judged in time."""
    first = fit_probe(features, targets, weights, strength, classes)
    each = _seconds_a_step(net, names, first, cache, targets, classes)
    every = len(cut.learning(net))
    plan, count, trials = _affordable(plan, each * len(targets) / BATCH, len(folds.judged), every, seconds)
    if not count:
        return None
    found: dict[tuple[int, str], np.ndarray] = {}
    judged = np.zeros(len(targets), bool)
    depths = list(range(every - trials, every))
    for index, (fitted, held) in enumerate(zip(folds.fitted[:count], folds.judged[:count], strict=True)):
        start = fit_probe(features[fitted], targets[fitted], weights[fitted], strength, classes)
        if index == LEAST_FOLDS:
            depths = [_least(found, targets, weights, judged)[0]]
        for depth in depths:
            student = Student(net, names, start, depth)
            for way, state in _ways(student, cache, targets, weights, fitted, plan, seed):
                student.take(state)
                values = found.setdefault((depth, way), np.zeros((len(targets), classes), np.float32))
                values[held] = student.logits(cache, held)
        judged[held] = True
    rows = np.arange(len(targets))
    depth, best = _least({key: found[key] for key in found if key[0] in depths}, targets, weights, judged)
    student = Student(net, names, first, depth)
    for way, state in _ways(student, cache, targets, weights, rows, plan, seed, best):
        if way == best:
            student.take(state)
            break
    head = Probe(student.weights.detach().cpu().numpy().copy(), student.bias.detach().cpu().numpy().copy())
    start, learnt = found[depth, "start"], sum(p.numel() for p in student.parameters() if p.requires_grad)
    note = f"{best}, {learnt:,} parameters, from {loss_of(start[judged], targets[judged], weights[judged]):.3f}"
    if not judged.all():
        note += f", judged on {100 * judged.mean():.0f} % of the segments"
    return Tuned(found[depth, best], judged, student.net, head, note, start)


def _least(
    found: Mapping[tuple[int, str], np.ndarray], targets: np.ndarray, weights: np.ndarray, judged: np.ndarray
) -> tuple[int, str]:
    """Depth and way of the least log loss on the rows judged so far."""
    return min(found, key=lambda key: loss_of(found[key][judged], targets[judged], weights[judged]))


def _seconds_a_step(
    net: nn.Module, names: Sequence[str], first: Probe, cache: Cache, targets: np.ndarray, classes: int
) -> float:
    """Measured on this machine, as busy as it is."""
    student = Student(net, names, first)
    at = np.arange(min(BATCH, len(targets)))
    y = one_hot(torch.from_numpy(targets[at]), classes).float()
    began = time.monotonic()
    for _ in range(2):
        logs = student(cache.values[at, :1]).log_softmax(dim=1)
        (-(y.to(logs.device) * logs).sum()).backward()
    return (time.monotonic() - began) / 2


def _affordable(plan: Plan, epoch: float, folds: int, depths: int, seconds: float) -> tuple[Plan, int, int]:
    """The plan with as many epochs, and as many folds, as fit, 0 folds where none does; and how many depths may be
    compared. `epoch` is the seconds of one over all rows; judging after an epoch costs about a fifth of it for each of
    its eight ways."""
    for epochs in dict.fromkeys((plan.epochs, plan.epochs // 2, plan.epochs // 4, 2, 1)):
        for count in range(folds, min(folds, LEAST_FOLDS) - 1, -1):
            for trials in range(depths, 0, -1):
                more = (trials - 1) * min(count, LEAST_FOLDS)
                if epochs > 0 and 1.3 * epoch * epochs * (1 + 0.8 * (count + more)) < seconds:
                    return replace(plan, epochs=epochs), count, trials
    return plan, 0, 1


def _ways(
    student: Student,
    cache: Cache,
    targets: np.ndarray,
    weights: np.ndarray,
    rows: np.ndarray,
    plan: Plan,
    seed: int,
    until: str = "",
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Name and weights of the start, of each epoch, and between the start and the last one. The student may be given
    other weights in between."""
    start, classes = student.state(), len(student.bias)
    yield "start", start
    share = torch.from_numpy(balanced(targets[rows], weights[rows])).float() * len(rows)
    truth = torch.from_numpy(targets)
    learning = [p for p in student.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=plan.lr, weight_decay=plan.weight_decay)
    steps = plan.epochs * max(len(rows) // BATCH, 1)
    rising = max(steps // 10, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda s: min((s + 1) / rising, 0.5 * (1 + np.cos(np.pi * min(s / steps, 1.0))))
    )
    draw = np.random.default_rng((seed, len(rows)))
    torch.manual_seed(seed)
    state = start
    every = max(plan.epochs // 8, 1)
    for epoch in range(1, plan.epochs + 1):
        student.take(state)
        order = draw.permutation(len(rows))
        for at in _batches(order, drop=True):
            x, y = cache.values[rows[at]], one_hot(truth[rows[at]], classes).float()
            if cache.several:  # one frame, or one of its mirror images
                view = torch.from_numpy(draw.integers(x.shape[1], size=len(x)))
                x = x[torch.arange(len(x)), view][:, None]
            x, y, loud = _augmented(x.float(), y, share[at], plan, draw)
            logs = student(x).log_softmax(dim=1)
            loss = -(loud.to(logs.device) * (y.to(logs.device) * logs).sum(dim=1)).mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(learning, 5.0)
            optimiser.step()
            schedule.step()
        state = student.state()
        if epoch % every == 0 or epoch == plan.epochs:
            yield f"epoch {epoch}", state
            if until == f"epoch {epoch}":
                return
    for part in SHARES:
        between = {name: torch.lerp(start[name], state[name], part) for name in state}
        yield f"{100 * part:.0f} % of the way", between


def _augmented(
    x: Tensor, y: Tensor, loud: Tensor, plan: Plan, draw: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    if plan.masks:
        x = x.clone()
        fill = x.mean(dim=(-2, -1), keepdim=True)
        for axis in (-1, -2):
            length = x.shape[axis]
            for index in range(len(x)):
                width = int(draw.random() * plan.masks * length)
                begin = int(draw.integers(length - width + 1))
                x[index].narrow(axis, begin, width).copy_(fill[index].expand_as(x[index].narrow(axis, begin, width)))
    if plan.mixup:
        part = torch.from_numpy(draw.beta(plan.mixup, plan.mixup, size=len(x))).float()
        part = torch.maximum(part, 1 - part)
        other = torch.from_numpy(draw.permutation(len(x)))
        wide = part.view(-1, *[1] * (x.dim() - 1))
        x, y = torch.lerp(x[other], x, wide), torch.lerp(y[other], y, part[:, None])
        loud = torch.lerp(loud[other], loud, part)
    return x, y, loud


def _batches(rows: np.ndarray, drop: bool = False) -> Iterator[np.ndarray]:
    for at in range(0, len(rows), BATCH):
        part = rows[at : at + BATCH]
        if not drop or len(part) == BATCH or len(rows) < BATCH:
            yield part
