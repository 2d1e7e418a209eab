"""One command per claim of this project: `python -m benchmarks.NAME [--json]` prints each figure with its target."""
