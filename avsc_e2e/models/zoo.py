"""The model zoo: an entry is a decorated function that returns an Architecture and has the model's name."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture

if TYPE_CHECKING:
    from avsc_e2e.models.scenenet import SceneNet

Entry = Callable[[], Architecture]
_entries: dict[str, Entry] = {}


def system(entry: Entry) -> Entry:
    """Makes a function that returns an Architecture an entry of the zoo, under its own name."""

    def named() -> Architecture:
        return replace(entry(), name=entry.__name__)

    named.__name__, named.__doc__, named.__module__ = entry.__name__, entry.__doc__, entry.__module__
    _entries[entry.__name__] = named
    return named


def list_models(pattern: str = "*") -> list[str]:
    """Names of the entries that match a shell pattern, numbers in natural order."""
    natural = lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]  # noqa: E731
    return sorted(fnmatch.filter(_all(), pattern), key=natural)


def architecture(name: str) -> Architecture:
    """The Architecture of an entry. Raises AvscError that names the likely ones."""
    entries = _all()
    if name not in entries:
        close = difflib.get_close_matches(name, entries, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(sorted(entries))}"
        raise AvscError(f"unknown model {name!r}: {hint}")
    return entries[name]()


def create_model(name: str, pretrained: bool = False, checkpoint: str | None = None, **changes) -> SceneNet:
    """Build an entry of the zoo, with `changes` to fields of its Architecture; `pretrained` fills the trunks with
    published weights (audio trunks where there are any), `checkpoint` the whole model from a file of the same
    Architecture."""
    base = architecture(name)
    known = [field.name for field in fields(base)]
    for key in changes:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            raise AvscError(f"create_model: unknown field {key!r}: {hint}")
    model = replace(base, **changes).build()
    if pretrained:
        from avsc_e2e.models.weights import sources

        for modality in model.architecture.modalities:
            trunk = getattr(model, modality)
            if modality == "video" or sources(trunk.name):
                trunk.load_pretrained(flag=f"--{modality}-weights")
    if checkpoint:
        from avsc_e2e.models.checkpoint import read_checkpoint

        try:
            model.load_state_dict(read_checkpoint(checkpoint)[0])
        except RuntimeError as error:
            raise AvscError(
                f"{checkpoint}: is not a checkpoint of {name} as asked for; use load_model(path)"
            ) from error
    return model


def describe(name: str) -> str:
    """First line of an entry's docstring."""
    return (_all()[name].__doc__ or "").strip().split("\n")[0]


def _all() -> dict[str, Entry]:
    from avsc_e2e.models import systems  # noqa: F401, importing it fills the table

    return _entries
