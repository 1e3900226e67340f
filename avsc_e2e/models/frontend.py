"""From waveforms to planes over bands and time frames, on the model's device, in float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from avsc_e2e.models import filterbanks
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.blockwise import in_blocks
from avsc_e2e.models.moments import Moments

INSTANTS = 16
"""A time frame of wavelet power is the mean of at most this many samples."""
AT_A_TIME = 100_000
"""Samples that a CPU is given at a time: its caches hold the spectra of about two seconds, and a batch takes two thirds
of the time (benchmarks/training.py)."""


class FrontEnd(nn.Module):
    """Logarithmic band energies of the channels and their deltas. Each plane and band is standardised by statistics of
    the training set, which `fit` computes and the checkpoint stores. (B, C, N) -> (B, P, bands, frames), or (B,
    windows, P, bands, frames) where the architecture cuts clips into windows.

    waveform -> channels -> |spectrum|^power -> bands^exponent -> logarithm -> deltas -> standardised
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = arch = architecture
        high = min(arch.high, arch.sample_rate / 2)
        with torch.device("cpu"):  # real tensors even when the rest of the model is on the meta device
            kinds: dict[str, Callable[[Architecture, float], nn.Module]] = {
                "constant_q": _WholeClip, "wavelet": _WholeClip, "fbank": _Frames
            }  # fmt: skip
            kind = kinds.get(arch.features, _ShortTime)
            self.bank = bank = kind(arch, high)
        # Windows and filters follow from the architecture, so checkpoints do not store them.
        for module in bank.modules():
            module._non_persistent_buffers_set.update(module._buffers)
        mean, std = (-40.0, 20.0) if arch.log == "db" else (-8.0, 3.0)
        orders = torch.arange(arch.planes) // (arch.planes // (1 + arch.deltas))
        self.register_buffer("mean", torch.where(orders == 0, mean, 0.0)[:, None, None].repeat(1, arch.bands, 1))
        self.register_buffer("std", (std * 0.1**orders)[:, None, None].repeat(1, arch.bands, 1))
        if arch.waveform:  # waveform samples have a mean of about zero already
            self.mean, self.std = pad(self.mean, (0, 0, 0, arch.hop)), pad(self.std, (0, 0, 0, arch.hop), value=1.0)

    def forward(self, audio: Tensor) -> Tensor:
        return (self.planes(audio) - self.mean) / self.std

    def shape(self) -> tuple[int, ...]:
        """Shape of the planes of one clip. It is found by computing them, even when the rest of the model is on the
        meta device."""
        arch = self.architecture
        with torch.device("cpu"):
            noise = torch.randn(1, arch.input_channels, round(arch.window * arch.sample_rate))
            return tuple(self.planes(noise).shape[1:])

    def undo(self, planes: Tensor) -> Tensor:
        """Reverse the standardisation of planes."""
        return planes * self.std + self.mean

    def planes(self, audio: Tensor) -> Tensor:
        """Planes of waveforms (B, C, N), not standardised."""
        arch = self.architecture
        if arch.audio_window:
            windows = cut(audio, round(arch.audio_window * arch.sample_rate), round(arch.audio_hop * arch.sample_rate))
            return self._in_blocks(windows.flatten(0, 1)).unflatten(0, windows.shape[:2])
        return self._in_blocks(audio)

    def _in_blocks(self, audio: Tensor) -> Tensor:
        return in_blocks(self._planes, audio, max(AT_A_TIME // max(math.prod(audio.shape[1:]), 1), 1))

    def _planes(self, audio: Tensor) -> Tensor:
        arch = self.architecture
        planes = self._bands(audio)
        return torch.cat([planes, hops(mix(audio, arch.channels), arch.hop)], dim=2) if arch.waveform else planes

    def _bands(self, audio: Tensor) -> Tensor:
        arch = self.architecture
        energies = self.bank(mix(audio, arch.channels))
        if arch.exponent != 1:
            energies = energies**arch.exponent
        if arch.log == "ln":
            planes = torch.log(energies + arch.floor)
        elif arch.log == "ln_max":
            planes = torch.log(energies.clamp(min=arch.floor))
        else:
            planes = 10 * torch.log10(energies.clamp(min=arch.floor))
            if arch.dynamic_range:
                planes = (planes - planes.amax(dim=(1, 2, 3), keepdim=True)).clamp(min=-arch.dynamic_range)
        orders = [planes]
        for _ in range(arch.deltas):
            orders = [order[..., 2:-2] for order in orders] + [delta(orders[-1])]
        planes = torch.cat(orders, dim=1)
        if arch.rescale:
            least, greatest = planes.amin(dim=(1, 2, 3), keepdim=True), planes.amax(dim=(1, 2, 3), keepdim=True)
            planes = 2 * (planes - least) / (greatest - least).clamp(min=1e-12) - 1
        return planes

    @torch.no_grad()
    def fit(self, waveforms: Iterable[Tensor]) -> None:
        """Compute the mean and deviation of each band from batches (B, C, N)."""
        moments = Moments()
        for audio in waveforms:
            moments.add(self.planes(audio.float().to(self.mean.device)).flatten(0, -4).movedim(-1, 1).flatten(0, 1))
        # A silent plane (the difference of a mono recording) must not be amplified to noise.
        least_level = 2.0 if self.architecture.log == "db" else 0.5
        order = torch.arange(len(self.std)) // (len(self.std) // (1 + self.architecture.deltas))
        least = (least_level * 0.1**order)[:, None].to(self.std)
        self.mean.copy_(moments.mean[..., None])
        self.std.copy_(torch.maximum(moments.std.to(least), least)[..., None])


class _ShortTime(nn.Module):
    """Bands of a short-time spectrum: (B, P, N) -> (B, P, bands, frames)."""

    def __init__(self, arch: Architecture, high: float):
        super().__init__()
        self.preemphasis = arch.preemphasis
        self.spectrogram = filterbanks.Spectrogram(
            arch.fft, arch.win_length, arch.hop, arch.pad, arch.power, periodic=arch.taper == "hann"
        )
        shape = (arch.fft // 2 + 1, arch.sample_rate, arch.bands, arch.low, high)
        if arch.features == "log_mel":
            weights = filterbanks.mel_bank(*shape, arch.scale, arch.area_norm)
        else:
            bank = {"bark": filterbanks.bark_bank, "gammatone": filterbanks.gammatone_bank}[arch.features]
            weights = bank(*shape, arch.area_norm)
        if arch.sum_norm:
            weights = weights / weights.sum(dim=0).clamp(min=1e-12)
        self.register_buffer("weights", weights)
        self.blocks = filterbanks.blocks(weights)

    def forward(self, audio: Tensor) -> Tensor:
        if self.preemphasis:
            audio = audio[..., 1:] - self.preemphasis * audio[..., :-1]
        spectrum = self.spectrogram(audio).transpose(-1, -2)
        if spectrum.is_cuda:  # one product is quicker there than several small ones
            return torch.matmul(spectrum, self.weights).transpose(-1, -2)
        parts = [torch.matmul(spectrum[..., bins], self.weights[bins, bands]) for bins, bands in self.blocks]
        return torch.cat(parts, dim=-1).transpose(-1, -2)


class _Frames(nn.Module):
    """Mel bands of whole frames as Kaldi's fbank computes them without dither: the mean of each frame is subtracted,
    then each frame is pre-emphasised by itself. (B, P, N) -> (B, P, bands, frames)."""

    def __init__(self, arch: Architecture, high: float):
        super().__init__()
        self.arch = arch
        self.length = arch.win_length or arch.fft
        window = torch.hann_window(self.length, periodic=arch.taper == "hann")
        self.register_buffer("window", window**0.85 if arch.taper == "povey" else window)
        shape = (arch.fft // 2 + 1, arch.sample_rate, arch.bands, arch.low, high)
        self.register_buffer("weights", filterbanks.mel_bank(*shape, "vggish", area_norm=False))

    def forward(self, audio: Tensor) -> Tensor:
        frames = audio.unfold(-1, self.length, self.arch.hop)
        frames = frames - frames.mean(dim=-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        frames = (frames - self.arch.preemphasis * before) * self.window
        spectrum = torch.fft.rfft(frames, self.arch.fft).abs() ** self.arch.power
        return torch.matmul(spectrum, self.weights).transpose(-1, -2)


class _WholeClip(nn.Module):
    """|response of a filter|^power, each filter applied to the whole clip through its Fourier transform: (B, P, N) ->
    (B, P, bands, 1 + N // hop). Frames are centred on multiples of the hop. A constant-Q frame is one sample of the
    response. A wavelet frame is the mean over its hop, because the shortest wavelets are shorter than a hop."""

    responses: Tensor

    def __init__(self, arch: Architecture, high: float):
        super().__init__()
        self.arch, self.high = arch, high
        self.instants = 1
        if arch.features == "wavelet":
            self.instants = math.gcd(arch.hop, 2 ** math.floor(math.log2(INSTANTS)))
        self.register_buffer("responses", torch.empty(0, dtype=torch.complex64))

    def _prepare(self, length: int, device: torch.device) -> None:
        """Filters for a clip of `length` samples, padded for the longest filter so that the ends of the clip do not
        mix."""
        arch, high = self.arch, self.high
        if arch.features == "constant_q":
            longest = filterbanks.longest_constant_q(arch.sample_rate, arch.bands, arch.low, high)
        else:
            longest = filterbanks.longest_morlet(arch.sample_rate, arch.low)
        frames = 1 + length // arch.hop
        total = (frames + math.ceil(longest / arch.hop)) * arch.hop
        if self.responses.shape[-1] != total or self.responses.device != device:
            make = {"constant_q": filterbanks.constant_q_responses, "wavelet": filterbanks.morlet_responses}
            made = make[arch.features](total, arch.sample_rate, arch.bands, arch.low, high)
            self.responses = made.to(device)

    def forward(self, audio: Tensor) -> Tensor:
        arch = self.arch
        self._prepare(audio.shape[-1], audio.device)
        total = self.responses.shape[-1]
        lead = arch.hop // 2 if self.instants > 1 else 0  # a mean over a hop is centred on its frame
        clip = pad(audio, (lead, total - audio.shape[-1] - lead))
        spectrum = torch.fft.fft(clip)
        # Only every `step`-th sample is needed: folding the spectrum gives just these (decimation in time).
        step = arch.hop // self.instants
        frames = []
        for one in spectrum:  # one clip at a time: all bands at full rate need much memory
            folded = (one[:, None] * self.responses).unflatten(-1, (step, total // step)).sum(dim=-2) / step
            energy = torch.fft.ifft(folded).abs() ** arch.power
            frames.append(energy.unflatten(-1, (-1, self.instants)).mean(dim=-1))
        return torch.stack(frames)[..., : 1 + audio.shape[-1] // arch.hop]


def mix(audio: Tensor, channels: str) -> Tensor:
    """(B, C, N) -> (B, P, N) by the channel mode; "mid_side" is average and half the difference of left and right."""
    if channels == "mono":
        return audio.mean(dim=1, keepdim=True)
    left, right = audio[:, :1], audio[:, 1:2]
    if channels == "mid_side":
        return torch.cat([(left + right) / 2, (left - right) / 2], dim=1)
    if channels == "left_right_difference":
        return torch.cat([left, right, left - right], dim=1)
    return audio


def hops(audio: Tensor, hop: int) -> Tensor:
    """(B, P, N) -> (B, P, hop, 1 + N // hop): the samples from each frame of a centred spectrum to the next, the last
    padded with zeros."""
    frames = 1 + audio.shape[-1] // hop
    return pad(audio, (0, frames * hop - audio.shape[-1])).unflatten(-1, (frames, hop)).transpose(-1, -2)


def delta(planes: Tensor) -> Tensor:
    """Slope over 5 frames by least squares, without padding: (..., frames) -> (..., frames - 4)."""
    near = planes[..., 3:-1] - planes[..., 1:-3]
    far = planes[..., 4:] - planes[..., :-4]
    return (near + 2 * far) / 10


def cut(audio: Tensor, window: int, hop: int) -> Tensor:
    """Windows of `window` samples every `hop`, the first centred on the clip's start: (B, C, N) -> (B, S, C, window).
    One second makes 6 windows of a second every 0.1 s, ten seconds 96 (OpenL3)."""
    audio = pad(audio, (window // 2, max(window // 2 - audio.shape[-1], 0)))
    return audio.unfold(-1, window, hop).transpose(1, 2)
