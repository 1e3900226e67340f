"""Models for other runtimes: ONNX and torch.export programs, and prediction from ONNX files without torch."""
