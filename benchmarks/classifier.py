"""`cross_val_score` of SceneClassifier on the real class folders, whole sources held out.

python benchmarks/classifier.py [--data DIR] [--minutes 3] [--folds 3]
"""

import argparse
import time
from pathlib import Path

from sklearn.model_selection import GroupKFold, cross_val_score

import avsc_e2e

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "real_actions" / "train")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--folds", type=int, default=3)
    options = parser.parse_args()
    rows = avsc_e2e.read_corpus(options.data, validation=0.0, test=0.0).train
    labels, groups = [row.scene for row in rows], [row.location for row in rows]
    began = time.monotonic()
    classifier = avsc_e2e.SceneClassifier(minutes=options.minutes)
    scores = cross_val_score(classifier, list(rows), labels, groups=groups, cv=GroupKFold(options.folds))
    print(
        f"{len(rows)} recordings, {len(set(groups))} sources, {options.folds} folds, {options.minutes:g} minutes each"
    )
    print(f"accuracy of whole recordings: {', '.join(f'{100 * score:.1f} %' for score in scores)}; "
          f"mean {100 * scores.mean():.1f} %; {time.monotonic() - began:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()
