"""How far the learner's out-of-fold figures flatter it, and which decision rule holds on sources that chose nothing.

    python benchmarks/decisions.py ROOT... [--folds 3] [--seeds 0 1] [--work FOLDER]

The training set of each ROOT (class folders) is embedded once by the frozen trunks at hand. Then whole sources are
held out, a fold at a time. Probes and decisions are fitted to the others as `avsc train` does, and each rule is asked
about the sources held out. "told" is the figure out of fold that the learner would print, "held out" what the rule
reaches: macro log loss of 1 s segments, means over outer folds and seeds. Where a single head is selected, the richer
rules are not fitted; "less the product" compares each rule with the first one on the folds that it was fitted in.
"""

import argparse
import logging
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from avsc_e2e.data.store.prepare import Options
from avsc_e2e.learner.assembly import decide
from avsc_e2e.learner.budget import Clock
from avsc_e2e.learner.embeddings import FRAMES, SIZE, Embedded, Segments, embed, members_at_hand, segments_of, tower
from avsc_e2e.learner.folds import Folds, loss_of
from avsc_e2e.learner.look import look
from avsc_e2e.learner.probe import joined
from avsc_e2e.learner.results import Results
from avsc_e2e.learner.run import Run

PRODUCT = "rule: product"


def part(segments: Segments, found: Embedded, rows: np.ndarray) -> tuple[Segments, Embedded]:
    """The segments of some rows, and their features."""
    kept = segments.chosen(np.isin(np.arange(len(segments)), rows))
    return kept, Embedded({name: values[rows] for name, values in found.features.items()}, found.present[rows])


def study(
    root: Path, work: Path, folds: int, seeds: list[int]
) -> dict[str, list[tuple[tuple[int, int], tuple[float, float]]]]:
    """Rule or head -> seed and number of each outer fold, with what was told and what held out."""
    *_, seen = look(root, work / root.name, Options(SIZE, float(FRAMES), 90), Clock(1e6))
    towers = {member.name: tower(member) for member in members_at_hand() if member.modality in seen.modalities}
    every = segments_of(seen.corpus.train, seen.corpus.classes)
    found = embed(towers.values(), every, seen.corpus, seen.store)
    figures = defaultdict(list)
    for seed in seeds:
        outer = Folds.of(every.targets, every.groups, folds, seed=100 + seed)
        for fold, (rows, held) in enumerate(zip(outer.fitted, outer.judged, strict=True)):
            run = Run(Results(work, str(root), "", seen), Clock(1e6), seed, towers=towers)
            run.take(*part(every, found, rows))
            run.probes()
            segments, features = part(every, found, held)
            logs = {
                name: torch.from_numpy(head.probe.logits(joined([features.features[m] for m in head.reads])))
                .double().log_softmax(dim=1).numpy()
                for name, head in run.heads.items()
            }  # fmt: skip
            decisions = decide(
                run.heads, run.segments.targets, run.segments.groups, run.segments.weights, run.found.present, seed
            )

            def judge(values: np.ndarray, segments: Segments = segments) -> float:
                return loss_of(values, segments.targets, segments.weights)

            for name, head in run.heads.items():
                told = loss_of(head.logits, run.segments.targets, run.segments.weights)
                figures[name].append(((seed, fold), (told, judge(logs[name]))))
            rules = {f"rule: {candidate.name}": candidate for candidate in decisions.tried}
            for name, candidate in (rules | {"chosen by the learner": decisions.first}).items():
                p = np.exp(np.stack([logs[head] for head in candidate.heads]))
                figures[name].append(((seed, fold), (candidate.loss, judge(np.log(candidate.rule(p))))))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", nargs="+", type=Path)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--work", type=Path, help="folder for the decoded sets, kept for another run")
    options = parser.parse_args()
    logging.getLogger("avsc_e2e").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        for root in options.roots:
            work = options.work or Path(folder)
            (work / root.name).mkdir(parents=True, exist_ok=True)
            figures = study(root, work, options.folds, options.seeds)
            print(f"\n{root}: {options.folds} outer folds, seeds {options.seeds}")
            print(f"{'':<26}  told  held out  less the product  folds")
            product = dict(figures[PRODUCT])
            for name, found in figures.items():
                told, held = np.mean([pair for _, pair in found], axis=0)
                paired = np.mean([pair[1] - product[fold][1] for fold, pair in found])
                print(f"{name:<26} {told:5.3f}  {held:8.3f}  {paired:+16.3f}  {len(found):5}", flush=True)


if __name__ == "__main__":
    main()
