"""What makes training fast: compiled trunks, fused optimisers, low precision, and a step that never waits for a GPU."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import tiny_recipe as recipe
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn.functional import one_hot
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from avsc_e2e.clip import SCENES, Clip, Corpus
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.trunk import Trunk
from avsc_e2e.models.zoo.own import tiny
from avsc_e2e.training import module, run
from avsc_e2e.training.acceleration import checkpoint_activations, compile_trunks
from avsc_e2e.training.averaging import follow, pairs, shadow
from avsc_e2e.training.losses import distilled_losses, head_losses, smooth
from avsc_e2e.training.optimiser import build_optimiser, parameter_groups
from avsc_e2e.training.recipe import Averaging, Data, Machine, Optim, Recipe
from avsc_e2e.training.run import workers
from avsc_e2e.training.trainer import train
from avsc_e2e.transforms import batch as transforms
from avsc_e2e.transforms.augmentation import Augment
from avsc_e2e.transforms.batch import CutMix, DropModality, Mixup, SpecAugment

MODEL = replace(tiny(), size=32)


def losses(path: Path) -> list[float]:
    """Of the epochs of the run that wrote a checkpoint."""
    with (path.parent / "metrics.csv").open(newline="") as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file)]


def raw_batch(count: int = 4, device: str = "cpu", model: Architecture = MODEL) -> Clip:
    """As a loader gives it."""
    return Clip(
        torch.randn(count, 2, model.sample_rate, device=device),
        torch.randint(0, 255, (count, model.frames, 3, model.size, model.size), dtype=torch.uint8, device=device),
        torch.arange(count, device=device) % len(model.classes),
        torch.ones(count, 2, dtype=torch.bool, device=device),
        [""] * count,
        torch.zeros(count),
    )


# ------------------------------------------------------------------------------------------------ compiled

NETS = {
    "audio_resnet10": (2, 64, 51), "audio_cnn1d": (2, 16, 40), "l3_audio": (1, 64, 48), "mcdonnell_resnet": (6, 16, 39),
    "du_fcnn": (2, 64, 39), "naranjo_se": (3, 16, 51), "yamnet": (1, 64, 98), "vgg16_features": (3, 32, 32),
    "test_efficientnet": (3, 32, 32), "test_vit": (3, 160, 160),
}  # fmt: skip
"""One net of each family and its input."""


@pytest.mark.parametrize("name", NETS)
def test_compiled_nets_are_as_they_were(name):
    planes, bands, frames = NETS[name]
    torch.manual_seed(0)
    trunk = Trunk(name, planes, bands=bands).eval()  # without dropout
    model = nn.Module()
    model.architecture, model.trunk = replace(MODEL, audio="", video=name), trunk
    model.video = trunk
    names, x = list(trunk.state_dict()), torch.randn(2, planes, bands, frames)
    found = []
    for backend in ("", "eager"):
        if backend:
            compile_trunks(model, backend)
        trunk.zero_grad()
        embedding = trunk(x)
        embedding.sum().backward()
        found.append((embedding.detach(), next(trunk.parameters()).grad.clone()))
    for before, after in zip(*found, strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert list(trunk.state_dict()) == names
    torch._dynamo.reset()


def test_compiled_with_its_backward_pass_every_method_and_bf16(toy_city, tmp_path):
    optim = Optim(lr=3e-3, audio_lr=3e-3, video_lr=3e-3, layer_decay=0.8, unfreeze=1)
    plan = recipe(toy_city, tmp_path, epochs=2, optim=optim, averaging=Averaging(decay=0.9), precision="bf16")
    plain = train(replace(plan, name="plain"))
    machine = Machine(compile="aot_eager", checkpoint_activations=True)
    found = train(replace(plan, name="compiled", machine=machine))
    assert losses(found) == pytest.approx(losses(plain), rel=0.02)


# ----------------------------------------------------------------------------------------- fused optimisers


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_gradients_are_clipped_for_a_fused_optimiser(toy_city, tmp_path, monkeypatch, precision):
    """On a GPU the step is fused, and a default recipe clips: the CPU has fused steps too, so both together are tried
    here."""
    norms, plain = [], torch.nn.utils.clip_grad_norm_

    def clip(parameters, largest, *args, **kwargs):
        parameters = list(parameters)
        found = plain(parameters, largest, *args, **kwargs)
        norms.append(float(torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in parameters]))))
        return found

    monkeypatch.setattr(
        module, "build_optimiser", lambda groups, optim, fused: build_optimiser(groups, optim, fused=True)
    )
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    optim = Optim(lr=3e-3, audio_lr=3e-3, video_lr=3e-3, clip=0.01)
    train(recipe(toy_city, tmp_path, precision=precision, optim=optim))
    assert norms == pytest.approx([0.01] * len(norms), rel=0.01)
    assert norms


# -------------------------------------------------------------------------------------------- never waiting


class Waits(TorchDispatchMode):
    """Notes what makes the host wait for a device: values or sizes that it asks for, and copies that block."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result, name = function(*args, **kwargs), str(function)
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        places = [tensor.device.type for tensor in tensors]
        asks = any(word in name for word in ("_local_scalar_dense", "nonzero", "masked_select"))
        if "index" in name and any(t.dtype in (torch.bool, torch.uint8) for t in tensors[1:-1]):
            asks = True
        if len(set(places)) > 1 and ("_to_copy" in name or "copy_" in name):
            blocks = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
            asks = asks or blocks or places[-1] == "cpu"
        if asks:
            self.found.append(name)
        return result


