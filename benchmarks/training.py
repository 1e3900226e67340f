"""The training step: how near it is to what the device could do, and where its time goes.

    python benchmarks/training.py [--model lite0] [--size 160] [--batch-size 32] [--steps 20] [--store STORE]

Rates in clips/s, all in one run on one device, in turns of --rounds:

  engine       `train` of the library, from a store of JPEGs, loaders and logging included
  resident     the same step (front end, batch transforms, forward, losses, backward, clipping, optimiser) on a batch
               that already lies on the device
  bare         a bare torch loop of the same trunks and heads on preprocessed random tensors, same precision and batch
  timm         the video trunk alone with a classifier, at the sizes of the recipes

and the share of front end and batch transforms in the resident step, and model-FLOP utilisation: the step's FLOPs
(three times the forward pass's) a second, of those of a large matrix product measured here in the same precision. On a
GPU the aims are engine / resident >= 0.95, engine / bare >= 0.97, share <= 3 %. Without a GPU it says so, times the
host's clock, and only the video trunk of the model is timed against timm.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import timm
import torch
from torch.nn.functional import cross_entropy, one_hot

from avsc_e2e.clip import Clip
from avsc_e2e.data.dataset import loader
from avsc_e2e.data.prepare import prepare
from avsc_e2e.data.toycity import ToyCity
from avsc_e2e.losses import head_losses
from avsc_e2e.models.complexity import blank_batch, complexity
from avsc_e2e.models.zoo import architecture
from avsc_e2e.optimiser import build_optimiser, parameter_groups
from avsc_e2e.recipe import Augment, Data, Recipe
from avsc_e2e.training import corpus_of, initial_model, run_folder, train, train_dataset
from avsc_e2e.transforms.batch import Mixing

TRUNKS = (("resnet50", 224), ("tf_efficientnet_b5", 456), ("tf_efficientnetv2_s", 300))
"""Video trunks and the sizes that they are trained at."""


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def rate(step, clips: int, steps: int, device: torch.device) -> float:
    """Clips/s of `step`, after two for warming up."""
    for _ in range(2):
        step()
    wait(device)
    began = time.perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    return clips * steps / (time.perf_counter() - began)


def autocast(recipe: Recipe, device: torch.device):
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.precision)
    return torch.autocast(device.type, dtype=kind or torch.bfloat16, enabled=kind is not None)


def resident(recipe: Recipe, model, batch: Clip, device: torch.device):
    """The whole step on a batch that lies on the device, and its front end and batch transforms alone."""
    augment, classes = recipe.augment, len(model.architecture.classes)
    mixing = Mixing(augment.mixup, augment.cutmix)
    optimiser = build_optimiser(parameter_groups(model, recipe.optim), recipe.optim, fused=device.type == "cuda")
    parameters = [p for p in model.parameters() if p.requires_grad]

    def before() -> Clip:
        clip = model.preprocess(batch)
        clip = clip._replace(target=one_hot(clip.target, classes).float())
        return augment.drop(mixing(augment.spectrum(clip)))

    def step() -> None:
        clip = before()
        with autocast(recipe, device):
            logits = model(clip)
        losses = head_losses(logits, clip)
        loss = sum(getattr(recipe.heads, name) * value for name, value in losses.items())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.optim.clip)
        optimiser.step()
        optimiser.zero_grad()

    return step, before


def bare(recipe: Recipe, model, device: torch.device):
    """Forward, backward and step of trunks and heads on random tensors."""
    blank = blank_batch(model, recipe.batch_size)
    clip = blank._replace(
        audio=torch.randn(blank.audio.shape).to(device),
        video=torch.randn(blank.video.shape).to(device),
        present=blank.present.to(device),
    )
    target = torch.randint(len(model.architecture.classes), (recipe.batch_size,), device=device)
    optimiser = build_optimiser(parameter_groups(model, recipe.optim), recipe.optim, fused=device.type == "cuda")

    def step() -> None:
        with autocast(recipe, device):
            logits = model(clip)
            loss = sum(cross_entropy(values, target) for values in logits.values())
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def of_timm(name: str, size: int, recipe: Recipe, device: torch.device, ours: bool):
    """One step of timm's net as timm makes it, or of ours around it."""
    count = recipe.batch_size
    target = torch.randint(10, (count,), device=device)
    pictures = torch.randn(count, 3, size, size, device=device)
    if ours:
        net = replace(recipe.model, audio="", video=name, size=size).build().to(device).train()
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
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        forward = lambda: net(pictures)  # noqa: E731
    optimiser = torch.optim.AdamW(net.parameters(), fused=device.type == "cuda" or None)

    def step() -> None:
        with autocast(recipe, device):
            loss = cross_entropy(forward(), target)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def matmul_flops(recipe: Recipe, device: torch.device) -> float:
    """FLOPs a second of a large matrix product in the recipe's precision."""
    side = 8192 if device.type == "cuda" else 1024
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.precision, torch.float32)
    a = torch.randn(side, side, device=device, dtype=kind)
    return rate(lambda: a @ a, 1, 10, device) * 2 * side**3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lite0")
    parser.add_argument("--size", type=int, default=0, help="pixels; 0: the model's")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=-1, help="loader processes of the engine")
    parser.add_argument("--store", type=Path, help="by default a toy city, rendered and prepared")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out = chosen.out or Path(tempfile.mkdtemp())
    arch = architecture(chosen.model)
    arch = replace(arch, size=chosen.size or arch.size)
    store = chosen.store
    if not store:
        ToyCity(train_locations=4, test_locations=1, duration=4.0).render(out / "city")
        store = out / "store"
        prepare(out / "city", store)
    precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    recipe = Recipe(
        "training", model=arch, data=Data(store=str(store), workers=chosen.workers), augment=Augment(),
        batch_size=chosen.batch_size, pretrained=False, precision=precision, epochs=3, runs=str(out / "runs"),
    )  # fmt: skip
    rows = len(corpus_of(recipe).train)
    windows = max(-(-chosen.steps * chosen.batch_size // rows), 1)
    recipe = replace(recipe, data=replace(recipe.data, windows=windows))
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{name}, {precision}, {chosen.model} at {arch.size} pixels, batches of {chosen.batch_size}")
    if device.type == "cpu":
        print("NO GPU: these are rates of a CPU, on whatever else the machine does; the aims are for a GPU.")
        print("missing: one CUDA GPU and 16 cores. Then run the same command.")

    recipe = replace(recipe, model=replace(arch, classes=corpus_of(recipe).classes))
    model = initial_model(recipe, corpus_of(recipe)).to(device).train()
    dataset = train_dataset(recipe, corpus_of(recipe))
    batch = next(iter(loader(dataset, recipe.batch_size, shuffle=True)))
    batch = batch._replace(**{
        field: getattr(batch, field).to(device) for field in ("audio", "video", "target", "present")
    })  # fmt: skip
    whole, before = resident(recipe, model, batch, device)
    loop = bare(recipe, model, device)
    rates: dict[str, list[float]] = {"engine": [], "resident": [], "bare": [], "front end and transforms": []}
    for turn in range(chosen.rounds):
        run = replace(recipe, name=f"training/{turn}")
        train(run)
        # The last epoch: processes that load, and the device, are warm.
        last = (run_folder(run) / "timing.csv").read_text().strip().splitlines()
        timing = dict(zip(last[0].split(","), last[-1].split(","), strict=True))
        rates["engine"].append(float(timing["clips_per_second"]))
        for label, step in (("resident", whole), ("bare", loop), ("front end and transforms", before)):
            rates[label].append(rate(step, recipe.batch_size, chosen.steps, device))
    middle = {label: statistics.median(values) for label, values in rates.items()}
    for label, values in rates.items():
        print(f"{label:<28}{middle[label]:>10.1f} clips/s   (" + ", ".join(f"{v:.1f}" for v in sorted(values)) + ")")
    ratio = {rival: statistics.median(a / b for a, b in zip(rates["engine"], rates[rival], strict=True))
             for rival in ("resident", "bare")}  # fmt: skip
    print(f"engine / resident {ratio['resident']:.2f} (aim on a GPU 0.95), engine / bare {ratio['bare']:.2f} (0.97)")
    share = middle["resident"] / middle["front end and transforms"]
    print(f"front end and batch transforms: {100 * share:.1f} % of the resident step (aim on a GPU 3 %)")
    peak = matmul_flops(recipe, device)
    flops = 3 * 2 * complexity(recipe.model).multiply_adds
    print(f"model-FLOP utilisation of the engine: {100 * flops * middle['engine'] / peak:.1f} % of "
          f"{peak / 1e12:.2f} TFLOP/s of a matrix product here")  # fmt: skip
    pairs = TRUNKS if device.type == "cuda" else ((arch.video, arch.size),) if arch.video else ()
    for trunk, size in pairs:
        steps = {kind: of_timm(trunk, size, recipe, device, kind == "ours") for kind in ("ours", "timm")}
        found = {kind: [] for kind in steps}
        for _ in range(chosen.rounds):
            for kind, step in steps.items():
                found[kind].append(rate(step, recipe.batch_size, chosen.steps, device))
        ours, theirs = (statistics.median(values) for values in found.values())
        print(f"{trunk} at {size}: ours {ours:.1f}, timm {theirs:.1f} pictures/s, ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
