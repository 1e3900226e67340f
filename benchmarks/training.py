"""The training step: how near it is to what the device could do, and where its time goes.

    python benchmarks/training.py [--model lite0] [--size 160] [--batch-size 32] [--compile inductor] [--store STORE]

Rates in clips/s, all in one process on one device with one number of threads, in turns of --rounds:

  engine       `train` of the library, from a store of JPEGs, loaders, logging and schedule included; epochs from the
               second on, from an epoch's start to the end of its last step
  resident     the same step (front end, batch transforms, forward, losses, backward, clipping, optimiser) on a batch
               that already lies on the device
  bare         a bare torch loop of the same trunks and heads on preprocessed random tensors: forward, backward,
               clipping and optimiser in the same precision, memory format, batch and compilation
  timm         the video trunk alone with a classifier as timm makes it, at the sizes of the recipes, against ours

and the share of front end and batch transforms in the resident step, and model-FLOP utilisation: the step's FLOPs
(three times the forward pass's) a second, of those of a large matrix product measured here in the same precision. On a
GPU the aims are engine / resident >= 0.95, engine / bare >= 0.97, share <= 3 %.

On a GPU, times are of the wall with the device waited for at both ends, and the share is that between CUDA events.
Without one, times are of the processor, all threads of the process, which other load on the machine hardly moves; the
engine then decodes in the same process, so its line "without decoding" leaves out the time in which it waits for data.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch.nn.functional import cross_entropy, one_hot

from avsc_e2e.clip import Clip
from avsc_e2e.data.loader import loader
from avsc_e2e.data.store.prepare import prepare
from avsc_e2e.memory import keep_freed_memory
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.zoo.catalogue import architecture
from avsc_e2e.models.zoo.complexity import blank_batch, complexity
from avsc_e2e.toycity.city import ToyCity
from avsc_e2e.training import trainer as training
from avsc_e2e.training.acceleration import compile_trunks
from avsc_e2e.training.initialisation import initial_model
from avsc_e2e.training.losses import head_losses
from avsc_e2e.training.optimiser import build_optimiser, parameter_groups
from avsc_e2e.training.recipe import Data, Machine, Recipe
from avsc_e2e.training.run import corpus_of, train_dataset, workers
from avsc_e2e.training.trainer import train
from avsc_e2e.transforms.augmentation import Augment
from avsc_e2e.transforms.batch import Mixing

CUDA = torch.cuda.is_available()
TRUNKS = (("resnet50", 224), ("tf_efficientnet_b5", 456), ("tf_efficientnetv2_s", 300))
"""Video trunks and the sizes that they are trained at."""
WARM = 10 if CUDA else 1
"""Steps before any that is timed."""
now = time.perf_counter if CUDA else time.process_time


def wait() -> None:
    if CUDA:
        torch.cuda.synchronize()


def rate(step: Callable[[], object], clips: int, steps: int) -> float:
    """Clips/s of `step`."""
    for _ in range(WARM):
        step()
    wait()
    began = now()
    for _ in range(steps):
        step()
    wait()
    return clips * steps / (now() - began)


class Epoch(NamedTuple):
    """Of the engine."""

    clips: int
    seconds: float
    waited: float
    """Seconds of these in which the step waited for data."""


class TimedRun(training.RunFolder):
    """The engine's own callback, which times epochs on this benchmark's clock."""

    epochs: list[Epoch] = []  # noqa: RUF012, of all runs

    def on_train_epoch_start(self, trainer, module) -> None:
        super().on_train_epoch_start(trainer, module)
        wait()
        self.start = self.end = now()
        self.idle = 0.0

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        self.idle += now() - self.end
        super().on_train_batch_start(trainer, module, batch, batch_idx)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)
        self.end = now()
        if batch_idx + 1 == trainer.num_training_batches:
            wait()
            clips = (batch_idx + 1) * self.recipe.batch_size
            self.epochs.append(Epoch(clips, now() - self.start, self.idle))


def mark() -> object:
    """An instant on the device."""
    if not CUDA:
        return now()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def between(first, last) -> float:
    return first.elapsed_time(last) if CUDA else last - first


def autocast(recipe: Recipe, device: torch.device):
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.precision)
    return torch.autocast(device.type, dtype=kind or torch.bfloat16, enabled=kind is not None)


def resident(recipe: Recipe, model, batch: Clip, device: torch.device):
    """The whole step on a batch that lies on the device, and the instants of each: its start, when it is preprocessed,
    its end."""
    augment, classes = recipe.augment, len(model.architecture.classes)
    mixing = Mixing(augment.mixup, augment.cutmix)
    optimiser = build_optimiser(parameter_groups(model, recipe.optim), recipe.optim, fused=CUDA)
    parameters = [p for p in model.parameters() if p.requires_grad]
    instants: list[tuple] = []

    def step() -> None:
        start = mark()
        clip = model.preprocess(batch)
        clip = clip._replace(target=one_hot(clip.target, classes).float())
        clip = augment.drop(mixing(augment.spectrum(clip)))
        prepared = mark()
        with autocast(recipe, device):
            logits = model(clip)
        losses = head_losses(logits, clip)
        loss = sum(getattr(recipe.heads, name) * value for name, value in losses.items())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.optim.clip)
        optimiser.step()
        optimiser.zero_grad()
        instants.append((start, prepared, mark()))

    return step, instants


def bare(recipe: Recipe, model, device: torch.device):
    """Forward, backward and step of trunks and heads on random tensors."""
    blank = blank_batch(model, recipe.batch_size)
    clip = blank._replace(
        audio=torch.randn(blank.audio.shape).to(device),
        video=torch.randn(blank.video.shape).to(device),
        present=blank.present.to(device),
    )
    target = torch.randint(len(model.architecture.classes), (recipe.batch_size,), device=device)
    optimiser = build_optimiser(parameter_groups(model, recipe.optim), recipe.optim, fused=CUDA)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def step() -> None:
        with autocast(recipe, device):
            logits = model(clip)
            loss = sum(cross_entropy(values, target) for values in logits.values())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.optim.clip)
        optimiser.step()
        optimiser.zero_grad()

    return step


def of_timm(name: str, size: int, count: int, recipe: Recipe, device: torch.device, ours: bool):
    """One step of timm's net as timm makes it, or of ours around it."""
    target = torch.randint(10, (count,), device=device)
    pictures = torch.randn(count, 3, size, size, device=device)
    if ours:
        net = SceneNet(replace(recipe.model, audio="", video=name, size=size)).to(device).train()
        if recipe.machine.compile:
            compile_trunks(net, recipe.machine.compile)
        clip = Clip(
            torch.empty(count, 1, 0, device=device),
            pictures[:, None],
            target,
            torch.tensor([[False, True]], device=device).expand(count, 2),
            [""] * count,
            torch.zeros(count),
        )
        forward = lambda: net(clip)["video"]  # noqa: E731
    else:
        net = timm.create_model(name, num_classes=10).to(device, memory_format=torch.channels_last).train()
        if recipe.machine.compile:
            net.compile(backend=recipe.machine.compile)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        forward = lambda: net(pictures)  # noqa: E731
    optimiser = torch.optim.AdamW(net.parameters(), fused=CUDA or None)

    def step() -> None:
        with autocast(recipe, device):
            loss = cross_entropy(forward(), target)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def matmul_flops(recipe: Recipe, device: torch.device) -> float:
    """FLOPs a second of a large matrix product in the recipe's precision."""
    side = 8192 if CUDA else 1024
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.precision, torch.float32)
    a = torch.randn(side, side, device=device, dtype=kind)
    return rate(lambda: a @ a, 1, 10) * 2 * side**3


