"""Fine-tuning end to end against frozen features, on real videos in class folders.

    python benchmarks/real_actions.py [ROOT] [--out DIR]

ROOT has train/ and test/ with class folders (default: shared/data/real_actions beside the repository). The stages of
recipes/own_videos.py are trained on train/ and evaluated on test/, beside logistic regression on frozen features of
the same segments: the ImageNet features of the same video trunk (middle frame, 160 pixels), mean and deviation of 64
log-mel bands, and both. The regression's strength is chosen by cross-validation over source recordings.
"""

import argparse
import logging
import runpy
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from avsc_e2e.data.loader import loader
from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.evaluation import evaluate
from avsc_e2e.inference import evaluation_dataset
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.outputs.output import SystemOutput
from avsc_e2e.outputs.protocols import score_table, scores_of
from avsc_e2e.training.run import model_file
from avsc_e2e.training.trainer import train

HERE = Path(__file__).resolve()
RECIPES = runpy.run_path(str(HERE.parents[1] / "recipes" / "own_videos.py"))
STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


@torch.inference_mode()
def frozen_features(rows, classes):
    """ImageNet features, log-mel statistics, target, group, file and start of every fixed segment."""
    model = SceneNet(replace(RECIPES["hybrid"].model, classes=classes))
    model.video.load_pretrained()
    model.eval()
    dataset = evaluation_dataset(model, rows)
    parts = []
    for batch in loader(dataset, 32, shuffle=False):
        clip = model.preprocess(batch)
        mel = model.frontend.planes(batch.audio.mean(dim=1, keepdim=True).repeat(1, 2, 1))[:, 0]
        bands = torch.cat([mel.mean(dim=2), mel.std(dim=2)], dim=1)
        parts.append((model.video(clip.video), bands, batch.target, batch.start))
    video, bands, target, start = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    rows_of = [segment.row for segment in dataset.segments]
    return video, bands, target, np.array([row.location for row in rows_of]), tuple(r.file for r in rows_of), start


def probe(train_features, target, groups, test_features):
    """Probabilities of logistic regression on standardised features."""

    def fitted(strength, chosen):
        regression = LogisticRegression(C=strength, max_iter=2000)
        return make_pipeline(StandardScaler(), regression).fit(train_features[chosen], target[chosen])

    losses = []
    for strength in STRENGTHS:
        folds = StratifiedGroupKFold(5).split(train_features, target, groups)
        found = [(target[b], fitted(strength, a).predict_proba(train_features[b])) for a, b in folds]
        losses.append(np.mean([log_loss(truth, p, labels=np.arange(target.max() + 1)) for truth, p in found]))
    best = STRENGTHS[int(np.argmin(losses))]
    return fitted(best, slice(None)).predict_proba(test_features), best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    shared = HERE.parents[2] / "shared" / "data" / "real_actions"
    parser.add_argument("root", nargs="?", type=Path, default=shared)
    parser.add_argument("--out", type=Path, default=Path("runs/real_actions"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not options.root.is_dir():
        print(f"{options.root}: not there; give a folder with train/ and test/ of class folders")
        return
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("avsc_e2e").setLevel(logging.INFO)
    began = time.monotonic()

    corpus = read_corpus(options.root, validation=0.0)
    video, bands, target, groups, _, _ = frozen_features(corpus.train, corpus.classes)
    test_video, test_bands, _, _, files, start = frozen_features(corpus.test, corpus.classes)
    reference = {row.file: row.scene for row in corpus.test}
    table = {}
    for name, features, test_features in (
        ("frozen audio, logistic regression", bands, test_bands),
        ("frozen video, logistic regression", video, test_video),
        ("frozen joint, logistic regression", np.hstack([video, bands]), np.hstack([test_video, test_bands])),
    ):
        probabilities, strength = probe(features, target, groups, test_features)
        output = SystemOutput(files, corpus.classes, probabilities, start)
        table[f"{name}, C={strength:g}"] = scores_of(output, reference, corpus.test)
    print(f"probes: {time.monotonic() - began:.0f} s", flush=True)

    began = time.monotonic()
    shutil.rmtree(options.out, ignore_errors=True)
    for stage in ("audio", "video", "hybrid"):
        recipe = RECIPES[stage]
        data = replace(recipe.data, root=str(options.root))
        recipe = replace(recipe, data=data, runs=str(options.out), seed=options.seed)
        train(recipe)
        evaluation = evaluate(recipe, note="Real videos of UCF101, five classes.", history=recipe.init)
        table[f"fine-tuned {stage}"] = evaluation.scores["decision"]
        for head, scores in evaluation.scores.items():
            if head != "decision":
                table[f"    its {head} head"] = scores
    print(f"fine-tuning and evaluation: {time.monotonic() - began:.0f} s\n")
    print(score_table(table))
    print(f"\nreport      {evaluation.folder / 'report.html'}\ncheckpoint  {model_file(recipe)}")


if __name__ == "__main__":
    main()
