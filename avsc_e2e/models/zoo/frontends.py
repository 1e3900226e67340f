"""Front ends: fields of Architecture that belong to a trunk, because a net needs the input that it was trained with."""

from __future__ import annotations

from typing import Any

OPENL3_MEL256: dict[str, Any] = {
    "audio": "l3_audio", "channels": "mono", "sample_rate": 48_000,
    "fft": 2048, "hop": 242, "pad": 982, "power": 2.0,
    "bands": 256, "low": 0.0, "high": 24_000.0, "scale": "htk", "area_norm": True, "exponent": 0.5,
    "log": "db", "floor": 1e-10, "dynamic_range": 80.0, "standardise": False,
}  # fmt: skip
"""Cramer et al., ICASSP 2019, in the version of the baseline: (1, 256, 199) for a second."""

OPENL3_IMAGE: dict[str, Any] = {"video": "l3_image", "size": 224, "crop": 224 / 256}
"""Cramer et al., ICASSP 2019: the shorter side is resized to 256 pixels, then the centre is cut to 224."""

PANN: dict[str, Any] = {
    "audio": "cnn14", "channels": "mono", "sample_rate": 32_000,
    "fft": 1024, "hop": 320, "power": 2.0,
    "bands": 64, "low": 50.0, "high": 14_000.0, "scale": "slaney", "area_norm": True,
    "log": "db", "floor": 1e-10, "standardise": False,
}  # fmt: skip
"""Kong et al., 2020: (1, 64, 101) for a second."""

PANN_16K: dict[str, Any] = {
    **PANN, "audio": "cnn14_16k", "sample_rate": 16_000, "fft": 512, "hop": 160, "low": 50.0, "high": 8000.0,
}  # fmt: skip

WAVEGRAM: dict[str, Any] = {**PANN, "audio": "wavegram_cnn14", "waveform": True}
"""Kong et al., 2020: (1, 64 + 320, 101) for a second, the bands of PANN above the samples of each hop."""

CLAP: dict[str, Any] = {**PANN, "audio": "htsat_tiny", "sample_rate": 48_000, "hop": 480}
"""Wu et al., ICASSP 2023: (1, 64, 1001) for ten seconds."""

PASST: dict[str, Any] = {
    "audio": "passt_s", "channels": "mono", "sample_rate": 32_000,
    "fft": 1024, "win_length": 800, "taper": "symmetric_hann", "preemphasis": 0.97, "hop": 320, "power": 2.0,
    "bands": 128, "low": 0.0, "high": 15_000.0, "scale": "vggish", "area_norm": False,
    "log": "ln", "floor": 1e-5, "standardise": False,
}  # fmt: skip
"""Koutini et al., Interspeech 2022: (1, 128, 100) for a second."""

EFFICIENTAT: dict[str, Any] = {**PASST, "audio": "mn10"}
"""Schmid et al., ICASSP 2023: the front end of PaSST, which taught it."""

AST: dict[str, Any] = {
    "audio": "ast_base", "channels": "mono", "sample_rate": 16_000, "features": "fbank",
    "fft": 512, "win_length": 400, "taper": "symmetric_hann", "preemphasis": 0.97, "hop": 160, "power": 2.0,
    "bands": 128, "low": 20.0, "high": 8000.0,
    "log": "ln_max", "floor": 1.1920929e-7, "standardise": False,
}  # fmt: skip
"""Gong et al., Interspeech 2021: (1, 128, 98) for a second."""

BEATS: dict[str, Any] = {**AST, "audio": "beats", "taper": "povey", "floor": 1.1920929e-7 / 2**30}
"""Chen et al., ICML 2023: (1, 128, 98) for a second. Their samples are 16-bit integers, so the floor is Kaldi's, scaled
to samples in [-1, 1]."""

VGGISH: dict[str, Any] = {
    "audio": "vggish", "channels": "mono", "sample_rate": 16_000,
    "fft": 512, "win_length": 400, "hop": 160, "pad": 56, "power": 1.0,
    "bands": 64, "low": 125.0, "high": 7500.0, "scale": "vggish",
    "log": "ln", "floor": 1e-2, "standardise": False,
}  # fmt: skip
"""Hershey et al., ICASSP 2017: (1, 64, 98) for a second; the padding puts the short window where VGGish has it."""

YAMNET: dict[str, Any] = {**VGGISH, "audio": "yamnet", "floor": 1e-3}

AISFX: dict[str, Any] = {
    "audio": "aisfx", "channels": "mono", "sample_rate": 44_100, "fft": 2048, "hop": 1024, "pad": 1024,
    "bands": 96, "low": 0.0, "high": 22_050.0, "scale": "vggish", "sum_norm": True, "power": 2.0,
    "log": "ln", "floor": 1e-4, "standardise": False,
}  # fmt: skip
"""(1, 96, 44) for a second."""

SPEECH: dict[str, Any] = {
    "audio": "speech_embedding", "channels": "mono", "sample_rate": 44_100, "fft": 2048, "win_length": 1102,
    "hop": 441, "pad": 0, "bands": 32, "low": 60.0, "high": 3800.0, "scale": "slaney", "power": 2.0,
    "log": "ln", "floor": 1e-18, "standardise": False,
}  # fmt: skip
"""(1, 32, 96) for a second."""

MCDONNELL: dict[str, Any] = {
    "audio": "mcdonnell_resnet", "channels": "stereo", "sample_rate": 48_000,
    "fft": 2048, "hop": 1024, "power": 2.0,
    "bands": 128, "low": 0.0, "high": 24_000.0, "scale": "htk", "area_norm": False,
    "log": "ln", "floor": 1e-8, "deltas": 2, "standardise": False, "head": "pointwise",
}  # fmt: skip
"""Gao and McDonnell, 2019: (6, 128, 39) for a second; the net has its own batch norm on the planes."""

NARANJO: dict[str, Any] = {
    "audio": "naranjo_se", "channels": "left_right_difference", "sample_rate": 44_100, "features": "gammatone",
    "fft": 2048, "win_length": 1764, "hop": 882, "pad": 583,
    "bands": 64, "low": 0.0, "high": 20_511.0, "area_norm": False,
    "log": "db", "floor": 1e-10, "rescale": True, "standardise": False,
}  # fmt: skip
"""Naranjo-Alcazar et al., 2021: (3, 64, 50) for a second. Their 64 centre frequencies start at 0 Hz; a 65th would be at
22,050 Hz. Each crop is scaled by its own minimum and maximum."""
