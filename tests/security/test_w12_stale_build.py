"""W12: a wheel holds the sources alone, not what an earlier build left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


def has_setuptools() -> bool:
    try:
        return int(version("setuptools").split(".")[0]) >= 77
    except PackageNotFoundError:
        return False


@pytest.mark.skipif(not has_setuptools(), reason="builds with setuptools 77 or later, of which an older version, or none, is installed")
def test_a_wheel_has_no_module_of_an_earlier_build(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for folder in ("runtime", "engines", "export", "cli"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors", "*.gz"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    stale = tree / "build" / "lib" / "costroute_rt" / "stale_module.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("print('old')\n")
    (tree / "build" / "kept.txt").touch()  # where a strict editable installation has its links
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-W", "ignore", "-c", BUILD, str(tmp_path)]
    result = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    assert "costroute_rt/runtime.py" in names
    assert "costroute_rt/stale_module.py" not in names
    assert (tree / "build" / "kept.txt").exists()
