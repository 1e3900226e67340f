"""Evaluation after training: system outputs, scores and the report of a stage, or of any checkpoint."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from avsc_e2e import processes
from avsc_e2e.clip import Clip, Corpus, Row
from avsc_e2e.cluster import Engine
from avsc_e2e.clusterinference import predict_on_cluster
from avsc_e2e.data.badmedia import OnBad
from avsc_e2e.data.dataset import segment_count
from avsc_e2e.data.sets.corpus import read_corpus
from avsc_e2e.data.store.layout import is_store
from avsc_e2e.data.store.reader import Store, open_store
from avsc_e2e.durable import alone, write_text
from avsc_e2e.errors import AvscError
from avsc_e2e.inference import evaluation_dataset, predict_rows, sampling, stored_calibration
from avsc_e2e.models.ensemble import Ensemble
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.trunk import settled
from avsc_e2e.models.weights.checkpoint import load_model, read_notes
from avsc_e2e.models.weights.files import HUB, checkpoint_file
from avsc_e2e.outputs.calibration import Calibration
from avsc_e2e.outputs.metrics import Scores
from avsc_e2e.outputs.output import SystemOutput, to_clips, write_output
from avsc_e2e.outputs.protocols import score_table, scores_of
from avsc_e2e.report.page import write_report
from avsc_e2e.report.report import Report
from avsc_e2e.report.trials import Robustness
from avsc_e2e.training.recipe import Data, Recipe
from avsc_e2e.training.run import bad_media_file, corpus_of, model_file, run_folder, store_of, workers
from avsc_e2e.transforms.disturbance import UNDISTURBED, Disturbance, Disturbances

log = logging.getLogger(__name__)

SEGMENTS, REFERENCE = "evaluation/segments.csv", "evaluation/reference.csv"


class Evaluation(NamedTuple):
    """The results of a model on recordings that it was not trained on."""

    outputs: dict[str, SystemOutput]
    """Outputs for the segments, of each head and of "decision"."""
    scores: dict[str, dict[str, Scores]]
    """Head -> protocol -> scores."""
    folder: Path
    """Holds segments.csv and clips.csv of every head, scores.json and report.html."""
    robustness: tuple[Robustness, ...] = ()
    """Scores of the decision under the requested disturbances."""

    def table(self, stage: str) -> str:
        """Log loss and accuracy of every head under both protocols, and of the decision under each disturbance."""
        names = {stage if name == "decision" else f"  {name} head": s for name, s in self.scores.items()}
        return "\n".join([score_table(names), *(one.text for one in self.robustness)])


def evaluate(
    recipe: Recipe,
    *,
    note: str = "",
    history: Sequence[str] = (),
    disturbances: Disturbances = UNDISTURBED,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predict the test set with a stage's checkpoint, and write its outputs, scores and report. The report shows the
    training curves of the stages in `history` before its own. The decision is also scored under `disturbances`. Raises
    AvscError."""
    model = trained_model(recipe)
    recipe = dataclasses.replace(recipe, model=model.architecture)  # with the classes of the data
    changes = _changes(disturbances, model)
    corpus = corpus_of(recipe)
    if not corpus.test:
        raise AvscError(
            f"{recipe.data.root}: its test set is empty; give recordings to test on or a larger --data.test"
        )
    outputs = predict_part(recipe, model, corpus.test, store_of(recipe), changes=changes, progress=progress)
    folder = run_folder(recipe) / "evaluation"
    evaluation = _evaluation(outputs, changes, corpus.test, recipe.model.window, folder)
    lost = _lost(evaluation, corpus.test, recipe.model.window)
    if lost:
        note = f"{note} {lost} {bad_media_file(recipe).name} lists them."
        log.warning("%s", note.strip())
    if not processes.rank():  # the first process writes for all
        _write(evaluation, corpus.test)
        report = stage_report(recipe, evaluation, corpus, note=note.strip(), history=history)
        write_report(report, folder / "report.html")
    return evaluation


