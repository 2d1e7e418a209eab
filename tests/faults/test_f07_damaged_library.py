"""F7: a library that is installed and cannot be used is named with the command that really fixes it, exit code 6, also by doctor."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from costroute_rt.cli.command import fix_command
from costroute_rt.engines.backends.registry import get_backend
from costroute_rt.error import BackendError
from tests.cli.conftest import invoke

AGAIN = "pip install --force-reinstall --no-deps"
WORKING = "__version__ = '1.32.0'\nclass InferenceSession: ...\nclass SessionOptions: ...\nclass Core: ...\n"

Install = Callable[..., Path]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory of packages in place of the real one, and none of the libraries loaded that these tests install in it."""
    real = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ("onnxruntime", "openvino")}
    for name in real:
        monkeypatch.delitem(sys.modules, name)
    folder = tmp_path / "site-packages"
    folder.mkdir()
    for name in ("PIL.Image", "tokenizers", "costroute_rt.family.assembly", "costroute_rt.engines.backends.openvino.backend"):
        importlib.import_module(name)  # what they need is in the real directory
    monkeypatch.setattr(sys, "path", [str(folder), *(each for each in sys.path if "site-packages" not in each)])
    importlib.invalidate_caches()
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] in ("onnxruntime", "openvino") and name not in real]:
        del sys.modules[name]


@pytest.fixture
def install(site: Path) -> Install:
    """Writes a package's record, and its module if there is code for it."""

    def write(package: str, code: str | None = None, version: str = "1.32.0", module: str = "onnxruntime") -> Path:
        record = site / f"{package.replace('-', '_')}-{version}.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        (record / "RECORD").write_text(f"{module}/capi/library.so,,\n{module}/__init__.py,,\n")
        if code is not None:
            (site / module).mkdir()
            (site / module / "__init__.py").write_text(code)
        return record

    return write


def refusal(backend: str = "onnxruntime") -> BackendError:
    with pytest.raises(BackendError) as caught:
        get_backend(backend)
    return caught.value


def doctor(name: str) -> dict[str, str]:
    """The problem of that name in doctor's report."""
    problems: list[dict[str, str]] = json.loads(invoke("doctor", "--json").stdout)["problems"]
    return next(each for each in problems if each["name"] == name)


def test_f7_remains_after_one_of_two_packages_was_uninstalled(site: Path, install: Install, home: Path) -> None:
    install("onnxruntime")
    (site / "onnxruntime/capi").mkdir(parents=True)
    (site / "onnxruntime/capi/libonnxruntime.so.1.32.0").touch()
    done = invoke("gen", "a lake")
    assert done.exit_code == 6
    assert f"({AGAIN} onnxruntime)" in done.stderr
    assert doctor("onnx runtime")["command"] == f"{AGAIN} onnxruntime"


@pytest.mark.parametrize(
    "code",
    [
        "",
        "class InferenceSession: ...",
        "raise ImportError('libonnxruntime.so.1: cannot open shared object file')",
        "raise OSError('libonnxruntime.so.1: invalid ELF header')",
        "raise AttributeError('_ARRAY_API not found')",
        "from onnxruntime.capi import onnxruntime_pybind11_state",
        "import sys; sys.exit(1)",
        "def (",
        WORKING.replace("1.32.0", "1.31.1"),
    ],
)
def test_f7_a_damaged_module_is_installed_again(install: Install, code: str) -> None:
    install("onnxruntime-gpu", code)
    assert fix_command(refusal()) == f"{AGAIN} onnxruntime-gpu"


def test_f7_a_package_without_its_files_is_installed_again(install: Install) -> None:
    install("onnxruntime")
    assert fix_command(refusal()) == f"{AGAIN} onnxruntime"


def test_f7_a_record_that_pip_cannot_uninstall_is_deleted_first(install: Install) -> None:
    record = install("onnxruntime")
    (record / "RECORD").unlink()
    error = refusal()
    assert f"delete {record}" in error.remedy
    assert fix_command(error) == f"{AGAIN} onnxruntime"


def test_f7_two_packages_are_both_uninstalled(install: Install) -> None:
    install("onnxruntime", WORKING)
    install("onnxruntime-gpu", version="1.31.1")
    for name in ("onnxruntime-extensions", "onnxruntime-genai", "onnx"):
        install(name, module=name.replace("-", "_"))
    error = refusal()
    assert error.found == "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1"
    assert fix_command(error) == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"


@pytest.mark.parametrize("version", ["1.32.0", "1.32.0.dev20260101", "1.32.0+cu130"])
def test_f7_a_complete_module_is_used(install: Install, version: str) -> None:
    install("onnxruntime", WORKING, version=version)
    assert get_backend("onnxruntime").version == "1.32.0"


def test_f7_an_old_record_beside_a_complete_module_is_no_damage(install: Install) -> None:
    install("onnxruntime", WORKING)
    install("onnxruntime", version="1.31.1")
    assert get_backend("onnxruntime").version == "1.32.0"


def test_f7_nothing_installed_names_the_extra(site: Path) -> None:
    assert fix_command(refusal()) == 'pip install "costroute-rt[cpu]"'
    (site / "onnxruntime").mkdir()  # a directory without code, such as one with the user's models
    assert fix_command(refusal()) == 'pip install "costroute-rt[cpu]"'


def test_f7_what_the_library_itself_lacks_is_named(install: Install) -> None:
    install("onnxruntime", "import flatbuffers_that_is_missing")
    assert fix_command(refusal()) == "pip install flatbuffers_that_is_missing"
    install("openvino", "raise ImportError('libOpenCL.so.1: cannot open shared object file')", module="openvino")
    assert refusal("openvino").remedy == "install the package that contains libOpenCL.so.1"


@pytest.mark.parametrize("file", ["onnxruntime.py", "onnxruntime/__init__.py"])
@pytest.mark.parametrize("code", ["", "raise ValueError", "import sys; sys.exit()"])
def test_f7_a_file_of_the_user_that_hides_the_library_is_named(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, code: str
) -> None:
    install("onnxruntime", WORKING)
    path = tmp_path / "program" / file
    path.parent.mkdir(parents=True)
    path.write_text(code)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "program"), *sys.path])
    error = refusal()
    assert error.found == f"{path}, which Python imports in its place"
    assert (error.remedy, fix_command(error)) == ("rename it, or start the program from another directory", None)


def test_f7_the_same_for_openvino(install: Install, site: Path, home: Path) -> None:
    (site / "openvino/libs").mkdir(parents=True)
    install("openvino", module="openvino")
    assert fix_command(refusal("openvino")) == f"{AGAIN} openvino"
    assert doctor("backend openvino")["command"] == f"{AGAIN} openvino"
    install("openvino-nightly", module="openvino")
    assert refusal("openvino").uninstall == ("openvino", "openvino-nightly")


def test_f7_doctor_goes_on_after_a_damaged_record(site: Path, install: Install, home: Path) -> None:
    (install("onnxruntime", WORKING.replace("class", "raise ValueError\nclass", 1)) / "METADATA").unlink()
    (install("cuda-bindings") / "METADATA").unlink()
    report = json.loads(invoke("doctor", "--json").stdout)
    assert {"onnx runtime", "nvidia driver", "bundle", "store"} <= set(report["facts"])
    assert [each["command"] for each in report["problems"] if each["name"] == "onnx runtime"] == [f"{AGAIN} onnxruntime"]
