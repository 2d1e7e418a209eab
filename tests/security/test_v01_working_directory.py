"""V1: no module in the working directory runs in the building process; `test_every_command` has the commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from costroute_rt.engines.building import background
from costroute_rt.engines.bundle.bundle import Bundle

START = """
import os, sys
sys.path[:] = [path for path in sys.path if path and os.path.realpath(path) != os.path.realpath(os.getcwd())]
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.background import start_builder
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.store.store import Store
setup = Setup(threads=1)
builder = start_builder(Bundle.open(sys.argv[1], verify=False), Store.open(sys.argv[2]), ["tiny/text_encoder/encode"], setup, setup, {})
print(*(event["state"] for event in builder.events()))
command = builder._process.args
assert sys.argv[1] not in " ".join(command), command  # W17: everybody can read a command line
builder.release()
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with modules that have the names of others; each leaves a file when it is imported."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    marker = tmp_path / "ran"
    for name in ("json", "platform", "numpy", "costroute_rt", "sitecustomize", "onnxruntime", "filelock", "click", "PIL", "tokenizers"):
        (folder / f"{name}.py").write_text(f"open({str(marker)!r}, 'a').write(__name__ + ' ')\n")
    return folder


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize("kind", ["script", "empty entry in PYTHONPATH"])
def test_the_building_process_imports_nothing_from_the_working_directory(
    hostile: Path, tiny_bundle: Path, tmp_path: Path, kind: str
) -> None:
    script = tmp_path / "app" / "app.py"
    script.parent.mkdir()
    # As an application that already has its modules when the working directory becomes hostile.
    script.write_text(START if kind == "script" else START.replace("builder = ", "sys.path += ['', os.getcwd()]\nbuilder = "))
    result = run([sys.executable, str(script), str(tiny_bundle), str(tmp_path / "home")], hostile)
    assert result.stdout.split()[-1:] == ["done"], result
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


def test_a_package_in_the_working_directory_comes_after_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Path(sys.modules["costroute_rt"].__file__ or "").parent.parent
    monkeypatch.chdir(own)
    monkeypatch.setattr(sys, "path", ["", str(own), *sys.path])
    found = background.search_path()
    assert os.path.realpath(found[-1]) == os.path.realpath(own)
    assert str(own) not in found[:-1]


def test_a_working_directory_that_was_removed_does_no_harm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert background.search_path()


def test_a_building_process_that_reads_no_job_is_reported(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from costroute_rt.engines.backends.setup import Setup
    from costroute_rt.engines.store.store import Store

    monkeypatch.setattr(background, "COMMAND", ("-c", "import os; os.close(0); os._exit(3)"))
    names = [f"tiny/none/{number}" for number in range(20_000)]  # more than a pipe holds
    setup = Setup(threads=1)
    builder = background.start_builder(Bundle.open(tiny_bundle, verify=False), Store.open(tmp_path / "home"), names, setup, setup, {})
    assert [event["state"] for event in builder.events()] == ["failed"]
    builder.release()
