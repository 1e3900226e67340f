"""avsc models, predict, average: the zoo and checkpoints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from avsc_e2e.cli.parsing import Paths, Positional
from avsc_e2e.errors import AvscError, MediaError


def models(pattern: Annotated[str, Positional] = "*", count: bool = True) -> None:
    """List the models of the zoo, with their published figures and our counts of parameters and multiply-adds.

    Args:
        pattern: Shell pattern of names, such as "*ioa*".
        count: Count parameters and multiply-adds; takes most of a second for each model.
    """
    from avsc_e2e.models.zoo.card import model_card
    from avsc_e2e.models.zoo.catalogue import list_models

    names = list_models(pattern)
    if not names:
        raise AvscError(f"models: no entry matches {pattern!r}; `avsc models` lists all")
    for name in names:
        print(model_card(name, count), flush=True)


def predict(
    checkpoint: Annotated[Path, Positional],
    media: Paths,
    format: Literal["table", "json", "csv"] = "table",
    flip: bool = False,
    crops: Literal[1, 3, 5] = 1,
    views: int = 1,
) -> int:
    """Predict the scene of recordings, second by second.

    Args:
        checkpoint: The model.safetensors of a training run, or the folder of the run.
        media: Videos, audio files, images, folders of them, or stores.
        format: How to print the timeline.
        flip: Also predict the mirrored frames with the audio channels swapped, and average.
        crops: Average over square crops of each frame: the centre, three along its longer side, or the four corners and
            the centre.
        views: Average over this many sets of frames, each taken at other times.
    """
    from avsc_e2e.models.weights.files import checkpoint_file

    if not media:
        raise AvscError("predict: no media given; name videos, audio files or folders after the checkpoint")
    if views < 1:
        raise AvscError(f"--views {views}: give 1 or more")
    checkpoint = checkpoint_file(checkpoint)
    for path in media:
        if not path.exists():
            raise AvscError(f"{path}: no such file or folder")

    from avsc_e2e.inference import recordings, stored_calibration, timeline
    from avsc_e2e.models.weights.checkpoint import load_model
    from avsc_e2e.timelines import header, timeline_text
    from avsc_e2e.transforms.frames import TestTime

    model, calibration, test_time = load_model(checkpoint), stored_calibration(checkpoint), TestTime(flip, crops, views)
    classes = model.architecture.classes
    if first := header(format, classes):
        print(first)
    unread = 0
    for path, store in recordings(media):
        try:
            windows = timeline(model, path, store=store, calibration=calibration, test_time=test_time)
        except MediaError as error:  # continue with the other files
            print(f"error: {error}", file=sys.stderr)
            unread += 1
        else:
            print(timeline_text(format, path, windows, classes), flush=True)
    return 2 if unread else 0


def average(checkpoints: Paths, out: Path) -> None:
    """Average the weights of several checkpoints of one model, such as the epochs or seeds of a run.

    Args:
        checkpoints: Two or more checkpoints or run folders, of the same architecture and classes.
        out: Checkpoint to write; it has no validation figures and no calibration.
    """
    from avsc_e2e.training.averaging import save_average

    print(f"checkpoint: {save_average(checkpoints, out)}, the average of {len(checkpoints)}")
