"""The command line: `avsc VERB`, and `run` for recipes. A verb is a typed function; its signature is its flags and its
docstring their help. Whatever is heavy is imported by the verb that needs it."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import io
import json
import logging
import os
import re
import sys
import time
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from avsc_e2e.errors import AvscError, MediaError

if TYPE_CHECKING:
    from avsc_e2e.training.recipe import Recipe

MediaPaths = Annotated[tuple[Path, ...], tyro.conf.Positional]


def demo(out: Path = Path("demo"), quick: bool = False) -> None:
    """Render a toy city, fine-tune audio, video and hybrid on it, evaluate, report and pack a submission.

    Args:
        out: Folder for everything that the demo makes.
        quick: A smaller city and tiny nets: under a minute, to see that all works.
    """
    from avsc_e2e.demo import run_demo

    print(run_demo(out, quick=quick, progress=progress))


def data_render(
    root: Annotated[Path, tyro.conf.Positional],
    train_locations: int = 8,
    test_locations: int = 3,
    clips: int = 1,
    duration: float = 10.0,
    seed: int = 0,
    workers: int = 0,
) -> None:
    """Render a toy city in the layout of TAU Urban Audio-Visual Scenes 2021.

    Args:
        root: Folder to write it to.
        train_locations: Locations of each scene to train on.
        test_locations: Further locations of each scene to test on.
        clips: Recordings at each location.
        duration: Seconds of a recording.
        seed: Another seed is another city.
        workers: Processes; 0: one for each core.
    """
    from avsc_e2e.toycity.city import ToyCity

    city = ToyCity(
        train_locations=train_locations, test_locations=test_locations, clips=clips, duration=duration, seed=seed
    )
    city.render(root, workers=workers or None, progress=progress("rendering"))
    print(f"{root}: {10 * clips * (train_locations + test_locations)} recordings of {duration:g} s")


def data_download(
    root: Annotated[Path, tyro.conf.Positional],
    part: Literal["development", "evaluation"] = "development",
    base_url: str = "",
    keep: bool = False,
    parallel: int = 4,
    plan: bool = False,
) -> None:
    """Fetch TAU Urban Audio-Visual Scenes 2021, verify every archive and unpack it; goes on where it was stopped.

    Args:
        root: Folder for the set; each part gets one of its own inside.
        part: Development set (108 GB) or evaluation set (61 GB).
        base_url: Where the archives lie; empty: the set's home at Zenodo.
        keep: Keep the archives after unpacking.
        parallel: Archives fetched at the same time.
        plan: Only say what would be fetched and the disk space that it needs.
    """
    from avsc_e2e.data.download import download, list_archives, plan_download

    archives = list_archives(part)
    print(plan_download(root, archives, keep=keep, parallel=parallel), flush=True)
    if plan:
        return

    def show(state) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{state}")
            sys.stderr.flush()

    where = download(root, archives, base_url=base_url, keep=keep, parallel=parallel, progress=show)
    print(f"{where}: complete; `avsc data check {where}` looks at it closely")


def data_check(
    root: Annotated[Path, tyro.conf.Positional],
    fast: bool = False,
    part: Literal["", "development", "evaluation"] = "",
    list_to: Path | None = None,
) -> int:
    """Compare a data set with what it should be; exit status 1 when something is wrong.

    Args:
        root: Folder of the data set.
        fast: Read names and headers only.
        part: Which part of TAU it is; empty: told from what lies there.
        list_to: CSV that gets every problem with its file.
    """
    from avsc_e2e.data.check import check

    result = check(root, fast=fast, part=part, progress=progress("checking"))
    print(result.table())
    if result.problems:
        print(result.problem_list())
    if list_to:
        result.write_problems(list_to)
    return 0 if result.ok else 1


def data_prepare(
    root: Annotated[Path, tyro.conf.Positional],
    store: Annotated[Path, tyro.conf.Positional],
    short_side: int = 256,
    rate: float = 5.0,
    quality: int = 95,
    workers: int = 0,
) -> int:
    """Decode a data set once into a store that clips are read from in a millisecond; goes on where it was stopped.

    Machines that share the store's folder divide the work by RANK and WORLD_SIZE, as under torchrun.

    Args:
        root: Folder of the data set.
        store: Folder for the store; give it to recipes as --data.store.
        short_side: Pixels of a frame's shorter side.
        rate: Frames a second, each from the middle of its span; odd rates hold the centres of one-second segments.
        quality: Of the JPEG frames, 1 to 100.
        workers: Processes; 0: one for each core.
    """
    from avsc_e2e.data.store.prepare import Options, prepare

    done = prepare(
        root,
        store,
        Options(short_side, rate, quality),
        workers=workers or max((os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), 1),
        rank=int(os.environ.get("RANK", 0)),
        world=int(os.environ.get("WORLD_SIZE", 1)),
        progress=progress("preparing"),
    )
    for file, modality, reason in done.bad:
        print(f"{file}: its {modality} {reason}")
    rest = f", {done.missing} shards are left to other machines" if done.missing else ""
    bad = f", {len({file for file, *_ in done.bad})} of them bad" if done.bad else ""
    print(f"{store}: {done.clips} recordings{bad}, {done.decoded} decoded now, {done.size / 1e9:.2f} GB{rest}")
    return 1 if done.bad else 0


def models(pattern: Annotated[str, tyro.conf.Positional] = "*", count: bool = True) -> None:
    """List the model zoo, with published figures beside our own counts.

    Args:
        pattern: Shell pattern of names, such as "*ioa*".
        count: Count parameters and multiply-adds, most of a second for each entry.
    """
    from avsc_e2e.models.zoo.card import model_card
    from avsc_e2e.models.zoo.catalogue import list_models

    names = list_models(pattern)
    if not names:
        raise AvscError(f"models: no entry matches {pattern!r}; `avsc models` lists all")
    for name in names:
        print(model_card(name, count), flush=True)


def predict(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    media: MediaPaths,
    format: Literal["table", "json", "csv"] = "table",
    flip: bool = False,
    crops: Literal[1, 3, 5] = 1,
    views: int = 1,
) -> int:
    """Say what scene a recording is of, second by second.

    Args:
        checkpoint: The model.safetensors of a training run.
        media: Videos, sound files, pictures, folders of them, or stores.
        format: How to print the timeline.
        flip: Average with what the model says of the mirrored picture with its ears swapped.
        crops: Average over squares of a picture: its centre, three along its longer side, or four corners and the
            centre.
        views: Average over sets of frames, at times of their own.
    """
    from avsc_e2e.inference import recordings, stored_calibration, timeline
    from avsc_e2e.models.weights.checkpoint import load_model
    from avsc_e2e.transforms.frames import TestTime

    if not media:
        raise AvscError("predict: no media given; name videos, sound files or folders after the checkpoint")
    if views < 1:
        raise AvscError(f"--views {views}: at least one is needed")
    model, calibration, test_time = load_model(checkpoint), stored_calibration(checkpoint), TestTime(flip, crops, views)
    classes = model.architecture.classes
    if format == "csv":
        print("\t".join(("filename", "start", "end", "modalities", "scene_label", *classes)))
    unread = 0
    for path, store in recordings(media):
        try:
            windows = timeline(model, path, store=store, calibration=calibration, test_time=test_time)
        except MediaError as error:  # the other files are still worth their timelines
            print(f"error: {error}", file=sys.stderr)
            unread += 1
            continue
        if format == "csv":
            for w in windows:
                label = classes[int(w.probabilities.argmax())]
                cells = (path, f"{w.start:.2f}", f"{w.end:.2f}", "+".join(w.modalities), label)
                print("\t".join([*map(str, cells), *(f"{p:.6f}" for p in w.probabilities)]))
            continue
        mean = sum(w.probabilities for w in windows) / len(windows)
        best = int(mean.argmax())
        if format == "json":
            record = {
                "file": str(path),
                "modalities": windows[0].modalities,
                "scene": classes[best],
                "probabilities": dict(zip(classes, mean.round(6).tolist(), strict=True)),
                "timeline": [
                    {
                        "start": round(w.start, 3),
                        "end": round(w.end, 3),
                        "scene": classes[int(w.probabilities.argmax())],
                        "probabilities": dict(zip(classes, w.probabilities.round(6).tolist(), strict=True)),
                    }
                    for w in windows
                ],
            }
            print(json.dumps(record))
            continue
        heard = {("audio", "video"): "sound and pictures", ("audio",): "sound alone", ("video",): "pictures alone"}
        print(f"{path}: {classes[best]} {100 * mean[best]:.0f} %, from {heard[windows[0].modalities]}")
        for w in windows:
            order = w.probabilities.argsort()[::-1]
            likely = ", ".join(f"{classes[i]} {100 * w.probabilities[i]:.0f} %" for i in order[:3])
            print(f"  {w.start:6.1f} - {w.end:6.1f} s  {'█' * round(10 * w.probabilities[order[0]]):<10}  {likely}")
    return 2 if unread else 0


def average(checkpoints: MediaPaths, out: Path) -> None:
    """Average the weights of several checkpoints of one model, such as the epochs or seeds of a run.

    Args:
        checkpoints: Two or more model.safetensors of the same architecture and classes.
        out: File for the mean, a checkpoint like the others; it has no validation figures and no calibration.
    """
    from avsc_e2e.training.averaging import save_average

    print(f"checkpoint: {save_average(checkpoints, out)}, the mean of {len(checkpoints)}")


def score(
    output: Annotated[Path, tyro.conf.Positional],
    reference: Annotated[Path, tyro.conf.Positional],
    report: Path | None = None,
    json_to: Path | None = None,
) -> None:
    """Score a system output: macro log loss and accuracy, per class, for segments and whole clips.

    Args:
        output: System output, a CSV with a probability for each class.
        reference: CSV with the true scene of each file, such as fold1_evaluate.csv.
        report: HTML file to write a report to.
        json_to: File to write every figure of the report to.
    """
    from avsc_e2e.outputs.output import read_output, read_reference
    from avsc_e2e.report.page import write_report
    from avsc_e2e.report.report import Report

    found = read_output(output)
    page = Report(title=output.stem, outputs={output.stem: found}, reference=read_reference(reference))
    for protocol, of_protocol in page.results.items():
        result = of_protocol[output.stem]
        scores, spans = result.scores, result.intervals
        print(f"{protocol}, {scores.count} rows, macro averages over classes")
        print(f"  log loss {scores.log_loss:.4f}   accuracy {100 * scores.accuracy:.2f} %")
        for name, loss, accuracy in zip(scores.classes, scores.class_log_loss, scores.class_accuracy, strict=True):
            print(f"  {name:<20} {loss:8.3f} {100 * accuracy:9.1f} %")
        del spans
    if report:
        print(f"report: {write_report(page, report)}")
    if json_to:
        json_to.write_text(json.dumps(page.json(), indent=2) + "\n")


def calibrate(
    output: Annotated[Path, tyro.conf.Positional],
    reference: Path | None = None,
    method: Literal["temperature", "classwise", "vector", "isotonic", "floor"] = "temperature",
    folds: int = 10,
    apply_to: Path | None = None,
    use: Path | None = None,
    save: Path | None = None,
    out: Path | None = None,
    checkpoint: Path | None = None,
) -> None:
    """Calibrate the probabilities of a system output, for a lower log loss.

    Args:
        output: System output, a CSV with a probability for each class.
        reference: CSV with the true scene of each file, to fit to; the figures are cross-fitted by location.
        method: What is fitted: one exponent, one a class, with biases, rising curves, or floors of small confidences.
        folds: Parts of whole locations in cross-fitting.
        apply_to: Another output of the same system, to be calibrated by the fit to the first.
        use: Calibration that was saved, instead of a reference to fit to.
        save: JSON file for the calibration fitted to all rows.
        out: CSV for the calibrated output: that of `apply-to` if given, else of the output itself.
        checkpoint: Checkpoint of the system that the calibration is to ride in: `predict` and `submit` then apply it.
    """
    from avsc_e2e.outputs import calibration
    from avsc_e2e.outputs import output as outputs

    given = outputs.read_output(output)
    if (reference is None) == (use is None):
        raise AvscError("calibrate: give --reference to fit to, or --use with a calibration that was saved")
    if use:
        rule = calibration.Calibration.load(use)
        calibrated = rule(given)
    else:
        targets = outputs.targets_of(given, outputs.read_reference(reference))
        protocol = outputs.protocol_of(given)
        result = calibration.calibrate(given, targets, method, folds=folds, protocol=protocol)
        rule, calibrated = result.calibration, result.output
        print(result.table())
    if apply_to:
        calibrated = rule(outputs.read_output(apply_to))
    if save:
        rule.save(save)
        print(f"calibration: {save}")
    if checkpoint:
        from avsc_e2e.inference import CALIBRATION
        from avsc_e2e.models.weights.checkpoint import add_notes

        print(f"calibration: in {add_notes(checkpoint, {CALIBRATION: json.dumps(rule.to_json())})}")
    if out:
        outputs.write_output(out, calibrated)
        print(f"output: {out}")


def fuse(
    systems: MediaPaths,
    reference: Path | None = None,
    method: Literal[
        "all", "mean", "product", "vote", "weights", "pool", "classwise", "stacking", "greedy", "confidence"
    ] = "pool",
    folds: int = 10,
    use: Path | None = None,
    save: Path | None = None,
    out: Path | None = None,
) -> None:
    """Fuse the outputs of several systems into one.

    Args:
        systems: System outputs of the same recordings, CSVs with a probability for each class.
        reference: CSV with the true scene of each file, to fit to; the figures are cross-fitted by location.
        method: How to fuse; all compares the methods.
        folds: Parts of whole locations in cross-fitting.
        use: Fusion that was saved, instead of a reference to fit to; outputs are matched by their files' names.
        save: JSON file for the fusion fitted to all rows; of all methods the one with the least log loss.
        out: CSV for the fused output.
    """
    from avsc_e2e.outputs import fusion
    from avsc_e2e.outputs import output as outputs

    given = outputs.read_outputs(systems)
    if (reference is None) == (use is None):
        raise AvscError("fuse: give --reference to fit to, or --use with a fusion that was saved")
    if use:
        rule = fusion.Fusion.load(use)
        fused = rule(given)
    else:
        if len(given) < 2:
            raise AvscError(f"fuse: {len(given)} system output given; it takes two or more")
        first = next(iter(given.values()))
        targets = outputs.targets_of(first, outputs.read_reference(reference))
        methods = typing.get_args(fusion.Method) if method == "all" else (method,)
        result = fusion.fuse(given, targets, methods, folds=folds, protocol=outputs.protocol_of(first))
        rule, fused = result.fusions[result.best], result.outputs[result.best]
        print(result.table())
    if save:
        rule.save(save)
        print(f"fusion by {rule.method}: {save}")
    if out:
        outputs.write_output(out, fused)
        print(f"output: {out}")


def compare(
    systems: MediaPaths,
    reference: Path,
    parameters: tuple[int, ...] = (),
    clips: bool = False,
    json_to: Path | None = None,
) -> None:
    """Compare systems: intervals, paired tests, vote and oracle, correlations, where they disagree.

    Args:
        systems: System outputs of the same recordings, CSVs with a probability for each class.
        reference: CSV with the true scene of each file.
        parameters: Number of parameters of each system, in the order of the outputs.
        clips: Decide whole clips by the sum of their segments' probabilities first.
        json_to: File to write every figure to.
    """
    from avsc_e2e.outputs import comparison
    from avsc_e2e.outputs import output as outputs

    given = outputs.read_outputs(systems)
    if len(given) < 2:
        raise AvscError(f"compare: {len(given)} system output given; it takes two or more")
    if parameters and len(parameters) != len(given):
        raise AvscError(f"--parameters: {len(parameters)} numbers for {len(given)} outputs; give one for each")
    if clips:
        given = {name: outputs.to_clips(one) for name, one in given.items()}
    first = next(iter(given.values()))
    result = comparison.compare(
        given,
        outputs.targets_of(first, outputs.read_reference(reference)),
        parameters=dict(zip(given, parameters, strict=True)) if parameters else None,
        protocol=outputs.protocol_of(first),
    )
    print(result.table())
    if json_to:
        json_to.write_text(json.dumps(result.to_json(), indent=2) + "\n")


def submission_pack(
    out: Annotated[Path, tyro.conf.Positional],
    runs: MediaPaths,
    people: Path | None = None,
    report: Path | None = None,
    trial: bool = False,
) -> None:
    """Pack up to four trained, evaluated and submitted stages as one challenge submission, and check it.

    Args:
        out: The package, a .zip file, or a folder.
        runs: Folders of the stages, such as runs/zhang_ioa/hybrid.
        people: TOML file with a table [[author]] for each author; without it they are asked for.
        report: PDF of the technical report.
        trial: Take the files of the first output for the evaluation set's, whatever they are.
    """
    from avsc_e2e.evaluation import system_of_run
    from avsc_e2e.submission.package import pack

    systems = [system_of_run(run) for run in runs]
    files = set(systems[0].output.files) if trial and systems else None
    print(f"package: {pack(out, systems, _authors(people), report, files=files)}")


def submission_check(package: Annotated[Path, tyro.conf.Positional], files: Path | None = None) -> int:
    """Check a submission; every violation is listed with its line, and the exit status is 1 if there is any.

    Args:
        package: A package (zip or folder), an .output.csv or a .meta.yaml.
        files: A system output whose files are the evaluation set's, for trials; by default 0.wav to 71999.wav.
    """
    from avsc_e2e.outputs.output import read_output
    from avsc_e2e.submission.package import check, listing

    violations = check(package, set(read_output(files).files) if files else None, report=files is None)
    print(listing(violations) if violations else f"{package}: no violation found")
    return 1 if violations else 0


VERBS: dict[str, Callable[..., int | None]] = {
    "demo": demo,
    "data render": data_render,
    "data download": data_download,
    "data check": data_check,
    "data prepare": data_prepare,
    "models": models,
    "predict": predict,
    "average": average,
    "score": score,
    "calibrate": calibrate,
    "fuse": fuse,
    "compare": compare,
    "submission pack": submission_pack,
    "submission check": submission_check,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `avsc`."""
    argv = list(sys.argv[1:] if argv is None else argv)
    _log_to_stderr()
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return
    if argv[0] == "--version":
        from avsc_e2e import __version__

        print(f"avsc_e2e {__version__}")
        return
    words = 2 if " ".join(argv[:2]) in VERBS else 1
    name = " ".join(argv[:words])
    with _one_line_errors():
        if name not in VERBS:
            group = [verb for verb in VERBS if verb.startswith(argv[0] + " ")]
            if group and (len(argv) == 1 or argv[1] in ("-h", "--help")):
                print(_overview(group))
                return
            raise AvscError(_unknown("command", " ".join(argv[:2] if group else argv[:1]), group or list(VERBS)))
        sys.exit(_parse(VERBS[name], f"avsc {name}", argv[words:]) or 0)


