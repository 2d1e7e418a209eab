"""Export of diffusers checkpoints as bundles."""
