"""Encoders from ONNX graphs."""