@contextmanager
def pretended_gpu(monkeypatch) -> Iterator[Waits]:
    """Within it, tensors on "cuda" have shapes and types but no values, so none can be asked for."""

    class Beta:
        """Draws on the CPU, whose values no one needs here."""

        def __init__(self, *alphas):
            pass

        def sample(self, shape):
            return torch.rand(shape)

    monkeypatch.setattr(torch.distributions, "Beta", Beta)
    with FakeTensorMode(allow_non_fake_inputs=True), Waits() as waits:
        yield waits


def to_pretended_gpu(model: nn.Module) -> None:
    for layer in model.modules():
        for name, value in layer._parameters.items():
            if value is not None:
                layer._parameters[name] = nn.Parameter(torch.empty_like(value, device="cuda"), value.requires_grad)
        for name, value in layer._buffers.items():
            if value is not None:
                layer._buffers[name] = torch.empty_like(value, device="cuda")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"fusion": "cross_attention", "frames": 2, "audio_pool": "attention", "video_pool": "mean_max"},
        {"fusion": "gated", "deltas": 1, "channels": "mid_side", "log": "db", "dynamic_range": 80.0},
        {"fusion": "bilinear", "features": "gammatone"},
        {"fusion": "concat", "frames": 2, "standardise": False},
        {"fusion": "segments", "frames": 2},
        {"fusion": "two_heads", "head": "baseline"},
        {"fusion": "early", "head": "pointwise"},
        {"audio": "", "head": "text", "fusion": "", "decision": (0.0, 1.0, 0.0)},
    ],
    ids=lambda changes: changes.get("fusion") or "default",
)
def test_no_step_waits_for_the_gpu(monkeypatch, changes):
    arch = replace(MODEL, **changes)
    model = SceneNet(arch).train()
    average, teacher = shadow(model), SceneNet(arch).eval()
    with pretended_gpu(monkeypatch) as waits:
        for net in (model, average, teacher):
            to_pretended_gpu(net)
        batch = raw_batch(device="cuda", model=arch)
        waits.found.clear()
        clip = model.preprocess(batch)
        target = smooth(one_hot(clip.target, len(arch.classes)).float(), 0.1)
        with torch.no_grad():
            seen = teacher.preprocess(batch)
            taught = teacher.decide(teacher(seen), seen.present)
        clip = clip._replace(target=torch.cat([target, taught], dim=1))
        for mixing in (Mixup(0.2), CutMix(1.0)):
            mixed = clip
            for transform in (SpecAugment(), mixing, DropModality(0.3)):
                mixed = transform(mixed)
            loss = sum(distilled_losses(model(mixed), mixed, 0.5, 2.0).values())
        follow(pairs(average, model), 0.99, 1)
        assert loss.device.type == "cuda"
        assert waits.found == []


