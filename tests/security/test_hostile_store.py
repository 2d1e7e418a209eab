"""A store that others can write, against every command: none uses it, none changes it, and each ends with a documented exit code."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from tests.export.router.label_text import write_labels
from tests.security.every_command import COMMANDS, run_commands

STORE_COMMANDS = (["engines", "list"], ["engines", "verify"], ["engines", "gc", "--max-gb", "0"], ["engines", "rm", "0" * 12], ["doctor"])
EXIT_CODES = (1, 2, 4, 5)
LISTS = ("engines", "doctor")
"""Commands that show the store, and may end well."""


def snapshot(root: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in sorted(root.rglob("*"))}


@pytest.mark.skipif(sys.platform != "linux", reason="looks at modes of files, and limits the time of processes, as Linux does")
@pytest.mark.parametrize("place", [".", "engines"])
def test_a_store_that_others_can_write_is_used_by_no_command(tiny_bundle: Path, tmp_path: Path, built_home: Path, place: str) -> None:
    home, work = Path(shutil.copytree(built_home, tmp_path / "home")), tmp_path / "work"
    work.mkdir()
    names = [row["name"] for row in Bundle.open(tiny_bundle, verify=False).pool]
    (work / "labels.csv").write_text(write_labels(names, count=12))
    os.chmod(home / place, 0o777)
    before = snapshot(home / place)
    commands = [*([*command, "--bundle", str(tiny_bundle)] for command in COMMANDS), *STORE_COMMANDS]
    for name, code, text in run_commands(commands, work, home):
        assert code in ((0, *EXIT_CODES) if name in LISTS else EXIT_CODES), (name, code, text)
        assert "Traceback" not in text
        assert "a bug" not in text
    assert snapshot(home / place) == before
    assert sorted(path.name for path in work.iterdir()) == ["labels.csv"]