def evaluate_checkpoint(
    checkpoint: str | os.PathLike,
    data: str = "",
    *,
    out: str | os.PathLike = "",
    disturbances: Disturbances = UNDISTURBED,
    engine: Engine = "local",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predict recordings with any checkpoint, a learner's too, and write what `evaluate` writes to `out`, by default
    evaluation/ beside the checkpoint.

    The recordings are the test set of `data`, or all of it where it has none; without `data`, the test set of what
    the checkpoint was trained on. A modality that cannot be read counts as missing. Raises AvscError.
    """
    if str(checkpoint).startswith(HUB) and not out:
        raise AvscError(f"{checkpoint}: is on a hub, so name a folder for its evaluation with --out")
    file = checkpoint_file(checkpoint)
    model = load_model(file)
    arch, title = model.architecture, file.resolve().parent.name
    changes = _changes(disturbances, model)
    root, rows = _recordings(file, data, model)
    store = open_store(root) if is_store(root) else None
    wanted = sampling(arch).short_side
    side = store.short_side if store and settled(arch).size <= store.short_side < wanted else wanted
    if engine == "ray":
        outputs = predict_on_cluster(file, root, rows, side, changes, progress)
    else:
        dataset = evaluation_dataset(model, rows, side, store=store, on_bad="mask")
        calibration = stored_calibration(file)
        outputs = predict_rows(model, dataset, calibration=calibration, changes=changes, progress=progress)
    evaluation = _evaluation(outputs, changes, rows, arch.window, Path(out or file.parent / "evaluation"))
    _write(evaluation, rows)
    report = Report(
        title=title,
        outputs=evaluation.outputs,
        reference={row.file: row.scene for row in rows},
        headline="decision",
        note=_lost(evaluation, rows, arch.window),
        rows=rows,
        data=Path(root).name,
        command=f"avsc evaluate {checkpoint} {data}".strip(),
        segment=arch.window,
        robustness=evaluation.robustness,
    )
    write_report(report, evaluation.folder / "report.html")
    return evaluation


def _recordings(file: Path, data: str, model: SceneNet | Ensemble) -> tuple[str, Sequence[Row]]:
    """The data set on which a checkpoint is evaluated, and its rows."""
    recipe = json.loads(read_notes(file).get("recipe", "{}"))
    beside = file.parent / "store"  # the learner's
    if recipe and not data:
        trained = Recipe(recipe["name"], model.architecture, Data(**recipe["data"]), seed=recipe["seed"])
        root, corpus = trained.data.store or trained.data.root, corpus_of(trained)
    elif data or is_store(beside):
        root = data or str(beside)
        corpus = read_corpus(root, validation=0.0, test=0.0, modalities=model.architecture.modalities, lenient=True)
    else:
        raise AvscError(f"{file}: does not say what it was trained on; name recordings: avsc evaluate CHECKPOINT DATA")
    rows = corpus.test or ((*corpus.train, *corpus.validation) if data else ())
    if not rows:
        raise AvscError(f"{root}: has no test set; name recordings to test on: avsc evaluate CHECKPOINT DATA")
    return root, rows


def _changes(disturbances: Disturbances, model: SceneNet | Ensemble) -> dict[str, Disturbance]:
    return {f"{one.title} {one.level}": one for one in disturbances.of(model.architecture.modalities)}


def _evaluation(
    outputs: dict[str, SystemOutput],
    changes: Mapping[str, Disturbance],
    rows: Sequence[Row],
    window: float,
    folder: Path,
) -> Evaluation:
    """The evaluation from outputs; outputs under `changes` are scored separately."""
    reference = {row.file: row.scene for row in rows}
    of_heads = {name: output for name, output in outputs.items() if name not in changes}
    if len(of_heads) == 2:  # of a single head the decision is only a copy
        of_heads = {"decision": of_heads["decision"]}
    scores = {name: scores_of(output, reference, rows, window) for name, output in of_heads.items()}
    protocol, clean = next(iter(scores["decision"].items()))
    robustness = []
    for kind, of_kind in itertools.groupby(changes.items(), key=lambda change: type(change[1])):
        names, levels = zip(*((name, one.level) for name, one in of_kind), strict=True)
        found = [clean, *(scores_of(outputs[name], reference, rows, window)[protocol] for name in names)]
        log_loss, accuracy = ({"decision": tuple(getattr(one, f) for one in found)} for f in ("log_loss", "accuracy"))
        levels, note = (kind.clean, *levels), f"log loss and accuracy of {protocol}, macro averages."
        robustness.append(Robustness(kind.title, levels, log_loss, accuracy, kind.unit, note))
    return Evaluation(of_heads, scores, folder, tuple(robustness))


def _lost(evaluation: Evaluation, rows: Sequence[Row], window: float) -> str:
    """A sentence on segments that could not be read; empty if there are none."""
    total = sum(segment_count(row, window) for row in rows)
    lost = total - len(evaluation.outputs["decision"].files)
    return f"{lost} of {total} segments could not be read and are left out;" if lost else ""


def _write(evaluation: Evaluation, rows: Sequence[Row]) -> None:
    """The system outputs of an evaluation, its reference and its scores."""
    folder = evaluation.folder
    lines = ["filename\tscene_label", *(f"{row.file}\t{row.scene}" for row in rows)]
    values = {name: {p: s.to_json() for p, s in of_head.items()} for name, of_head in evaluation.scores.items()}
    with alone(folder):
        write_text(folder / "reference.csv", "\n".join(lines) + "\n")
        for name, output in evaluation.outputs.items():
            suffix = "" if name == "decision" else f".{name}"
            write_output(folder / f"segments{suffix}.csv", output)
            write_output(folder / f"clips{suffix}.csv", to_clips(output))
        write_text(folder / "scores.json", json.dumps(values, indent=2) + "\n")


def predict_training_part(recipe: Recipe, *, progress: Callable[[int, int], None] | None = None) -> Path:
    """Predict the training set with a stage's checkpoint, for students to learn from (--distil.teachers), and write its
    output for all segments to training.output.csv in the run's folder. Raises AvscError."""
    model = trained_model(recipe)
    rows = corpus_of(recipe).train
    outputs = predict_part(recipe, model, rows, store_of(recipe), on_bad="skip", progress=progress)
    path = run_folder(recipe) / "training.output.csv"
    if not processes.rank():
        write_output(path, outputs["decision"])
    return path


def predict_part(
    recipe: Recipe,
    model: SceneNet | Ensemble,
    rows: Sequence[Row],
    store: Store | None,
    *,
    on_bad: OnBad = "raise",
    calibration: Calibration | None = None,
    changes: Mapping[str, Callable[[Clip], Clip]] = MappingProxyType({}),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, SystemOutput]:
    """Outputs of a stage's model for the fixed segments of `rows`, of each head; `on_bad` is used if the recipe has
    none."""
    dataset = evaluation_dataset(
        model,
        rows,
        recipe.data.short_side,
        store=store,
        on_bad=recipe.data.on_bad or on_bad,
        bad_media=bad_media_file(recipe),
        test_time=recipe.test_time,
        decoder=recipe.data.decoder,
    )
    return predict_rows(
        model,
        dataset,
        batch_size=recipe.batch_size,
        workers=workers(recipe),
        calibration=calibration,
        changes=changes,
        test_time=recipe.test_time,
        precision=recipe.precision,
        progress=progress,
    )


def trained_model(recipe: Recipe) -> SceneNet | Ensemble:
    """The model of a stage's checkpoint. Raises AvscError if the stage is not trained yet."""
    path = model_file(recipe)
    if not path.is_file():
        raise AvscError(f"{path}: is not there; train {recipe.name} first")
    return load_model(path)


def stage_report(
    recipe: Recipe, evaluation: Evaluation, corpus: Corpus, *, note: str = "", history: Sequence[str] = ()
) -> Report:
    stage = recipe.name.rsplit("/", 1)[-1]
    outputs = {stage if name == "decision" else name: output for name, output in evaluation.outputs.items()}
    files = {name: Path(recipe.runs) / name / "metrics.csv" for name in (*history, recipe.name)}
    # The command line knows the stages of recipes, but not those of the demo.
    command = f"avsc train {recipe.name} --data.root {recipe.data.root or recipe.data.store}" * ("/" in recipe.name)
    return Report(
        title=recipe.name,
        outputs=outputs,
        reference={row.file: row.scene for row in corpus.test},
        headline=stage,
        note=note,
        rows=corpus.test,
        train_rows=corpus.train,
        history={name: file for name, file in files.items() if file.is_file()},
        configuration=dataclasses.asdict(recipe),
        defaults=dataclasses.asdict(Recipe(recipe.name)),
        data=Path(recipe.data.root or recipe.data.store).name,
        command=command,
        mend=f"{command} --heads.fit-decision" if command and not recipe.heads.fit_decision else "",
        calibrate=f"avsc calibrate OUTPUT.csv --reference REFERENCE.csv --checkpoint {model_file(recipe)}",
        segment=recipe.model.window,
        robustness=evaluation.robustness,
    )
