"""Bundles: the manifest, files and their hashes, readers of ONNX and safetensors."""
