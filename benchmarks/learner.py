"""`avsc train FOLDER` against frozen probes and the stages of own_videos, judged by scikit-learn.

    python benchmarks/learner.py ROOT... [--conditions whole third dark_video ...] [--synthetic digits toy_small ...]
                                 [--seeds 0 1 2] [--minutes 15] [--held-out] [--stages] [--kill 10] [--edges]

ROOT is a folder with train/ and test/ of class folders. Each set is made as files under a cache folder
(learner_sets.py), and each cell of the table is kept there: a run that was stopped goes on.

- Probes: multinomial logistic regression on the frozen embeddings of EfficientNet-Lite0 (ImageNet, middle frame, 160
  pixels), of aisfx, of both, and on mean and deviation of log-mel bands. All training recordings; the strength is
  chosen by cross-validation over sources.
- `--stages`: aisfx, video and hybrid_aisfx of recipes/own_videos.py.
- The ladder: `avsc train FOLDER --minutes N`, in a process of its own.

Scores are macro averages over classes of 1 s segments and of whole recordings, by the mean of their segments.
"joint +" is the difference to the joint probe with the 95 % interval of a bootstrap over sources within each class.
With `--held-out` test/ is not looked at: each seed holds out another third of the training sources in its place.
"optimism" is what the ladder says of itself, out of fold, less what it does on the test part.
"""

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import numpy as np
import torch
from learner_sets import CONDITIONS, SYNTHETIC, condition_of, synthetic
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from avsc_e2e.clip import Row
from avsc_e2e.data.loader import loader
from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.inference import evaluation_dataset
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.zoo import own

HERE = Path(__file__).resolve()
AVSC = Path(sys.executable).with_name("avsc")
STRENGTHS = np.geomspace(1e-4, 1, 9)
DRAWS = 1000
"""Of the bootstrap."""
STAGES = {"aisfx": "audio", "video": "video", "hybrid_aisfx": "hybrid"}
COLUMNS = ("set", "system", "segments", "recordings", "joint + (95 %)", "optimism", "minutes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roots", nargs="*", type=Path)
    parser.add_argument("--conditions", nargs="*", choices=CONDITIONS, default=["whole"])
    parser.add_argument("--synthetic", nargs="*", choices=SYNTHETIC, default=[])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--stages", action="store_true")
    parser.add_argument("--probes-only", action="store_true")
    parser.add_argument("--kill", type=int, default=0, help="times that a run is killed at a random moment")
    parser.add_argument("--edges", action="store_true", help="sets that are hardly any")
    parser.add_argument("--cache", type=Path, default=Path("runs/learner_benchmark"))
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    rows = []
    for seed in options.seeds:
        for root in options.roots:
            for condition in options.conditions:
                folder = condition_of(root, condition, seed, options.held_out, options.cache)
                rows += judge(f"{root.name} {condition}", folder, seed, options)
        for name in options.synthetic:
            folder = synthetic(name, seed, options.cache)
            if folder is None:
                print(f"{name}: left out, the speech synthesiser espeak-ng is not installed")
            else:
                rows += judge(f"{name} (synthetic)", folder, seed, options)
    if rows:
        print_table(rows)
        (options.cache / "table.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if options.kill:
        root = next(iter((options.cache / "sets").glob("*/*")))
        killed(root, options.kill, options.cache / "killed")
    if options.edges:
        edges(options.roots[0], options.cache / "edges")


# ---- One set


def judge(name: str, folder: Path, seed: int, options: argparse.Namespace) -> list[dict]:
    """The cells of a set and a seed; those that are in the cache are read."""
    cells = options.cache / "cells" / folder.parent.name / folder.name
    cells.mkdir(parents=True, exist_ok=True)
    corpus = read_corpus(folder, validation=0.0)
    reference = {row.file: row for row in corpus.test}
    if not any(cells.glob("probe *.json")):
        began = time.monotonic()
        for system, table in probes(corpus.train, corpus.test, corpus.classes).items():
            _write(cells / f"probe {system}.json", table, minutes=(time.monotonic() - began) / 60)
    if options.stages and not (cells / "stage hybrid.json").exists():
        stages(folder, cells, seed)
    if not options.probes_only and not (ladder := cells / f"ladder {options.minutes:g} min.json").exists():
        climb(folder, ladder, seed, options.minutes)
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(cells.glob("*.json"))}
    joint = found.get("probe joint") or next(iter(found.values()))
    rows = []
    for system, cell in found.items():
        if "failed" in cell:
            rows.append({"set": name, "seed": seed, "system": system, "failed": cell["failed"]})
            continue
        row = {"set": name, "seed": seed, "system": system, "minutes": cell["minutes"]}
        row |= {"segments": scores(*of_segments(cell, reference, corpus.classes))}
        row |= {"recordings": scores(*of_recordings(cell, reference, corpus.classes))}
        row |= {"joint": difference(cell, joint, reference, corpus.classes)}
        row |= {"optimism": row["segments"][0] - cell["told"] if "told" in cell else None}
        rows.append(row)
        print(_line(row), flush=True)
    return rows


