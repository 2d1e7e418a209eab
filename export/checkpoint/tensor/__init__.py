"""Tensors of safetensors files: read, checked and written in blocks, as NumPy arrays. No torch."""
