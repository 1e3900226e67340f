"""Images and audio of a page as data URIs: frames, spectrograms, large confusion matrices, waveforms."""

from __future__ import annotations

import base64
import io
import math
import wave

import numpy as np


def image_uri(image: np.ndarray, kind: str) -> str:
    """(H, W, 3 or 4) uint8 as a data URI, kind "png" or "jpeg"."""
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, image, format=kind, pil_kwargs={"quality": 78} if kind == "jpeg" else {"optimize": True})
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def wave_uri(audio: np.ndarray, sample_rate: int) -> str:
    """(N,) in [-1, 1] as a WAV data URI, 16 bit."""
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(sample_rate)
        wav.writeframes((np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes())
    return f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"


def heat(counts: np.ndarray) -> np.ndarray:
    """Confusions (K, K) of many classes as an RGBA image: the depth of the colour is the share of the row."""
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    colours = np.zeros((*counts.shape, 4), np.uint8)
    colours[...] = (205, 60, 50, 0)
    np.fill_diagonal(colours[..., 0], 45)
    np.fill_diagonal(colours[..., 1], 125)
    np.fill_diagonal(colours[..., 2], 210)
    colours[..., 3] = np.where(shares > 0, np.clip(40 + 215 * np.sqrt(shares), 0, 255), 0)
    scale = min(max(1, math.ceil(480 / len(counts))), 4)
    return colours.repeat(scale, axis=0).repeat(scale, axis=1)


def spectrogram(audio: np.ndarray, sample_rate: int, bands: int = 80, columns: int = 320) -> np.ndarray:
    """Log-mel spectrogram of a waveform (N,) as an image (bands, columns, 3) uint8, low frequencies at the bottom,
    70 dB from its loudest point."""
    from matplotlib import colormaps

    size = 1024 if sample_rate >= 24000 else 512
    hop = max((len(audio) - 1) // columns + 1, 1)
    padded = np.pad(audio.astype(np.float64), size // 2)
    starts = np.arange(0, max(len(audio), 1), hop)
    frames = padded[starts[:, None] + np.arange(size)] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames)) ** 2
    # Triangles spaced evenly in mel, 2595 log10(1 + f / 700).
    to_mel = lambda hertz: 2595 * np.log10(1 + np.asarray(hertz) / 700)  # noqa: E731
    edges = 700 * (10 ** (np.linspace(to_mel(40), to_mel(sample_rate / 2), bands + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(size, 1 / sample_rate)
    rise = (frequencies - edges[:-2, None]) / np.maximum(edges[1:-1] - edges[:-2], sample_rate / size)[:, None]
    fall = (edges[2:, None] - frequencies) / np.maximum(edges[2:] - edges[1:-1], sample_rate / size)[:, None]
    filters = np.clip(np.minimum(rise, fall), 0, None)
    # A narrow low band can lie between two bins of the transform; it then takes the nearest one.
    empty = filters.sum(axis=1) < 1e-3
    filters[empty, np.abs(frequencies - edges[1:-1, None]).argmin(axis=1)[empty]] = 1
    level = 10 * np.log10(np.maximum(filters / filters.sum(axis=1, keepdims=True) @ power.T, 1e-12))
    shares = np.clip(1 + (level - level.max()) / 70, 0, 1)
    return (colormaps["magma"](shares[::-1])[..., :3] * 255).astype(np.uint8)
