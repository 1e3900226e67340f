"""Conversion of nested settings and figures to plain values, and the versions that a result depends on."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np

PACKAGES = (
    "avsc-e2e", "torch", "torchvision", "torchaudio", "timm", "pytorch-lightning", "albumentations",
    "audiomentations", "decord2", "av", "soundfile", "numpy", "scikit-learn", "matplotlib",
)  # fmt: skip
"""Distributions whose versions the report names, if they are installed."""


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that a result depends on."""
    found = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def fields_of(value: object) -> dict[str, object] | None:
    """The fields of a mapping or a dataclass by name; None for other values and for those without fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)} or None
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) and value else None


def plain(value: object) -> Any:
    """A value as in JSON: tuples become lists, nan becomes None, other objects become text."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    fields = fields_of(value)
    if fields is not None:
        return {key: plain(item) for key, item in fields.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else {} if value == {} else str(value)
