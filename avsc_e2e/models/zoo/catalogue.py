"""The model zoo: an entry is a decorated function that returns an Architecture and has the model's name."""

from __future__ import annotations

import difflib
import fnmatch
import logging
import re
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from avsc_e2e.arguments import checked
from avsc_e2e.errors import AvscError
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.zoo import own, systems  # noqa: F401, whose import fills the table of entries
from avsc_e2e.models.zoo.registry import entries

if TYPE_CHECKING:
    from avsc_e2e.models.scenenet import SceneNet

log = logging.getLogger(__name__)


@checked
def list_models(pattern: str = "*") -> list[str]:
    """Names of the entries that match a shell pattern, numbers in natural order."""
    natural = lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]  # noqa: E731
    return sorted(fnmatch.filter(entries, pattern), key=natural)


def architecture(name: str) -> Architecture:
    """The Architecture of an entry. Raises AvscError that names the likely ones."""
    if name not in entries:
        close = difflib.get_close_matches(name, entries, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(sorted(entries))}"
        raise AvscError(f"unknown model {name!r}: {hint}")
    return entries[name]()


@checked
def create_model(name: str, pretrained: bool = False, checkpoint: str | None = None, **changes) -> SceneNet:
    """Build an entry of the zoo, with `changes` to fields of its Architecture. `pretrained` loads published weights
    into the trunks (audio trunks only if there are any); `checkpoint` loads the whole model from a file of the same
    Architecture."""
    base = architecture(name)
    known = [field.name for field in fields(base)]
    for key in changes:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            raise AvscError(f"create_model: unknown field {key!r}: {hint}")
    if isinstance(changes.get("classes", ()), (int, str)):
        raise AvscError(f"create_model: classes {changes['classes']!r}: give the names of the classes")
    from avsc_e2e.models.scenenet import SceneNet

    model = SceneNet(replace(base, **changes))
    if pretrained:
        from avsc_e2e.models.weights.sources import sources

        for modality in model.architecture.modalities:
            trunk = getattr(model, modality)
            if modality == "video" or sources(trunk.name):
                trunk.load_pretrained(flag=f"--{modality}-weights")
            else:
                log.warning("%s: no weights of its audio trunk %s are published; it starts at random", name, trunk.name)
    if checkpoint:
        from avsc_e2e.models.weights.checkpoint import read_checkpoint

        try:
            model.load_state_dict(read_checkpoint(checkpoint)[0])
        except RuntimeError as error:
            raise AvscError(f"{checkpoint}: does not fit {name} with these changes; use load_model(path)") from error
    return model


def describe(name: str) -> str:
    """First paragraph of an entry's docstring, as one line."""
    return " ".join((entries[name].__doc__ or "").strip().split("\n\n")[0].split())
