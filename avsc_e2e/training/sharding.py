"""Sharding model parameters across processes (FSDP: Zhao et al., 2023): each process holds a part of the weights,
gradients and optimiser state, and gathers a block of the net to compute with it. Checkpoints are complete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from avsc_e2e.errors import AvscError
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.trunk import Trunk
from avsc_e2e.training.recipe import Recipe

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def check_sharding(recipe: Recipe) -> None:
    """Raises AvscError for options that cannot be combined with a sharded model."""
    others = {
        "--optim.unfreeze": recipe.optim.unfreeze,
        "--averaging.checkpoints": recipe.averaging.checkpoints,
        "--heads.fit-decision (off: --heads.no-fit-decision)": recipe.heads.fit_decision
        and len(recipe.model.heads) > 1,
        "--machine.compile": recipe.machine.compile,
        "--machine.sync-batchnorm": recipe.machine.sync_batchnorm,
        "--precision fp16": recipe.precision == "fp16",
    }
    for flag, asked in others.items():
        if recipe.machine.shard_model and asked:
            raise AvscError(f"{flag} and --machine.shard-model cannot be combined; leave one of them out")


def blocks(trunk: Trunk) -> list[nn.Module]:
    """The blocks of a trunk that are gathered at a time: its largest modules with parameters of one layer (timm's
    groups). Single layers outside of them belong to the model as a whole."""
    layer_of, found = trunk.layers(), []

    def visit(module: nn.Module, path: str) -> None:
        for name, child in module.named_children():
            layers = {layer_of[f"{path}.{name}.{parameter}"] for parameter, _ in child.named_parameters()}
            chain = isinstance(child, (nn.Sequential, nn.ModuleList, nn.ModuleDict))  # a list is not called itself
            if len(layers) == 1 and not chain and any(child.children()):
                found.append(child)
            else:
                visit(child, f"{path}.{name}")

    visit(trunk.net, "net")
    return found


def shard(model: SceneNet, device: torch.device) -> None:
    """Shard a model's parameters across all processes, block by block; before, all must hold the same model."""
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()  # tensors in channels-last format cannot be sharded
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for name in model.architecture.modalities:
        for block in blocks(getattr(model, name)):
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def gather(model: SceneNet) -> None:
    """Hold the complete model in every process, with the buffers of the first, until `release`. In validation,
    processes have different numbers of clips and must not wait for each other."""
    for buffer in model.buffers():
        torch.distributed.broadcast(buffer, 0)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()


def release(model: SceneNet) -> None:
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
            module.set_reshard_after_forward(module is not model, recurse=False)


def whole_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The complete tensors of a sharded module, in the first process; empty in the others. All processes must call
    it."""
    found: Any = get_model_state_dict(module, options=WHOLE)
    return found


def whole_optimiser(module: nn.Module, optimiser: torch.optim.Optimizer) -> dict:
    """The complete optimiser state by names of the module's parameters, likewise."""
    return get_optimizer_state_dict(module, optimiser, options=WHOLE)


def cut_optimiser(module: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping) -> None:
    """Load this process's part of a state from `whole_optimiser` into an optimiser."""
    set_optimizer_state_dict(module, optimiser, dict(state), options=WHOLE)
