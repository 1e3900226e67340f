"""Front ends against librosa, torchaudio, SciPy and closed formulas; each test states its tolerance."""

import math
from dataclasses import replace

import librosa
import numpy as np
import pytest
import scipy.signal
import torch
import torchaudio

from avsc_e2e.clip import Clip
from avsc_e2e.models import filterbanks, frontend
from avsc_e2e.models.architecture import Architecture
from avsc_e2e.models.frontend import FrontEnd, cut, delta, mix
from avsc_e2e.models.scenenet import SceneNet
from avsc_e2e.models.zoo import frontends, own
from avsc_e2e.transforms.batch import SpecAugment

ONE = Architecture(channels="mono", video="")


def sound(rate: int = 48_000, seconds: float = 1.0, channels: int = 1, seed: int = 0) -> torch.Tensor:
    """(1, C, N): noise falling with frequency and a rising tone, about as loud as a scene."""
    generator = np.random.default_rng(seed)
    count = round(rate * seconds)
    spectrum = np.fft.rfft(generator.standard_normal((channels, count))) / np.sqrt(1 + np.arange(count // 2 + 1))
    time = np.arange(count) / rate
    tone = np.sin(2 * np.pi * (200 + 1500 * time / seconds) * time)
    waveform = np.fft.irfft(spectrum, count)
    return torch.from_numpy(0.1 * waveform / waveform.std() + 0.05 * tone).float()[None]


def planes(architecture: Architecture, audio: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return FrontEnd(architecture).planes(audio)[0].numpy()


# ---- Short-time spectra


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("area_norm", [True, False])
def test_mel_bank_is_librosas(scale, area_norm):
    ours = filterbanks.mel_bank(1025, 48_000, 128, 20.0, 24_000.0, scale, area_norm)
    theirs = librosa.filters.mel(
        sr=48_000,
        n_fft=2048,
        n_mels=128,
        fmin=20,
        fmax=24_000,
        htk=scale == "htk",
        norm="slaney" if area_norm else None,
    )
    np.testing.assert_allclose(ours.numpy().T, theirs, atol=1e-4 * theirs.max())


def test_default_is_torchaudios_log_mel_power():
    """What checkpoints of the first versions were trained on. Tolerance: none but rounding."""
    audio = sound()
    mel = torchaudio.transforms.MelSpectrogram(
        48_000, n_fft=2048, hop_length=480, n_mels=128, f_min=20.0, f_max=24_000.0, norm="slaney"
    )
    np.testing.assert_allclose(planes(ONE, audio), torch.log(mel(audio[0]) + 1e-7).numpy(), atol=1e-5)


@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize(("scale", "log"), [("htk", "ln"), ("slaney", "db")])
def test_log_mel_is_librosas(power, scale, log):
    """Within 1e-3 of a neper or 5e-3 dB."""
    audio = sound()
    arch = replace(ONE, scale=scale, power=power, log=log, bands=64, win_length=1920, floor=1e-10)
    theirs = librosa.feature.melspectrogram(
        y=audio[0, 0].numpy(), sr=48_000, n_fft=2048, win_length=1920, hop_length=480, power=power, n_mels=64,
        fmin=20.0, fmax=24_000.0, htk=scale == "htk", norm="slaney", pad_mode="reflect",
    )  # fmt: skip
    theirs = np.log(theirs + 1e-10) if log == "ln" else librosa.power_to_db(theirs, top_db=None)
    np.testing.assert_allclose(planes(arch, audio)[0], theirs, atol=1e-3 if log == "ln" else 5e-3)


def test_pann_is_librosas():
    """Within 5e-3 dB of the published front end's terms: Slaney mel, 10 log10 of at least 1e-10."""
    audio = sound(32_000)
    theirs = librosa.feature.melspectrogram(
        y=audio[0, 0].numpy(),
        sr=32_000,
        n_fft=1024,
        hop_length=320,
        n_mels=64,
        fmin=50,
        fmax=14_000,
        pad_mode="reflect",
    )
    ours = planes(Architecture(**frontends.PANN, video=""), audio)
    assert ours.shape == (1, 64, 101)
    np.testing.assert_allclose(ours[0], librosa.power_to_db(theirs, amin=1e-10, top_db=None), atol=5e-3)


def test_openl3_mel256():
    """Within 0.01 dB of the formula on frames made one by one."""
    audio = sound()
    padded = np.pad(audio[0, 0].double().numpy(), 982)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    frames = np.stack([padded[start : start + 2048] * window for start in range(0, len(padded) - 2047, 242)])
    mel = librosa.filters.mel(sr=48_000, n_fft=2048, n_mels=256, fmin=0, fmax=24_000, htk=True, norm="slaney")
    amplitude = np.sqrt(np.abs(np.fft.rfft(frames)) ** 2 @ mel.T.astype(np.float64)).T
    decibel = 10 * np.log10(np.maximum(amplitude, 1e-10))
    theirs = np.maximum(decibel - decibel.max(), -80)
    ours = planes(Architecture(**frontends.OPENL3_MEL256, video=""), audio)
    assert ours.shape == (1, 256, 199)
    np.testing.assert_allclose(ours[0], theirs, atol=0.01)
    assert ours.max() == 0
    assert ours.min() == -80  # its lowest filters lie between two bins


def test_mcdonnell():
    """Within 2e-3 nepers of librosa's log-mels and the formula of the published differences."""
    audio = sound(channels=2)
    log_mel = np.stack(
        [
            np.log(
                librosa.feature.melspectrogram(
                    y=ear,
                    sr=48_000,
                    n_fft=2048,
                    hop_length=1024,
                    n_mels=128,
                    fmin=0,
                    fmax=24_000,
                    htk=True,
                    norm=None,
                    pad_mode="reflect",
                )
                + 1e-8
            )
            for ear in audio[0].numpy()
        ]
    )

    def slope(x):
        near = (x[..., 2:] - x[..., :-2]) / 10
        return near[..., 1:-1] + (x[..., 4:] - x[..., :-4]) / 5

    first, second = slope(log_mel), slope(slope(log_mel))
    theirs = np.concatenate([log_mel[..., 4:-4], first[..., 2:-2], second])
    ours = planes(Architecture(**frontends.MCDONNELL, video=""), audio)
    assert ours.shape == (6, 128, 39)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


@pytest.mark.parametrize(("front", "floor"), [(frontends.VGGISH, 0.01), (frontends.YAMNET, 0.001)])
def test_vggish_and_yamnet(front, floor):
    """Within 1e-3 nepers of windows of 25 ms every 10 ms, and triangles over mels, band by band."""
    audio = sound(16_000)
    waveform = audio[0, 0].double().numpy()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.stack([waveform[start : start + 400] * window for start in range(0, len(waveform) - 399, 160)])
    magnitude = np.abs(np.fft.rfft(frames, 512))
    mel = 1127 * np.log(1 + np.linspace(0, 8000, 257) / 700)
    edges = np.linspace(1127 * math.log(1 + 125 / 700), 1127 * math.log(1 + 7500 / 700), 66)
    theirs = np.empty((64, len(frames)))
    for band in range(64):
        lower, centre, upper = edges[band : band + 3]
        weight = np.maximum(0, np.minimum((mel - lower) / (centre - lower), (upper - mel) / (upper - centre)))
        weight[0] = 0
        theirs[band] = np.log(magnitude @ weight + floor)
    ours = planes(Architecture(**front, video=""), audio)
    assert ours.shape == (1, 64, 98)
    np.testing.assert_allclose(ours[0], theirs, atol=1e-3)


def test_bark_bank():
    """Within 1e-5 of the triangles between Traunmüller's Bark, band by band."""
    bark = lambda f: 26.81 * f / (1960 + f) - 0.53  # noqa: E731
    ours = filterbanks.bark_bank(1025, 48_000, 40, 20.0, 20_000.0, area_norm=False).numpy()
    frequencies = np.arange(1025) * 48_000 / 2048
    edges = []  # by bisection, not by the inverse formula
    for step in np.linspace(bark(20.0), bark(20_000.0), 42):
        low, high = 0.0, 24_000.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if bark(middle) < step else (low, middle)
        edges.append(low)
    for band in range(40):
        theirs = np.interp(frequencies, edges[band : band + 3], [0, 1, 0])
        np.testing.assert_allclose(ours[:, band], theirs, atol=1e-5)
    areas = filterbanks.bark_bank(65_537, 48_000, 40, 20.0, 20_000.0, area_norm=True).sum(0) * 24_000 / 65_536
    np.testing.assert_allclose(areas, 1.0, rtol=1e-3)


def test_gammatone_bank():
    """Within 0.04 of the squared response of SciPy's digital gammatone filters (Slaney's design)."""
    bins = 4097
    ours = filterbanks.gammatone_bank(bins, 48_000, 64, 50.0, 22_000.0, area_norm=False).numpy()
    frequencies = np.linspace(0, 24_000, bins)
    centres = filterbanks.erb_centres(64, 50.0, 22_000.0).numpy()
    assert centres[0] == pytest.approx(50)
    assert centres[-1] == pytest.approx(22_000)
    steps = 21.4 * np.log10(1 + 0.00437 * centres)
    np.testing.assert_allclose(np.diff(steps), np.diff(steps)[0], rtol=1e-9)
    for band in (10, 25, 40, 50):
        numerator, denominator = scipy.signal.gammatone(centres[band], "iir", fs=48_000)
        response = np.abs(scipy.signal.freqz(numerator, denominator, frequencies, fs=48_000)[1]) ** 2
        np.testing.assert_allclose(ours[:, band], response / response.max(), atol=0.04)
    areas = filterbanks.gammatone_bank(bins, 48_000, 64, 50.0, 22_000.0, area_norm=True)[:, 20:40].sum(0)
    np.testing.assert_allclose(areas * 24_000 / (bins - 1), 1.0, rtol=5e-3)


# ---- Filters over the whole clip


def test_constant_q_is_librosas():
    """A median within 2 % and 95 % of all values within 10 % of librosa's, which resamples from octave to octave."""
    arch = replace(ONE, features="constant_q", bands=60, low=110.0, high=110.0 * 2 ** (59 / 12), hop=512, power=1.0)
    audio = sound(seconds=3.0)
    ours = FrontEnd(arch).bank(audio)[0, 0].numpy()
    theirs = np.abs(
        librosa.cqt(
            audio[0, 0].numpy(),
            sr=48_000,
            hop_length=512,
            fmin=110.0,
            n_bins=60,
            bins_per_octave=12,
            tuning=0.0,
            sparsity=0.0,
            res_type="soxr_vhq",
        )
    )
    # librosa's rows are scaled by the root of their filters' lengths.
    lengths, _ = librosa.filters.wavelet_lengths(freqs=filterbanks.geometric_centres(60, 110.0, arch.high), sr=48_000)
    theirs = theirs / np.sqrt(lengths)[:, None]
    assert ours.shape == theirs.shape == (60, 1 + 3 * 48_000 // 512)
    inside = slice(20, -20)  # the ends are padded differently
    error = np.abs(ours - theirs)[:, inside] / theirs[:, inside].mean(axis=1, keepdims=True)
    assert np.median(error) < 0.02
    assert np.quantile(error, 0.95) < 0.1


def test_scalogram_is_the_convolution_with_morlets():
    """Within 1 % of the formula in the time domain, at each sampled instant of a hop, on average over it."""
    rate, hop = 16_000, 160
    arch = replace(ONE, sample_rate=rate, features="wavelet", bands=5, low=200.0, high=3200.0, hop=hop)
    audio = sound(rate, 0.5)
    bank = FrontEnd(arch).bank
    ours = bank(audio)[0, 0].numpy()
    assert ours.shape == (5, 51)
    waveform = audio[0, 0].double().numpy()
    for band, centre in enumerate((200, 400, 800, 1600, 3200)):
        deviation = 6 / (2 * np.pi * centre)
        reach = round(5 * deviation * rate)
        time = np.arange(-reach, reach + 1) / rate
        # The inverse transform of exp(-(6 (f / c - 1))^2 / 2).
        wavelet = centre / 6 * np.sqrt(2 * np.pi) * np.exp(-((time / deviation) ** 2) / 2 + 2j * np.pi * centre * time)
        power = np.abs(np.convolve(waveform, wavelet / rate, "same")) ** 2
        for frame in (10, 25, 40):
            instants = frame * hop - hop // 2 + hop // bank.instants * np.arange(bank.instants)
            assert ours[band, frame] == pytest.approx(power[instants].mean(), rel=0.01)


@pytest.mark.parametrize("features", ["constant_q", "wavelet"])
@pytest.mark.parametrize("frequency", [440.0, 3000.0, 12_000.0])
def test_a_sine_stands_in_its_band(features, frequency):
    arch = replace(ONE, features=features, bands=96, low=55.0, high=20_000.0, power=1.0)
    audio = torch.sin(2 * math.pi * frequency * torch.arange(48_000) / 48_000)[None, None]
    found = FrontEnd(arch).bank(audio)[0, 0, :, 20:-20].mean(dim=1)
    centres = filterbanks.geometric_centres(96, 55.0, 20_000.0)
    assert int(found.argmax()) == int((centres / frequency).log().abs().argmin())
    # Half of the amplitude, the other half is at -f; halfway between two bands a Hann window loses 15 %.
    assert found.max() == pytest.approx(0.5, rel=0.16)


def test_filters_follow_the_clips_length():
    arch = replace(ONE, features="wavelet", bands=16, low=100.0, high=8000.0)
    front = FrontEnd(arch)
    audio = sound(seconds=2.0)
    short = front.planes(audio[..., :48_000])
    long = front.planes(audio)
    assert short.shape[-1] == 101
    assert long.shape[-1] == 201
    torch.testing.assert_close(short[..., 10:-10], long[..., 10:91], atol=0.05, rtol=0.01)


# ---- Channels, differences, windows, statistics


def test_channel_modes():
    audio = torch.tensor([[[1.0, 2.0], [3.0, -2.0]]])
    assert mix(audio, "mono").tolist() == [[[2.0, 0.0]]]
    assert mix(audio, "stereo").tolist() == audio.tolist()
    assert mix(audio, "mid_side").tolist() == [[[2.0, 0.0], [-1.0, 2.0]]]
    assert mix(audio, "left_right_difference").tolist() == [[[1.0, 2.0], [3.0, -2.0], [-2.0, 4.0]]]


def test_delta_is_librosas():
    x = torch.randn(2, 3, 40)
    theirs = librosa.feature.delta(x.numpy(), width=5, order=1)
    np.testing.assert_allclose(delta(x).numpy(), theirs[..., 2:-2], atol=1e-5)


@pytest.mark.parametrize(("seconds", "count"), [(1, 6), (10, 96), (0.2, 1)])
def test_windows_are_centred_on_tenths_of_a_second(seconds, count):
    rate = 1000
    audio = torch.arange(round(seconds * rate), dtype=torch.float32).expand(1, 2, -1)
    windows = cut(audio, rate, rate // 10)
    assert windows.shape == (1, count, 2, rate)
    assert windows[0, :, 0, rate // 2].tolist() == [100 * index for index in range(count)]


@pytest.mark.parametrize("deltas", [0, 1, 2])
@pytest.mark.parametrize("log", ["ln", "db"])
def test_statistics(deltas, log):
    torch.manual_seed(0)
    arch = replace(ONE, channels="mid_side", bands=16, deltas=deltas, log=log)
    front = FrontEnd(arch)
    batches = [torch.cat([sound(channels=2, seed=4 * b + i) for i in range(4)]) for b in range(2)]
    for batch in batches:
        batch[:, 1] = batch[:, 0]  # a mono recording: the difference is silent
    front.fit(batches)
    found = torch.cat([front(batch) for batch in batches])
    assert found.shape[1] == arch.planes == 2 * (1 + deltas)
    assert found.isfinite().all()
    mid = found[:, ::2]
    torch.testing.assert_close(mid.mean(dim=(0, 3)), torch.zeros(mid.shape[1:3]), atol=1e-3, rtol=0)
    assert (mid.std(dim=(0, 3)) > 0.1).all()  # stationary noise has less than the least deviation
    assert (mid.std(dim=(0, 3)) < 1.01).all()
    assert found[:, 1].abs().max() < 1e-3  # and is not blown up to noise
    for order in range(1 + deltas):  # least deviations, of levels and of their slopes
        least = (2.0 if log == "db" else 0.5) * 0.1**order
        torch.testing.assert_close(front.std[1 + 2 * order], torch.full((16, 1), least))
    torch.testing.assert_close(front.undo(found[:4]), front.planes(batches[0]), atol=1e-3, rtol=1e-3)


def test_statistics_travel_and_filters_do_not():
    assert set(FrontEnd(ONE).state_dict()) == {"mean", "std"}
    assert set(FrontEnd(replace(ONE, features="wavelet")).state_dict()) == {"mean", "std"}


def test_windows_get_planes_of_their_own():
    arch = replace(Architecture(**frontends.OPENL3_MEL256, video=""), audio_window=1.0, bands=32)
    audio = sound(seconds=1.0)
    front = FrontEnd(arch)
    found = front(audio)
    assert found.shape == (1, 6, 1, 32, 199)
    last = FrontEnd(replace(arch, audio_window=0.0))(torch.cat([audio, audio], dim=2)[..., :48_000])
    first_half = torch.cat([torch.zeros(1, 1, 24_000), audio[..., :24_000]], dim=2)
    torch.testing.assert_close(found[:, 0], FrontEnd(replace(arch, audio_window=0.0))(first_half))
    torch.testing.assert_close(found[:, 5], last)
    front.fit([torch.cat([audio, audio])])
    assert front.mean.shape == (1, 32, 1)


def test_masks_are_the_same_in_all_windows():
    torch.manual_seed(0)
    empty = torch.zeros(2, 1, 3, 0, 0)
    clip = Clip(torch.ones(2, 6, 1, 32, 40), empty, torch.zeros(2), torch.ones(2, 2, dtype=torch.bool), "", 0.0)
    masked = SpecAugment(0.3, 0.3)(clip).audio
    assert masked.shape == clip.audio.shape
    assert 0 < masked.mean() < 1
    assert (masked == masked[:, :1]).all()


def test_trunks_with_published_weights_hear_raw_planes():
    """Augmentation sees standardised planes; undone before the trunk, they are what the weights know."""
    arch = replace(Architecture(**frontends.OPENL3_MEL256, video=""), audio="audio_test", bands=32)
    torch.manual_seed(0)
    model = SceneNet(arch).eval()
    audio = sound()
    model.frontend.fit([audio])
    clip = Clip(audio, torch.zeros(1, 1, 3, 0, 0), torch.zeros(1), torch.tensor([[True, False]]), [""], 0.0)
    with torch.no_grad():
        embedding = model.branches(model.preprocess(clip))["audio"].embedding
        expected = model.audio(model.frontend.planes(audio))
    torch.testing.assert_close(embedding, expected, atol=1e-4, rtol=1e-3)


def test_autocast_does_not_reach_the_front_end():
    torch.manual_seed(0)
    model = SceneNet(replace(own.tiny(), video="")).eval()
    clip = Clip(sound(channels=2), torch.zeros(1, 1, 3, 0, 0), torch.zeros(1), torch.tensor([[True, False]]), [""], 0.0)
    expected = model.preprocess(clip).audio
    with torch.autocast("cpu", torch.bfloat16):
        found = model.preprocess(clip).audio
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_powers_of_a_spectrum_are_torchaudios(power):
    noise = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    theirs = torchaudio.transforms.Spectrogram(n_fft=512, hop_length=160, power=power)(noise)
    torch.testing.assert_close(filterbanks.Spectrogram(512, 0, 160, -1, power)(noise), theirs, rtol=1e-5, atol=1e-5)


def test_the_blocks_of_a_bank_hold_all_of_it():
    mel = filterbanks.mel_bank(1025, 48_000, 64, 0.0, 24_000.0, "slaney", True)
    for bank in (mel, torch.ones(33, 7), torch.zeros(9, 2)):
        held = torch.zeros_like(bank)
        for place in filterbanks.blocks(bank):
            held[place] = bank[place]
        assert torch.equal(held, bank)
        covered = [band for _, bands in filterbanks.blocks(bank) for band in range(bands.start, bands.stop)]
        assert covered == [*range(bank.shape[1])]
    assert sum(mel[place].numel() for place in filterbanks.blocks(mel)) < 0.3 * mel.numel()


def test_a_batch_is_computed_in_blocks(monkeypatch):
    """A CPU is given few clips at a time, whose planes are those of the whole batch, bit for bit."""
    front, seen = FrontEnd(ONE), []
    front.bank.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    audio = torch.cat([sound(seed=seed) for seed in range(5)])
    found = front.planes(audio)
    assert seen == [2, 2, 1]
    monkeypatch.setattr(frontend, "AT_A_TIME", 10**9)
    assert torch.equal(front.planes(audio), found)
    assert seen == [2, 2, 1, 5]
