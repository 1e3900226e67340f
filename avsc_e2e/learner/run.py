"""A run of the learner: its rungs one after the other, as far as the minutes reach."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from avsc_e2e.clip import MODALITIES
from avsc_e2e.devices import device
from avsc_e2e.errors import AvscError
from avsc_e2e.learner.assembly import Head, assemble, decide
from avsc_e2e.learner.budget import Clock
from avsc_e2e.learner.decision import Judged, beats, standard_error
from avsc_e2e.learner.embeddings import (
    Embedded,
    Segments,
    activations,
    embed,
    members_at_hand,
    read_arrays,
    segments_of,
    tower,
    write_arrays,
)
from avsc_e2e.learner.folds import Folds, accuracy_of, loss_of, losses_of
from avsc_e2e.learner.ladder import Ladder, Rung
from avsc_e2e.learner.look import Look
from avsc_e2e.learner.probe import joined, probe
from avsc_e2e.learner.results import Learned, Results
from avsc_e2e.learner.tuning import PLANS, Cache, Plan, plans, tune
from avsc_e2e.models.ensemble import Member, Tower

log = logging.getLogger(__name__)

SHARE = 0.5
"""Of the time that is left beside the test part, what embeddings and their regressions may take; of larger sets fewer
segments a recording are looked at."""
LEARNT = 0.2
"""Of the budget, what embeddings and regressions may take at least, however long the rest has taken."""
JUDGED = 0.25
"""Of the budget, what the test part may take; of larger ones fewer segments are judged."""
REGRESSED = 0.02
"""Seconds that all regressions and decisions take for a segment, on two cores, for some thousand segments of the usual
members."""
FIRST = "first look"
"""Stage of the checkpoint that is left before all segments are looked at."""
TRIAL = 96
"""Segments that the machine's rate of embedding is measured on."""

Progress = Callable[[str], Callable[..., None]]


def silent(label: str) -> Callable[..., None]:
    """No progress."""
    return lambda *_: None


