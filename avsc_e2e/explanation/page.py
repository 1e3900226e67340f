"""The page of an explanation as one HTML file: numbers, audio and frames, with the parts that support the scene."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np

from avsc_e2e.explanation.occlusion import Explained, Explanation
from avsc_e2e.report import charts
from avsc_e2e.report.images import image_uri, spectrogram
from avsc_e2e.report.template import render, write_page
from avsc_e2e.report.words import number, percent, signed

FOR, AGAINST = (245, 166, 0), (60, 100, 240)
"""Colours (RGB) of parts that support the scene and of parts that speak against it."""
FEWEST = 0.05
"""Nats; the darkest colour stands for at least this effect, so that noise stays pale."""


def write_explanation(found: Explanation, path: str | Path) -> Path:
    """Write the page of an explanation to an HTML file. Raises AvscError and OSError."""
    return write_page(page(found), path)


def page(found: Explanation) -> str:
    """The page as one HTML text."""
    name = Path(found.path).name
    return render(
        "explain.html",
        title=f"Why {name} is {found.scene}",
        found=found,
        name=name,
        verdict=sentences(found),
        colours=[f"rgb{FOR}", f"rgb{AGAINST}"],
        heads=_heads(found),
        over_time=_over_time(found) if len(found.windows) > 1 else None,
        audio=_audio(found),
        frames=_frames(found),
        footer="An effect is how much the log-odds of the scene fall, in nats, when the part is hidden.",
    )


def sentences(found: Explanation) -> list[str]:
    """The explanation in words, the most important first."""
    scene, index = found.scene, found.index
    whole, told = found.mean()[index], " and ".join(found.modalities)
    said = [f"The decision is {scene} with {percent(whole, 0)}, from {told}."]
    if "audio alone" in found.windows[0].probabilities:
        alone = {name: found.mean(f"{name} alone") for name in found.modalities}
        parts = [
            f"{name} alone gives {found.classes[int(p.argmax())]} with {percent(p.max(), 0)}"
            + ("" if int(p.argmax()) == index else f" (and {scene} with {percent(p[index], 0)})")
            for name, p in alone.items()
        ]
        said += [f"{part[0].upper()}{part[1:]}." for part in parts]
    if (bands := found.effect("bands")) is not None:
        said.append(_strongest("frequency band", bands, band_names(found.edges)))
    if (regions := found.effect("regions")) is not None:
        said.append(_strongest("region of the frames", regions.ravel(), region_names(len(regions))))
    return said


def _strongest(what: str, effects: np.ndarray, names: list[str]) -> str:
    best = int(effects.argmax())
    if effects[best] < FEWEST:
        return f"No single {what} matters: without the strongest one the log-odds fall by {effects[best]:.2f} nats."
    return f"The {what} that matters most is {names[best]}: without it the log-odds fall by {effects[best]:.2f} nats."


def band_names(edges: tuple[float, ...]) -> list[str]:
    """Names of the bands between edges (Hz)."""
    short = lambda hertz: f"{hertz:g}" if hertz < 1000 else f"{hertz / 1000:.3g}k"  # noqa: E731
    return [f"{short(low)} to {short(high)} Hz" for low, high in itertools.pairwise(edges)]


def region_names(grid: int) -> list[str]:
    """Names of the regions of a grid, row by row from the top left."""
    return [f"row {row + 1} from the top, column {column + 1}" for row in range(grid) for column in range(grid)]


def _heads(found: Explanation) -> list[tuple[str, list[tuple[str, float]]]]:
    """The decision, each modality alone and each head, with its three most probable classes."""
    common = [n for n in found.windows[0].probabilities if all(n in w.probabilities for w in found.windows)]
    rows = []
    for name in sorted(common, key=lambda name: (name != "decision", not name.endswith(" alone"))):
        mean = found.mean(name)
        shown = name if name == "decision" or name.endswith(" alone") else f"head {name}"
        rows.append((shown, [(found.classes[i], float(mean[i])) for i in mean.argsort()[::-1][:3]]))
    return rows


def _over_time(found: Explanation) -> dict[str, object]:
    names = [("decision", 0), ("audio alone", 1), ("video alone", 2)]
    series = [
        charts.Series(name, colour, [_probability(window, name, found.index) for window in found.windows])
        for name, colour in names
        if any(name in window.probabilities for window in found.windows)
    ]
    labels = [f"{window.start:.1f} s" for window in found.windows]
    return {"series": series, "bars": charts.bars(labels, series, 1.0, ".0%", f"probability of {found.scene}")}


def _probability(window: Explained, name: str, scene: int) -> float:
    return float(window.probabilities[name][scene]) if name in window.probabilities else math.nan


def _audio(found: Explanation) -> dict[str, object] | None:
    """Spectrogram of the windows side by side, and beneath it the effect of their parts and of frequency bands."""
    if "audio" not in found.modalities:
        return None
    length = max(len(window.audio) for window in found.windows)
    joined = np.concatenate([np.pad(w.audio, (0, length - len(w.audio))) for w in found.windows])
    time = _matrix(found, "time").reshape(1, -1)  # (1, W * P)
    bands = _matrix(found, "bands").T[::-1]  # (F, W), high frequencies on top as in the spectrogram
    names = band_names(found.edges)
    mean = found.effect("bands")
    assert mean is not None  # some window has audio
    return {
        "spectrogram": image_uri(spectrogram(joined, found.sample_rate, columns=900), "jpeg"),
        "time": image_uri(coloured(time, _largest(time)), "png"),
        "bands": image_uri(coloured(bands, _largest(bands)), "png"),
        "names": names[::-1],
        "table": [(name, signed(float(value), 2)) for name, value in zip(names, mean, strict=True)],
        "most": [number(_largest(time), ".2f"), number(_largest(bands), ".2f")],
    }


def _matrix(found: Explanation, name: str) -> np.ndarray:
    """(W, ...) an effect of all windows, 0 for windows without it."""
    none = np.zeros_like(found.effect(name))
    return np.stack([window.effects.get(name, none) for window in found.windows])


def _frames(found: Explanation) -> list[dict[str, object]]:
    """The frames of the windows, each plain and with its regions coloured by their effect."""
    seen = [window for window in found.windows if "regions" in window.effects]
    most = _largest(np.concatenate([window.effects["regions"].ravel() for window in seen])) if seen else 0.0
    return [
        {
            "start": window.start,
            "end": window.end,
            "plain": image_uri(window.image, "jpeg"),
            "marked": image_uri(marked(window, most), "jpeg"),
            "probability": float(window.probabilities["decision"][found.index]),
            "effect": signed(float(window.effects["regions"].max()), 2),
            "most": number(most, ".2f"),
        }
        for window in seen
    ]


def _largest(effects: np.ndarray) -> float:
    return max(float(np.abs(effects).max(initial=0.0)), FEWEST)


def coloured(effects: np.ndarray, most: float) -> np.ndarray:
    """Effects (H, W) as (H, W, 4) uint8: the hue is for or against, the opacity how much of `most`."""
    out = np.zeros((*effects.shape, 4), np.uint8)
    out[..., :3] = np.where(effects[..., None] >= 0, FOR, AGAINST)
    out[..., 3] = np.clip(255 * np.abs(effects) / most, 0, 255)
    return out


def marked(window: Explained, most: float) -> np.ndarray:
    """The window's frame (H, W, 3) uint8 in grey, its regions coloured by their effect."""
    height, width = window.image.shape[:2]
    regions = window.effects["regions"]
    rows = np.arange(height) * len(regions) // height
    columns = np.arange(width) * len(regions) // width
    paint = coloured(regions, most)[rows][:, columns].astype(np.float32)
    grey = window.image.astype(np.float32).mean(axis=2, keepdims=True)
    share = 0.75 * paint[..., 3:] / 255
    return ((1 - share) * grey + share * paint[..., :3] * (0.6 + 0.4 * grey / 255)).astype(np.uint8)
