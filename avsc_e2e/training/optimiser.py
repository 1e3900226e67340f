"""Groups of parameters with their learning rates, the schedule, and the layers that learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from functools import partial
from typing import Any

import torch
from torch import nn

from avsc_e2e.errors import AvscError
from avsc_e2e.models.scenenet import SceneNet, freeze, rest_frozen_layers
from avsc_e2e.training.recipe import Optim


def parts(model: SceneNet, optim: Optim) -> dict[str, tuple[nn.Module, float]]:
    """The parts of a model that learn, each with its highest learning rate."""
    rates = {"audio": optim.audio_lr, "video": optim.video_lr, "heads": optim.lr}
    return {
        name: (getattr(model, name), rate) for name, rate in rates.items() if rate > 0 and getattr(model, name, None)
    }


def freeze_still_parts(model: SceneNet, optim: Optim) -> None:
    """Freeze parts with a learning rate of 0, and the layers of trunks below the last `layers`."""
    learning = parts(model, optim)
    for name in ("audio", "video", "heads"):
        module = getattr(model, name, None)
        if module is not None and name not in learning:
            freeze(module)
        elif module is not None and name != "heads" and optim.layers:
            layer_of = module.layers()
            last = last_layers(layer_of, optim)
            for parameter_name, parameter in module.named_parameters():
                parameter.requires_grad_(layer_of[parameter_name] in last)
            rest_frozen_layers(module)


def last_layers(layer_of: dict[str, int], optim: Optim) -> list[int]:
    """The layers of a trunk that learn at any time of the run, in order."""
    return sorted(set(layer_of.values()))[-optim.layers :]


def parameter_groups(model: SceneNet, optim: Optim) -> list[dict]:
    """Groups of the parameters that learn, by part, layer and whether weights decay. A layer's rate is its part's,
    times `layer_decay` for each layer of the trunk above it (Clark et al., 2020; Bao et al., 2022). Vectors, and
    parameters that a net excludes (`no_weight_decay()`: positions, class tokens), have no weight decay. Raises
    AvscError if nothing learns.

    timm.optim.param_groups_layer_decay is not used: it returns factors that only timm's own schedules read, supports
    one rate for one model, and does not know the layers of our audio nets."""
    groups: dict[str, dict] = {}
    for part, (module, rate) in parts(model, optim).items():
        layer_of = module.layers() if part != "heads" and optim.layer_decay != 1 else {}
        top = max(layer_of.values(), default=0)
        spared = undecayed(module)
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            decays, depth = parameter.dim() > 1 and name not in spared, top - layer_of.get(name, top)
            group = groups.setdefault(
                f"{part}_{decays}" + f"_{depth}" * bool(depth),
                {
                    "params": [],
                    "lr": rate * optim.layer_decay**depth,
                    "weight_decay": optim.weight_decay if decays else 0.0,
                },
            )
            group["params"].append(parameter)
    if not groups:
        raise AvscError("--optim.lr, --optim.audio-lr and --optim.video-lr are all 0: nothing would learn")
    return [{**group, "name": name} for name, group in groups.items()]


def undecayed(part: nn.Module) -> set[str]:
    """The parameters of a trunk that its net excludes from weight decay, by timm's names or patterns."""
    net: Any = getattr(part, "net", None)
    patterns = net.no_weight_decay() if hasattr(net, "no_weight_decay") else ()
    names = [name for name, _ in net.named_parameters()] if patterns else []
    return {f"net.{name}" for name in names if any(fnmatch(name, pattern) for pattern in patterns)}


def build_optimiser(groups: list[dict], optim: Optim, *, fused: bool = False) -> torch.optim.Optimizer:
    """The algorithm that a recipe names; `fused` makes its step one kernel on a GPU."""
    kind: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adamw": torch.optim.AdamW,
        "adam": torch.optim.Adam,
        "sgd": partial(torch.optim.SGD, momentum=0.9),
    }
    return kind[optim.optimiser](groups, fused=fused or None)


def rate_share(optim: Optim, step: int, *, steps: int, epochs: int) -> float:
    """Learning rate in a step as a share of the highest one, for a run of a number of steps and epochs."""
    rising = max(round(optim.warmup * steps), 1)
    if step < rising:
        return (step + 1) / rising
    if optim.schedule == "constant":
        return 1.0
    if optim.schedule == "steps":
        return optim.factor ** (step * epochs // steps // optim.every)
    restarts = [round(epoch * steps / epochs) for epoch in optim.restarts if epoch < epochs]
    first = max([rising, *(start for start in restarts if start <= step)])
    last = min([steps, *(start for start in restarts if start > step)])
    done = min((step - first) / max(last - first, 1), 1.0)
    return optim.final + (1 - optim.final) * 0.5 * (1 + math.cos(math.pi * done))


def schedule(optimiser: torch.optim.Optimizer, optim: Optim, steps: int, epochs: int) -> dict:
    """The scheduler of the learning rates, in Lightning's configuration format."""
    if optim.schedule == "plateau":
        on_plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser, factor=optim.factor, patience=optim.every - 1, threshold=1e-4, threshold_mode="abs"
        )
        return {"scheduler": on_plateau, "interval": "epoch", "monitor": "validation_log_loss"}
    share = partial(rate_share, optim, steps=steps, epochs=epochs)
    return {"scheduler": torch.optim.lr_scheduler.LambdaLR(optimiser, share), "interval": "step"}


def unfreeze(model: SceneNet, optim: Optim, epoch: int) -> dict[str, float]:
    """Gradual unfreezing: in `epoch` (from 0), the share epoch / `unfreeze` of a trunk's layers learns, counted from
    its end (Howard and Ruder, 2018); the others are frozen in evaluation mode. Returns this share for each trunk. It
    depends only on the epoch."""
    shares = {}
    model.train()
    for part, (module, _) in parts(model, optim).items():
        if part == "heads" or not optim.unfreeze:
            continue
        share = min(epoch / optim.unfreeze, 1.0)
        layer_of = module.layers()
        layers = last_layers(layer_of, optim)
        learning = set(layers[len(layers) - math.ceil(share * len(layers)) :]) if share else set()
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(layer_of[name] in learning)
        _train_what_learns(module, False)
        shares[part] = len(learning) / len(layers)
    return shares


def _train_what_learns(module: nn.Module, around: bool) -> None:
    """Put modules with learning parameters into training mode and others into evaluation mode; a module without
    parameters, such as dropout, takes the mode of the module `around` it."""
    learns = [p.requires_grad for p in module.parameters()]
    module.training = any(learns) if learns else around
    for inner in module.children():
        _train_what_learns(inner, module.training)


def highest_rates(optimiser: torch.optim.Optimizer, of: Sequence[float] = ()) -> dict[str, float]:
    """lr_PART -> learning rate of the part's last layer: the current one, or that in `of`, the rates of the groups at
    another time."""
    rates: dict[str, float] = {}
    for group, rate in zip(optimiser.param_groups, of or [g["lr"] for g in optimiser.param_groups], strict=True):
        name = f"lr_{group['name'].split('_')[0]}"
        rates[name] = max(rates.get(name, 0.0), rate)
    return rates