@dataclass
class Run:
    """A run: what is known so far, and what is on the disk of it."""

    results: Results
    clock: Clock
    seed: int
    progress: Progress = silent
    ladder: Ladder = field(default_factory=Ladder)
    heads: dict[str, Head] = field(default_factory=dict)
    towers: dict[str, Tower] = field(default_factory=dict)
    alone: dict[str, float] = field(default_factory=dict)
    """Member -> loss out of fold of its regression."""
    logs: np.ndarray | None = None
    """(N, K) out of fold, of the checkpoint on the disk; nan for rows that it was not judged on."""
    each: float = 0.0
    """Seconds that a segment takes through all frozen members."""

    @property
    def seen(self) -> Look:
        """The data set as far as it is decoded."""
        return self.results.look

    def climb(self, looks: Iterable[Look], members: Sequence[Member] | None, resumed: bool) -> Learned:
        """All rungs that the budget affords, then the test part and the report. `looks` are the data set as more of it
        is decoded; `resumed`: there is a checkpoint of an earlier run."""
        for seen in looks:
            self.results.seen = seen
            self.start(members)
            every = segments_of(seen.corpus.train, seen.corpus.classes)
            self.first_look(every)
        log.info("%s\nbudget: %g minutes, %d cores", seen.text(), self.clock.seconds / 60, os.cpu_count() or 1)
        if self.embed(every):
            if resumed:
                self.recall()
            self.probes()
            self.decide("probes")
        video = [name for name, one in self.towers.items() if one.member.modality == "video"]
        waiting = plans(self.alone, video, self.classes)
        for _ in range(2):  # what does not fit into its share of the time may fit into what the others leave
            skipped = []
            for place, (name, plan) in enumerate(waiting):
                if not self.tune(name, plan, (self.clock.left - self.ending) / (len(waiting) - place)):
                    skipped.append((name, plan))
            waiting = skipped
        if waiting:
            log.info("no time to fine-tune %s", ", ".join(name for name, _ in waiting))
        most = max(self.clock.left, JUDGED * self.clock.seconds) / max(self.each, 1e-6)
        return self.results.finish(self.model, self.ladder, self.segments, most, self.progress("judging the test part"))

    def start(self, members: Sequence[Member] | None) -> None:
        """Have the towers of the data set's modalities ready: of `members`, or of those at hand."""
        known = members_at_hand() if members is None else members
        known = [member for member in known if member.modality in self.seen.modalities]
        missing = set(self.seen.modalities) - {member.modality for member in known}
        if missing and members is None:
            raise AvscError(f"no pretrained {' or '.join(missing)} trunk is at hand: install avsc-e2e[lite0]")
        self.towers = {member.name: self.towers.get(member.name) or tower(member) for member in known}

    @property
    def ending(self) -> float:
        """Seconds that the test part will take."""
        count = sum(max(row.duration, 1.0) for row in self.seen.corpus.test)
        return min(1.2 * self.each * count, JUDGED * self.clock.seconds) + 10.0

    def tune(self, name: str, plan: Plan, seconds: float) -> bool:
        """Fine-tune a trunk, and decide anew; False where some seconds are too few for it."""
        frozen, member, began = self.towers[name], self.towers[name].member, self.clock.used
        several = member.modality == "video"
        names = ("mean",) if several else member.statistics
        rows = self.found.present[:, MODALITIES.index(member.modality)]
        fits = seconds / 2 / max((1.0 if several else 0.4) * self.each, 1e-6)
        if rows.sum() > fits:
            if fits < TRIAL:
                return False
            rows = rows & self.segments.within(fits / rows.mean())  # fewer of each recording teach nearly as much
        segments = self.segments.chosen(rows)
        cache, features = activations(
            frozen, names, segments, self.seen.corpus, self.seen.store, self.progress(f"{name} below")
        )
        targets, weights, classes = segments.targets, segments.weights, self.classes
        folds = self.folds.within(rows)
        strength = probe(features, targets, weights, folds, classes).strength
        tuned = tune(
            frozen.trunk.net, names, Cache(cache, several), features, targets, weights, folds, classes, plan, strength,
            self.seed, seconds - (self.clock.used - began),
        )  # fmt: skip
        if tuned is None:
            return False
        new, there = f"{name} tuned", tuned.judged
        both = Judged(segments.targets[there], segments.groups[there], segments.weights[there])
        if not beats(tuned.logits[there], tuned.start[there], both, 1.0):
            log.info("%s: no better than its regression (%s)", new, tuned.note)
            return True
        made = Tower(replace(member, name=new, statistics=names))
        made.load_state_dict(frozen.state_dict())
        made.trunk.net.load_state_dict(tuned.net.state_dict())
        self.towers[new] = made.to(device()).eval()
        logits, judged = np.zeros((len(rows), classes), np.float32), np.zeros(len(rows), bool)
        logits[rows], judged[rows] = tuned.logits, tuned.judged
        self.heads[new] = Head((new,), frozenset({member.modality}), logits, judged, tuned.probe)
        self.tell(new, logits[judged], judged, tuned.note)
        if new not in self.decide(f"with {new}"):
            del self.heads[new], self.towers[new]  # of the next decision, more rows are judged by all heads
        return True

    @property
    def classes(self) -> int:
        return len(self.seen.corpus.classes)

    def first_look(self, every: Segments) -> None:
        """Measure how long embedding takes on some segments, and leave a first checkpoint of what they teach."""
        corpus, store, some = self.seen.corpus, self.seen.store, every.spread(TRIAL)
        embed(self.towers.values(), every.spread(8), corpus, store)  # warms the machine up
        began = self.clock.used
        found = embed(self.towers.values(), some, corpus, store)
        self.each = (self.clock.used - began) / len(some)
        taught = len(np.unique(some.targets)) == self.classes
        if len(some) < len(every) and taught and not self.results.checkpoint.exists():
            log.info("a first look, at %d of %d segments", len(some), len(every))
            self.take(some, found)
            self.probes()
            self.decide(FIRST)

    def embed(self, every: Segments) -> bool:
        """Features of the training part, of as many segments as the budget allows; False where these are no more than
        a first look has taught."""
        saved = self.results.folder / "embeddings.npz"
        there, place = read_arrays(saved, every)
        known = (place >= 0) & (set(there) == {"present", *self.towers})
        room = max(SHARE * (self.clock.left - self.ending), LEARNT * self.clock.seconds)
        count = (room + known.sum() * self.each) / (self.each + REGRESSED)
        rows = known if known.sum() >= max(count, TRIAL) else known | every.within(max(count, TRIAL))
        if self.heads and rows.sum() <= len(self.segments):
            log.info("no time is left for more than the first look: give more --minutes")
            return False
        fresh, tuned = every.chosen(rows & ~known), [name for name in PLANS if name in self.towers]
        seconds = len(fresh) * self.each + rows.sum() * REGRESSED
        log.info(
            "plan, in seconds: %.0f for regressions on frozen trunks (%d of %d segments, spread over them), %.0f to "
            "fine-tune %s, %.0f for the test part and the report",
            seconds, rows.sum(), len(every), max(self.clock.left - self.ending - seconds, 0),
            ", ".join(tuned) or "nothing", self.ending,
        )  # fmt: skip
        arrays = {name: there[name][place[rows]] for name in there if known.any()}
        if len(fresh):
            found = embed(self.towers.values(), fresh, self.seen.corpus, self.seen.store, self.progress("embedding"))
            for name, values in {"present": found.present, **found.features}.items():
                arrays.setdefault(name, np.zeros((rows.sum(), *values.shape[1:]), values.dtype))[~known[rows]] = values
            write_arrays(saved, every.chosen(rows), arrays)
        self.take(every.chosen(rows), Embedded({name: arrays[name] for name in self.towers}, arrays["present"]))
        return True

    def recall(self) -> None:
        """Take up the checkpoint of an earlier run on these segments: only a better one replaces it."""
        before = self.results.recall(self.segments, FIRST)
        if before:
            self.model, self.ladder, self.logs = before
            log.info("the checkpoint of before: %s", self.ladder.chosen)

    def take(self, segments: Segments, found: Embedded) -> None:
        """Go on from these segments; what was fitted to others is forgotten."""
        self.segments, self.found = segments, found
        self.folds = Folds.of(segments.targets, segments.groups, seed=self.seed)
        self.heads, self.alone, self.logs = {}, {}, None

    def probes(self) -> None:
        """Logistic regression on each member, on the members of each modality together, on all, and on the best member
        of each modality."""
        names = {m: [n for n, t in self.towers.items() if t.member.modality == m] for m in MODALITIES}
        sets: dict[str, tuple[str, ...]] = {name: (name,) for name in self.towers}
        sets |= {f"{m} probe": tuple(of) for m, of in names.items() if len(of) > 1}
        if names["audio"] and names["video"]:
            sets["joint probe"] = (*names["audio"], *names["video"])
        log.info(Ladder.HEAD)
        for name, reads in sets.items():
            self.add_probe(name if len(reads) > 1 else f"{name} probe", reads)
        best = tuple(min(self.alone.keys() & set(of), key=self.alone.__getitem__, default="") for of in names.values())
        if all(best) and len(self.towers) > 2:
            self.add_probe("pair probe", best)

    def add_probe(self, name: str, reads: tuple[str, ...]) -> None:
        modalities = frozenset(self.towers[member].member.modality for member in reads)
        rows = np.all(self.found.present[:, [MODALITIES.index(m) for m in modalities]], axis=1)
        targets, weights = self.segments.targets, self.segments.weights
        if len(np.unique(self.segments.groups[rows])) < 2 or len(np.unique(targets[rows])) < 2:
            return
        features = joined([self.found.features[member][rows] for member in reads])
        result = probe(features, targets[rows], weights[rows], self.folds.within(rows), self.classes)
        logits = np.zeros((len(targets), self.classes), np.float32)
        logits[rows] = result.logits
        self.heads[name] = Head(reads, modalities, logits, rows, result.probe)
        if len(reads) == 1:
            self.alone[reads[0]] = result.loss
        self.tell(name, logits[rows], rows, f"strength {result.strength:g}")

    def tell(self, name: str, logs: np.ndarray, rows: np.ndarray, note: str = "") -> None:
        """Add a rung and log it."""
        targets, weights = self.segments.targets[rows], self.segments.weights[rows]
        judged = Judged(targets, self.segments.groups[rows], weights)
        error = standard_error(losses_of(logs, targets), judged)
        rung = Rung(
            name, loss_of(logs, targets, weights), accuracy_of(logs, targets, weights), self.clock.used, error, note
        )
        self.ladder.add(rung)
        log.info(str(rung))

    def decide(self, stage: str) -> tuple[str, ...]:
        """Fit the decision over all heads so far; write model, ladder and report where it is better than before. The
        heads that are heard."""
        segments = self.segments
        decisions = decide(
            self.heads, segments.targets, segments.groups, segments.weights, self.found.present, self.seed
        )
        share = decisions.mask.mean()
        part = "" if share == 1 else f", on {100 * share:.0f} % of the segments"
        for candidate in decisions.tried:
            self.tell(f"{stage}: {candidate.name}", candidate.logs, decisions.mask, " + ".join(candidate.heads) + part)
        logs = np.full((len(segments), self.classes), np.nan)
        logs[decisions.mask] = decisions.first.logs
        if self.logs is None or self.better(logs):
            self.logs = logs
            self.ladder.chosen = f"{stage}: {decisions.first.name}"
            self.ladder.method = (
                f"{len(self.folds.judged)} folds of whole sources; the decision is cross-fitted on outputs out of fold."
            )
            self.model = assemble(self.seen.corpus.classes, self.towers, self.heads, decisions)
            self.results.save(self.model, self.ladder, segments, logs)
        else:
            self.ladder.write(self.results.folder / "ladder.csv")
        return decisions.first.heads

    def better(self, logs: np.ndarray) -> bool:
        """Whether log probabilities out of fold beat those of the checkpoint by a standard error, on the rows that both
        judge."""
        assert self.logs is not None
        rows = ~np.isnan(logs[:, 0]) & ~np.isnan(self.logs[:, 0])
        both = Judged(self.segments.targets[rows], self.segments.groups[rows], self.segments.weights[rows])
        return bool(rows.any()) and beats(logs[rows], self.logs[rows], both, 1.0)
