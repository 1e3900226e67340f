"""End-to-end fine-tuning for audio-visual scene classification."""

__version__ = "0.1.0"
