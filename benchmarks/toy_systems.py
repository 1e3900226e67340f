"""Every system of both papers, made small and trained on a rendered toy city; a table of what they reach.

    python benchmarks/toy_systems.py [--out DIR] [--only FILE ...] [--threads N]

The stages are those of recipes/, with their front ends, channels, heads, pooling, fusion, augmentation and order. Small
are the trunks (a ten-layer ResNet for every audio net, EfficientNet-Lite0 from ImageNet for every image net), image
sizes, bands and epochs, and the learning rates are those of the demo. So the table compares how systems are put
together, not what their nets could reach, and its figures are of a synthetic city. It ends with the order of the
baseline family by accuracy, which is what the dataset paper gives: joint above early and late fusion, these above each
single modality; status 1 where it is another. A line says whether the flagship has the lowest log loss of all rows."""

import argparse
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from avsc_e2e.cli.targets import StageTarget, recipe_files, stages_of
from avsc_e2e.evaluation import evaluate
from avsc_e2e.models.nets.audionet import parameter_count
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.outputs.metrics import Scores
from avsc_e2e.outputs.output import SystemOutput
from avsc_e2e.outputs.protocols import scores_of
from avsc_e2e.toycity.city import ToyCity
from avsc_e2e.training.recipe import Recipe
from avsc_e2e.training.run import corpus_of
from avsc_e2e.training.trainer import train

CITY = ToyCity(train_locations=8, test_locations=4, duration=4.0, height=112, width=150)
SKIPPED = {
    "openl3_baseline": ("audio_tuned", "video_tuned", "early_tuned", "late_tuned", "joint_tuned"),
    "zhang_ioa": ("places", "video_resnet50", "video_efficientnetv2", "video_swin", "video_jft"),
    "du_ustc": ("vggish", "pann"),
    "flagship": ("probe", "student"),
    "okazaki_ldsl": ("regnet", "hrnet", "clip", "text"),
}
"""Stages that small trunks make the same as another, and those for other data or words."""
FAMILY = ("audio", "video", "early", "late", "joint")
OURS = ("own_videos", "distil_audio")
"""Recipes of no paper."""
FLAGSHIP = "flagship/joint"
LATE_FUSION = ("mcdonnell_usa/audio", "resnet50_video/video")
"""The dataset paper's pair of decision-level fusion."""


def stages() -> Iterator[Recipe]:
    """The stages of all recipe files but ours, each before those that start from it."""
    files = recipe_files()
    for name in sorted(files, key=lambda name: (name != "openl3_baseline", name)):
        found = {stage: StageTarget(files[name], stage).load() for stage in stages_of(files[name])}
        skipped = (*SKIPPED.get(name, ()), *(found if name in OURS else ()))
        yield from (recipe for stage, recipe in found.items() if stage not in skipped)


