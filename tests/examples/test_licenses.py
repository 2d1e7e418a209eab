"""The licences of a frozen folder: everything inside has an owner, and what has none is an error."""

from __future__ import annotations

import sys
from importlib import metadata, util
from pathlib import Path
from types import ModuleType

import numpy
import pytest

SCRIPT = Path(__file__).parents[2] / "examples/qt/freeze/licenses.py"


@pytest.fixture(scope="module")
def licenses() -> ModuleType:
    spec = util.spec_from_file_location("licenses", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["licenses"] = util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, licenses: ModuleType) -> Path:
    """A folder with a file of NumPy and one of Python; the programs are PyInstaller's, so it must be known."""
    boot = licenses.Part("pyinstaller 6", "GPL-2.0-or-later WITH Bootloader-exception", ["the text of the bootloader"])
    known = licenses.distribution
    monkeypatch.setattr(licenses, "distribution", lambda name: boot if name == "pyinstaller" else known(name))
    for place in ("_internal/numpy/__init__.py", "_internal/base_library.zip"):
        path = tmp_path / "folder" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return tmp_path / "folder"


def test_every_part_is_listed_with_its_text(folder: Path, licenses: ModuleType) -> None:
    parts = licenses.account(folder)
    version = ".".join(map(str, sys.version_info[:3]))
    assert [part.title for part in parts] == [f"numpy {numpy.__version__}", f"Python {version}"]
    text = licenses.write(folder, parts).read_text(encoding="utf-8")
    assert "Redistribution and use in source and binary forms" in text
    assert "PYTHON SOFTWARE FOUNDATION LICENSE" in text
    assert [part.title for part in licenses.account(folder)] == [part.title for part in parts]


def test_a_file_of_nobody_is_an_error(
    folder: Path, licenses: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "_internal/libstrange.so.1").write_bytes(b"")
    monkeypatch.setattr(sys, "argv", ["licenses.py", str(folder)])
    assert licenses.main() == 1
    assert "_internal/libstrange.so.1" in capsys.readouterr().err
    assert not (folder / licenses.NAME).exists()


def test_a_distribution_without_a_text_is_an_error(tmp_path: Path, licenses: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "strange-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\nLicense: Beerware\n")
    (info / "RECORD").write_text("strange.py,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(licenses.UnknownLicense, match="strange"):
        licenses.distribution("strange")


def test_a_distribution_under_a_standard_licence_gets_its_text(licenses: ModuleType) -> None:
    metadata.distribution("tokenizers")  # brings no text
    assert "Apache License" in licenses.distribution("tokenizers").texts[0]


def test_a_module_is_owned_by_its_distribution_by_python_or_by_the_example(licenses: ModuleType) -> None:
    owners = licenses.Owners()
    assert owners.of_module("numpy.linalg").title.startswith("numpy ")
    assert owners.of_module("asyncio.events").title.startswith("Python ")
    assert owners.of_module("no_such_module") is None
