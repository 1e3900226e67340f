"""Prediction of any recording: files, URLs, bytes, arrays, stores and live streams."""

from avsc_e2e.prediction.parts import predict_parts
from avsc_e2e.prediction.predictor import Predictor, predict, timeline
from avsc_e2e.prediction.recordings import Recording
from avsc_e2e.prediction.stream import SceneStream

__all__ = ["Predictor", "Recording", "SceneStream", "predict", "predict_parts", "timeline"]