def run(**stages: Recipe) -> None:
    """Entry point of a recipe file: `python recipes/FILE.py VERB STAGE [--field value]`."""
    program, argv = Path(sys.argv[0]).name, sys.argv[1:]
    _log_to_stderr()
    usage = f"usage: {program} {{{','.join(RECIPE_VERBS)}}} {{{','.join(stages)}}} [--field value ...]"
    if not argv or argv[0] in ("-h", "--help"):
        document = (sys.modules["__main__"].__doc__ or "").strip()
        print(f"{usage}\n\n{document}\n\nEvery field: {program} train {next(iter(stages))} --help")
        return
    with _one_line_errors():
        if argv[0] not in RECIPE_VERBS:
            raise AvscError(_unknown("verb", argv[0], list(RECIPE_VERBS)))
        if len(argv) == 1 or argv[1] in ("-h", "--help"):
            print(usage)
            return
        if argv[1] not in stages:
            raise AvscError(_unknown("stage", argv[1], list(stages)))
        verb = _for_stage(RECIPE_VERBS[argv[0]], stages[argv[1]])
        sys.exit(_parse(verb, f"{program} {argv[0]} {argv[1]}", argv[2:]) or 0)


def stage_show(recipe: Recipe) -> None:
    """Print the recipe of a stage."""
    from dataclasses import fields, is_dataclass

    def lines(value, indent: str):
        for field in fields(value):
            inner = getattr(value, field.name)
            if is_dataclass(inner):
                yield f"{indent}{field.name}: {type(inner).__name__}"
                yield from lines(inner, indent + "    ")
            else:
                yield f"{indent}{field.name} = {inner!r}"

    print("\n".join(lines(recipe, "")))