def probes(train: Sequence[Row], test: Sequence[Row], classes: Sequence[str]) -> dict[str, list]:
    """System -> its output, of each modality that there is."""
    learnt, asked = features(train, classes), features(test, classes)
    tables = {}
    for system, parts in {"audio": ("aisfx",), "bands": ("bands",), "video": ("lite0",), "joint": None}.items():
        parts = parts or [part for part in ("lite0", "aisfx") if part in learnt]
        if not set(parts) <= set(learnt):
            continue
        x, y = (np.hstack([of[part] for part in parts]) for of in (learnt, asked))
        targets = np.array([classes.index(row.scene) for row, _ in learnt["segments"]])
        groups = np.array([row.location for row, _ in learnt["segments"]])
        p = regression(x, targets, groups, len(classes)).predict_proba(y)
        tables[system] = [
            [row.file, start, *map(float, q)] for (row, start), q in zip(asked["segments"], p, strict=True)
        ]
    return tables


@torch.inference_mode()
def features(rows: Sequence[Row], classes: Sequence[str]) -> dict:
    """Frozen embeddings of every fixed segment, by name, and the segments as (row, start)."""
    audio, video = any(row.audio for row in rows), any(row.video for row in rows)
    known = replace(own.lite0_aisfx(), classes=tuple(classes))
    model = SceneNet(known if audio and video else replace(known, fusion="", **{"video" if audio else "audio": ""}))
    for modality in model.architecture.modalities:
        getattr(model, modality).load_pretrained()
    model.eval()
    dataset = evaluation_dataset(model, rows)
    found = defaultdict(list)
    for batch in loader(dataset, 32, shuffle=False):
        clip = model.preprocess(batch)
        if audio:
            planes = model.frontend.planes(batch.audio)[:, 0]
            found["bands"].append(torch.cat([planes.mean(dim=2), planes.std(dim=2)], dim=1))
            found["aisfx"].append(model.audio(clip.audio))
        if video:
            found["lite0"].append(model.video(clip.video))
    stacked = {name: torch.cat(parts).double().numpy() for name, parts in found.items()}
    return {**stacked, "segments": [(segment.row, segment.start) for segment in dataset.segments]}


def regression(x: np.ndarray, targets: np.ndarray, groups: np.ndarray, classes: int):
    """Logistic regression whose strength has the least macro log loss by cross-validation over sources."""

    def fitted(strength: float, rows: np.ndarray):
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000)).fit(
            x[rows], targets[rows]
        )

    sources = min(len(np.unique(groups[targets == k])) for k in range(classes))
    folds = list(StratifiedGroupKFold(min(5, max(sources, 2))).split(x, targets, groups))
    losses = []
    for strength in STRENGTHS:
        p = np.zeros((len(x), classes))
        for rows, judged in folds:
            model = fitted(strength, rows)
            p[np.ix_(judged, model.classes_)] = model.predict_proba(x[judged])
        losses.append(scores(targets, p)[0])
        if len(losses) > 3 and losses[-1] > losses[-2] > losses[-3]:
            break
    return fitted(STRENGTHS[int(np.argmin(losses))], np.arange(len(x)))


def stages(folder: Path, cells: Path, seed: int) -> None:
    """The stages of recipes/own_videos.py, one after the other."""
    runs = cells / "stages"
    for stage, name in STAGES.items():
        began = time.monotonic()
        flags = ["--data.root", folder, "--runs", runs, "--seed", str(seed)]
        for verb in ("train", "evaluate"):
            subprocess.run([AVSC, verb, f"own_videos/{stage}", *flags], check=True, capture_output=True)
        _write(cells / f"stage {name}.json", _table(runs / "own_videos" / stage), (time.monotonic() - began) / 60)


