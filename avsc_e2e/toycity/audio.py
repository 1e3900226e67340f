"""The six kinds of audio of the toy city: engines, rails, voices, announcements, music, an electric motor."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.random import Generator

SAMPLE_RATE = 48_000
"""Hz, as in the real set."""


def synthesise(kind: str, duration: float, city: Generator, place: Generator, clip: Generator) -> np.ndarray:
    """`duration` seconds of one of the six kinds of audio, (N, 2) float32, by the draws of the city, the place and the
    clip."""
    length = round(duration * SAMPLE_RATE)
    play, (shortest, longest) = _KINDS[kind]
    dry = _Track(length)
    play(dry, city, place, clip)

    # One inverse transform gives the reverberated events and the ambience together.
    reverberation = place.uniform(shortest, longest)  # seconds to -60 dB
    tail = round(reverberation * SAMPLE_RATE)
    padded = -(-(length + tail) // 24_000) * 24_000
    response = place.standard_normal((2, tail), np.float32)
    response *= np.exp(-6.9 * np.arange(tail) / tail).astype(np.float32)
    response *= place.uniform(0.3, 0.8) / np.linalg.norm(response, axis=1, keepdims=True)
    response[:, 0] += 1
    events = np.fft.rfft(dry.samples, padded) * np.fft.rfft(response, padded)
    frequency = np.fft.rfftfreq(padded, 1 / SAMPLE_RATE).astype(np.float32)
    slope = place.uniform(0.5, 1.1)  # 0.5 is pink, 1 brown
    knee = city.uniform(60, 160)
    shape = (1 + frequency / knee) ** -slope
    noise = clip.standard_normal((2, len(frequency), 2), np.float32).view(np.complex64)[..., 0] * shape
    signal_to_noise = 10 ** (place.uniform(8, 18) / 20)
    noise *= np.linalg.norm(events) / (np.linalg.norm(noise) * signal_to_noise)
    waveform = np.fft.irfft(events + noise, padded)[:, :length]

    balance = 10 ** (place.uniform(-2, 2, (2, 1)) / 20)
    waveform = waveform * balance
    level = 10 ** ((place.uniform(-34, -20) + clip.uniform(-2, 2)) / 20)
    waveform *= level / np.sqrt(np.mean(waveform**2))
    # Soft clipping, for a stray loud event.
    return np.tanh(waveform).T.astype(np.float32)


class _Track:
    """Two channels to which events are added, (2, N)."""

    def __init__(self, length: int):
        self.samples = np.zeros((2, length), np.float32)
        self.length = length
        self.duration = length / SAMPLE_RATE

    def add(self, event: np.ndarray, at: float, gain: float, pan: float) -> None:
        """Add a mono event at `at` seconds (it may begin before 0), `pan` from -1, left, to 1, right."""
        start = round(at * SAMPLE_RATE)
        first, stop = max(0, -start), min(len(event), self.length - start)
        if first < stop:
            for ear, weight in ((0, 1 - 0.7 * max(0.0, pan)), (1, 1 + 0.7 * min(0.0, pan))):
                self.samples[ear, start + first : start + stop] += (gain * weight) * event[first:stop]

    def curve(self, draws: Generator, low: float, high: float, knots_per_second: float = 1.0) -> np.ndarray:
        """A smooth random line between `low` and `high`, (N,)."""
        count = max(2, round(self.duration * knots_per_second) + 1)
        return np.interp(
            np.linspace(0, count - 1, self.length, dtype=np.float32), range(count), draws.uniform(low, high, count)
        ).astype(np.float32)


def _times(draws: Generator, duration: float, gap: float, jitter: float) -> Iterator[float]:
    """Times of events about every `gap` seconds."""
    at = draws.uniform(-gap, 0)
    while at < duration:
        yield at
        at += gap * draws.uniform(1 - jitter, 1 + jitter)


def _oscillator(frequency: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
    """A periodic wave of a changing frequency, Hz (N,), from the amplitudes of its partials."""
    table = np.fft.irfft(np.concatenate([[0], amplitudes * 1j ** np.arange(len(amplitudes))]), 1024)
    table = (table / np.sqrt(np.mean(table**2))).astype(np.float32)
    phase = np.cumsum(frequency, dtype=np.float64) * (1024 / SAMPLE_RATE)
    return table[phase.astype(np.int64) & 1023]


def _band(draws: Generator, seconds: float, low: float, high: float) -> np.ndarray:
    """Noise between two frequencies in Hz, root mean square 1, (N,)."""
    length = max(64, round(seconds * SAMPLE_RATE))
    frequency = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    shape = 1 / (1 + (low / np.maximum(frequency, 1)) ** 6) / (1 + (frequency / high) ** 6)
    spectrum = draws.standard_normal((len(frequency), 2)).view(np.complex128)[:, 0] * shape
    noise = np.fft.irfft(spectrum, length)
    return (noise / np.sqrt(np.mean(noise**2))).astype(np.float32)


def _decay(seconds: float, to_60_db: float) -> np.ndarray:
    return np.exp(-6.9 / (to_60_db * SAMPLE_RATE) * np.arange(round(seconds * SAMPLE_RATE), dtype=np.float32))


def _looped(noise: np.ndarray, length: int) -> np.ndarray:
    return np.resize(noise, length)


_VOWELS = np.array([(800, 1200, 2500), (300, 2300, 3000), (450, 800, 2600), (550, 1800, 2500), (350, 700, 2400)])


def _phrase(draws: Generator, pitch: float, seconds: float, rate: float = 4.5) -> np.ndarray:
    """Something like speech: voiced syllables with the formants of vowels, (N,)."""
    spoken: list[np.ndarray] = []
    while sum(map(len, spoken)) < seconds * SAMPLE_RATE:
        length = round(draws.uniform(0.7, 1.3) / rate * SAMPLE_RATE)
        rise = np.linspace(0, 1, length, dtype=np.float32)
        melody = pitch * draws.uniform(0.85, 1.2) * (1 - 0.12 * rise)
        partials = np.arange(1, 40) * pitch
        formants = _VOWELS[draws.integers(len(_VOWELS))] * draws.uniform(0.9, 1.1)
        gains = 0.02 + sum((1 / (1 + ((partials - f) / 110) ** 2) for f in formants), np.zeros(39))
        syllable = _oscillator(melody, gains * (partials < 5000)) * np.maximum(0, np.sin(np.pi * rise)) ** 0.7
        spoken.append(syllable)
        consonant = _band(draws, draws.uniform(0.03, 0.07), 2500, 7000)
        spoken.append(0.3 * consonant * np.hanning(len(consonant)).astype(np.float32))
    return np.concatenate(spoken)


def _engine(track: _Track, city: Generator, place: Generator, clip: Generator) -> None:
    """Combustion engines: low harmonics whose speed drifts, tyres and hiss that swell."""
    idle = place.uniform(26, 44)
    partials = np.arange(1, 48)
    for _ in range(2):
        amplitudes = partials ** -place.uniform(0.5, 0.9) * place.uniform(0.3, 1, len(partials))
        speed = track.curve(clip, idle, idle * 1.9, 0.8)
        motor = _oscillator(speed, amplitudes) * track.curve(clip, 0.6, 1.2)
        track.add(motor, 0, 1.0, place.uniform(-0.6, 0.6))
        idle *= place.uniform(1.1, 1.4)
    tyres = _looped(_band(place, 2.7, place.uniform(300, 500), place.uniform(1200, 2200)), track.length)
    track.add(tyres * track.curve(clip, 0.1, 1.0, 0.7) ** 2, 0, place.uniform(0.5, 1.1), clip.uniform(-0.8, 0.8))


def _rail(track: _Track, city: Generator, place: Generator, clip: Generator) -> None:
    """Steel wheels: rolling noise, joints in pairs, a squeal now and then."""
    rolling = _looped(_band(place, 2.7, 60, place.uniform(350, 600)), track.length)
    track.add(rolling * track.curve(clip, 0.5, 1.0), 0, 1.0, 0.0)
    wheel = _looped(_band(place, 2.3, 1800, place.uniform(2600, 3600)), track.length)
    track.add(wheel * track.curve(clip, 0.2, 0.5, 2), 0, 1.0, place.uniform(-0.5, 0.5))
    ring = place.uniform(700, 1100)
    clack = _band(place, 0.16, ring, ring * 3) * _decay(0.16, 0.11)
    thud = _band(place, 0.2, 40, 140) * _decay(0.2, 0.16)
    gap, apart = place.uniform(0.55, 0.8), place.uniform(0.1, 0.16)
    for at in _times(clip, track.duration, gap, 0.08):
        for beat in (0.0, apart):
            track.add(clack, at + beat, clip.uniform(3.5, 5.5), 0.0)
            track.add(thud, at + beat, clip.uniform(2.5, 4), 0.0)
    for at in _times(clip, track.duration, 2.5, 0.5):
        seconds = clip.uniform(0.4, 0.9)
        pitch = np.full(round(seconds * SAMPLE_RATE), place.uniform(3200, 5200)) * clip.uniform(0.97, 1.03)
        squeal = _oscillator(pitch, np.array([1, 0.4])) * np.hanning(len(pitch)).astype(np.float32)
        track.add(squeal, at, clip.uniform(0.1, 0.5), clip.uniform(-0.7, 0.7))


def _electric(track: _Track, city: Generator, place: Generator, clip: Generator) -> None:
    """Electric traction: the whine of the inverter that climbs and falls, hum, a bell."""
    base = place.uniform(380, 620)
    amplitudes = np.array([1, 0.5, 0.7, 0.2, 0.35, 0.1, 0.2]) * place.uniform(0.5, 1.2, 7)
    whine = _oscillator(track.curve(clip, base, base * 2.1, 0.6), amplitudes)
    track.add(whine * track.curve(clip, 0.6, 1.1), 0, 0.8, place.uniform(-0.5, 0.5))
    hum = _oscillator(np.full(track.length, 100.0), np.array([1, 0.8, 0.2, 0.4, 0.1, 0.2]))
    track.add(hum, 0, place.uniform(0.3, 0.7), 0.0)
    pitch = city.uniform(1100, 1700)
    bell = sum(
        _oscillator(np.full(36_000, pitch * ratio), np.array([1.0])) * _decay(0.75, ring) * loudness
        for ratio, ring, loudness in ((1, 0.9, 1), (2.03, 0.6, 0.7), (2.76, 0.45, 0.5), (4.1, 0.3, 0.4))
    )
    for at in _times(clip, track.duration, place.uniform(0.6, 0.85), 0.25):
        track.add(bell, at, clip.uniform(0.5, 1.1), clip.uniform(-0.4, 0.4))


def _announcements(track: _Track, city: Generator, place: Generator, clip: Generator) -> None:
    """A loudspeaker in a large hall: chimes and a voice, wheeled cases on the floor."""
    pitch = place.uniform(170, 240)
    phrases = [_phrase(place, pitch, 1.6) for _ in range(3)]
    for at in _times(clip, track.duration, 1.75, 0.05):
        track.add(phrases[clip.integers(3)], at, clip.uniform(1.0, 1.4), 0.0)
    note = city.uniform(430, 560)
    partials = np.array([1, 0.3, 0.15])
    fall = np.exp(-4 * np.linspace(0, 1, 33_600, dtype=np.float32))
    for at in _times(clip, track.duration, 3.2, 0.3):
        for step, ratio in enumerate((1.5, 1.25, 1.0)):
            chime = _oscillator(np.full(33_600, note * ratio), partials) * fall
            track.add(chime, at + 0.35 * step, 0.9, 0.0)
    cases = _looped(_band(place, 2.3, 1500, place.uniform(2500, 4000)), track.length)
    flutter = track.curve(clip, 0.2, 1.0, 18)
    track.add(cases * flutter * track.curve(clip, 0.3, 1.0, 0.5), 0, place.uniform(0.25, 0.5), clip.uniform(-0.8, 0.8))


def _music(track: _Track, city: Generator, place: Generator, clip: Generator) -> None:
    """Background music of shops: plucked chords, a bass and a light beat, some voices below."""
    beat = place.uniform(0.24, 0.34)
    root = place.uniform(196, 294)
    chords = ((0, 4, 7, 12), (9, 12, 16, 21), (5, 9, 12, 17), (7, 11, 14, 19))
    partials = np.arange(1, 7) ** -place.uniform(1.0, 1.8)
    plucks = {}
    hat = _band(place, 0.09, 7000, 11_000) * _decay(0.09, 0.07)
    start = clip.integers(16)
    for step, at in enumerate(np.arange(-beat * clip.uniform(), track.duration, beat)):
        chord = chords[(start + step) // 8 % 4]
        notes = (
            [chord[clip.integers(4)]] + ([chord[0] - 12] if step % 4 == 0 else []) + ([chord[2]] if step % 2 else [])
        )
        for tone in notes:
            if tone not in plucks:
                frequency = np.full(38_400, root * 2 ** (tone / 12))
                plucks[tone] = _oscillator(frequency, partials) * _decay(0.8, 1.0)
            track.add(plucks[tone], at, clip.uniform(0.8, 1.2), clip.uniform(-0.3, 0.3))
        track.add(hat, at, 0.5 + 0.4 * (step % 2), 0.2)
    voices = [_phrase(place, place.uniform(100, 230), 1.2) for _ in range(3)]
    for at in _times(clip, track.duration, 0.9, 0.6):
        track.add(voices[clip.integers(3)], at, clip.uniform(0.1, 0.3), clip.uniform(-1, 1))


def _people(track: _Track, city: Generator, place: Generator, clip: Generator) -> None:
    """People in the open: footsteps of several walkers, voices far and near, birds."""
    step = _band(place, 0.07, place.uniform(500, 900), place.uniform(2500, 4500)) * _decay(0.07, 0.06)
    heel = _band(place, 0.1, 90, 220) * _decay(0.1, 0.08)
    for _ in range(3):
        pan, gain = clip.uniform(-0.9, 0.9), clip.uniform(1.2, 2.2)
        for at in _times(clip, track.duration, clip.uniform(0.45, 0.62), 0.06):
            track.add(step, at, gain * clip.uniform(0.7, 1.3), pan)
            track.add(heel, at, gain * clip.uniform(0.5, 0.9), pan)
    voices = [_phrase(place, place.uniform(95, 250), 1.3) for _ in range(3)]
    for at in _times(clip, track.duration, 0.8, 0.6):
        track.add(voices[clip.integers(3)], at, clip.uniform(0.2, 0.7), clip.uniform(-1, 1))
    songs = []
    for _ in range(3):
        pitch = place.uniform(3000, 5500)
        notes = []
        for _ in range(place.integers(2, 5)):
            line = np.linspace(0, 1, round(place.uniform(0.05, 0.11) * SAMPLE_RATE))
            sweep = pitch * (1 + place.uniform(-0.25, 0.25) * line)
            notes += [_oscillator(sweep, np.array([1.0])) * np.hanning(len(line)), np.zeros(1500)]
        songs.append(np.concatenate(notes).astype(np.float32))
    for at in _times(clip, track.duration, place.uniform(0.4, 0.6), 0.5):
        track.add(songs[clip.integers(3)], at, clip.uniform(0.3, 0.8), clip.uniform(-1, 1))


_KINDS = {
    "announcements": (_announcements, (0.8, 1.5)),
    "electric": (_electric, (0.1, 0.4)),
    "engine": (_engine, (0.1, 0.5)),
    "music": (_music, (0.5, 1.2)),
    "people": (_people, (0.1, 0.5)),
    "rail": (_rail, (0.2, 0.9)),
}  # with the range of the reverberation time in seconds, which must not tell scenes with the same audio apart
