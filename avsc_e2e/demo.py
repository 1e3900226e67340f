"""The demo: from a rendered toy city to trained models, a report and a checked submission."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from avsc_e2e.challenge import predict_evaluation_set, system_of_run
from avsc_e2e.errors import AvscError
from avsc_e2e.evaluation import evaluate
from avsc_e2e.models.zoo.own import lite0, tiny
from avsc_e2e.outputs.protocols import score_table
from avsc_e2e.submission.check import check
from avsc_e2e.submission.package import pack
from avsc_e2e.submission.people import Affiliation, Person, with_correspondent
from avsc_e2e.toycity.city import ToyCity
from avsc_e2e.training.recipe import Data, Heads, Optim, Recipe
from avsc_e2e.training.run import model_file
from avsc_e2e.training.trainer import train
from avsc_e2e.transforms.augmentation import Augment
from avsc_e2e.transforms.batch import DropModality, Mixup, SpecAugment

log = logging.getLogger(__name__)

NOTE = "Figures of a rendered toy city on locations unseen in training, not of TAU Urban Audio-Visual Scenes 2021."


def stages(root: Path, runs: Path, quick: bool = False) -> tuple[Recipe, Recipe, Recipe]:
    """The recipes of audio, video and hybrid on a toy city."""
    model = replace(tiny() if quick else lite0(), size=64 if quick else 112)
    audio = Recipe(
        "audio",
        model=replace(model, video=""),
        data=Data(root=str(root), validation="0.125", windows=6),
        augment=Augment(mixup=Mixup(0.2), spectrum=SpecAugment(0.1, 0.1)),
        optim=Optim(lr=2e-3, audio_lr=2e-3, video_lr=1e-3),
        heads=Heads(audio=1.0, video=1.0, fusion=1.0),
        epochs=2 if quick else 8,
        batch_size=16,
        runs=str(runs),
    )
    video = replace(
        audio,
        name="video",
        model=replace(model, audio=""),
        data=replace(audio.data, windows=4),
        optim=replace(audio.optim, video_lr=5e-4),
        epochs=2 if quick else 6,
        pretrained=not quick,
    )
    hybrid = replace(
        video,
        name="hybrid",
        model=model,
        augment=replace(audio.augment, drop=DropModality(0.1)),
        optim=replace(audio.optim, audio_lr=3e-4, video_lr=1e-4),
        heads=Heads(audio=0.3, video=0.3, fusion=1.0),
        epochs=2 if quick else 4,
        init=("audio", "video"),
    )
    return audio, video, hybrid


def run_demo(out: Path, *, quick: bool = False, progress: Callable[[str], Callable[[int, int], None]]) -> str:
    """Run the demo in the folder `out` and return the table of results with the paths. A finished toy city is used
    again; earlier runs are replaced."""
    root, runs = out / "toycity", out / "runs"
    city = ToyCity(train_locations=3, test_locations=1, duration=3.0) if quick else ToyCity()
    city.render(root, progress=progress("rendering the toy city"))
    shutil.rmtree(runs, ignore_errors=True)
    recipes = stages(root, runs, quick)
    scores = {}
    for recipe in recipes:
        log.info("training %s", recipe.name)
        train(recipe)
        evaluation = evaluate(recipe, note=NOTE, history=recipe.init, progress=progress("predicting"))
        scores[recipe.name] = evaluation.scores["decision"]
    package = _package(recipes[-1])
    return "\n".join(
        [
            "",
            NOTE,
            score_table(scores),
            "",
            f"report      {evaluation.folder / 'report.html'}",
            f"checkpoint  {model_file(recipes[-1])}",
            f"package     {package} (checked; of the toy city's test set)",
        ]
    )


def _package(recipe: Recipe) -> Path:
    """A submission of the test set, which stands in for the challenge's evaluation set."""
    output = predict_evaluation_set(recipe)
    system = system_of_run(output.parent)
    author = Person("Doe", "Jane", "jane.doe@example.org", Affiliation("Example Institute", abbreviation="EXA"))
    files = set(system.output.files)
    path = pack(output.parent / "submission.zip", [system], with_correspondent([author]), files=files)
    violations = check(path, files, report=False)
    if violations:
        raise AvscError(f"{path}: {violations[0]}")
    return path
