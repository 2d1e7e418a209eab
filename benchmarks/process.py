"""Runs another program."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

Process = subprocess.CompletedProcess[str]


def run_process(command: Sequence[str], environment: Mapping[str, str] | None = None, timeout_s: float | None = None) -> Process:
    """Waits for the end of a process; raises RuntimeError with its exit code and the last line of its stderr where it fails."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {(done.stderr.strip() or 'nothing on stderr').splitlines()[-1]}")
    return done
