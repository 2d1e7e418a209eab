"""What this project claims, as commands: `python -m benchmarks.NAME [--json]` prints each figure beside its target."""
