"""Every command that opens a bundle, run in a process whose time is limited."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

MOST_S = 20
"""Of processor time, for all commands together: how long they take depends on what else the machine does."""
RUN = """
import json, resource, sys
from click.testing import CliRunner
from costroute_rt.cli.main import cli
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
for command in json.load(sys.stdin):
    done = CliRunner().invoke(cli, command, prog_name="costroute-rt")
    print(json.dumps([command[0], done.exit_code, done.output]), flush=True)
"""
COMMANDS = (
    ["gen", "a lake", "-o", "image.png"],
    ["route", "a lake"],
    ["build-engines"],
    ["profile"],
    ["label", "--prompts", "labels.csv", "--labels", "made.csv"],
    ["fit-router", "--labels", "labels.csv", "-o", "made"],
    ["eval-router", "--labels", "labels.csv"],
)


def run_commands(commands: Sequence[Sequence[str]], work: Path, home: Path) -> list[tuple[str, int, str]]:
    """Runs commands, one after the other; returns the name, exit code and output of each.

    work: the working directory. home: COSTROUTE_HOME.
    """
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(MOST_S)],
        cwd=work,
        env={**os.environ, "COSTROUTE_HOME": str(home)},
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=240,
    )
    results = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    assert len(results) == len(commands), (results, done.returncode, done.stderr)
    return results