def stage_train(recipe: Recipe, resume: bool = False, profile: bool = False) -> None:
    """Train a stage; its folder below `runs` gets the checkpoint, the log and the recipe.

    Args:
        resume: Go on where an interrupted run of the same recipe stopped.
        profile: Trace six steps of the first epochs: a table of where a step's milliseconds go, and a trace to look at.
    """
    from avsc_e2e import processes
    from avsc_e2e.training.trainer import train

    path = train(recipe, resume=resume, profile=profile)
    if not processes.rank():
        print(f"checkpoint: {path}")


def stage_evaluate(recipe: Recipe) -> None:
    """Evaluate a trained stage on the test part: system outputs, scores and a report."""
    from avsc_e2e import processes
    from avsc_e2e.evaluation import evaluate

    evaluation = evaluate(recipe, history=recipe.init, progress=progress("predicting"))
    if not processes.rank():
        print(evaluation.table(recipe.name))
        print(f"report: {evaluation.folder / 'report.html'}")


def stage_teach(recipe: Recipe) -> None:
    """Predict the training part with a trained stage: a system output that students learn from (--distil.teachers)."""
    from avsc_e2e import processes
    from avsc_e2e.evaluation import predict_training_part

    path = predict_training_part(recipe, progress=progress("predicting"))
    if not processes.rank():
        print(f"output: {path}")


