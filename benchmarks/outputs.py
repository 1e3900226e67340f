"""What can be had from five real systems' outputs: writes docs/outputs.md with its figures and pictures.

    python benchmarks/outputs.py [--data DIR] [--docs DIR]

The outputs are those of five systems on the 3,645 clips of the official test set of fold 1. They are not part of the
project: without them in the folder shared/data beside the repository there is nothing to do.
"""

import argparse
import contextlib
import io
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import get_args

import matplotlib as mpl
import numpy as np

mpl.use("svg")
import matplotlib.pyplot as plt

from avsc_e2e import cli
from avsc_e2e.clip import SCENES
from avsc_e2e.outputs import calibration, comparison, fusion
from avsc_e2e.outputs.folds import cross_fit
from avsc_e2e.outputs.intervals import bootstrap, percentiles, wald
from avsc_e2e.outputs.loglinear import fit_log_linear
from avsc_e2e.outputs.metrics import macro_accuracy, macro_log_loss, reliability, score
from avsc_e2e.outputs.names import location_of
from avsc_e2e.outputs.output import SystemOutput, read_outputs
from avsc_e2e.outputs.reference import read_reference, targets_of
from avsc_e2e.submission.check import check
from avsc_e2e.submission.entry import Complexity, System
from avsc_e2e.submission.package import pack
from avsc_e2e.submission.people import Affiliation, Person

ROOT = Path(__file__).parents[1]
SYSTEMS = ("audio_only", "video_only", "early_fusion", "late_fusion", "baseline")
PROTOCOL = "10 s clips"
BLUE, ORANGE, GREY = "#1f6fb4", "#d2691e", "#8a8f98"