def small(recipe: Recipe, root: Path, runs: Path) -> Recipe:
    """The same system with trunks, image sizes and epochs for a laptop."""
    model, optim = recipe.model, recipe.optim
    if model.audio:
        model = replace(model, audio="audio_resnet10", bands=min(model.bands, 64), hop=model.sample_rate // 50)
    if model.video:
        model = replace(model, video="tf_efficientnet_lite0", size=96, frames=min(model.frames, 2), mean=(), std=())
    model = replace(model, hidden=min(model.hidden, 256), window=1.0)
    both, frozen = len(model.modalities) == 2, not optim.audio_lr and not optim.video_lr
    # Where trunks are frozen for their published weights, there are none here: those of the single stages serve, and
    # the single stages learn them.
    given = tuple(name for name in recipe.init if name.split("/")[1] not in SKIPPED.get(name.split("/")[0], ()))
    init = given or (tuple(recipe.name.split("/")[0] + stage for stage in ("/audio", "/video")) * (both and frozen))
    later = bool(init)
    audio_lr = (3e-4 if optim.audio_lr else 0.0) if later else 2e-3
    video_lr = (1e-4 if optim.video_lr else 0.0) if later else 5e-4
    # A head on frozen trunks begins at random, and its epochs are cheap.
    epochs = 0 if not recipe.epochs else 8 if later and frozen else 4 if later else 8 if model.audio else 6
    return replace(
        recipe,
        model=model,
        data=replace(recipe.data, root=str(root), windows=4, window=0.0, statistics=256, validation="0.125"),
        optim=replace(
            optim,
            optimiser="adamw",
            lr=2e-3,
            audio_lr=audio_lr,
            video_lr=video_lr,
            weight_decay=0.05,
            warmup=0.1,
            schedule="cosine",
            restarts=(),
            final=0.0,
            keep_statistics=True,
        ),
        epochs=epochs + 4 * (both and not later),
        batch_size=16,
        init=init,
        pretrained=bool(model.video),
        video_weights="",
        runs=str(runs),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/toy_systems"))
    parser.add_argument("--only", nargs="*", default=(), help="recipe files, such as openl3_baseline; default: all")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: its own choice")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    root, runs = options.out / "city", options.out / "runs"
    CITY.render(root)
    shutil.rmtree(runs, ignore_errors=True)
    table: dict[str, dict[str, Scores]] = {}
    outputs: dict[str, SystemOutput] = {}
    print("synthetic: a rendered toy city, small trunks, few epochs; these are no figures of the papers' data\n")
    print(f"{'':<32}{'':>11}   {'1 s segments':^19}   {'4 s clips':^19}")
    print(
        f"{'':<32}{'parameters':>11}   {'log loss':>8} {'accuracy':>10}   {'log loss':>8} {'accuracy':>10}{'time':>8}"
    )
    for recipe in stages():
        if options.only and recipe.name.split("/")[0] not in options.only:
            continue
        began = time.monotonic()
        recipe = replace(small(recipe, root, runs), seed=options.seed)
        corpus = corpus_of(recipe)
        train(recipe)
        evaluation = evaluate(recipe, note="A rendered toy city, small trunks.")
        table[recipe.name], outputs[recipe.name] = evaluation.scores["decision"], evaluation.outputs["decision"]
        _print(recipe.name, table[recipe.name], parameter_count(SceneNet(recipe.model)), time.monotonic() - began)
    if all(name in outputs for name in LATE_FUSION):
        one, other = (outputs[name] for name in LATE_FUSION)
        fused = SystemOutput(one.files, one.classes, np.mean([one.probabilities, other.probabilities], 0), one.start)
        rows = corpus.test
        _print("mcdonnell and resnet50, late", scores_of(fused, {row.file: row.scene for row in rows}, rows))
    if FLAGSHIP in table and len(table) > 1:
        losses = {name: _first(scores).log_loss for name, scores in table.items()}
        best = min((name for name in losses if name != FLAGSHIP), key=losses.__getitem__)
        beaten = "yes" if losses[FLAGSHIP] < losses[best] else "NO"
        print(f"\n{FLAGSHIP} {losses[FLAGSHIP]:.3f} below the best other row, {best} {losses[best]:.3f}: {beaten}")
    if not all(f"openl3_baseline/{stage}" in table for stage in FAMILY):
        return 0
    hits = {stage: _first(table[f"openl3_baseline/{stage}"]).accuracy for stage in FAMILY}
    holds = hits["joint"] > max(hits["early"], hits["late"])
    holds &= min(hits["early"], hits["late"]) > max(hits["audio"], hits["video"])
    order = " > ".join(
        f"{stage} {100 * share:.1f} %" for stage, share in sorted(hits.items(), key=lambda item: -item[1])
    )
    print(f"\nbaseline family by accuracy of 1 s segments: {order}")
    print(f"joint above early and late, these above audio and video: {'yes' if holds else 'NO'}")
    return 0 if holds else 1


def _first(scores: dict[str, Scores]) -> Scores:
    return next(iter(scores.values()))


def _print(name: str, scores: dict[str, Scores], parameters: int = 0, seconds: float = 0.0) -> None:
    cells = "".join(f"   {s.log_loss:8.3f} {100 * s.accuracy:8.1f} %" for s in scores.values())
    count = f"{parameters:,}" if parameters else ""
    print(f"{name:<32}{count:>11}{cells}" + f"{seconds:6.0f} s" * bool(seconds), flush=True)


if __name__ == "__main__":
    sys.exit(main())