def stage_submit(
    recipe: Recipe, people: Path | None = None, report: Path | None = None, out: Path | None = None
) -> None:
    """Predict the evaluation set (--data.evaluation) with a trained and evaluated stage, and pack it as a submission.

    Args:
        people: TOML file with a table [[author]] for each author; without it they are asked for.
        report: PDF of the technical report; a package without one is fit for trials only.
        out: The package; by default submission.zip in the run's folder.
    """
    from avsc_e2e import processes
    from avsc_e2e.evaluation import predict_evaluation_set, system_of_run
    from avsc_e2e.submission.package import pack

    authors = _authors(people)
    output = predict_evaluation_set(recipe, progress=progress("predicting"))
    if processes.rank():
        return
    system = system_of_run(output.parent)
    trial = None if recipe.data.evaluation else set(system.output.files)
    path = pack(out or output.parent / "submission.zip", [system], authors, report, files=trial)
    print(f"package: {path}" + ("" if trial is None else " (a trial: the test part's files, not the evaluation set's)"))


def _authors(people: Path | None):
    from avsc_e2e.submission.entry import ask_people, read_people

    if people:
        return read_people(people)
    if not sys.stdin.isatty():
        raise AvscError("--people: name a TOML file with a table [[author]] for each author")
    return ask_people(input)


