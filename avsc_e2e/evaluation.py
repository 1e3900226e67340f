"""What follows training: system outputs, scores and the report of a stage."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from avsc_e2e.clip import Corpus, Row
from avsc_e2e.errors import AvscError
from avsc_e2e.inference import evaluation_dataset, predict
from avsc_e2e.metrics import Scores, score
from avsc_e2e.models.checkpoint import load_model
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.outputs import SystemOutput, targets_of, to_clips, write_output
from avsc_e2e.recipe import Recipe
from avsc_e2e.report import Report
from avsc_e2e.training import corpus_of, model_file, run_folder, workers


class Evaluation(NamedTuple):
    """A stage on the test part of its data."""

    outputs: dict[str, SystemOutput]
    """Of each head, and "decision", for one-second segments."""
    scores: dict[str, dict[str, Scores]]
    """Head -> protocol -> scores."""
    folder: Path
    """Holds segments.csv and clips.csv of every head, scores.json and report.html."""

    def table(self, stage: str) -> str:
        """Log loss and accuracy of every head under both protocols."""
        return score_table({stage if name == "decision" else f"  {name} head": s for name, s in self.scores.items()})


def evaluate(
    recipe: Recipe,
    *,
    note: str = "",
    history: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predict the test part with a stage's checkpoint and write what it says, scores it and reports on it; the
    training curves of the stages named in `history` come before its own. Raises AvscError."""
    model = trained_model(recipe)
    corpus = corpus_of(recipe)
    if not corpus.test:
        raise AvscError(
            f"{recipe.data.root}: its test part is empty; give recordings to test on or a larger --data.test"
        )
    dataset = evaluation_dataset(model, corpus.test, recipe.data.short_side)
    outputs = predict(model, dataset, batch_size=recipe.batch_size, workers=workers(recipe), progress=progress)
    if len(outputs) == 2:  # of a single head the decision is only a copy
        outputs = {"decision": outputs["decision"]}
    reference = {row.file: row.scene for row in corpus.test}
    folder = run_folder(recipe) / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    scores = {}
    for name, output in outputs.items():
        suffix = "" if name == "decision" else f".{name}"
        write_output(folder / f"segments{suffix}.csv", output)
        write_output(folder / f"clips{suffix}.csv", to_clips(output))
        scores[name] = scores_of(output, reference, corpus.test, recipe.model.window)
    evaluation = Evaluation(outputs, scores, folder)
    values = {name: {p: s.to_json() for p, s in of_head.items()} for name, of_head in scores.items()}
    (folder / "scores.json").write_text(json.dumps(values, indent=2) + "\n")
    stage_report(recipe, evaluation, corpus, note=note, history=history).write(folder / "report.html")
    return evaluation


def trained_model(recipe: Recipe) -> SceneNet:
    """The checkpoint of a stage. Raises AvscError where it is not trained yet."""
    path = model_file(recipe)
    if not path.is_file():
        raise AvscError(f"{path}: is not there; train {recipe.name} first")
    return load_model(path)


def scores_of(
    output: SystemOutput, reference: Mapping[str, str], rows: Sequence[Row], window: float = 1.0
) -> dict[str, Scores]:
    """Protocol -> scores: of the segments, and of the clips that they belong to."""
    clips = to_clips(output)
    durations = {round(row.duration, 1) for row in rows}
    whole = f"{durations.pop():g} s clips" if len(durations) == 1 else "whole clips"
    return {
        protocol: score(part.probabilities, targets_of(part, dict(reference)), part.classes, protocol)
        for protocol, part in ((f"{window:g} s segments", output), (whole, clips))
    }


def score_table(scores: Mapping[str, Mapping[str, Scores]]) -> str:
    """System -> protocol -> scores as text, macro log loss and macro accuracy."""
    protocols = list(dict.fromkeys(protocol for of_system in scores.values() for protocol in of_system))
    width = max(len(name) for name in scores)
    lines = [" " * width + "".join(f"   {protocol:^20}" for protocol in protocols)]
    lines.append(" " * width + "   log loss  accuracy  " * len(protocols))
    for name, of_system in scores.items():
        cells = "".join(f"   {s.log_loss:8.3f}  {100 * s.accuracy:6.1f} % " for s in map(of_system.get, protocols) if s)
        lines.append(f"{name:<{width}}{cells}".rstrip())
    return "\n".join(lines)


def stage_report(
    recipe: Recipe, evaluation: Evaluation, corpus: Corpus, *, note: str = "", history: Sequence[str] = ()
) -> Report:
    stage = recipe.name.rsplit("/", 1)[-1]
    outputs = {stage if name == "decision" else name: output for name, output in evaluation.outputs.items()}
    files = {name: Path(recipe.runs) / name / "metrics.csv" for name in (*history, recipe.name)}
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
        segment=recipe.model.window,
    )


def as_evaluation_files(output: SystemOutput) -> SystemOutput:
    """One row a file, named as the challenge names them."""
    clips = to_clips(output)
    total = clips.probabilities / np.sum(clips.probabilities, axis=1, keepdims=True)
    return dataclasses.replace(clips, files=tuple(f"{file}.wav" for file in clips.files), probabilities=total)
