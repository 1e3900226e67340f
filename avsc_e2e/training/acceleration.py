"""Ways to run the same trunks faster or in less memory."""

from __future__ import annotations

import logging

import torch

from avsc_e2e.errors import AvscError
from avsc_e2e.models.nets.audionet import AudioNet
from avsc_e2e.models.scenenet import SceneNet

KINDS = 4
"""Compilations of a net for each set of trainable layers: training and evaluation, each with a full and a smaller last
batch."""

log = logging.getLogger(__name__)


def compile_trunks(model: SceneNet, backend: str, variants: int = 1) -> None:
    """Compile the trunks' nets where they are called (Ansel et al., 2024); names of tensors do not change. Front ends
    and heads are small and their inputs change from batch to batch, so they are not compiled. `variants` is the number
    of sets of trainable layers in the run. Each set is compiled again, and torch's limit would leave later ones to the
    interpreter."""
    options = torch._dynamo.config
    options.recompile_limit = max(options.recompile_limit, KINDS * variants)
    options.accumulated_recompile_limit = max(options.accumulated_recompile_limit, 2 * KINDS * variants)
    for name in model.architecture.modalities:
        net = getattr(model, name).net
        if isinstance(net, AudioNet):
            net.tokens = torch.compile(net.tokens, backend=backend)  # type: ignore[method-assign]  # of this net alone
        else:
            net.compile(backend=backend)


def checkpoint_activations(model: SceneNet) -> list[str]:
    """Let trunks recompute their activations in the backward pass instead of storing them (Chen et al., 2016), if they
    can. Returns the names of these trunks. Raises AvscError if none can."""
    able = []
    for name in model.architecture.modalities:
        trunk = getattr(model, name)
        switch = getattr(trunk.net, "set_grad_checkpointing", None)
        try:
            if switch is not None:
                switch(True)
                able.append(name)
        except AssertionError:  # as timm's nets do if they cannot
            log.info("%s stores its activations: it cannot recompute them", trunk.name)
    if not able:
        names = " and ".join(getattr(model, name).name for name in model.architecture.modalities)
        raise AvscError(f"--machine.checkpoint-activations: {names} cannot recompute activations; leave the option out")
    return able