def told(label: str, values: list[float]) -> None:
    each = ", ".join(f"{value:.1f}" for value in sorted(values))
    print(f"{label:<28}{statistics.median(values):>10.1f} clips/s   ({each})", flush=True)


def compare_steps(recipe: Recipe, device: torch.device, out: Path, rounds: int, steps: int) -> None:
    """The engine, the resident step and the bare loop, in turns."""
    if not recipe.data.store:
        # Images as large as those that `prepare` makes of the real set's.
        ToyCity(train_locations=4, test_locations=1, duration=4.0, height=256, width=456).render(out / "city")
        prepare(out / "city", out / "store")
        recipe = replace(recipe, data=replace(recipe.data, store=str(out / "store")))
    corpus = corpus_of(recipe)
    windows = max(-(-steps * recipe.batch_size // len(corpus.train)), 1)
    data, arch = replace(recipe.data, windows=windows), replace(recipe.model, classes=corpus.classes)
    recipe = replace(recipe, data=data, model=arch)
    training.RunFolder = TimedRun
    model = initial_model(recipe, corpus).to(device).train()
    if recipe.machine.compile:
        compile_trunks(model, recipe.machine.compile)
    dataset = train_dataset(recipe, corpus)
    batch = next(iter(loader(dataset, recipe.batch_size, shuffle=True)))
    batch = batch._replace(**{
        field: getattr(batch, field).to(device) for field in ("audio", "video", "target", "present")
    })  # fmt: skip
    whole, instants = resident(recipe, model, batch, device)
    loop = bare(recipe, model, device)
    rates: dict[str, list[float]] = {"engine": [], "engine without decoding": [], "resident": [], "bare": []}
    for turn in range(rounds):
        TimedRun.epochs.clear()
        train(replace(recipe, name=f"training/{turn}"))
        gc.collect()  # loader processes end with their loader
        clips, seconds, waited = (sum(values) for values in zip(*TimedRun.epochs[1:], strict=True))
        rates["engine"].append(clips / seconds)
        rates["engine without decoding"].append(clips / (seconds - waited))
        for label, step in (("resident", whole), ("bare", loop)):
            rates[label].append(rate(step, recipe.batch_size, steps))
    for label, values in rates.items():
        told(label, values)
    for label, aim in (("resident", 0.95), ("bare", 0.97)):
        whole_ratio, without = (
            statistics.median(a / b for a, b in zip(rates[kind], rates[label], strict=True))
            for kind in ("engine", "engine without decoding")
        )
        print(f"engine / {label} {whole_ratio:.2f} (aim on a GPU {aim}); without its wait for data {without:.2f}")
    before = sum(between(start, prepared) for start, prepared, _ in instants[WARM:])
    share = before / sum(between(start, end) for start, _, end in instants[WARM:])
    print(f"front end and batch transforms: {100 * share:.1f} % of the resident step (aim on a GPU 3 %)")
    peak = matmul_flops(recipe, device)
    flops = 3 * 2 * complexity(recipe.model).multiply_adds
    for label in ("engine", "resident"):
        used = flops * statistics.median(rates[label])
        print(f"model-FLOP utilisation, {label}: {100 * used / peak:.1f} % of a matrix product's {peak / 1e12:.3f} T/s")


def compare_trunks(recipe: Recipe, device: torch.device, rounds: int, steps: int, count: int) -> None:
    """Our video branch and timm's net, in turns."""
    for trunk, size in TRUNKS:
        rivals = {kind: of_timm(trunk, size, count, recipe, device, kind == "ours") for kind in ("ours", "timm")}
        rates: dict[str, list[float]] = {kind: [] for kind in rivals}
        for turn in range(rounds):
            for kind in sorted(rivals, reverse=turn % 2 == 1):  # neither is always the first
                rates[kind].append(rate(rivals[kind], count, steps))
        ours, theirs = (statistics.median(values) for values in rates.values())
        ratio = statistics.median(a / b for a, b in zip(rates["ours"], rates["timm"], strict=True))
        print(
            f"{trunk} at {size}, batches of {count}: ours {ours:.2f}, timm {theirs:.2f} images/s, ratio {ratio:.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lite0")
    parser.add_argument("--size", type=int, default=0, help="pixels; 0: the model's")
    parser.add_argument("--batch-size", type=int, default=128 if CUDA else 32)
    parser.add_argument(
        "--steps", type=int, default=200 if CUDA else 4, help="of a round, and of an epoch; 0: only timm's trunks"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=-1, help="loader processes of the engine")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="by default bf16 where the GPU has it")
    parser.add_argument("--compile", default="", help="backend of torch.compile, for everyone")
    parser.add_argument("--trunk-batch", type=int, default=64 if CUDA else 2, help="images of timm's step; 0: none")
    parser.add_argument("--trunk-steps", type=int, default=50 if CUDA else 2)
    parser.add_argument("--store", type=Path, help="by default a toy city, rendered and prepared")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    device = torch.device("cuda" if CUDA else "cpu")
    out = chosen.out or Path(tempfile.mkdtemp())
    arch = architecture(chosen.model)
    arch = replace(arch, size=chosen.size or arch.size)
    recipe = Recipe(
        "training", model=arch, data=Data(store=str(chosen.store or ""), workers=chosen.workers), augment=Augment(),
        batch_size=chosen.batch_size, pretrained=False, epochs=3, runs=str(out / "runs"),
        precision=chosen.precision or ("bf16" if CUDA and torch.cuda.is_bf16_supported() else "fp32"),
        machine=Machine(compile=chosen.compile),
    )  # fmt: skip
    name = torch.cuda.get_device_name() if CUDA else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"{name}, {recipe.precision}, {chosen.model} at {arch.size} pixels, batches of {chosen.batch_size}, "
        f"{workers(recipe)} loader processes, compilation {chosen.compile or 'off'}"
    )
    if not CUDA:
        print("NO GPU: rates are of the processor's time on a CPU; the aims are for a GPU with 16 cores.")
    torch.backends.cudnn.benchmark = CUDA  # as Lightning sets it for the engine
    keep_freed_memory()  # as the engine does on a CPU
    if chosen.steps:
        compare_steps(recipe, device, out, chosen.rounds, chosen.steps)
    if chosen.trunk_batch:
        compare_trunks(recipe, device, chosen.rounds, chosen.trunk_steps, chosen.trunk_batch)


if __name__ == "__main__":
    main()
