"""The text that `avsc models` prints for an entry of the zoo."""

from __future__ import annotations

import torch

from avsc_e2e.models.nets.audionet import parameter_count
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.weights.sources import sources
from avsc_e2e.models.zoo.catalogue import architecture, describe
from avsc_e2e.models.zoo.complexity import complexity
from avsc_e2e.models.zoo.published import PUBLISHED, recipe_of, short_count
from avsc_e2e.models.zoo.systems import ENSEMBLES


def model_card(name: str, count: bool = True) -> str:
    """A few lines on an entry: parameters and multiply-adds, published figures, weights and recipe. Raises AvscError
    for an unknown name."""
    arch = architecture(name)
    trunks = [trunk for trunk in (arch.audio, arch.video) if trunk]
    first = [name, " and ".join(arch.modalities), " + ".join(trunks)]
    if count:
        cost = complexity(arch)
        first += [f"{cost.parameters:,} parameters", f"{short_count(cost.multiply_adds)} multiply-adds a clip"]
    lines = ["  ".join(first), describe(name)]
    if name in PUBLISHED:
        found = PUBLISHED[name]
        lines.append(f"published: {found}")
        if found.note:
            lines.append(f"  {found.note}")
    if name in ENSEMBLES:
        members = ENSEMBLES[name]
        total = f" ({short_count(sum(map(_parameters, members)))} parameters in all)" if count else ""
        lines.append(f"members of its ensemble{total}: {', '.join(members)}")
    weights = dict.fromkeys(
        f"{source.name} ({source.data}{', here' if source.available else ''})"
        for trunk in trunks
        for source in sources(trunk)
    )
    recipe = recipe_of(name)
    random = [trunk for trunk in trunks if not sources(trunk)]
    told = ", ".join(weights) or "none"
    told += f" ({' and '.join(random)} at random)" if random else ""
    lines.append(f"weights: {told}" + f"   recipe: recipes/{recipe}" * bool(recipe))
    return "\n    ".join(lines)


def _parameters(name: str) -> int:
    with torch.device("meta"):
        return parameter_count(SceneNet(architecture(name)))
