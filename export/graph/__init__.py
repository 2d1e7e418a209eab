"""Composition of the ONNX graphs of a bundle."""
