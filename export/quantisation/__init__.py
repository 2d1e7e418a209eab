"""Weights of matrix products as int8 with one scale per output channel; needs no torch."""
