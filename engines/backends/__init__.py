"""Inference libraries behind one protocol, one file or folder each."""
