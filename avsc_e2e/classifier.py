"""A scikit-learn classifier of recordings, on top of the learner or of a recipe."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from avsc_e2e.arguments import checked
from avsc_e2e.data.sets.rows import measure
from avsc_e2e.data.sets.table import write_table
from avsc_e2e.errors import AvscError
from avsc_e2e.tables import Recordings, rows_from

if TYPE_CHECKING:
    from avsc_e2e.training.recipe import Recipe


class SceneClassifier(ClassifierMixin, BaseEstimator):
    """Classify recordings: `SceneClassifier(minutes=15).fit(paths, labels).predict(paths)`.

    Recordings are paths, rows of a corpus, mappings or a pandas table with the columns file, audio, label and group
    (see `tables.Recordings`). A prediction is the mean over a recording's windows. A fitted classifier is pickled as
    the bytes of its safetensors checkpoint, and no tensor is unpickled from it.

    After `fit`: `classes_` (K,), in the order of the columns of `predict_proba`, and `checkpoint_`, those bytes.
    """

    def __init__(
        self,
        minutes: float = 15.0,
        recipe: Recipe | Sequence[Recipe] | None = None,
        out: str | os.PathLike[str] | None = None,
        seed: int = 0,
    ):
        """`minutes`: budget of the learner. `recipe`: train this recipe, or these stages one after the other, in place
        of the learner. `out`: folder that keeps the report and all else of the run; by default nothing is kept."""
        self.minutes = minutes
        self.recipe = recipe
        self.out = out
        self.seed = seed

    @checked
    def fit(
        self, X: Recordings, y: Iterable[Any] | None = None, groups: Iterable[Any] | None = None
    ) -> SceneClassifier:
        """Learn from recordings X (n,) and their labels y (n,), which may also be those of the recordings. Recordings
        of one of `groups` (n,), such as the place, are never divided when the learner judges itself; without them file
        names tell the sources. Raises AvscError."""
        rows = rows_from(X, y, groups)
        labels = [row.scene for row in rows] if y is None else list(y)
        for number, label in enumerate(labels):
            if label is None or label != label or label == "":
                raise AvscError(f"y: recording {number} has the label {label!r}: give one, or leave the recording out")
        twice = [file for file, count in Counter(row.video or row.audio for row in rows).items() if count > 1]
        if twice:
            raise AvscError(f"{twice[0]}: is given more than once: give each recording once")
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise AvscError(f"y: {len(rows)} recordings of {len(self.classes_)} class: give two classes or more")
        with self._folder() as folder:
            table = write_table(folder / "files.csv", rows)
            self.checkpoint_ = self._learn(table, folder).read_bytes()
        self.__dict__.pop("_model", None)
        return self

    def _learn(self, table: Path, folder: Path) -> Path:
        if self.recipe is None:
            from avsc_e2e.learner.fit import fit

            return fit(table, minutes=self.minutes, out=folder / "run", seed=self.seed).checkpoint
        from avsc_e2e.training.recipe import Recipe
        from avsc_e2e.training.trainer import train

        stages = [self.recipe] if isinstance(self.recipe, (Recipe, str)) else list(self.recipe)
        if not stages or not all(isinstance(stage, Recipe) for stage in stages):
            raise AvscError(f"recipe {self.recipe!r:.100}: give a Recipe, or a list of Recipes")
        for stage in stages:
            data = dataclasses.replace(stage.data, root=str(table), test=0.0)
            checkpoint = train(dataclasses.replace(stage, data=data, runs=str(folder), seed=self.seed))
        return checkpoint

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        if self.out is not None:
            Path(self.out).mkdir(parents=True, exist_ok=True)
            yield Path(self.out)
            return
        with tempfile.TemporaryDirectory(prefix="avsc-") as folder:
            yield Path(folder)

    def predict_proba(self, X: Recordings) -> np.ndarray:
        """Probabilities (n, K) of recordings X (n,). Raises AvscError for one that cannot be read, or that has none of
        the modalities of the model."""
        from avsc_e2e.inference import evaluation_dataset, predict_rows
        from avsc_e2e.outputs.output import to_clips

        model, calibration = self._loaded()
        rows = [row._replace(file=f"{number}", scene="") for number, row in enumerate(rows_from(X))]
        rows = measure(rows, model.architecture.modalities)
        if not rows:
            return np.zeros((0, len(self.classes_)))
        found = predict_rows(model, evaluation_dataset(model, rows, on_bad="mask"), calibration=calibration)
        output = to_clips(found["decision"])
        for row in rows:
            if row.file not in output.files:
                raise AvscError(f"{row.video or row.audio}: none of it can be read")
        at = [output.files.index(row.file) for row in rows]
        return output.probabilities[np.ix_(at, [output.classes.index(str(label)) for label in self.classes_])]

    def predict(self, X: Recordings) -> np.ndarray:
        """Labels (n,) of recordings X (n,). Raises AvscError as `predict_proba`."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def _loaded(self):
        check_is_fitted(self)
        if "_model" not in self.__dict__:
            from avsc_e2e.inference import stored_calibration
            from avsc_e2e.models.weights.checkpoint import load_model

            with tempfile.TemporaryDirectory(prefix="avsc-") as folder:
                path = Path(folder) / "model.safetensors"
                path.write_bytes(self.checkpoint_)
                self._model = load_model(path), stored_calibration(path)
        return self._model

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_model"}

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = False, True
        return tags
