"""`avsc train DATA`: a model of a folder of recordings within a number of minutes, never below a frozen probe."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from avsc_e2e.clip import MODALITIES
from avsc_e2e.data.media import Decoder
from avsc_e2e.data.store.prepare import Options
from avsc_e2e.devices import device
from avsc_e2e.durable import alone, replacing
from avsc_e2e.errors import AvscError
from avsc_e2e.evaluation import REFERENCE, SEGMENTS
from avsc_e2e.inference import evaluation_dataset, predict_rows
from avsc_e2e.learner.assembly import Decisions, Head, assemble, decide
from avsc_e2e.learner.budget import Clock
from avsc_e2e.learner.decision import Judged, beats, standard_error
from avsc_e2e.learner.embeddings import (
    FRAMES,
    SIZE,
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
from avsc_e2e.learner.look import Look, look
from avsc_e2e.learner.probe import joined, probe
from avsc_e2e.learner.tuning import Cache, Plan, tune
from avsc_e2e.memory import keep_freed_memory
from avsc_e2e.models.ensemble import Ensemble, Member, Tower
from avsc_e2e.models.weights.checkpoint import load_model, read_notes, save_model
from avsc_e2e.outputs.output import SystemOutput, to_clips, write_output
from avsc_e2e.outputs.protocols import scores_of
from avsc_e2e.report.page import write_report
from avsc_e2e.report.report import Report

log = logging.getLogger(__name__)

SHARE = 0.35
"""Of the budget that embeddings and their regressions may take; of longer sets fewer segments a recording are looked
at."""
REGRESSED = 0.05
"""Seconds that all regressions take for a segment, on two cores, for some thousand segments of the usual members."""
FIRST = "first look"
"""Stage of the checkpoint that is left before all segments are looked at."""
TRIAL = 96
"""Segments that the machine's rate of embedding is measured on."""
PLANS = {
    "speech": Plan(24, 5e-4, mixup=0.3, masks=0.15),
    "lite2": Plan(3, 1e-4),
    "lite0": Plan(3, 1e-4),
    "aisfx": Plan(8, 3e-4, mixup=0.3),
}
"""How trunks are fine-tuned, the cheapest first; epochs are the most, of which those out of fold choose."""
CHANCE = 0.95
"""Share of the log loss of equal probabilities, above which a regression has learnt next to nothing."""
LEAST = 2
"""Segments of a recording that are always looked at."""


