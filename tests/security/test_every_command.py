"""Every command in a hostile working directory, and with a store that others can write: nothing of either runs or is changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from costroute_rt.cli.main import cli
from tests.checkpoints import write_sd15_folder
from tests.fuzz.case import EXIT_CODES
from tests.fuzz.place import Place, fingerprint, make_template

MOST_S = 60
"""Of processor time, for one command in a process of its own."""
MODULES = (
    "json",
    "platform",
    "numpy",
    "costroute_rt",
    "sitecustomize",
    "onnxruntime",
    "filelock",
    "click",
    "PIL",
    "tokenizers",
    "openvino",
)
COMMANDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("gen",): ("a lake", "--bundle", "BUNDLE", "-o", "made.png"),
    ("route",): ("a lake", "--bundle", "BUNDLE"),
    ("info",): ("image.png",),
    ("pool",): ("BUNDLE", "-o", "made"),
    ("export",): ("MODEL", "-o", "made", "--dry-run"),
    ("build-engines",): ("--bundle", "BUNDLE"),
    ("profile",): ("--bundle", "BUNDLE"),
    ("label",): ("--bundle", "BUNDLE", "--prompts", "prompts.csv", "--labels", "made.csv", "--scorer", "fuzz_scorer:brightness"),
    ("fit-router",): ("--bundle", "BUNDLE", "--labels", "labels.csv", "--encoder", "hashed", "-o", "made"),
    ("eval-router",): ("--bundle", "ROUTED", "--labels", "heldout.csv"),
    ("serve",): ("--stdio", "--bundle", "BUNDLE"),  # until its input ends
    ("doctor",): (),
    ("engines", "list"): ("--bundle", "BUNDLE"),
    ("engines", "verify"): (),
    ("engines", "explain"): ("--bundle", "BUNDLE"),
    ("engines", "gc"): ("--max-gb", "0.00001"),
    ("engines", "rm"): ("ENGINE",),
}
RUN = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv.pop()),) * 2)
from costroute_rt.cli.start import main
sys.exit(main())
"""
WITHOUT_STORE = {("info",), ("pool",), ("export",), ("fit-router",), ("serve",)}
"""Commands that need no store; a server opens it beside its first requests, of which there are none here."""
REPORTS = {("engines", "list"), ("engines", "explain")}
"""Commands that report the state of engines without running one."""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs owners, modes and limits of processes as Linux has them")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")
    return make_template(tmp_path_factory.mktemp("template") / "files")


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Path:
    return Place.make(template, tmp_path / "place").root


def leaves(group: click.Group, *before: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, *before, name)
        else:
            yield (*before, name)


def run(place: Path, names: tuple[str, ...], **more: str) -> subprocess.CompletedProcess[str]:
    """The command as its script starts it, in the folder `cwd`."""
    engine = min(path.name for path in (place / "home/engines").iterdir())
    paths = {name: str(place / name.lower()) for name in ("BUNDLE", "ROUTED", "MODEL")} | {"ENGINE": engine}
    if "MODEL" in COMMANDS[names]:
        write_sd15_folder(place / "model")
    (place / "bin").mkdir(exist_ok=True)
    (place / "bin/costroute-rt").write_text(RUN)
    command = [sys.executable, str(place / "bin/costroute-rt"), *names, *(paths.get(each, each) for each in COMMANDS[names]), str(MOST_S)]
    environment = {**os.environ, "COSTROUTE_HOME": str(place / "home"), "HOME": str(place / "user"), "XDG_CACHE_HOME": "", **more}
    return subprocess.run(
        command, cwd=place / "cwd", env=environment, capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL, check=False
    )


def contents(folder: Path) -> dict[str, Any]:
    """Hashes and modes of what is in a folder."""
    return {"files": fingerprint(folder), "modes": {str(path): path.lstat().st_mode for path in (folder, *folder.rglob("*"))}}


def test_every_command_is_tried() -> None:
    assert set(leaves(cli)) == set(COMMANDS)


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_a_hostile_working_directory(place: Path, names: tuple[str, ...]) -> None:
    marker = place / "odd/ran"
    for name in MODULES:
        (place / "cwd" / f"{name}.py").write_text(f"open({str(marker)!r}, 'a').write(__name__ + ' ')\n")
    before = {name: contents(place / name) for name in ("bundle", "routed", "user")}
    done = run(place, names)
    assert done.returncode == 0, done.stderr
    assert not marker.exists(), marker.read_text()
    assert {name: contents(place / name) for name in before} == before


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_a_store_that_others_can_write(place: Path, names: tuple[str, ...]) -> None:
    (place / "home").chmod(0o777)
    for weights in (place / "home/engines").glob("*/model.onnx"):  # what another user might have put there
        weights.write_bytes(b"not a graph")
    before = {name: contents(place / name) for name in ("bundle", "routed", "user", "home")}
    done = run(place, names)
    assert done.returncode in EXIT_CODES, done.stderr
    assert (done.returncode == 0) == (names in REPORTS or names in WITHOUT_STORE), done.stderr
    assert "Traceback" not in done.stderr
    assert {name: contents(place / name) for name in before} == before
    assert names in WITHOUT_STORE or "all users can write it" in done.stdout + done.stderr
