"""Composing the ONNX graphs of a bundle."""
