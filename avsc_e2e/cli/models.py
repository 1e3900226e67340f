"""avsc models, predict, average: the zoo and checkpoints."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from avsc_e2e.cli.parsing import Paths, Places, Positional, likely
from avsc_e2e.cli.progress import progress, say
from avsc_e2e.cli.targets import refuse_device, refuse_out
from avsc_e2e.errors import AvscError

if TYPE_CHECKING:
    from avsc_e2e.segments import Prediction


def models(pattern: Annotated[str, Positional] = "*", count: bool = True) -> None:
    """List the models of the zoo, with their published figures and our counts of parameters and multiply-adds.

    Args:
        pattern: Shell pattern of names, such as "*ioa*".
        count: Count parameters and multiply-adds; takes most of a second for each model.
    """
    from avsc_e2e.models.zoo.catalogue import list_models

    names = list_models(pattern)
    if not names:
        hint = likely(pattern, list_models()) or "`avsc models` lists all"
        raise AvscError(f"models: no entry matches {pattern!r}; {hint}")

    from avsc_e2e.models.zoo.card import model_card

    for name in names:
        print(model_card(name, count), flush=True)


def predict(
    checkpoint: Annotated[Path, Positional],
    media: Places,
    format: Literal["table", "json", "jsonl", "csv", "tsv", "webvtt", "audacity", "parquet"] = "table",
    out: str = "",
    engine: Literal["local", "ray"] = "local",
    hop: float = 0.0,
    smooth: Literal["none", "median", "markov"] = "none",
    on_bad: Literal["skip", "mask", "raise"] = "skip",
    device: str = "",
    decoder: Literal["auto", "pyav", "decord"] = "auto",
    batch_size: int = 32,
    workers: int = 0,
    flip: bool = False,
    crops: Literal[1, 3, 5] = 1,
    views: int = 1,
    patience: float = 300.0,
) -> int:
    """Predict the scene of recordings, second by second.

    Args:
        checkpoint: The model.safetensors of a training run, the folder of the run, hf-hub:user/name, or a model.onnx of
            `avsc export`, which needs no torch.
        media: Videos, audio files, images, folders of them, stores, or tables (CSV or Parquet) with a column file; URLs
            such as s3://bucket/holiday.mp4 of a file, a folder, a table or a store.
        format: table: for people; json: one array; jsonl: one object for each recording; csv, tsv: rows with commas or
            tabs; webvtt, audacity: the segments of one recording as subtitles or labels; parquet: files of 64
            recordings in the folder --out, which a second run completes.
        out: File to write to instead of printing; for parquet a folder or a URL.
        engine: local: this machine; ray: a task for each Parquet file on the Ray cluster at RAY_ADDRESS, or on one
            started on this machine, with its GPUs if it has any.
        hop: Seconds between the starts of two windows; 0: the length of a window.
        smooth: Smooth over time: the median of five windows, or a hidden Markov model.
        on_bad: What to do with a window that cannot be read: skip it, mask the bad modality, or stop.
        device: cpu, cuda or cuda:N; empty: a GPU if there is one.
        decoder: Decoder of frames. pyav: exact frames; decord: wrong frames in many files, for comparison; auto: pyav.
        batch_size: Number of windows that are predicted at a time, from one recording or several.
        workers: Processes that read recordings while the model predicts; 0: none.
        flip: Also predict the mirrored frames with the audio channels swapped, and average.
        crops: Average over square crops of each frame: the centre, three along its longer side, or the four corners and
            the centre.
        views: Average over this number of sets of frames, each taken at other times.
        patience: With --workers, seconds without a new window after which a recording is given up.
    """
    from avsc_e2e.models.weights.files import checkpoint_file

    if not media:
        raise AvscError("predict: no media given; name videos, audio files or folders after the checkpoint")
    for flag, value, least in (
        ("hop", hop, 0),
        ("batch-size", batch_size, 1),
        ("workers", workers, 0),
        ("views", views, 1),
    ):
        if not value >= least:
            raise AvscError(f"--{flag} {value:g}: give {least} or more")
    if not patience > 0:
        raise AvscError(f"--patience {patience:g}: give seconds above 0")
    refuse_device(device)
    checkpoint = checkpoint_file(checkpoint)
    for path in media:
        if "://" not in path and not Path(path).exists():
            raise AvscError(f"{path}: no such file or folder")
    if engine == "ray" and format == "table":
        format = "parquet"
    if engine == "ray" and format != "parquet":
        raise AvscError(f"--engine ray: writes Parquet files only; leave out --format {format}, or use --engine local")
    if format != "parquet" and "://" in out:
        raise AvscError(f"--out {out}: only --format parquet writes to a URL")
    if format == "parquet" and (not out or checkpoint.suffix == ".onnx"):
        need = "a checkpoint, no model.onnx" if out else "--out, a folder or a URL"
        raise AvscError(f"predict: --format parquet needs {need}")

    if out and format != "parquet":
        refuse_out(out)

    if checkpoint.suffix == ".onnx":
        if device or decoder == "decord" or smooth != "none" or flip or crops > 1 or views > 1 or workers:
            flags = "--device, --decoder, --smooth, --workers, --flip, --crops and --views"
            raise AvscError(f"{checkpoint}: {flags} need the checkpoint")
        from avsc_e2e.export.runtime import OnnxModel

        model = OnnxModel(checkpoint)
        found = model.all(media, hop)
        return _print(found, model.classes, format, out, "none")  # type: ignore[arg-type]  # no parquet here

    from avsc_e2e.prediction import Predictor, predict_parts
    from avsc_e2e.transforms.frames import TestTime

    options: dict[str, Any] = {
        "hop": hop, "smooth": smooth, "on_bad": on_bad, "device": device, "batch_size": batch_size,
        "test_time": TestTime(flip, crops, views), "decoder": decoder, "patience": patience,
    }  # fmt: skip
    if format == "parquet":
        bar = progress("predicting")
        done = predict_parts(checkpoint, media, out, engine=engine, progress=bar, workers=workers or 1, **options)
        failed = len({name for names in done.errors.values() for name in names})
        print(f"{out}: {done.recordings} recordings, {done.now} predicted now, {done.windows} windows, {failed} errors")
        if failed:
            print(done.table)
        return 2 if failed else 0
    predictor = Predictor(checkpoint, workers=workers, **options)
    found = predictor.all(media, progress("predicting", unit="B"))
    return _print(found, predictor.classes, format, out, smooth)


def _print(
    predictions: Iterable[Prediction],
    classes: Sequence[str],
    format: Literal["table", "json", "jsonl", "csv", "tsv", "webvtt", "audacity"],
    out: str,
    smooth: Literal["none", "median", "markov"],
) -> int:
    """Print predictions as they come; returns 2 if a recording could not be read, else 0."""
    from avsc_e2e.data.store.place import writable
    from avsc_e2e.timelines import CAPTIONS, footer, header, separator, timeline_text

    unread, printed = 0, 0
    with contextlib.ExitStack() as stack:
        if out:
            stack.enter_context(writable(out))
        to = stack.enter_context(open(out, "w", encoding="utf-8")) if out else sys.stdout
        if first := header(format, classes):
            print(first, file=to)
        for found in predictions:
            if found.error:  # continue with the other files
                say(f"error: {found.error}", sys.stderr)
                unread += 1
            if found.windows:
                if printed and format in CAPTIONS:
                    raise AvscError(
                        f"--format {format}: contains one recording only; name one file, or use csv or jsonl"
                    )
                between = separator(format) if printed else ""
                say(between + timeline_text(format, found, classes, smooth), to)
                printed += 1
        if last := footer(format):
            print(last, file=to)
    if out:
        print(f"output: {out} ({printed} recording{'s' * (printed != 1)})")
    return 2 if unread else 0


def average(checkpoints: Paths, out: Path) -> None:
    """Average the weights of several checkpoints of one model, such as the epochs or seeds of a run.

    Args:
        checkpoints: Two or more checkpoints or run folders, of the same architecture and classes.
        out: Checkpoint to write; it has no validation figures and no calibration.
    """
    from avsc_e2e.training.averaging import save_average

    print(f"checkpoint: {save_average(checkpoints, out)}, the average of {len(checkpoints)}")
