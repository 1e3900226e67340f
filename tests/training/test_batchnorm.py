"""Batch norm over several devices: converted nets compute what they did, and processes validate with one statistic."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.trunk import Trunk
from avsc_e2e.models.zoo.catalogue import architecture, list_models
from avsc_e2e.models.zoo.own import tiny
from avsc_e2e.training import machine
from avsc_e2e.training.batchnorm import synchronise
from avsc_e2e.training.callbacks import RunFolder
from avsc_e2e.training.recipe import Machine, Recipe
from avsc_e2e.training.trainer import prepared

SIZES = {"hrnet_w48": 64, "resnest50d": 64}
"""Inputs that deep nets leave something of; else 32 pixels a side."""


def trunks() -> dict[str, tuple[int, int]]:
    """Every trunk of the zoo, with its planes and bands."""
    found = {}
    for name in list_models():
        arch = architecture(name)
        found |= {arch.audio: (arch.planes, arch.bands)} if arch.audio else {}
        found |= {arch.video: (3, 0)} if arch.video else {}
    return found


TRUNKS = trunks()
WITHOUT_NORMS = {
    *("swin_base_patch4_window7_224", "vit_base_patch32_clip_quickgelu_224", "vit_large_patch16_siglip_256"),
    *("vggish", "vgg16_features"),
}
"""Trunks of the zoo that have no batch norm to convert, without the tag of their weights."""


def norms(net: nn.Module) -> list[nn.Module]:
    return [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("name", sorted(name for name in TRUNKS if name.split(".")[0] not in WITHOUT_NORMS))
def test_converted_trunks_compute_what_they_did(name):
    planes, bands = TRUNKS[name]
    torch.manual_seed(0)
    trunk = Trunk(name, planes, bands=bands).eval()
    side = SIZES.get(name.split(".")[0], 32)
    x = torch.randn(2, planes, bands, 101) if bands else torch.randn(2, planes, side, side)
    count, names = len(norms(trunk)), list(trunk.state_dict())
    assert count
    with torch.inference_mode():
        before = trunk(x)
        trunk = synchronise(trunk)
        after = trunk(x)
    assert len(norms(trunk)) == count
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms(trunk))
    assert list(trunk.state_dict()) == names
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4 * float(before.abs().max()))


def test_training_converts_by_timm_and_leaves_lightning_nothing_to_convert(monkeypatch, tmp_path):
    """On a CPU, which has no synchronised norms: what Lightning's trainer is built with."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    options = {}
    monkeypatch.setattr(machine.pl, "Trainer", lambda **given: options.update(given))
    recipe = Recipe("r", model=replace(tiny(), size=32), machine=Machine(sync_batchnorm=True), precision="fp32")
    machine.lightning_trainer(recipe, tmp_path, RunFolder(recipe, tmp_path))
    assert not options.get("sync_batchnorm", False)
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms(prepared(recipe, SceneNet(recipe.model))))
