"""What follows training: system outputs, scores and the report of a stage."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from avsc_e2e import processes
from avsc_e2e.clip import MODALITIES, Corpus, Row
from avsc_e2e.data.badmedia import OnBad
from avsc_e2e.data.dataset import segment_count
from avsc_e2e.data.sets.corpus import read_evaluation_set
from avsc_e2e.data.store.layout import is_store
from avsc_e2e.data.store.reader import Store, open_store
from avsc_e2e.errors import AvscError
from avsc_e2e.inference import evaluation_dataset, predict_rows, stored_calibration
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.checkpoint import load_model, read_notes
from avsc_e2e.models.weights.sources import chosen
from avsc_e2e.outputs.calibration import Calibration
from avsc_e2e.outputs.metrics import Scores, score
from avsc_e2e.outputs.output import SystemOutput, read_output, to_clips, write_output
from avsc_e2e.outputs.reference import read_reference, targets_of
from avsc_e2e.report.page import write_report
from avsc_e2e.report.report import Report
from avsc_e2e.submission.entry import Complexity, ExternalDataset, System, describe
from avsc_e2e.training.recipe import Recipe
from avsc_e2e.training.run import bad_media_file, corpus_of, model_file, run_folder, store_of, workers

log = logging.getLogger(__name__)

PLACES = 365
"""Classes that tell a stage on Places365."""
OF_TIMM = {
    "jft": "JFT-300M", "laion2b": "LAION-2B", "openai": "CLIP's pairs of pictures and texts", "in21k": "ImageNet-21k",
    "in22k": "ImageNet-21k", "in12k": "ImageNet-12k", "in1k": "ImageNet",
}  # fmt: skip
"""What the tags of timm's weights mean."""
SEGMENTS, REFERENCE = "evaluation/segments.csv", "evaluation/reference.csv"


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
    recipe = dataclasses.replace(recipe, model=model.architecture)  # with the classes of the data
    corpus = corpus_of(recipe)
    if not corpus.test:
        raise AvscError(
            f"{recipe.data.root}: its test part is empty; give recordings to test on or a larger --data.test"
        )
    outputs = _predict(recipe, model, corpus.test, store_of(recipe), progress=progress)
    if len(outputs) == 2:  # of a single head the decision is only a copy
        outputs = {"decision": outputs["decision"]}
    total = sum(segment_count(row, recipe.model.window) for row in corpus.test)
    lost = total - len(outputs["decision"].files)
    if lost:
        told = (
            f"{lost} of {total} segments could not be read and are left out; {bad_media_file(recipe).name} lists them."
        )
        note = f"{note} {told}"
        log.warning("%s", note.strip())
    reference = {row.file: row.scene for row in corpus.test}
    folder = run_folder(recipe) / "evaluation"
    scores = {name: scores_of(output, reference, corpus.test, recipe.model.window) for name, output in outputs.items()}
    evaluation = Evaluation(outputs, scores, folder)
    if processes.rank():  # the first process writes for all
        return evaluation
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["filename\tscene_label", *(f"{file}\t{scene}" for file, scene in reference.items())]
    (folder / "reference.csv").write_text("\n".join(lines) + "\n")
    for name, output in outputs.items():
        suffix = "" if name == "decision" else f".{name}"
        write_output(folder / f"segments{suffix}.csv", output)
        write_output(folder / f"clips{suffix}.csv", to_clips(output))
    values = {name: {p: s.to_json() for p, s in of_head.items()} for name, of_head in scores.items()}
    (folder / "scores.json").write_text(json.dumps(values, indent=2) + "\n")
    write_report(stage_report(recipe, evaluation, corpus, note=note.strip(), history=history), folder / "report.html")
    return evaluation


def predict_training_part(recipe: Recipe, *, progress: Callable[[int, int], None] | None = None) -> Path:
    """Predict the training part with a stage's checkpoint, for students to learn from (--distil.teachers), and write
    what it says of every segment as training.output.csv into the run's folder. Raises AvscError."""
    model = trained_model(recipe)
    rows = corpus_of(recipe).train
    outputs = _predict(recipe, model, rows, store_of(recipe), on_bad="skip", progress=progress)
    path = run_folder(recipe) / "training.output.csv"
    if not processes.rank():
        write_output(path, outputs["decision"])
    return path


def _predict(
    recipe: Recipe,
    model: SceneNet,
    rows: Sequence[Row],
    store: Store | None,
    *,
    on_bad: OnBad = "raise",
    calibration: Calibration | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, SystemOutput]:
    """What a stage's model says of the fixed segments of `rows`, head by head; `on_bad` where the recipe has none."""
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
        test_time=recipe.test_time,
        precision=recipe.precision,
        progress=progress,
    )


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
    command = f"avsc train {recipe.name} --data.root {recipe.data.root or recipe.data.store}"
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
        mend="" if recipe.heads.fit_decision else f"{command} --heads.fit-decision",
        calibrate=f"avsc calibrate OUTPUT.csv --reference REFERENCE.csv --checkpoint {model_file(recipe)}",
        segment=recipe.model.window,
    )


