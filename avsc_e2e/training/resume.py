"""Checks that a resumed run has the recipe and the recordings of the run that it continues."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from avsc_e2e.clip import Corpus
from avsc_e2e.data.sampler import Position
from avsc_e2e.durable import replacing
from avsc_e2e.errors import AvscError
from avsc_e2e.training.recipe import Recipe

FREE = (
    "runs", "patience", "data.root", "data.store", "data.workers", "data.evaluation",
    "data.cache", "data.cache_size", "save_every", "test_time",
    "machine.compile", "machine.checkpoint_activations", "machine.devices", "machine.deterministic",
)  # fmt: skip
"""Fields, and groups of fields, that do not change what an epoch learns; a resumed run may change them. (Sharding and
synchronised batch norm are not among them: the former stores the optimiser state in another form, the latter changes
what is learned.)"""


def check_recipe(recipe: Recipe, file: Path) -> None:
    """Raises AvscError if the recipe in `file` differs in a field that changes what is learned. A field that an older
    version did not write counts as its default."""
    try:
        before = _flat(json.loads(file.read_text()))
    except (OSError, ValueError) as error:
        raise AvscError(f"{file}: cannot be read, so the recipe of the run is unknown; start a new run") from error
    now, defaults = _flat(_plain(recipe)), _flat(_plain(Recipe(recipe.name)))
    changed = [
        f"--{name.replace('_', '-')} was {then!r} and is {value!r}"
        for name, value in now.items()
        if not _free(name) and (then := before.get(name, defaults[name])) != value
    ]
    if changed:
        raise AvscError(f"{file}: the run was started with another recipe: {'; '.join(changed)}")


def write_recipe(recipe: Recipe, file: Path) -> None:
    with replacing(file) as partial:
        partial.write_text(json.dumps(dataclasses.asdict(recipe), indent=2) + "\n")


def fingerprint(corpus: Corpus) -> str:
    """Fingerprint of the training and validation recordings, independent of the data set's folder."""
    digest = hashlib.sha256()
    for part in (corpus.train, corpus.validation):
        for row in part:
            digest.update(f"{row.file}\t{row.scene}\t{row.duration:.2f}\n".encode())
        digest.update(b"\n")
    return digest.hexdigest()


def in_batches(checkpoint: dict, position: Position, size: int, replicas: int) -> None:
    """Have Lightning's count of an epoch's batches be that of the processes as they are now."""
    if position.taken[-1][0] == replicas:
        return
    done = sum(n * clips for n, clips in position.taken) // (size * replicas)
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
    progress |= {"ready": done, "started": done, "processed": done, "completed": done - 1}


def _plain(recipe: Recipe) -> dict:
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def _flat(values: dict, prefix: str = "") -> dict:
    """{"optim": {"lr": 1}} -> {"optim.lr": 1}."""
    found: dict[str, object] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _free(name: str) -> bool:
    return any(name == field or name.startswith(f"{field}.") for field in FREE)