@dataclass(frozen=True)
class Learned:
    """What a run has left."""

    checkpoint: Path
    report: Path
    ladder: Ladder
    test: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Protocol -> macro log loss and accuracy on the test part, where there is one."""


Progress = Callable[[str], Callable[..., None]]


def silent(label: str) -> Callable[..., None]:
    """No progress."""
    return lambda *_: None


def fit(
    data: str | os.PathLike,
    *,
    minutes: float = 15.0,
    out: str | os.PathLike = "runs/learner",
    seed: int = 0,
    resume: bool = False,
    decoder: Decoder = "auto",
    members: Sequence[Member] | None = None,
    progress: Progress = silent,
) -> Learned:
    """Learn to classify one-second segments of recordings: class folders, FILES.csv (columns file and label, and where
    they are known audio, group and split; see `read_folder`), a TAU root, or a store of one.

    Writes model.safetensors, ladder.csv and report.html to `out` after the first rung and again after each better
    one, and evaluation/ where the data set has a test part. With `resume` it goes on in a folder of an earlier run.
    `decoder` takes frames out of videos. `members` are the frozen trunks to start from; by default those at hand.
    Raises AvscError.
    """
    if minutes <= 0:
        raise AvscError(f"--minutes {minutes:g}: give a number of minutes above 0")
    clock, out = Clock(minutes), Path(out)
    if (out / "ladder.csv").exists() and not resume:
        raise AvscError(f"{out}: holds an earlier run; go on with --resume, delete it, or choose another --out")
    if resume and not (out / "store").is_dir():
        raise AvscError(f"{out}: nothing to resume, no data set was decoded here; leave --resume out to start")
    if not torch.cuda.is_available():
        keep_freed_memory()
    with alone(out):
        seen = look(data, out, Options(SIZE, float(FRAMES), 90, decoder), progress("decoding"))
        log.info("%s\nbudget: %g minutes, %d cores", seen.text(), minutes, os.cpu_count() or 1)
        return Run(seen, out, clock, seed, progress, os.fspath(data), resume).climb(members)


@dataclass
class Run:
    """A run: what is known so far, and what is on the disk of it."""

    seen: Look
    out: Path
    clock: Clock
    seed: int
    progress: Progress
    data: str
    """What was asked to be learnt from, as the report names it."""
    resumed: bool = False
    """It goes on in a folder of an earlier run."""
    ladder: Ladder = field(default_factory=Ladder)
    heads: dict[str, Head] = field(default_factory=dict)
    towers: dict[str, Tower] = field(default_factory=dict)
    alone: dict[str, float] = field(default_factory=dict)
    """Member -> loss out of fold of its regression."""
    logs: np.ndarray | None = None
    """(N, K) out of fold, of the checkpoint on the disk; nan for rows that it was not judged on."""
    each: float = 0.0
    """Seconds that a segment takes through all frozen members."""

    def climb(self, members: Sequence[Member] | None) -> Learned:
        """All rungs that the budget affords, then the test part and the report."""
        known = members_at_hand() if members is None else members
        known = [member for member in known if member.modality in self.seen.modalities]
        missing = set(self.seen.modalities) - {member.modality for member in known}
        if missing and members is None:
            raise AvscError(f"no pretrained {' or '.join(missing)} trunk is at hand: install avsc-e2e[lite0]")
        self.towers = {member.name: tower(member) for member in known}
        every = segments_of(self.seen.corpus.train, self.seen.corpus.classes)
        self.first_look(every)
        self.embed(every)
        if self.resumed:
            self.recall()
        self.probes()
        self.decide("probes")
        waiting = self.plans()
        for _ in range(2):  # what does not fit into its share of the time may fit into what the others leave
            skipped = []
            for place, (name, plan) in enumerate(waiting):
                if not self.tune(name, plan, (self.clock.left - self.ending) / (len(waiting) - place)):
                    skipped.append((name, plan))
            waiting = skipped
        return self.finish()

    @property
    def ending(self) -> float:
        """Seconds that the test part will take."""
        count = sum(max(row.duration, 1.0) for row in self.seen.corpus.test)
        return 1.5 * self.each * count + 10.0

    def plans(self) -> list[tuple[str, Plan]]:
        """Which trunks are fine-tuned, and how: audio trunks for long and with masks and mixup, the better one of the
        video trunks for short; last those whose regression is hardly better than chance."""
        found = [(name, plan) for name, plan in PLANS.items() if name in self.alone]
        video = [name for name, _ in found if self.towers[name].member.modality == "video"]
        best = min(video, key=self.alone.__getitem__, default="")
        found = [(name, plan) for name, plan in found if name not in video or name == best]
        return sorted(found, key=lambda one: self.alone[one[0]] > CHANCE * math.log(self.classes))

    def tune(self, name: str, plan: Plan, seconds: float) -> bool:
        """Fine-tune a trunk, and decide anew; False where some seconds are too few for it."""
        frozen, began = self.towers[name], self.clock.used
        member = frozen.member
        several = member.modality == "video"
        names = ("mean",) if several else member.statistics
        rows = self.found.present[:, MODALITIES.index(member.modality)]
        if (1.0 if several else 0.4) * self.each * rows.sum() > seconds / 2:
            log.info("%s tuned: skipped, %.0f s are too few", name, max(seconds, 0))
            return False
        cache, features = activations(
            frozen,
            names,
            _chosen(self.segments, rows),
            self.seen.corpus,
            self.seen.store,
            self.progress(f"{name} below"),
        )
        targets, weights, classes = self.segments.targets[rows], self.segments.weights[rows], self.classes
        folds = self.folds.within(rows)
        strength = probe(features, targets, weights, folds, classes).strength
        tuned = tune(
            frozen.trunk.net, names, Cache(cache, several), features, targets, weights, folds, classes, plan, strength,
            self.seed, seconds - (self.clock.used - began),
        )  # fmt: skip
        if tuned is None:
            log.info("%s tuned: skipped, %.0f s are too few", name, max(seconds, 0))
            return False
        segments, new = _chosen(self.segments, rows), f"{name} tuned"
        there = tuned.judged
        both = Judged(segments.targets[there], segments.groups[there], segments.weights[there])
        if not beats(tuned.logits[there], tuned.start[there], both, 1.0):
            log.info("%s: no better than its regression (%s)", new, tuned.note)
            return True
        made = Tower(replace(member, name=new, statistics=names))
        made.load_state_dict(frozen.state_dict())
        made.trunk.net.load_state_dict(tuned.net.state_dict())
        self.towers[new] = made.to(device()).eval()
        logits = np.zeros((len(rows), classes), np.float32)
        judged = np.zeros(len(rows), bool)
        logits[rows], judged[rows] = tuned.logits, tuned.judged
        self.heads[new] = Head((new,), frozenset({member.modality}), logits, judged, tuned.probe)
        self.tell(new, logits[judged], judged, tuned.note)
        self.decide(f"with {new}")
        return True

    @property
    def classes(self) -> int:
        return len(self.seen.corpus.classes)

    def first_look(self, every: Segments) -> None:
        """Measure how long embedding takes on some segments, and leave a first checkpoint of what they teach."""
        corpus, store, some = self.seen.corpus, self.seen.store, _first(every, TRIAL)
        embed(self.towers.values(), _first(every, 8), corpus, store)  # warms the machine up
        began = self.clock.used
        found = embed(self.towers.values(), some, corpus, store)
        self.each = (self.clock.used - began) / len(some)
        taught = len(np.unique(some.targets)) == self.classes
        if len(some) < len(every) and taught and not (self.out / "model.safetensors").exists():
            log.info("a first look, at %d of %d segments", len(some), len(every))
            self.take(some, found)
            self.probes()
            self.decide(FIRST)

    def embed(self, every: Segments) -> None:
        """Features of the training part, of as many segments a recording as the budget allows."""
        rows, classes = self.seen.corpus.train, self.seen.corpus.classes
        most, kept = 0, every
        each = self.each + REGRESSED
        while len(kept) * each > SHARE * self.clock.seconds and most != LEAST:
            most = LEAST if most == LEAST + 1 else (most or max(len(every) // len(rows) * 2, LEAST + 2)) - 1
            kept = segments_of(rows, classes, most)
        told = f", {most} of each recording at most" if most else ""
        log.info("embedding %d of %d segments%s, about %.0f s", len(kept), len(every), told, len(kept) * self.each)
        saved = self.out / "embeddings.npz"
        there, place = read_arrays(saved, kept)
        if set(there) == {"present", *self.towers} and (place >= 0).all():
            found = Embedded({name: there[name][place] for name in self.towers}, there["present"][place])
        else:
            found = embed(self.towers.values(), kept, self.seen.corpus, self.seen.store, self.progress("embedding"))
            write_arrays(saved, kept, {"present": found.present, **found.features})
        self.take(kept, found)

    def recall(self) -> None:
        """Take up the checkpoint of an earlier run on these segments: only a better one replaces it."""
        path, (there, place) = self.out / "model.safetensors", read_arrays(self.out / "decision.npz", self.segments)
        rung = str(there.get("rung", FIRST))
        if path.is_file() and not rung.startswith(FIRST) and read_notes(path).get("rung") == rung:
            self.model = load_model(path)
            self.logs = np.where(place[:, None] >= 0, there["logs"][place], np.nan)
            self.ladder = Ladder.read(self.out / "ladder.csv")
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
        sets = {name: (name,) for name in self.towers}
        sets |= {f"{m} probe": tuple(of) for m, of in names.items() if len(of) > 1}
        if names["audio"] and names["video"]:
            sets["joint probe"] = (*names["audio"], *names["video"])
        log.info(Ladder.HEAD)
        for name, reads in sets.items():
            self.add_probe(name if len(reads) > 1 else f"{name} probe", reads)
        best = tuple(
            min((n for n in of if n in self.alone), key=self.alone.__getitem__, default="") for of in names.values()
        )
        if all(best) and len(self.towers) > 2:
            self.add_probe("pair probe", best)

    def add_probe(self, name: str, reads: tuple[str, ...]) -> None:
        modalities = frozenset(self.towers[member].member.modality for member in reads)
        rows = self.found.present[:, [MODALITIES.index(m) for m in modalities]].all(axis=1)
        targets, weights = self.segments.targets, self.segments.weights
        if len(np.unique(self.segments.groups[rows])) < 2 or len(np.unique(targets[rows])) < 2:
            return
        classes = len(self.seen.corpus.classes)
        features = joined([self.found.features[member][rows] for member in reads])
        result = probe(features, targets[rows], weights[rows], self.folds.within(rows), classes)
        logits = np.zeros((len(targets), classes), np.float32)
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

    def decide(self, stage: str) -> None:
        """Fit the decision over all heads so far; write model, ladder and report where it is better than before."""
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
            self.save(decisions)
        else:
            self.ladder.write(self.out / "ladder.csv")

    def better(self, logs: np.ndarray) -> bool:
        """Whether log probabilities out of fold beat those of the checkpoint by a standard error, on the rows that both
        judge."""
        rows = ~np.isnan(logs[:, 0]) & ~np.isnan(self.logs[:, 0])
        both = Judged(self.segments.targets[rows], self.segments.groups[rows], self.segments.weights[rows])
        return bool(rows.any()) and beats(logs[rows], self.logs[rows], both, 1.0)

    def save(self, decisions: Decisions) -> None:
        self.ladder.method = (
            f"{len(self.folds.judged)} folds of whole sources; the decision is cross-fitted on outputs out of fold."
        )
        self.model: Ensemble = assemble(self.seen.corpus.classes, self.towers, self.heads, decisions)
        notes = {"ladder": json.dumps([vars(rung) for rung in self.ladder.rungs]), "rung": self.ladder.chosen}
        # First what tells how good the checkpoint is: without it, --resume would replace it unseen.
        arrays = {"logs": self.logs, "rung": np.array(self.ladder.chosen)}
        write_arrays(self.out / "decision.npz", self.segments, arrays)
        save_model(self.model, self.out / "model.safetensors", notes)
        self.ladder.write(self.out / "ladder.csv")
        rows = [segment for segment, kept in zip(self.segments.segments, decisions.mask, strict=True) if kept]
        output = SystemOutput(
            tuple(segment.row.file for segment in rows),
            self.seen.corpus.classes,
            torch.from_numpy(decisions.first.logs).softmax(dim=1).numpy(),
            np.array([segment.start for segment in rows]),
        )
        note = "Figures of the training part, out of fold: each recording is judged by models without its source."
        self.report({"decision": output}, self.seen.corpus.train, note)

    def report(self, outputs: dict[str, SystemOutput], rows: Sequence, note: str) -> Path:
        corpus = self.seen.corpus
        page = Report(
            title="avsc train",
            outputs=outputs,
            reference={row.file: row.scene for row in rows},
            headline="decision",
            note=note,
            rows=rows,
            train_rows=corpus.train if rows is corpus.test else (),
            data=Path(self.data).name,
            command=f"avsc train {self.data} --minutes {self.clock.seconds / 60:g} --seed {self.seed}",
            ladder=self.ladder.report(len(corpus.train), len(np.unique(self.segments.groups))),
        )
        return write_report(page, self.out / "report.html")

    def finish(self) -> Learned:
        """The test part, where there is one, and the last report."""
        self.ladder.write(self.out / "ladder.csv")
        report, checkpoint = self.out / "report.html", self.out / "model.safetensors"
        test = self.seen.corpus.test
        if not test:
            return Learned(checkpoint, report, self.ladder)
        dataset = evaluation_dataset(self.model, test, self.seen.store.short_side, store=self.seen.store, on_bad="mask")
        outputs = predict_rows(self.model, dataset, progress=self.progress("predicting the test part"))
        reference = {row.file: row.scene for row in test}
        (self.out / SEGMENTS).parent.mkdir(exist_ok=True)
        lines = ["filename\tscene_label", *(f"{file}\t{scene}" for file, scene in reference.items())]
        with replacing(self.out / REFERENCE) as partial:
            partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        write_output(self.out / SEGMENTS, outputs["decision"])
        write_output(self.out / "evaluation/clips.csv", to_clips(outputs["decision"]))
        scores = scores_of(outputs["decision"], reference, test)
        report = self.report({"decision": outputs["decision"]}, test, "Figures of the test part.")
        figures = {protocol: (one.log_loss, one.accuracy) for protocol, one in scores.items()}
        return Learned(checkpoint, report, self.ladder, figures)


def _first(segments: Segments, count: int) -> Segments:
    """Some segments, spread over the data set."""
    at = np.unique(np.linspace(0, len(segments) - 1, count).astype(int))
    return _chosen(segments, np.isin(np.arange(len(segments)), at))


def _chosen(segments: Segments, rows: np.ndarray) -> Segments:
    """Those of a selection (N,) bool."""
    kept = tuple(one for one, there in zip(segments.segments, rows, strict=True) if there)
    return Segments(kept, segments.targets[rows], segments.groups[rows], segments.weights[rows])
