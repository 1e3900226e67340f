"""`avsc train DATA`: a model of a folder of recordings within a number of minutes, never below a frozen probe."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avsc_e2e.arguments import checked
from avsc_e2e.data.media import Decoder
from avsc_e2e.durable import alone
from avsc_e2e.errors import AvscError, within
from avsc_e2e.learner.budget import Clock

if TYPE_CHECKING:
    from avsc_e2e.learner.results import Learned
    from avsc_e2e.learner.run import Progress
    from avsc_e2e.models.ensemble import Member


@checked
def fit(
    data: str | os.PathLike,
    *,
    minutes: float = 15.0,
    out: str | os.PathLike = "runs/learner",
    seed: int = 0,
    resume: bool = False,
    decoder: Decoder = "auto",
    members: Sequence[Member] | None = None,
    progress: Progress | None = None,
) -> Learned:
    """Learn to classify one-second segments of recordings: class folders, FILES.csv (columns file and label, and where
    they are known audio, group and split; see `read_folder`), a TAU root, or a store of one.

    Writes model.safetensors, ladder.csv and report.html to `out` after the first rung and again after each better
    one, and evaluation/ where the data set has a test part. With `resume` it goes on in a folder of an earlier run.
    `decoder` takes frames out of videos. `members` are the frozen trunks to start from; by default those at hand.
    Raises AvscError.
    """
    if not 0 < minutes < math.inf:
        raise AvscError(f"--minutes {minutes:g}: give a number of minutes above 0")
    within("--seed", seed, 0)
    clock, out = Clock(minutes), Path(out)
    if (out / "ladder.csv").exists() and not resume:
        raise AvscError(f"{out}: holds an earlier run; go on with --resume, delete it, or choose another --out")
    if resume and not any((out / name).exists() for name in ("store", "ladder.csv")):
        raise AvscError(f"{out}: nothing to resume, no data set was decoded here; leave --resume out to start")
    import torch  # here, because mistakes should be told before what takes seconds

    from avsc_e2e.data.store.prepare import Options
    from avsc_e2e.learner.embeddings import FRAMES, SIZE
    from avsc_e2e.learner.look import look
    from avsc_e2e.learner.results import Results
    from avsc_e2e.learner.run import Run, silent
    from avsc_e2e.memory import keep_freed_memory

    if not torch.cuda.is_available():
        keep_freed_memory()
    progress = progress or silent
    with alone(out):
        looks = look(data, out, Options(SIZE, float(FRAMES), 90, decoder), clock, progress("decoding"))
        command = f"avsc train {os.fspath(data)} --minutes {minutes:g} --seed {seed}"
        results = Results(out, os.fspath(data), command)
        return Run(results, clock, seed, progress).climb(looks, members, resume)