def climb(folder: Path, cell: Path, seed: int, minutes: float) -> None:
    """`avsc train` as a stranger would call it."""
    out, began = cell.with_suffix(".run"), time.monotonic()
    command = [AVSC, "train", folder, "--minutes", f"{minutes:g}", "--out", out, "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    cell.with_suffix(".log").write_text(done.stdout + done.stderr, encoding="utf-8")
    used = (time.monotonic() - began) / 60
    if done.returncode or not (out / "evaluation" / "segments.csv").exists():
        failed = (done.stderr.strip().splitlines() or ["no output"])[-1]
        cell.write_text(json.dumps({"failed": f"status {done.returncode}: {failed}"}), encoding="utf-8")
        return
    rungs = list(csv.DictReader((out / "ladder.csv").open(encoding="utf-8")))
    chosen = [float(rung["log_loss"]) for rung in rungs if rung.get("chosen") == "1"]
    _write(cell, _table(out), used, **({"told": chosen[-1]} if chosen else {}))


def _table(run: Path) -> list:
    """The rows of a run's segments.csv, read without the library: file, start, probabilities by class name."""
    lines = list(csv.reader((run / "evaluation" / "segments.csv").open(encoding="utf-8"), delimiter="\t"))
    header, rows = lines[0], lines[1:]
    known = ("filename", "file", "start", "scene_label", "scene_pred")
    names = sorted(name for name in header if name not in known)
    file = header.index("filename" if "filename" in header else "file")
    start, columns = header.index("start"), [header.index(name) for name in names]
    return [[row[file], float(row[start]), *(float(row[column]) for column in columns)] for row in rows]


def _write(path: Path, table: list, minutes: float, **more: float) -> None:
    path.write_text(json.dumps({"minutes": minutes, **more, "table": table}), encoding="utf-8")


# ---- Scores


def of_segments(cell: dict, reference: dict[str, Row], classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Targets (N,) and probabilities (N, K)."""
    targets = np.array([classes.index(reference[row[0]].scene) for row in cell["table"]])
    return targets, np.array([row[2:] for row in cell["table"]])


def of_recordings(cell: dict, reference: dict[str, Row], classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    parts = defaultdict(list)
    for row in cell["table"]:
        parts[row[0]].append(row[2:])
    targets = np.array([classes.index(reference[file].scene) for file in parts])
    return targets, np.array([np.mean(rows, axis=0) for rows in parts.values()])


def scores(targets: np.ndarray, p: np.ndarray) -> tuple[float, float]:
    """Macro log loss and macro accuracy, by scikit-learn."""
    counts = np.bincount(targets, minlength=p.shape[1])
    p = p.clip(1e-15, None)
    p = p / p.sum(axis=1, keepdims=True)
    loss = log_loss(targets, p, sample_weight=1 / counts[targets], labels=np.arange(p.shape[1]))
    return float(loss), float(balanced_accuracy_score(targets, p.argmax(axis=1)))


def difference(cell: dict, joint: dict, reference: dict[str, Row], classes: Sequence[str]) -> list[float]:
    """Macro log loss less the joint probe's, with the 95 % interval by source."""
    sums = defaultdict(lambda: np.zeros(2))
    other = {(row[0], round(row[1], 3)): row[2:] for row in joint["table"]}
    for row in cell["table"]:
        if (key := (row[0], round(row[1], 3))) in other:
            truth = classes.index(reference[row[0]].scene)
            gain = np.log(max(other[key][truth], 1e-15)) - np.log(max(row[2 + truth], 1e-15))
            sums[truth, reference[row[0]].location] += (gain, 1)
    draw, means = np.random.default_rng(0), []
    for truth in range(len(classes)):
        found = np.array([value for (scene, _), value in sums.items() if scene == truth])
        drawn = found[draw.integers(0, len(found), (DRAWS, len(found)))].sum(axis=1)
        total = found.sum(axis=0)
        means.append(np.concatenate([[total[0] / total[1]], drawn[:, 0] / drawn[:, 1]]))
    macro = np.mean(means, axis=0)
    return [float(macro[0]), *map(float, np.quantile(macro[1:], [0.025, 0.975]))]


def print_table(rows: list[dict]) -> None:
    """Every row, then means over the seeds."""
    print("\n| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    of = defaultdict(list)
    for row in rows:
        if "failed" not in row:
            of[row["set"], row["system"]].append(row)
    for (name, system), found in of.items():
        mean = {
            "set": name,
            "system": f"{system}, mean of {len(found)}",
            "minutes": np.mean([r["minutes"] for r in found]),
        }
        mean |= {key: np.mean([row[key] for row in found], axis=0) for key in ("segments", "recordings", "joint")}
        told = [row["optimism"] for row in found if row["optimism"] is not None]
        print(_line(mean | {"optimism": np.mean(told) if told else None}))


def _line(row: dict) -> str:
    seed = f" (seed {row['seed']})" if "seed" in row else ""
    score = lambda key: f"{row[key][0]:.3f} / {100 * row[key][1]:.1f} %"  # noqa: E731
    joint = "{:+.3f} ({:+.3f} {:+.3f})".format(*row["joint"])
    told = f"{row['optimism']:+.3f}" if row["optimism"] is not None else ""
    cells = (
        row["set"],
        row["system"] + seed,
        score("segments"),
        score("recordings"),
        joint,
        told,
        f"{row['minutes']:.1f}",
    )
    return "| " + " | ".join(cells) + " |"


# ---- Trials


def killed(folder: Path, times: int, out: Path) -> None:
    """Kill `avsc train` at random moments of a run; what lies there must be a usable checkpoint with its report.

    The first checkpoint follows the first rung, so kills before it are counted apart.
    """
    draw, usable, early = random.Random(0), 0, 0
    media = next(path for path in sorted((folder / "test").rglob("*")) if path.suffix in (".mp4", ".wav"))
    command, began = [AVSC, "train", folder, "--minutes", "1", "--out"], time.monotonic()
    subprocess.run([*command, out / "whole"], check=True, capture_output=True)
    whole = time.monotonic() - began
    for trial in range(times):
        run, moment = out / str(trial), draw.uniform(0, whole)
        process = subprocess.Popen(
            [*command, run], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        checkpoint = run / "model.safetensors"
        if not checkpoint.exists():
            early += 1
            print(f"killed after {moment:.0f} of {whole:.0f} s: before the first checkpoint", flush=True)
            continue
        predicted = subprocess.run([AVSC, "predict", checkpoint, media, "--format", "csv"], capture_output=True)
        fine = predicted.returncode == 0 and (run / "report.html").exists() and (run / "ladder.csv").exists()
        usable += fine
        print(f"killed after {moment:.0f} of {whole:.0f} s: usable, with report and ladder: {fine}", flush=True)
    print(f"{times} kills: {early} before the first checkpoint, {usable} of the other {times - early} usable")


def edges(root: Path, out: Path) -> None:
    """Sets that are hardly any: each ends in a model (status 0) or in one clear line (status 2)."""
    corpus = read_corpus(root, validation=0.0)
    of = {scene: [row for row in corpus.train if row.scene == scene] for scene in corpus.classes}
    first, second = list(of)[:2]
    sets = {
        "an empty class": {first: of[first][:6], second: of[second][:6], "empty": []},
        "two classes of one source each": {
            scene: [row for row in of[scene] if row.location == of[scene][0].location] for scene in (first, second)
        },
        "three files": {first: of[first][:2], second: of[second][:1]},
        "one class": {first: of[first][:4]},
        "no files": {first: []},
    }
    for name, classes in sets.items():
        folder = out / name.replace(" ", "_")
        for scene, rows in classes.items():
            (folder / "data" / scene).mkdir(parents=True, exist_ok=True)
            for row in rows:
                path = Path(row.video or row.audio)
                if not (link := folder / "data" / scene / path.name).exists():
                    link.symlink_to(path.resolve())
        command = [AVSC, "train", folder / "data", "--minutes", "1", "--out", folder / f"run{time.time():.0f}"]
        done = subprocess.run(command, capture_output=True, text=True)
        last = (done.stderr.strip().splitlines() or [""])[-1]
        traced = "Traceback" in done.stderr
        print(f"{name}: status {done.returncode}{', with a traceback' if traced else ''}: {last}", flush=True)


if __name__ == "__main__":
    main()
