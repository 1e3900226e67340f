"""avsc recipes, and the verbs on a stage of a recipe: show, train, evaluate, teach, submit."""

from __future__ import annotations

import inspect
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from avsc_e2e.cli.learner import train_data
from avsc_e2e.cli.parsing import Flat, Positional, call, flags_of, in_short, log_to_stderr, one_line_errors, unknown
from avsc_e2e.cli.progress import progress
from avsc_e2e.cli.submission import authors_of
from avsc_e2e.cli.targets import DataTarget, StageTarget, recipe_files, refuse_root, stages_of, target_of, title_of
from avsc_e2e.errors import AvscError
from avsc_e2e.models.weights.files import is_checkpoint
from avsc_e2e.transforms.disturbance import UNDISTURBED, Disturbances

if TYPE_CHECKING:
    from avsc_e2e.training.recipe import Recipe

FIRST = (
    "data.root",
    "data.store",
    "data.validation",
    "data.evaluation",
    "model.audio",
    "model.video",
    "optim.lr",
    "optim.audio_lr",
    "optim.video_lr",
    "epochs",
    "batch_size",
    "pretrained",
    "init",
    "precision",
    "seed",
    "runs",
)
"""The fields of a recipe that `--help` shows."""


def recipes(pattern: Annotated[str, Positional] = "*") -> None:
    """List the recipes that come with the package, and what each stage trains.

    Args:
        pattern: Shell pattern of names, such as "*ioa*".
    """
    from fnmatch import filter as matching

    files = recipe_files()
    names = matching(files, pattern)
    if not names:
        raise AvscError(f"recipes: no recipe matches {pattern!r}; `avsc recipes` lists all")
    for name in names:
        file = files[name]
        stages = {stage: StageTarget(file, stage).load() for stage in stages_of(file)}
        print(f"{name}: {title_of(file)}")
        width = max(map(len, stages))
        for stage, recipe in stages.items():
            print(f"  {name}/{stage:<{width}}  {summary(recipe)}", flush=True)


def summary(recipe: Recipe) -> str:
    """Trunks, epochs and earlier stages of a recipe, as one line."""
    trunks = " + ".join(trunk for trunk in (recipe.model.audio, recipe.model.video) if trunk)
    most = f"at most {recipe.epochs}" if recipe.steps else recipe.epochs
    work = f"{most} epochs" if recipe.epochs else "joins trained stages"
    return f"{trunks}, {work}" + (f", after {', '.join(recipe.init)}" if recipe.init else "")


def run(**stages: Recipe) -> None:
    """Entry point of a recipe file: `python recipes/FILE.py VERB STAGE [--field value]`."""
    program, argv = Path(sys.argv[0]).name, sys.argv[1:]
    log_to_stderr()
    usage = f"usage: {program} {{{','.join(STAGE_VERBS)}}} {{{','.join(stages)}}} [--field value ...]"
    if not argv or argv[0] in ("-h", "--help"):
        document = (sys.modules["__main__"].__doc__ or "").strip()
        print(f"{usage}\n\n{document}\n\nOptions of a stage: {program} train {next(iter(stages))} --help")
        return
    with one_line_errors():
        if argv[0] not in STAGE_VERBS:
            raise AvscError(unknown("verb", argv[0], list(STAGE_VERBS)))
        if argv[1:2] in (["-h"], ["--help"]):
            print(usage)
            return
        if len(argv) == 1:
            raise AvscError(f"{program} {argv[0]}: name a stage: {', '.join(stages)}")
        if argv[1] not in stages:
            raise AvscError(unknown("stage", argv[1], list(stages)))
        sys.exit(_call(argv[0], stages[argv[1]], f"{program} {argv[0]} {argv[1]}", argv[2:]) or 0)


def call_on_target(verb: str, argv: Sequence[str]) -> int | None:
    """`avsc VERB TARGET [--field value]` for a verb on stages. Raises AvscError."""
    ways = [f"avsc {verb} RECIPE/STAGE [--field value ...]", f"avsc {verb} FILE.py:STAGE [--field value ...]"]
    ways += ["avsc train DATA [--minutes 15]   (a folder, a store or its URL; no recipe needed)"] * (verb == "train")
    ways += ["avsc evaluate CHECKPOINT [DATA] [--without audio --noise-db 20 10 --dark 0.5]"] * (verb == "evaluate")
    usage = "usage: " + "\n       ".join(ways)
    if list(argv) in (["-h"], ["--help"]):
        text = (inspect.getdoc(STAGE_VERBS[verb]) or "").split("\n")[0]
        print(f"{usage}\n\n{text}\n\n`avsc recipes` lists the stages, `avsc {verb} RECIPE/STAGE --help` the options.")
        return None
    if not argv or argv[0].startswith("-"):
        data = ", or your data" if verb == "train" else ""
        raise AvscError(f"avsc {verb}: name a stage first, such as zhang_ioa/hybrid{data}; `avsc recipes` lists stages")
    target = target_of(argv[0])
    if isinstance(target, DataTarget) and verb == "train":
        refuse_root(target.path)
        return call(train_data, "avsc train", argv)
    if isinstance(target, DataTarget) and verb == "evaluate" and is_checkpoint(target.path):
        return call(evaluate_checkpoint, "avsc evaluate", argv)
    if isinstance(target, DataTarget):
        raise AvscError(
            f"{target.path} is data, not a recipe: give it to a stage, "
            f"as in `avsc {verb} own_videos/hybrid --data.root {target.path}`"
        )
    for flag, value in itertools.pairwise([*(part for word in argv[1:] for part in word.split("=", 1)), ""]):
        if flag == "--data.root":
            refuse_root(value)
        if flag == "--people" and not os.path.isfile(value):
            authors_of(Path(value))
    return _call(verb, target.load(), f"avsc {verb} {argv[0]}", argv[1:])


