"""A library that cannot be imported is named with what fixes it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from costroute_rt.cli.command import fix_command
from costroute_rt.engines.machine import installation
from costroute_rt.engines.machine.fix import Fix
from costroute_rt.engines.machine.installation import Library, check_library, explain, explain_import

AGAIN = "pip install --force-reinstall --no-deps"


def catch(code: str) -> Exception:
    try:
        exec(code, {"__name__": "costroute_rt.pretended"})
    except Exception as error:
        return error
    raise AssertionError(f"{code} raised nothing")


@pytest.mark.parametrize(
    ("code", "found", "command"),
    [
        ("import tokenizers_missing", "no usable tokenizers_missing module", "pip install tokenizers_missing"),
        ("from PIL import Imagine", "no usable PIL module", f"{AGAIN} pillow"),
        ("import numpy.missing", "no usable numpy module", f"{AGAIN} numpy"),
        ("import _ctypes_missing_in_this_python", "no usable", "pip install _ctypes_missing_in_this_python"),
    ],
)
def test_an_import_that_fails_anywhere_is_no_bug(
    code: str, found: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damage = explain(catch(code))
    assert damage is not None
    assert (damage.exit_code, fix_command(damage)) == (6, command)
    assert damage.found.startswith(found)


def test_a_library_that_fails_while_it_is_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site/odd").mkdir(parents=True)
    (tmp_path / "site/odd-1.0.dist-info").mkdir()
    (tmp_path / "site/odd-1.0.dist-info/RECORD").write_text("odd/__init__.py,,\n")
    (tmp_path / "site/odd/__init__.py").write_text("raise TypeError('an old version')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    damage = explain(catch("import odd"))
    assert damage is not None
    assert fix_command(damage) == f"{AGAIN} odd"


def test_a_hidden_module_of_python_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wave.py").touch()
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    damage = explain(catch("import wave; wave.open"))
    monkeypatch.delitem(sys.modules, "wave")
    assert damage is not None
    assert damage.found == f"{tmp_path / 'wave.py'}, which Python imports in its place"


@pytest.mark.parametrize("code", ["1 / 0", "''.a", "import numpy; numpy.missing", "import json; json.a", "import costroute_rt as c; c.a"])
def test_a_bug_stays_a_bug(code: str) -> None:
    assert explain(catch(code)) is None


def test_a_library_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "requirements", lambda: {"Pillow": "99.0"})
    damage = explain(catch("1 / 0"))
    assert damage is not None
    assert fix_command(damage) == 'pip install "Pillow>=99.0"'
    assert str(check_library("Pillow", "99.0")[1]) == str(damage)
    assert check_library("Pillow", "1.0")[1] is None


def test_doctor_sees_a_hidden_base_library_that_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "safetensors.py").touch()
    for name in [name for name in sys.modules if name.partition(".")[0] == "safetensors"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    error = check_library("safetensors")[1]
    assert error is not None
    assert error.found == f"{tmp_path / 'safetensors.py'}, which Python imports in its place"


def test_libraries_are_known_by_their_package() -> None:
    assert Library.of("PIL").fix.install == ("Pillow",)


def test_an_optional_library_names_its_extra_only_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = Fix("install the extra", ("costroute-rt[extra]",))
    absent, damaged = catch("import library_that_is_absent"), catch("import numpy.missing")
    assert isinstance(absent, ImportError)
    assert isinstance(damaged, ImportError)
    assert explain_import(absent, "a library", extra).install == ("costroute-rt[extra]",)
    assert fix_command(explain_import(damaged, "a library", extra)) == f"{AGAIN} numpy"


def test_a_usable_library_is_examined_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "usable_once.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "usable_once", raising=False)
    examined = list[Library]()

    class Counted(installation.Installation):
        def __init__(self, library: Library) -> None:
            examined.append(library)
            super().__init__(library)

    monkeypatch.setattr(installation, "Installation", Counted)
    library = Library.of("usable_once")
    modules = [library.load(lambda: __import__("usable_once")) for _ in range(3)]
    assert (len(examined), len(set(map(id, modules)))) == (1, 1)
    del sys.modules["usable_once"]  # whatever is imported in its place has to be examined
    library.load(lambda: __import__("usable_once"))
    assert len(examined) == 2