def predict_evaluation_set(recipe: Recipe, *, progress: Callable[[int, int], None] | None = None) -> Path:
    """Predict the evaluation set, or the test part where the recipe names none, and write the challenge's output file
    as submission.output.csv into the run's folder. Raises AvscError."""
    model = trained_model(recipe)
    data = recipe.data
    if data.evaluation:
        rows = read_evaluation_set(data.evaluation, modalities=recipe.model.modalities)
        store = open_store(data.evaluation) if is_store(data.evaluation) else None
    else:
        rows, store = corpus_of(recipe).test, store_of(recipe)
    calibration = stored_calibration(model_file(recipe))
    outputs = _predict(recipe, model, rows, store, calibration=calibration, progress=progress)
    clips = to_clips(outputs["decision"])
    path = run_folder(recipe) / "submission.output.csv"
    if processes.rank():  # the first process writes for all
        return path
    write_output(path, dataclasses.replace(clips, files=tuple(f"{file}.wav" for file in clips.files)))
    return path


def system_of_run(folder: Path, name: str = "") -> System:
    """A system for the challenge from a run's folder, after `evaluate` and `submit`: its output, what its checkpoint
    tells of it, and its scores on the test part. Raises AvscError where one of them is missing."""
    for file, verb in ((SEGMENTS, "evaluate"), (REFERENCE, "evaluate"), ("submission.output.csv", "submit")):
        if not (folder / file).is_file():
            raise AvscError(f"{folder / file}: is not there; run `{verb}` of the stage first")
    model = load_model(folder / "model.safetensors")
    recipe = json.loads(read_notes(folder / "model.safetensors").get("recipe", "{}"))
    architecture, name = model.architecture, name or recipe.get("name", folder.name)
    segments = read_output(folder / SEGMENTS, architecture.classes)
    targets = targets_of(segments, read_reference(folder / REFERENCE))
    parameters = {part: sum(p.numel() for p in module.parameters()) for part, module in model.named_children()}
    learned = external_data(recipe, folder)
    return System(
        name=name,
        abbreviation=architecture.name[:10],
        output=read_output(folder / "submission.output.csv", architecture.classes),
        scores=score(segments.probabilities, targets, segments.classes, "1 s segments"),
        complexity=Complexity(sum(parameters.values()), parameters.get("audio", 0), parameters.get("video", 0)),
        description=describe(architecture, _augmentation(recipe), [data.name for data in learned]),
        external_datasets=learned,
    )


def external_data(recipe: Mapping, folder: Path) -> tuple[ExternalDataset, ...]:
    """What the trunks of a run, and of the stages that it started from, had learned from before."""
    found: dict[str, ExternalDataset] = {}
    for name in recipe.get("init", ()):
        file = Path(recipe["runs"]) / name / "model.safetensors"
        file = file if file.is_file() else Path(name)
        if file.is_file():
            before = json.loads(read_notes(file).get("recipe", "{}"))
            found |= {data.name: data for data in external_data(before, file.parent)}
            if len(before.get("model", {}).get("classes", ())) == PLACES:
                found["Places365"] = ExternalDataset("Places365", "http://places2.csail.mit.edu")
    for modality in MODALITIES:
        trunk, file = recipe.get("model", {}).get(modality), recipe.get(f"{modality}_weights", "")
        source = chosen(trunk, file) if trunk and (file or recipe.get("pretrained")) else None
        if source:
            data = source.data
            if source.name == "timm":
                data = ", ".join(word for tag, word in OF_TIMM.items() if tag in data) or data
            found.setdefault(data, ExternalDataset(data, source.url))
        elif file:
            found.setdefault(file, ExternalDataset(f"those of {Path(file).name}"))
    return tuple(found.values())


def _augmentation(recipe: Mapping) -> list[str]:
    """What of a recipe's augmentation was on, in the challenge's words."""
    augment = recipe.get("augment", {})
    words = {
        ("crop", "smallest"): "random resized crop",
        ("flip", "probability"): "horizontal flip with channel swap",
        ("colour", "strength"): "color jitter",
        ("waveform", "gain"): "gain",
        ("waveform", "noise"): "noise",
        ("waveform", "shift"): "time shift",
        ("waveform", "pitch"): "pitch shift",
        ("spectrum", "bands"): "SpecAugment",
        ("mixup", "alpha"): "mixup",
        ("drop", "probability"): "modality dropout",
    }
    strengths = {key: augment.get(key[0], {}).get(key[1], 0) for key in words}
    strengths["crop", "smallest"] = 1 - (strengths["crop", "smallest"] or 1)
    modality = {"audio": ("waveform", "spectrum"), "video": ("crop", "flip", "colour")}
    absent = {part for name, parts in modality.items() if not recipe.get("model", {}).get(name) for part in parts}
    return [word for key, word in words.items() if strengths[key] > 0 and key[0] not in absent]
