"""Filter banks: weights of a spectrum's bins for each band, and frequency responses over a whole clip."""

from __future__ import annotations

import math
import warnings

import torch
import torchaudio
from torch import Tensor

BLOCKS = 4
"""Parts into which the bands of a filter bank are divided."""


def mel_bank(bins: int, rate: int, bands: int, low: float, high: float, scale: str, area_norm: bool) -> Tensor:
    """(bins, bands) triangles, equally spaced and half overlapping on a mel scale: "htk" 2595 log10(1 + f / 700),
    "slaney" linear below and logarithmic above 1 kHz, "vggish" HTK's with straight flanks over mels."""
    if scale == "vggish":
        frequencies = torch.linspace(0, rate / 2, bins, dtype=torch.float64)
        bank = _triangles(_hertz_to_htk(frequencies), torch.linspace(_htk(low), _htk(high), bands + 2).double())
        bank[0] = 0.0  # VGGish and YAMNet leave out the bin at 0 Hz
        return bank.float()
    norm = "slaney" if area_norm else None
    with warnings.catch_warnings():
        # OpenL3's lowest filters lie between two bins and are empty, as in the published code.
        warnings.filterwarnings("ignore", message="At least one mel filterbank")
        return torchaudio.functional.melscale_fbanks(bins, low, high, bands, rate, norm=norm, mel_scale=scale)


def bark_bank(bins: int, rate: int, bands: int, low: float, high: float, area_norm: bool) -> Tensor:
    """(bins, bands) triangles, equally spaced and half overlapping in Bark, 26.81 f / (1960 + f) - 0.53 (Traunmüller,
    1990)."""
    bark = torch.linspace(_bark(low), _bark(high), bands + 2, dtype=torch.float64)
    edges = 1960 * (bark + 0.53) / (26.28 - bark)
    bank = _triangles(torch.linspace(0, rate / 2, bins, dtype=torch.float64), edges)
    return (bank * 2 / (edges[2:] - edges[:-2]) if area_norm else bank).float()


def gammatone_bank(bins: int, rate: int, bands: int, low: float, high: float, area_norm: bool) -> Tensor:
    """(bins, bands) squared responses of gammatone filters of order 4, (1 + ((f - c) / b)^2)^-4, centres c equally
    spaced on the scale of equivalent rectangular bandwidths, b = 1.019 ERB(c) (Glasberg and Moore, 1990)."""
    centres = erb_centres(bands, low, high)
    width = 1.019 * 24.7 * (1 + 4.37e-3 * centres)
    frequencies = torch.linspace(0, rate / 2, bins, dtype=torch.float64)[:, None]
    bank = (1 + ((frequencies - centres) / width) ** 2) ** -4
    # The integral of the response over all frequencies is width * 5 pi / 16.
    return (bank / (width * 5 * math.pi / 16) if area_norm else bank).float()


def erb_centres(bands: int, low: float, high: float) -> Tensor:
    """(bands,) Hz, equally spaced in 21.4 log10(1 + 0.00437 f)."""
    first, last = (math.log10(1 + 4.37e-3 * f) for f in (low, high))
    return (10 ** torch.linspace(first, last, bands, dtype=torch.float64) - 1) / 4.37e-3


def geometric_centres(bands: int, low: float, high: float) -> Tensor:
    """(bands,) Hz; the ratio of neighbours is constant."""
    return low * (high / low) ** (torch.arange(bands, dtype=torch.float64) / max(bands - 1, 1))


