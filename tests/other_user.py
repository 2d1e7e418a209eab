"""Runs Python as another user, in a process that starts as root: everything is imported first, because an interpreter in root's home
directory cannot be read by others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

UID = 12345

_START = """
import contextlib, encodings, importlib, os, pkgutil, sys, warnings
names = sys.stdlib_module_names - {{"antigravity", "idlelib", "this", "tkinter", "turtle", "turtledemo", "lib2to3"}}
names |= {{f"encodings.{{each.name}}" for each in pkgutil.iter_modules(encodings.__path__)}}
names |= {{"concurrent.futures.thread", "email.message", "importlib.metadata", "logging.handlers", "multiprocessing.util"}}
names |= {{"PIL.Image", "PIL.PngImagePlugin", "click.testing", "filelock", "numpy.random", "onnxruntime", "platformdirs.unix"}}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for name in sorted(names):
        with contextlib.suppress(Exception):
            importlib.import_module(name)
import costroute_rt, numpy.random, PIL.Image, tokenizers
PIL.Image.init()
for found in pkgutil.walk_packages(costroute_rt.__path__, "costroute_rt."):
    if not any(part in found.name for part in (".export", "__main__", "__pyinstaller", ".tensorrt")):
        importlib.import_module(found.name)
numpy.random.default_rng()
os.environ.clear()
os.environ.update({environment!r})
os.setgroups([])
os.setgid({uid})
os.setuid({uid})
os.chdir({folder!r})
{code}
"""


def can_switch_user() -> bool:
    """Whether this process may become another user: it is root, in a user namespace that has others."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    return subprocess.run([sys.executable, "-c", f"import os; os.setuid({UID})"], stderr=subprocess.DEVNULL).returncode == 0


needs_other_user = pytest.mark.skipif(
    not can_switch_user(), reason="becomes another user, which only root can, and not in a user namespace"
)


def run_as_other_user(code: str, environment: Mapping[str, str], folder: Path = Path("/")) -> subprocess.CompletedProcess[str]:
    """Run Python code as the user 12345, who has no entry in the password file, with this environment alone."""
    start = _START.format(environment=dict(environment), uid=UID, folder=str(folder), code=code)
    return subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=False, timeout=120)


def run_command(*arguments: object, environment: Mapping[str, str], folder: Path = Path("/")) -> subprocess.CompletedProcess[str]:
    """Run `costroute-rt ARGUMENTS` as that user."""
    words = ["costroute-rt", *map(str, arguments)]
    return run_as_other_user(f"sys.argv = {words!r}\nfrom costroute_rt.cli.main import main\nmain()", environment, folder)


@contextmanager
def shared_folder() -> Iterator[Path]:
    """An empty folder that every user can read; pytest's are for its own user alone."""
    path = Path(tempfile.mkdtemp(prefix="costroute-rt-test-"))
    try:
        path.chmod(0o755)
        yield path
    finally:
        shutil.rmtree(path)