AUGMENT = Augment(spectrum=SpecAugment(), mixup=Mixup(0.2), cutmix=CutMix(1.0), drop=DropModality(0.3))


@pytest.mark.parametrize(
    "changes", [{}, {"audio": "", "fusion": "", "decision": (0.0, 1.0, 0.0)}], ids=["both", "video"]
)
def test_the_engines_own_step_does_not_wait(monkeypatch, changes):
    """FineTuning.training_step itself, with all its transforms and what it notes of its losses."""
    plan = Recipe("r", model=replace(MODEL, **changes), augment=AUGMENT, smoothing=0.1)
    tuning = module.FineTuning(plan, SceneNet(plan.model).train(), Corpus(SCENES, (), (), ()))
    with pretended_gpu(monkeypatch) as waits:
        to_pretended_gpu(tuning.model)
        batch = raw_batch(device="cuda", model=plan.model)
        waits.found.clear()
        for mixing in (Mixup(0.2), CutMix(1.0)):  # which of the two is drawn on the host, from values
            tuning.mixing = mixing
            loss = tuning.training_step(batch, 0)
        assert loss.device.type == "cuda"
        assert tuning.losses.shape == (1 + len(plan.model.heads),)
        assert waits.found == []


def test_waits_are_seen(monkeypatch):
    """That the test above can fail."""
    with pretended_gpu(monkeypatch) as waits:
        values, host = torch.randn(4, device="cuda"), torch.randn(4)
        values + host.to("cuda", non_blocking=True)
        values[torch.arange(2, device="cuda")]
        assert waits.found == []
        host.to("cuda")
        values.cpu()
        assert len(waits.found) == 2
        with pytest.raises(DataDependentOutputException):
            float(values.sum())
        with pytest.raises(Exception, match=r"nonzero|dynamic|data-dependent"):
            values[values > 0]


