"""The command line: each command parses, makes one call, prints. `--help` loads click and nothing else."""
