"""Usage reports are off before a library is imported, unless the user decided otherwise."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from costroute_rt.engines.backends.onnxruntime import providers
from costroute_rt.engines.machine import telemetry
from costroute_rt.engines.machine.telemetry import HUB, ONNXRUNTIME, opt_out, without_openvino_telemetry


@pytest.fixture(autouse=True)
def undecided(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user who has set no variable and has no consent file."""
    for name in (*ONNXRUNTIME, *HUB):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", str(tmp_path))


def test_reports_are_off_unless_the_user_set_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert opt_out(ONNXRUNTIME)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    assert not opt_out(ONNXRUNTIME)
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    assert not opt_out(ONNXRUNTIME)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"


@pytest.mark.parametrize("name", HUB)
def test_any_of_the_hub_s_variables_is_a_decision(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "0")
    assert not opt_out(HUB)


@pytest.mark.parametrize(("variable", "calls"), [("", 1), ("0", 0), ("1", 0)])
def test_reports_of_an_onnx_runtime_that_the_application_loaded_first_are_turned_off(
    monkeypatch: pytest.MonkeyPatch, variable: str, calls: int
) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", variable)
    called: list[int] = []
    module = SimpleNamespace(disable_telemetry_events=lambda: called.append(1))
    monkeypatch.setitem(sys.modules, "onnxruntime", module)  # type: ignore[arg-type]
    monkeypatch.setattr(providers.LIBRARY.__class__, "load", lambda self, load: module)
    for _ in range(2):
        providers.import_onnxruntime()
    assert len(called) == calls


def import_telemetry() -> ModuleType | None:
    try:
        import openvino_telemetry
    except ImportError:
        return None
    module: ModuleType = openvino_telemetry
    return module


@pytest.mark.parametrize("consent", [None, "0", "", "1"])
def test_openvino_is_imported_without_its_reports_unless_the_user_agreed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, consent: str | None
) -> None:
    theirs = ModuleType("openvino_telemetry")
    monkeypatch.setitem(sys.modules, "openvino_telemetry", theirs)
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    monkeypatch.setattr(telemetry.sys, "platform", "linux")
    if consent is not None:
        (tmp_path / "intel").mkdir()
        (tmp_path / "intel/openvino_telemetry").write_text(consent)
    with without_openvino_telemetry():
        assert (import_telemetry() is theirs) == (consent == "1")
    assert import_telemetry() is theirs


def test_the_package_can_be_imported_again_after_a_failed_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    with pytest.raises(ZeroDivisionError), without_openvino_telemetry():
        1 / 0  # noqa: B018
    assert "openvino_telemetry" not in sys.modules
