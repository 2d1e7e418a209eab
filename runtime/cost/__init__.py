"""Costs of images on this device: the cost model, its correction, and the division of one budget over many prompts."""