METHODS = {
    "mean": "mean of the probabilities",
    "product": "normalised geometric mean",
    "vote": "majority of decisions",
    "weights": "mean with fitted weights",
    "pool": "log-linear pool: product with a fitted, non-negative exponent for each system",
    "classwise": "exponents for each system and class",
    "stacking": "multinomial logistic regression on all log probabilities, held near the geometric mean",
    "greedy": "ensemble selection with replacement",
    "confidence": "mean weighted by each system's confidence in each class",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    if not (options.data / "system_outputs").is_dir():
        print(f"skipped: the five systems' outputs are not in {options.data}")
        return
    text = write(options.data, options.docs)
    (options.docs / "outputs.md").write_text(text, encoding="utf-8")
    print(text)


def write(data: Path, docs: Path) -> str:
    """The page; its pictures go into docs/pictures."""
    evaluate = data / "tau_urban_audio_visual_scenes_2021" / "evaluation_setup" / "fold1_evaluate.csv"
    outputs = read_outputs([data / "system_outputs" / f"{name}.csv" for name in SYSTEMS])
    targets = targets_of(outputs["audio_only"], read_reference(evaluate))
    compared = comparison.compare(outputs, targets, protocol=PROTOCOL)
    fused = fusion.fuse(outputs, targets, get_args(fusion.Method), protocol=PROTOCOL)
    calibrated = {
        method: {
            name: calibration.calibrate(output, targets_of(output, read_reference(evaluate)), method, protocol=PROTOCOL)
            for name, output in outputs.items()
        }
        for method in get_args(calibration.Method)
    }
    pictures = docs / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    mpl.rcParams.update(
        {
            "svg.hashsalt": "avsc",
            "svg.fonttype": "none",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    draw_intervals(compared, fused, targets, pictures / "outputs_intervals.svg")
    draw_reliability(outputs, calibrated["temperature"], targets, pictures / "outputs_reliability.svg")
    draw_fusion(fused, pictures / "outputs_fusion.svg")
    draw_classes(fused, pictures / "outputs_classes.svg")

    with tempfile.TemporaryDirectory() as folder, inside(folder):
        for name in SYSTEMS:
            os.symlink(data.resolve() / "system_outputs" / f"{name}.csv", f"{name}.csv")
        os.symlink(evaluate.resolve(), "fold1_evaluate.csv")
        files, reference = " ".join(f"{name}.csv" for name in SYSTEMS), "--reference fold1_evaluate.csv"
        said = {
            "score": run("score baseline.csv fold1_evaluate.csv"),
            "calibrate": run(f"calibrate late_fusion.csv {reference} --save calibration.json --out calibrated.csv"),
            "fuse": run(f"fuse {files} {reference} --save fusion.json --out fused.csv"),
            "compare": run(f"compare {files} {reference}"),
        }
        seconds, defects = time_submission(Path(folder))
    pool = fused.scores["pool"]
    best, every = compared.combinations
    return f"""# After the model: scores, calibration, fusion, comparison, submission

<!-- Written by benchmarks/outputs.py: change that, not this. -->

This page explains how to score, calibrate, fuse and compare systems without training again. It is for people who have
system outputs: tables with a probability for each recording and class.

The examples are the outputs of five real systems for the 3,645 clips (126 locations) of the official test set of
fold 1. All figures are for **10 s clips** and are macro averages over the ten scenes. The probability of the true scene
is clipped at 1e-15, and rows are not renormalised. The files hold three decimals, so a zero means "below 0.0005".

Everything that is fitted here is **cross-fitted by location**: the locations are divided into ten parts, and each clip
is scored by a fit that has not seen any clip of its location.

## Scores

```
{said["score"]}
```

| system | log loss | 95 % by location | accuracy | 95 % by Wald | 95 % by location | calibration error | Brier |
|---|---|---|---|---|---|---|---|
{chr(10).join(score_row(compared, name) for name in compared.systems)}

The challenge publishes intervals *by Wald*, which treats clips as independent. They are not, because clips of one
place resemble each other. *By location* resamples whole places (bootstrap), and the intervals become about
{width_ratio(compared):.1f} times as wide. Most differences between neighbours in a ranking are smaller than that.

![Accuracies with both intervals](pictures/outputs_intervals.svg)

From Python: `score(probabilities, targets, classes)` and `intervals(probabilities, targets, groups=locations)`.

## Calibration

```
{said["calibrate"]}
```

Macro log loss before, and after each method:

| system | before | {" | ".join(get_args(calibration.Method))} |
|---|---|{"---|" * len(calibrated)}
{chr(10).join(calibration_row(calibrated, name) for name in SYSTEMS)}

One temperature, a single exponent for all classes, is the default. It changes no decision and cannot lose much, because
a few places suffice to fit one number, and it gains about as much as any method. The richer methods are regularised by
a cross-validation inside the rows that they are fitted to; a set of 126 places is small for them. `floor` is
confidence replacement: it only bounds the log loss of a confident error.

![Reliability before and after](pictures/outputs_reliability.svg)

`--apply-to EVALUATION.csv` calibrates another output of the same system by the fit to all rows; `--use
calibration.json` does so later.

## Fusion

```
{said["fuse"]}
```

| | log loss | accuracy | calibration error | |
|---|---|---|---|---|
{chr(10).join(fusion_row(fused, name) for name in fused.scores)}

![Log loss of systems and fusions](pictures/outputs_fusion.svg)

A mean of probabilities is not confident enough where the systems agree. A product is right for independent evidence,
but too confident where systems make the same errors. The log-linear pool learns one exponent for each system:
**{pool.log_loss:.4f} at {100 * pool.accuracy:.2f} %**, where the best single system has
{fused.scores["baseline"].log_loss:.4f} at {100 * fused.scores["baseline"].accuracy:.2f} %. {gains(fused)}:

![Log loss by class](pictures/outputs_classes.svg)

Part of this may be luck: the pool is regularised towards equal exponents with a strength of 0.1, which was chosen on
these files. Other choices give:

| | log loss | accuracy |
|---|---|---|
{chr(10).join(variants(outputs, targets))}

The choice of the best of nine methods afterwards also makes its figure a little too good. The product, which needs no
fit, has
{fused.scores["product"].log_loss:.4f}.

## Comparison

These are the kinds of figures in section 4.2 of the challenge's analysis (Wang et al., DCASE Workshop 2021). It has,
for its top three systems on the evaluation set: vote 94.9 % (± 0.2), oracle 97.5 % (± 0.1), Spearman of
accuracy and log loss over 43 systems 0.93. Here: vote of the best three {100 * best.vote:.1f} %
(± {half(best.vote_intervals[0])} by Wald, as published; ± {half(best.vote_intervals[1])} by location), oracle
{100 * best.oracle:.1f} % (± {half(best.oracle_intervals[0])}; ± {half(best.oracle_intervals[1])}), of all five
{100 * every.vote:.1f} % and {100 * every.oracle:.1f} %, Spearman {compared.rank_correlation:.2f}. The formula gives the
published intervals for the published accuracies: {published()}.

```
{said["compare"]}
```

McNemar's test treats clips as independent, as usual; the interval and p of the difference in log loss are by
location. `--parameters` adds Spearman's correlation of the systems' sizes and ranks (0.75 in the challenge).

## Submission

`avsc submission pack` writes the challenge's package, the same bytes for the same content, and checks it first; `avsc
submission check` lists every violation with its line. Measured by this script on 72,000 rows: packed and checked in
{seconds["pack"]:.1f} s, the zip checked in {seconds["check"]:.1f} s. For an output with errors it prints:

```
{defects}
```
"""


@contextlib.contextmanager
def inside(folder: str):
    """Work in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run(command: str) -> str:
    """A command as typed, and what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli.main(command.split())
    return f"$ avsc {command}\n{out.getvalue().rstrip()}"


def score_row(compared: comparison.Comparison, name: str) -> str:
    scores, published, honest = compared.scores[name], compared.wald[name], compared.bootstrap[name]
    return (
        f"| {name} | {scores.log_loss:.4f} | {honest.log_loss.low:.3f} - {honest.log_loss.high:.3f} "
        f"| {100 * scores.accuracy:.2f} % | {percents(published.accuracy)} | {percents(honest.accuracy)} "
        f"| {scores.calibration_error:.3f} | {scores.brier:.3f} |"
    )


def percents(interval) -> str:
    return f"{100 * interval.low:.1f} - {100 * interval.high:.1f}"


def half(interval) -> str:
    return f"{50 * (interval.high - interval.low):.1f}"


def width_ratio(compared: comparison.Comparison) -> float:
    width = lambda interval: interval.high - interval.low  # noqa: E731
    ratios = [width(compared.bootstrap[n].accuracy) / width(compared.wald[n].accuracy) for n in compared.systems]
    return float(np.mean(ratios))


def calibration_row(calibrated: dict, name: str) -> str:
    before = next(iter(calibrated.values()))[name].before.log_loss
    after = [results[name].after.log_loss for results in calibrated.values()]
    return f"| {name} | {before:.4f} | " + " | ".join(f"{v:.4f} ({v - before:+.4f})" for v in after) + " |"


def fusion_row(fused: fusion.Fused, name: str) -> str:
    scores = fused.scores[name]
    about = METHODS.get(name, "single system")
    label = f"**{name}**" if name == fused.best else name
    figures = f"{scores.log_loss:.4f} | {100 * scores.accuracy:.2f} % | {scores.calibration_error:.3f}"
    return f"| {label} | {figures} | {about} |"


def gains(fused: fusion.Fused) -> str:
    """Where the pool is better than the best single system."""
    losses = [fused.scores[name].class_log_loss for name in ("baseline", "pool")]
    worse = [scene for scene, before, after in zip(SCENES, *losses, strict=True) if after > before]
    if not worse:
        return "The gain is in every scene"
    return f"The gain is in every scene but {' and '.join(worse)}"


def variants(outputs: dict[str, SystemOutput], targets: np.ndarray):
    """Rows of other choices than the default pool's."""
    files, _, _, probabilities = fusion.stack(outputs)
    groups = np.array([location_of(file) for file in files])
    m = len(probabilities)
    choices = [
        ("pool, no pull", {"strength": 0.0}, 0),
        ("pool, strength 0.01", {"strength": 0.01}, 0),
        ("pool, strength 0.1 (the default)", {"strength": 0.1}, 0),
        ("pool, strength 1", {"strength": 1.0}, 0),
        ("pool, strength chosen by cross-validation inside each fit", {"strength": None}, 0),
        ("pool, locations dealt otherwise (1)", {}, 1),
        ("pool, locations dealt otherwise (2)", {}, 2),
        ("stacking, hardly held back (strength 0.001)", {"shape": "matrix", "bias": True, "strength": 0.001}, 0),
    ]
    for label, values, seed in choices:
        fit = partial(fit_log_linear, start=1 / m, **values)
        result = cross_fit(fit, probabilities, targets, groups, seed=seed)
        accuracy = 100 * macro_accuracy(result.argmax(1), targets)
        yield f"| {label} | {macro_log_loss(result, targets):.4f} | {accuracy:.2f} % |"


def published() -> str:
    """Wald intervals of the accuracies in the analysis of the challenge, on its 72,000 segments."""
    parts = []
    for name, accuracy in (("Zhang_IOA_3", 0.938), ("the baseline", 0.771), ("the vote", 0.949), ("the oracle", 0.975)):
        hits = (np.arange(72_000) % 7200 < round(accuracy * 7200)).astype(float)
        parts.append(f"{name} {100 * accuracy:.1f} ± {half(wald(hits, np.repeat(np.arange(10), 7200)))}")
    return ", ".join(parts)


def time_submission(folder: Path) -> tuple[dict[str, float], str]:
    """Seconds to pack and to check 72,000 rows, and what the check says of a spoilt file."""
    rng = np.random.default_rng(0)
    whole = SystemOutput(tuple(f"{i}.wav" for i in range(72_000)), SCENES, rng.dirichlet(np.full(10, 0.3), 72_000))
    scores = score(whole.probabilities[:5000], np.arange(5000) % 10, SCENES)
    system = System("Trial", "trial", whole, scores, Complexity(1))
    person = Person("Doe", "Jo", "jo@example.org", Affiliation("Example Institute", "EI"), corresponding=True)
    began = time.perf_counter()
    path = pack(folder / "trial.zip", [system], [person])
    packed = time.perf_counter()
    found = check(path, report=False)
    checked = time.perf_counter()
    if found:
        raise SystemExit(f"the package has violations: {found[:3]}")
    rows = ["\t".join(["filename", "scene_label", *SCENES])]
    rows += [f"{i}.wav\tbus\t0\t1" + "\t0" * 8 for i in range(72_000)]
    rows[3] = rows[3].replace("\t1\t", "\tnan\t")
    rows[10] = rows[10].replace("\tbus", "\tbeach")
    rows[20] = rows[20].replace("\t1\t", "\t0.5\t")
    rows[30] = rows[30].replace("29.wav\tbus", "28.wav\ttram")
    Path("Doe_EI_task1b_1.output.csv").write_text("\n".join(rows) + "\n")
    return {"pack": packed - began, "check": checked - packed}, run("submission check Doe_EI_task1b_1.output.csv")


def save(figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None}, facecolor="white", bbox_inches="tight")
    plt.close(figure)


def draw_intervals(compared: comparison.Comparison, fused: fusion.Fused, targets: np.ndarray, path: Path) -> None:
    output = fused.outputs["pool"]
    groups = np.array([location_of(file) for file in output.files])
    hits = (output.decisions == targets).astype(float)
    rows = [
        (name, compared.scores[name].accuracy, compared.wald[name].accuracy, compared.bootstrap[name].accuracy)
        for name in compared.systems[::-1]
    ]
    honest = percentiles(bootstrap(hits, targets, groups))
    rows.append(("pool of all", fused.scores["pool"].accuracy, wald(hits, targets), honest))
    for combination in compared.combinations:
        label = "all" if len(combination.systems) == len(SYSTEMS) else "best 3"
        rows.append((f"vote of {label}", combination.vote, *combination.vote_intervals))
    for combination in compared.combinations:
        label = "all" if len(combination.systems) == len(SYSTEMS) else "best 3"
        rows.append((f"oracle of {label}", combination.oracle, *combination.oracle_intervals))
    figure, axes = plt.subplots(figsize=(7, 3.4))
    for y, (_, value, published_span, honest) in enumerate(rows):
        axes.plot(
            [100 * honest.low, 100 * honest.high], [y, y], color=BLUE, lw=2, label="by location" if not y else None
        )
        axes.plot(
            [100 * v for v in published_span], [y, y], color=ORANGE, lw=6, alpha=0.6, label=None if y else "by Wald"
        )
        axes.plot(100 * value, y, "o", color="black", ms=4)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_xlabel("macro accuracy, %, with 95 % intervals (10 s clips)")
    axes.grid(axis="x", color="#dddddd")
    axes.legend(frameon=False, loc="lower right")
    save(figure, path)


def draw_reliability(outputs: dict, calibrated: dict, targets: np.ndarray, path: Path) -> None:
    """Dots are as large as the share of clips in their bin."""
    figure, many = plt.subplots(1, 2, figsize=(7, 3.6), sharey=True)
    for axes, name in zip(many, ("audio_only", "late_fusion"), strict=True):
        axes.plot([0, 1], [0, 1], color=GREY, lw=1)
        given, made = outputs[name].probabilities, calibrated[name].output.probabilities
        for label, values, colour in (("before", given, ORANGE), ("after", made, BLUE)):
            diagram = reliability(values, targets, bins=10)
            label = f"{label}, error {reliability(values, targets).error:.3f}"
            axes.plot(diagram.confidence, diagram.accuracy, "-", color=colour, lw=1, label=label)
            axes.scatter(
                diagram.confidence, diagram.accuracy, s=300 * diagram.count / diagram.count.sum(), color=colour
            )
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("probability of the most probable scene")
        axes.legend(frameon=False, loc="upper left")
    many[0].set_ylabel("share right")
    save(figure, path)


def draw_fusion(fused: fusion.Fused, path: Path) -> None:
    names = list(fused.scores)[::-1]
    figure, axes = plt.subplots(figsize=(7, 3.6))
    values = [fused.scores[name].log_loss for name in names]
    axes.barh(names, values, color=[GREY if name in SYSTEMS else BLUE for name in names])
    for y, value in enumerate(values):
        axes.text(value + 0.008, y, f"{value:.3f}", va="center", fontsize=8)
    axes.set_xlabel("macro log loss, nats (10 s clips, cross-fitted by location); single systems in grey")
    save(figure, path)


def draw_classes(fused: fusion.Fused, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 3.4))
    place = np.arange(len(SCENES))
    for shift, name, colour in ((-0.2, "baseline", GREY), (0.2, "pool", BLUE)):
        axes.bar(place + shift, fused.scores[name].class_log_loss, 0.38, color=colour, label=name)
    axes.set_xticks(place, [name.replace("_", "\n") for name in SCENES], fontsize=7)
    axes.set_ylabel("log loss, nats")
    axes.legend(frameon=False)
    save(figure, path)


if __name__ == "__main__":
    main()
