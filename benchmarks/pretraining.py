"""What ImageNet weights bring: tf_efficientnet_lite0 fine-tuned on a toy city from them and from random weights.

    python benchmarks/pretraining.py [--out DIR]

Same city, seed, order, augmentation and number of steps; only the trunk's weights at the start differ. Printed are the
validation log loss and accuracy after every epoch. The figures are of a rendered toy city.
"""

import argparse
import csv
import shutil
from dataclasses import replace
from pathlib import Path

from avsc_e2e.demo import stages
from avsc_e2e.toycity.city import ToyCity
from avsc_e2e.training.run import run_folder
from avsc_e2e.training.trainer import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/pretraining"))
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    shutil.rmtree(options.out / "runs", ignore_errors=True)
    ToyCity(train_locations=6, test_locations=1, duration=4.0).render(options.out / "toycity")
    _, video, _ = stages(options.out / "toycity", options.out / "runs")
    video = replace(video, data=replace(video.data, validation="0.17", windows=4), epochs=options.epochs)
    rows = {}
    for name, pretrained in (("ImageNet", True), ("random", False)):
        recipe = replace(video, name=name, pretrained=pretrained)
        train(recipe)
        with open(run_folder(recipe) / "metrics.csv") as file:
            rows[name] = list(csv.DictReader(file))
    print(f"{'epoch':>5} {'step':>5}   " + "   ".join(f"{name + ': log loss':>20} {'accuracy':>9}" for name in rows))
    for both in zip(*rows.values(), strict=True):
        cells = [
            f"{float(row['validation_log_loss']):20.3f} {100 * float(row['validation_accuracy']):7.1f} %"
            for row in both
        ]
        print(f"{both[0]['epoch']:>5} {both[0]['step']:>5}   " + "   ".join(cells))
    print("rendered toy city, validation set on locations of its own, 1 s segments")


if __name__ == "__main__":
    main()
