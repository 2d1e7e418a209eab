"""Applications frozen by PyInstaller run where there is no Python."""

from __future__ import annotations

import os
import pkgutil
import runpy
import subprocess
import sys
from importlib import metadata
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

import costroute_rt
from costroute_rt.__pyinstaller import get_hook_dirs

APPLICATION = """
import sys
from costroute_rt import Runtime

with Runtime.open(home=sys.argv[1], build=True, threads=1) as runtime:
    runtime.generate("a red house by a lake at sunset", seed=7).save("image.png")
"""
LEFT_OUT = ("openvino", "tensorrt_rtx", "tensorrt", "onnx", "matplotlib", "pytest", "mypy")
"""Large, and not needed by this application."""


def run_hook(name: str, **functions: Any) -> dict[str, Any]:
    """Runs a hook with functions in place of PyInstaller's."""
    package, utils, hooks = ModuleType("PyInstaller"), ModuleType("PyInstaller.utils"), ModuleType("PyInstaller.utils.hooks")
    vars(hooks).update(functions)
    with pytest.MonkeyPatch.context() as patch:
        for module in (package, utils, hooks):
            patch.setitem(sys.modules, module.__name__, module)
        (folder,) = get_hook_dirs()
        return runpy.run_path(str(Path(folder) / f"{name}.py"))


def list_modules(package: str, filter: Any) -> list[str]:
    names = [
        each.name for each in pkgutil.walk_packages(costroute_rt.__path__, f"{package}.") if not each.name.startswith("costroute_rt.cli")
    ]
    return [name for name in names if filter(name)]


def test_the_hook_names_every_module_that_a_runtime_may_load() -> None:
    found = run_hook(
        "hook-costroute_rt",
        collect_data_files=lambda package: [package],
        copy_metadata=lambda name: [name],
        collect_submodules=list_modules,
    )
    modules = set(found["hiddenimports"])
    assert {f"costroute_rt.{module}" for module in costroute_rt._MODULES.values()} <= modules
    assert {"costroute_rt.error", "costroute_rt.engines.building.background", "costroute_rt.engines.backends.openvino.backend"} <= modules
    assert not [name for name in modules if "export" in name or "pyinstaller" in name]
    assert all(find_spec(name) for name in modules)
    assert found["datas"] == ["costroute_rt", "costroute-rt"]


def test_the_bundle_is_data_of_the_package() -> None:
    assert (files(costroute_rt) / "bundles/postcard/manifest.json").is_file()


def test_openvino_s_plugins_are_collected() -> None:
    found = run_hook(
        "hook-openvino", collect_dynamic_libs=lambda package: [package], collect_data_files=lambda package, subdir: [(package, subdir)]
    )
    assert (found["binaries"], found["datas"]) == (["openvino"], [("openvino", "libs")])


def test_pyinstaller_finds_the_hooks_by_an_entry_point() -> None:
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.entry-points.pyinstaller40]\nhook-dirs = "costroute_rt.__pyinstaller:get_hook_dirs"' in text


def is_installed() -> bool:
    """Whether this package is installed with its entry points, and not only found on the path."""
    return any(each.value.startswith("costroute_rt.") for each in metadata.entry_points(group="pyinstaller40"))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("PyInstaller") is None, reason="freezes an application: pip install pyinstaller")
@pytest.mark.skipif(not is_installed(), reason="the entry point is read from an installed package: pip install .")
def test_a_frozen_application_makes_an_image_without_python(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    options = ["--noconfirm", "--log-level", "ERROR", *(part for name in LEFT_OUT for part in ("--exclude-module", name))]
    command = [sys.executable, "-m", "PyInstaller", *options, "app.py"]
    environment = {**os.environ, "PYINSTALLER_CONFIG_DIR": str(tmp_path / "config")}
    frozen = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    if "shared library" in frozen.stderr or "PythonLibraryNotFound" in frozen.stderr:
        pytest.skip("this Python has no shared library, which PyInstaller needs")
    assert frozen.returncode == 0, frozen.stderr
    home = tmp_path / "user"
    home.mkdir()
    program = tmp_path / "dist/app/app"
    done = subprocess.run([program, "store"], cwd=tmp_path, env={"HOME": str(home), "PATH": "/nowhere"}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(home.iterdir()) == []
    with Image.open(tmp_path / "image.png") as image:
        low, high = image.convert("L").getextrema()
        assert int(high) - int(low) > 64  # type: ignore[arg-type]
