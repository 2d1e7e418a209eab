"""Reading checkpoints and writing them as bundles."""