RECIPE_VERBS: dict[str, Callable[..., None]] = {
    "show": stage_show,
    "train": stage_train,
    "evaluate": stage_evaluate,
    "teach": stage_teach,
    "submit": stage_submit,
}


def _for_stage(verb: Callable, stage: Recipe) -> Callable:
    """A verb whose recipe has a stage's values as defaults, its fields flags without a prefix."""
    from avsc_e2e.training.recipe import Recipe

    hints = typing.get_type_hints(verb, localns={"Recipe": Recipe}, include_extras=True)
    hints["recipe"] = Annotated[Recipe, tyro.conf.arg(name="")]
    signature = inspect.signature(verb)
    recipe, *others = signature.parameters.values()

    return _dressed(
        lambda **values: verb(**values),
        verb,
        hints,
        signature.replace(parameters=[recipe.replace(default=stage), *others]),
    )


def _dressed(function: Callable, like: Callable, hints: dict, signature: inspect.Signature) -> Callable:
    """`function` with the name and help of `like`, and these types and defaults."""
    function.__name__, function.__doc__, function.__module__ = like.__name__, like.__doc__, like.__module__
    function.__annotations__, function.__signature__ = hints, signature
    return function


def progress(label: str) -> Callable[[int, int], None]:
    """Shows how far a long work is, its rate and the time left, on a terminal; nothing where stderr is piped."""
    began = time.monotonic()

    def show(done: int, total: int) -> None:
        if not sys.stderr.isatty():
            return
        rate = done / max(time.monotonic() - began, 1e-9)
        left = f"{(total - done) / rate:.0f} s left" if done else ""
        end = "\n" if done >= total else ""
        sys.stderr.write(f"\r\033[K{label} {done}/{total}  {rate:.1f}/s  {left}{end}")
        sys.stderr.flush()

    return show