def test_moving_average_takes_few_calls():
    """Not one for each tensor, of which there are hundreds: a GPU would wait for the host."""
    model = SceneNet(MODEL)
    average = shadow(model)

    class Calls(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = str(function)
            self.count += "lerp" in name or "copy" in name
            return function(*args, **(kwargs or {}))

    for buffer in model.buffers():
        if not buffer.is_floating_point():
            buffer += 7
    tensors = pairs(average, model)
    with Calls() as calls:
        follow(tensors, 0.5, 10)
    assert calls.count <= 2
    counters = [name for name, value in model.state_dict().items() if not value.is_floating_point()]
    assert counters
    assert all(torch.equal(average.state_dict()[name], model.state_dict()[name]) for name in counters)


def test_devices_share_the_cores(monkeypatch):
    plan = recipe(Path(), Path(), data=Data())
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(run.os, "sched_getaffinity", lambda process: range(16), raising=False)
    assert workers(plan) == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for devices, expected in ((1, 15), (2, 7), (8, 1), (16, 1)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda devices=devices: devices)
        assert workers(plan) == expected
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert workers(plan) == 3
    assert workers(replace(plan, data=Data(workers=5))) == 5


# --------------------------------------------------------------------------------------------- on a real GPU


@contextmanager
def on_the_cpu(monkeypatch) -> Iterator[None]:
    """Within it, training finds no GPU."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@pytest.mark.gpu
def test_the_engines_own_step_does_not_wait_for_a_real_gpu(toy_city, tmp_path, monkeypatch):
    """Training from the fourth step on, but for the ends of epochs, is done where waiting is an error."""
    step, count = module.FineTuning.training_step, []

    def strict(self, batch, index):
        count.append(index)
        torch.cuda.set_sync_debug_mode("error" if len(count) > 3 else "default")
        try:
            return step(self, batch, index)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(module.FineTuning, "training_step", strict)
    train(recipe(toy_city, tmp_path, epochs=4, augment=AUGMENT, precision="auto"))
    assert len(count) > 6


@pytest.mark.gpu
@pytest.mark.parametrize("clip", [0.0, 5.0])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_trains_on_a_gpu(toy_city, tmp_path, monkeypatch, precision, clip):
    asked = []

    def build(groups, optim, fused=False):
        asked.append(fused)
        return build_optimiser(groups, optim, fused=fused)

    monkeypatch.setattr(module, "build_optimiser", build)
    optim = Optim(lr=3e-3, audio_lr=3e-3, video_lr=3e-3, clip=clip, layer_decay=0.8, accumulate=2)
    plan = recipe(toy_city, tmp_path, epochs=3, optim=optim, averaging=Averaging(decay=0.9), precision=precision)
    found = losses(train(plan))
    assert asked == [not (precision == "fp16" and clip)]
    with on_the_cpu(monkeypatch):
        expected = losses(train(replace(plan, name="cpu", precision="fp32")))
    assert found == pytest.approx(expected, rel=1e-2 if precision == "fp32" else 5e-2)
    assert len(found) == 3


@pytest.mark.gpu
@pytest.mark.parametrize("optimiser", ["adamw", "adam", "sgd"])
def test_all_optimisers_have_a_fused_step(toy_city, tmp_path, monkeypatch, optimiser):
    optim = Optim(optimiser=optimiser, lr=1e-3, audio_lr=1e-3, video_lr=1e-3)
    plan = recipe(toy_city, tmp_path, optim=optim, precision="fp32", epochs=2)
    found = losses(train(plan))
    with on_the_cpu(monkeypatch):
        assert found == pytest.approx(losses(train(replace(plan, name="cpu"))), rel=1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("machine", [Machine(compile="inductor"), Machine(compile="cudagraphs")], ids=str)
def test_compiled_on_a_gpu(toy_city, tmp_path, machine):
    plain = train(recipe(toy_city, tmp_path, "plain", epochs=2))
    compiled = train(recipe(toy_city, tmp_path, "compiled", epochs=2, machine=machine))
    assert losses(compiled) == pytest.approx(losses(plain), rel=0.05)


@pytest.mark.gpu
def test_batch_norm_over_one_device_is_as_batch_norm(toy_city, tmp_path):
    plain = losses(train(recipe(toy_city, tmp_path, "plain", epochs=2)))
    found = losses(train(recipe(toy_city, tmp_path, epochs=2, machine=Machine(sync_batchnorm=True))))
    assert found == pytest.approx(plain, rel=1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_no_step_waits_for_a_real_gpu(kind):
    model = SceneNet(MODEL).cuda().train()
    average = shadow(model)
    tensors = pairs(average, model)
    groups = parameter_groups(model, Optim())
    optimiser = build_optimiser(groups, Optim(), fused=True)
    host = raw_batch()
    host = host._replace(**{name: getattr(host, name).pin_memory() for name in ("audio", "video", "target", "present")})

    def step(index: int) -> None:
        batch = host._replace(**{
            name: getattr(host, name).to("cuda", non_blocking=True) for name in ("audio", "video", "target", "present")
        })  # fmt: skip
        clip = model.preprocess(batch)
        clip = clip._replace(target=smooth(one_hot(clip.target, len(MODEL.classes)).float(), 0.1))
        for transform in (SpecAugment(), transforms.Mixing(Mixup(0.2), CutMix(1.0)), DropModality(0.3)):
            clip = transform(clip)
        with torch.autocast("cuda", dtype=kind, enabled=kind is not torch.float32):
            logits = model(clip)
        sum(head_losses(logits, clip).values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        optimiser.zero_grad()
        follow(tensors, 0.99, index)

    for index in range(1, 4):  # libraries are loaded, and memory is taken, the first time
        step(index)
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for index in range(4, 8):
            step(index)
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.gpu
def test_activations_computed_anew_take_less_memory():
    def peak(recompute: bool) -> int:
        model = SceneNet(replace(MODEL, audio="", video="resnet50", fusion="", size=128, decision=(0.0, 1.0, 0.0)))
        model = model.cuda().train()
        if recompute:
            checkpoint_activations(model)
        clip = model.preprocess(raw_batch(16, "cuda", model.architecture))
        model(clip)["video"].sum().backward()
        torch.cuda.reset_peak_memory_stats()
        model(clip)["video"].sum().backward()
        return torch.cuda.max_memory_allocated()

    assert peak(True) < 0.8 * peak(False)
