"""Transforms of the waveform of a clip, with audiomentations. They draw from `random` and `numpy.random`, which the
dataset keys for each clip."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from avsc_e2e.clip import Clip


@dataclass(frozen=True)
class Waveform:
    """Random gain, noise, shift in time and shift in pitch."""

    gain: float = 6.0
    """Largest change of level in dB, up or down; 0 switches it off."""
    noise: float = 0.0
    """Probability of added Gaussian noise, 10 to 40 dB below the signal."""
    shift: float = 0.0
    """Largest shift in time in seconds, forwards or backwards, with wrap-around; 0 switches it off."""
    pitch: float = 0.0
    """Largest shift of pitch in semitones, up or down, applied to half of the clips; 0 switches it off."""
    sample_rate: int = 0
    """Hz; 0: the sample rate of the model."""

    def __call__(self, clip: Clip) -> Clip:
        if not (self.gain or self.noise or self.shift or self.pitch) or not clip.present[0]:
            return clip
        import torch

        audio = _pipeline(self)(samples=clip.audio.numpy(), sample_rate=self.sample_rate)
        return clip._replace(audio=torch.from_numpy(audio).contiguous())


@lru_cache(maxsize=16)
def _pipeline(waveform: Waveform):
    import audiomentations

    steps = []
    if waveform.gain:
        steps.append(audiomentations.Gain(min_gain_db=-waveform.gain, max_gain_db=waveform.gain, p=1.0))
    if waveform.noise:
        steps.append(audiomentations.AddGaussianSNR(min_snr_db=10.0, max_snr_db=40.0, p=waveform.noise))
    if waveform.shift:
        steps.append(
            audiomentations.Shift(
                min_shift=-waveform.shift,
                max_shift=waveform.shift,
                shift_unit="seconds",
                rollover=True,
                p=1.0,
            )
        )
    if waveform.pitch:
        steps.append(audiomentations.PitchShift(min_semitones=-waveform.pitch, max_semitones=waveform.pitch, p=0.5))
    return audiomentations.Compose(steps)