def _overview(verbs: Sequence[str] | None = None) -> str:
    rows = [(name, (VERBS[name].__doc__ or "").strip().split("\n")[0]) for name in verbs or VERBS]
    width = max(len(name) for name, _ in rows)
    lines = [f"  avsc {name:<{width}}  {text}" for name, text in rows]
    return "\n".join(["usage: avsc COMMAND ...", "", *lines, "", "`avsc COMMAND --help` explains a command's flags."])


def _unknown(what: str, given: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(given, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    return f"unknown {what} {given!r}: {hint}"


def _parse(function: Callable, program: str, argv: Sequence[str]):
    """Call a function with flags; a mistake in them is one line, not a box."""
    caught = io.StringIO()
    try:
        with contextlib.redirect_stderr(caught):
            call = tyro.cli(_deferred(function), prog=program, args=list(argv))
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise AvscError(f"{program}: {_flattened(caught.getvalue())}") from None
    return call()


def _deferred(function: Callable) -> Callable:
    """The same signature, but calling it only binds the arguments, so that parsing and working are told apart."""

    hints = typing.get_type_hints(function, include_extras=True)
    bind = lambda *args, **kwargs: functools.partial(function, *args, **kwargs)  # noqa: E731
    return _dressed(bind, function, hints, inspect.signature(function))


def _flattened(box: str) -> str:
    """The words of tyro's box of an error as one line, its advice on the likely flag included."""
    lines = [re.sub(r"[╭╮╰╯│─]+", " ", line).strip() for line in box.splitlines()]
    words = [line for line in lines if line and not line.startswith("For full helptext")]
    heading, *rest = words or ["mistaken flags"]
    text = " ".join(rest) or heading
    text = re.sub(r"\s+", " ", text).replace(" .", ".")
    text = re.sub(r"Perhaps you meant:", "- perhaps you meant", text)
    return f"{text} (--help explains the flags)"


@contextlib.contextmanager
def _one_line_errors():
    """A user's mistake ends with one line on stderr and status 2, a defect of ours with its traceback."""
    try:
        yield
    except AvscError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("avsc_e2e").setLevel(logging.INFO)
