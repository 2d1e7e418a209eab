"""The torch side: checkpoints become bundles, labels become routers. Importing it loads nothing else."""