def _call(verb: str, recipe: Recipe, program: str, argv: Sequence[str]) -> int | None:
    """Call a verb on a stage. `--help` shows the options that matter first, `--help-all` all of them."""
    if not {"-h", "--help"} & set(argv):
        return call(flags_of(STAGE_VERBS[verb], recipe), program, ["--help"] if "--help-all" in argv else argv)
    try:
        return call(flags_of(STAGE_VERBS[verb], in_short(recipe, FIRST)), program, ["--help"])
    finally:
        print(f"Every field of the recipe is an option: {program} --help-all")


def show(recipe: Recipe) -> None:
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


def train(recipe: Recipe, resume: bool = False, requeue: bool = False, profile: bool = False) -> None:
    """Train a stage, or a model of your data; the folder of the run holds the checkpoint, the log and the recipe.

    Args:
        resume: Continue an interrupted run of the same recipe.
        requeue: Continue if there is an interrupted run, else start one: for jobs that a scheduler or torchrun repeats.
        profile: Profile six steps of the first epochs: write a table of milliseconds by operation, and a trace.
    """
    recipe.data.source  # noqa: B018 - raises before what takes seconds is imported
    from avsc_e2e import processes
    from avsc_e2e.training.trainer import train

    path = train(recipe, resume=resume, requeue=requeue, profile=profile)
    if not processes.rank():
        print(f"checkpoint: {path}")


def evaluate(recipe: Recipe, disturbances: Annotated[Disturbances, Flat] = UNDISTURBED) -> None:
    """Evaluate a trained stage, or a checkpoint, on the test set: write system outputs, scores and a report."""
    recipe.data.source  # noqa: B018 - raises before what takes seconds is imported
    from avsc_e2e import processes
    from avsc_e2e.evaluation import evaluate

    evaluation = evaluate(recipe, history=recipe.init, disturbances=disturbances, progress=progress("predicting"))
    if not processes.rank():
        print(evaluation.table(recipe.name))
        print(f"report: {evaluation.folder / 'report.html'}")


def evaluate_checkpoint(
    checkpoint: Annotated[Path, Positional],
    data: Annotated[str, Positional] = "",
    disturbances: Annotated[Disturbances, Flat] = UNDISTURBED,
    out: Path | None = None,
    engine: Literal["local", "ray"] = "local",
) -> None:
    """Evaluate a checkpoint: write system outputs, scores and a report.

    Args:
        checkpoint: A checkpoint file, or the folder of a run.
        data: Recordings to test on: class folders, a TAU root or a store; its test set is used, or all of it if it has
            none. Default: the test set of the data that the checkpoint was trained on.
        out: Folder to write to; by default evaluation/ beside the checkpoint.
        engine: local: this machine; ray: a task for each 1,024 segments on the Ray cluster at RAY_ADDRESS, or on one
            started on this machine.
    """
    refuse_root(data)
    from avsc_e2e.evaluation import evaluate_checkpoint

    evaluation = evaluate_checkpoint(
        checkpoint, data, out=out or "", disturbances=disturbances, engine=engine, progress=progress("predicting")
    )
    print(evaluation.table("decision"))
    print(f"report: {evaluation.folder / 'report.html'}")


def teach(recipe: Recipe) -> None:
    """Predict the training set with a trained stage: writes a system output for students (--distil.teachers)."""
    recipe.data.source  # noqa: B018 - raises before what takes seconds is imported
    from avsc_e2e import processes
    from avsc_e2e.evaluation import predict_training_part

    path = predict_training_part(recipe, progress=progress("predicting"))
    if not processes.rank():
        print(f"output: {path}")


def submit(recipe: Recipe, people: Path | None = None, report: Path | None = None, out: Path | None = None) -> None:
    """Predict the evaluation set (--data.evaluation) with a trained and evaluated stage, and pack a submission.

    Args:
        people: TOML file with the authors (`avsc submission people` prints a template); by default it asks for them.
        report: PDF of the technical report; without it, the package serves for trials only.
        out: Package to write; by default submission.zip in the folder of the run.
    """
    from avsc_e2e import processes
    from avsc_e2e.challenge import predict_evaluation_set, system_of_run
    from avsc_e2e.submission.package import pack

    authors = authors_of(people)
    output = predict_evaluation_set(recipe, progress=progress("predicting"))
    if processes.rank():
        return
    system = system_of_run(output.parent)
    trial = None if recipe.data.evaluation else set(system.output.files)
    path = pack(out or output.parent / "submission.zip", [system], authors, report, files=trial)
    print(f"package: {path}" + ("" if trial is None else " (a trial: of the test set, not of the evaluation set)"))


STAGE_VERBS: dict[str, Callable[..., None]] = {
    "show": show,
    "train": train,
    "evaluate": evaluate,
    "teach": teach,
    "submit": submit,
}
