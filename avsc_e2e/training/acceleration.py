"""Ways to run the same trunks faster or in less memory."""

from __future__ import annotations

import logging

import torch

from avsc_e2e.errors import AvscError
from avsc_e2e.models.nets.audionet import AudioNet
from avsc_e2e.models.scenenet import SceneNet

KINDS = 4
"""Compilations of one net for each choice of learning layers: training and evaluation, and a last, smaller batch."""

log = logging.getLogger(__name__)


def compile_trunks(model: SceneNet, backend: str, variants: int = 1) -> None:
    """Compile the trunks' nets where they are called (Ansel et al., 2024); names of tensors stay as they are. Front
    ends and heads are small, and see what changes from batch to batch, so they are left alone. `variants` is how many
    choices of learning layers there will be: each is compiled anew, and torch's limit would leave the later ones to
    the interpreter."""
    options = torch._dynamo.config
    options.recompile_limit = max(options.recompile_limit, KINDS * variants)
    options.accumulated_recompile_limit = max(options.accumulated_recompile_limit, 2 * KINDS * variants)
    for name in model.architecture.modalities:
        net = getattr(model, name).net
        if isinstance(net, AudioNet):
            net.tokens = torch.compile(net.tokens, backend=backend)
        else:
            net.compile(backend=backend)


def checkpoint_activations(model: SceneNet) -> list[str]:
    """Let the trunks that can compute their activations anew in the backward pass instead of keeping them (Chen et
    al., 2016), and name them. Raises AvscError where none can."""
    able = []
    for name in model.architecture.modalities:
        trunk = getattr(model, name)
        switch = getattr(trunk.net, "set_grad_checkpointing", None)
        try:
            if switch is not None:
                switch(True)
                able.append(name)
        except AssertionError:  # so timm's nets say that they cannot
            log.info("%s keeps its activations: it has no way to compute them anew", trunk.name)
    if not able:
        names = " and ".join(getattr(model, name).name for name in model.architecture.modalities)
        raise AvscError(f"--machine.checkpoint-activations: {names} cannot compute activations anew; leave it out")
    return able
