"""avsc train DATA: the learner."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from avsc_e2e.cli.parsing import Positional
from avsc_e2e.cli.progress import progress


def train_data(
    data: Annotated[str, Positional],
    minutes: float = 15.0,
    out: Path = Path("runs/learner"),
    seed: int = 0,
    resume: bool = False,
    decoder: Literal["auto", "pyav", "decord"] = "auto",
) -> None:
    """Train a classifier of recordings within a number of minutes; no other choice is needed.

    Args:
        data: Class folders, FILES.csv with the columns file and label (and where you have them audio, group and split),
            a folder in the layout of TAU Urban Audio-Visual Scenes 2021, or a store.
        minutes: Time budget from start to report. You can stop earlier; the best model so far is on the disk.
        out: Folder for model.safetensors, report.html, ladder.csv, and evaluation/ where there is a test part.
        seed: Seed of the folds and of training.
        resume: Continue in the folder of an earlier run, with the recordings that it has decoded.
        decoder: Decoder of frames. pyav: exact frames; decord: wrong frames in many files, for comparison; auto: pyav.
    """
    from avsc_e2e.learner.fit import fit

    learned = fit(data, minutes=minutes, out=out, seed=seed, resume=resume, decoder=decoder, progress=progress)
    print(learned.ladder.verdict())
    for protocol, (log_loss, accuracy) in learned.test.items():
        print(f"test part, {protocol}: macro log loss {log_loss:.3f}, macro accuracy {100 * accuracy:.1f} %")
    print(f"checkpoint: {learned.checkpoint}\nladder: {out / 'ladder.csv'}\nreport: {learned.report}")
