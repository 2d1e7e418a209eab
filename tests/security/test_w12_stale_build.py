"""W12: a wheel does not contain what an earlier build left in the tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _has_setuptools() -> bool:
    try:
        return int(version("setuptools").split(".")[0]) >= 77
    except PackageNotFoundError:
        return False


@pytest.mark.skipif(not _has_setuptools(), reason="builds with setuptools 77 or later, of which an older version, or none, is installed")
def test_a_module_of_an_earlier_build_is_not_packed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("runtime", "engines", "export", "cli"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "bundles"))
    (tree / "build/lib/costroute_rt").mkdir(parents=True)
    (tree / "build/lib/costroute_rt/stale_module.py").touch()
    (tree / "build/kept.txt").touch()
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "setup.py", "-q", "build_py"], cwd=tree, env=environment, check=True, capture_output=True)
    assert (tree / "build/lib/costroute_rt/engines/store/store.py").exists()
    assert not (tree / "build/lib/costroute_rt/stale_module.py").exists()
    assert (tree / "build/kept.txt").exists()