def constant_q_responses(length: int, rate: int, bands: int, low: float, high: float) -> Tensor:
    """(bands, length) complex responses over the frequencies of an FFT: conjugate kernels exp(2 pi i c t) under a Hann
    window of Q / c seconds whose absolute values sum to one, Q = 1 / (ratio of neighbours - 1) (Brown, 1991)."""
    centres = geometric_centres(bands, low, high)
    q = longest_constant_q(1, bands, low, high) * low
    responses = torch.empty(bands, length, dtype=torch.complex64)
    for row, centre in zip(responses, centres.tolist(), strict=True):
        samples = max(math.ceil(q * rate / centre), 2)
        time = torch.arange(samples, dtype=torch.float64) - samples // 2
        window = torch.hann_window(samples, dtype=torch.float64)
        kernel = torch.polar(window / window.sum(), 2 * math.pi * centre / rate * time)
        whole = torch.zeros(length, dtype=torch.complex128)
        whole[time.long() % length] = kernel
        row.copy_(torch.fft.fft(whole))
    return responses


def longest_constant_q(rate: int, bands: int, low: float, high: float) -> float:
    """Samples of the lowest band's kernel."""
    ratio = (high / low) ** (1 / max(bands - 1, 1))
    return rate / low / (ratio - 1)


MORLET_CYCLES = 6.0
"""Angular centre frequency of the mother wavelet: the usual choice, at which its mean is practically zero."""


def morlet_responses(length: int, rate: int, bands: int, low: float, high: float) -> Tensor:
    """(bands, length) responses of Morlet wavelets over the frequencies of an FFT, exp(-(6 (f / c - 1))^2 / 2) for
    f > 0, so that a sine at a band's centre has half its amplitude as modulus (Torrence and Compo, 1998)."""
    frequencies = torch.fft.fftfreq(length, 1 / rate, dtype=torch.float64)
    centres = geometric_centres(bands, low, high)[:, None]
    responses = torch.exp(-0.5 * (MORLET_CYCLES * (frequencies / centres - 1)) ** 2)
    return (responses * (frequencies > 0)).to(torch.complex64)


def longest_morlet(rate: int, low: float) -> float:
    """Samples within which the lowest band's wavelet falls to one thousandth on both sides."""
    deviation = MORLET_CYCLES / (2 * math.pi * low)
    return 2 * 3.72 * deviation * rate


def blocks(bank: Tensor) -> list[tuple[slice, slice]]:
    """Bins and bands of the parts of a bank (bins, bands) outside of which it is zero, up to BLOCKS of them: of a mel
    bank they hold a quarter of the products."""
    found = []
    for bands in torch.arange(bank.shape[1]).chunk(BLOCKS):
        columns = slice(int(bands[0]), int(bands[-1]) + 1)
        used = bank[:, columns].any(dim=1).nonzero()[:, 0].tolist() or [0]
        found.append((slice(used[0], used[-1] + 1), columns))
    return found


class Spectrogram(torchaudio.transforms.Spectrogram):
    """A module that computes a spectrogram with a Hann window: (..., N) -> (..., bins, frames)."""

    def __init__(self, fft: int, win_length: int, hop: int, pad: int, power: float, periodic: bool = True):
        super().__init__(
            n_fft=fft,
            win_length=win_length or fft,
            hop_length=hop,
            pad=max(pad, 0),
            power=None,
            center=pad < 0,
            wkwargs={"periodic": periodic},
        )
        self.exponent = power

    def forward(self, audio: Tensor) -> Tensor:
        spectrum = super().forward(audio)
        if self.exponent == 2:  # a third of the time that the root, and its square, take on a CPU
            return spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
        return spectrum.abs() if self.exponent == 1 else spectrum.abs() ** self.exponent


def _triangles(positions: Tensor, edges: Tensor) -> Tensor:
    """(bins, bands): 0 at a band's outer edges, 1 at its middle one."""
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (positions[:, None] - left) / (middle - left)
    falling = (right - positions[:, None]) / (right - middle)
    return torch.minimum(rising, falling).clamp(min=0)


def _htk(frequency: float) -> float:
    return 2595 * math.log10(1 + frequency / 700)


def _hertz_to_htk(frequency: Tensor) -> Tensor:
    return 2595 * torch.log10(1 + frequency / 700)


def _bark(frequency: float) -> float:
    return 26.81 * frequency / (1960 + frequency) - 0.53
