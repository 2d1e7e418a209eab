"""F26: after a change of power mode, or of anything else that changes only the speed of engines, no runtime opened."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from costroute_rt import Runtime
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.lookup import read_cost
from costroute_rt.engines.building.profile import profile_engines
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.machine import device
from costroute_rt.engines.store.store import Store
from costroute_rt.family.calls import engine_names

pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")

Change = Callable[[pytest.MonkeyPatch], dict[str, Any]]


@pytest.fixture(scope="module")
def measured_home(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the tiny bundle was built and measured with mains power, one thread and no limit."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "power_mode", lambda *_: "plugged in")
        Runtime.open(tiny_bundle, home=home, threads=1, build=True, preload=False).close()
    return home


@pytest.fixture
def home(measured_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, on a machine with mains power."""
    monkeypatch.setattr(device, "power_mode", lambda *_: "plugged in")
    return Path(shutil.copytree(measured_home, tmp_path / "home"))


def unplug(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    patch.setattr(device, "power_mode", lambda *_: "on battery")
    return {"threads": 1}


def take_two_threads(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"threads": 2}


def set_quota(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    from costroute_rt.engines.machine import cgroup
    from costroute_rt.engines.machine.cgroup import CpuQuota

    patch.setattr(cgroup, "cpu_quota", lambda *_: CpuQuota(0.5, "cgroup v2"))
    return {"threads": 1}


def set_affinity(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    patch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
    patch.setattr(os, "cpu_count", lambda: 64)
    return {"threads": 1}


def change_everything(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {**unplug(patch), **set_quota(patch), **set_affinity(patch), **take_two_threads(patch)}


CHANGES: list[tuple[Change, str]] = [
    (unplug, "measured with power mode plugged in; now power mode on battery"),
    (take_two_threads, "measured with 1 thread; now 2 threads"),
    (set_quota, "CPU quota 0.5, cgroup v2"),
    (set_affinity, "now 1 of 64 cores (affinity to 1)"),
    (change_everything, "; now 2 threads, 1 of 64 cores (affinity to 1, CPU quota 0.5, cgroup v2), power mode on battery"),
]


def content(home: Path) -> dict[str, str]:
    files = (path for path in home.rglob("*") if path.is_file() and path.suffix != ".lock" and path.name != "trust.json")
    return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_f26_an_unplugged_laptop_makes_images(tiny_bundle: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unplug(monkeypatch)
    with Runtime.open(tiny_bundle, home=home, threads=1, preload=False) as runtime:
        assert runtime.generate("a lake", seed=1, max_ms=60_000).pixels.shape == (1, 64, 64, 3)


@pytest.mark.parametrize("build", [False, True])
@pytest.mark.parametrize(("change", "assumed"), CHANGES)
def test_f26_a_runtime_opens_builds_nothing_and_reports_what_it_assumes(
    tiny_bundle: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    change: Change,
    assumed: str,
    build: bool,
) -> None:
    before = content(home)
    with Runtime.open(tiny_bundle, home=home, threads=1, build=build, preload=False) as runtime:
        assert runtime.assumes is None
        expected = runtime.route("a lake").option.ms
    assert caplog.messages == []
    how = change(monkeypatch)
    with Runtime.open(tiny_bundle, home=home, build=build, preload=False, **how) as runtime:
        assert assumed in (runtime.assumes or "")
        assert runtime.route("a lake").option.ms == pytest.approx(expected)
        assert runtime.generate("a lake", seed=1).pixels.shape == (1, 64, 64, 3)
    assert content(home) == before
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == [runtime.assumes]


@pytest.mark.parametrize(("change", "assumed"), CHANGES)
def test_f26_what_is_measured_then_stands_beside_the_other_costs(
    tiny_bundle: Path, home: Path, monkeypatch: pytest.MonkeyPatch, change: Change, assumed: str
) -> None:
    bundle, store = Bundle.open(tiny_bundle), Store.open(home)
    names = engine_names(bundle)
    before = [read_cost(bundle, store, name, Setup(threads=1)) for name in names]
    with monkeypatch.context() as patch:
        how = change(patch)
        measured = profile_engines(bundle, store, names, Setup(**how))
        assert [read_cost(bundle, store, name, Setup(**how)).condition for name in names] == [each.condition for each in measured]
        with Runtime.open(tiny_bundle, home=home, preload=False, **how) as runtime:
            assert runtime.assumes is None
    assert [read_cost(bundle, store, name, Setup(threads=1)) for name in names] == before
    with Runtime.open(tiny_bundle, home=home, threads=1, preload=False) as runtime:
        assert runtime.assumes is None


def test_f26_another_number_of_threads_gives_the_same_engines_with_openvino(tiny_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="builds engines with OpenVINO: pip install costroute-rt[openvino]")
    how: dict[str, Any] = {"home": tmp_path, "backend": "openvino", "preload": False}
    with Runtime.open(tiny_bundle, threads=1, build=True, **how) as runtime:
        want = runtime.generate("a lake", seed=1).pixels
    before = content(tmp_path)
    with Runtime.open(tiny_bundle, threads=2, **how) as runtime:
        found = runtime.generate("a lake", seed=1)
        assert abs(found.pixels.astype(int) - want.astype(int)).max() <= 1
        assert "now 2 threads" in (runtime.assumes or "")
        compiled = [engine._engine._request.raw.get_compiled_model() for engine in runtime._resources.engines._resident.values()]  # type: ignore[attr-defined]
        assert {each.get_property("INFERENCE_NUM_THREADS") for each in compiled} == {2}
    assert content(tmp_path) == before


def test_f26_commands_print_the_assumption_once_with_the_command_that_measures(tiny_bundle: Path, home: Path) -> None:
    command = [sys.executable, "-m", "costroute_rt.cli", "route", "a lake", "--bundle", str(tiny_bundle), "--threads", "2"]
    done = subprocess.run(command, env={**os.environ, "COSTROUTE_HOME": str(home)}, capture_output=True, text=True, check=True)
    (note,) = [line for line in done.stderr.splitlines() if "costs were measured" in line]
    assert note.startswith("note: costs were measured with 1 thread")
    assert note.endswith(f"(costroute-rt profile --threads 2 --bundle {tiny_bundle} measures again)")
