"""Tests in JavaScript, run by Node's own runner."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="runs in Node: install Node 20 or newer")
_TIMEOUT_S = 300


def run_node_tests(folder: Path, name: str, **variables: str) -> None:
    """Run a file of tests with these environment variables; none of them may fail or be skipped."""
    command = [str(NODE), "--test", "--test-reporter", "tap", name]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, timeout=_TIMEOUT_S)
    counts = dict(re.findall(r"^# (pass|tests) (\d+)$", done.stdout, re.MULTILINE))
    assert done.returncode == 0, done.stdout + done.stderr
    assert counts["pass"] == counts["tests"] != "0", done.stdout
