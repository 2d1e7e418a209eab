"""Engines that can be built but not run here: the commands say so."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from costroute_rt.cli import progress
from tests.cli.conftest import invoke
from tests.engines.fake_cuda import needs_cuda_core, needs_no_driver

pytestmark = [
    pytest.mark.skipif(
        find_spec("tensorrt_rtx") is None,
        reason="builds engines by TensorRT for RTX, which is missing: pip install costroute-rt[tensorrt-rtx]",
    ),
    needs_no_driver,
]
ASKED = ["build-engines", "--backend", "tensorrt-rtx", "--graph", "turbo/step", "--target", "ada"]


def test_engines_built_for_other_cards_are_shown_as_not_proved(tiny_bundle: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "is_on_terminal", lambda: True)
    found = invoke(*ASKED, "--bundle", tiny_bundle)
    assert found.exit_code == 0, found.output
    assert "not proved: these engines cannot run on this machine" in found.stderr
    assert "building tiny/turbo/step" in found.stderr
    assert "%" in found.stderr

    again = invoke(*ASKED, "--bundle", tiny_bundle, "--json")
    (engine,) = json.loads(again.stdout)["engines"]
    assert (engine["built"], engine["proved"], engine["max_abs_error"], engine["median_ms"]) == (False, False, None, None)
    listed = invoke("engines", "list", "--bundle", tiny_bundle, "--json")
    assert [engine["state"] for engine in json.loads(listed.stdout)["engines"]] == ["not proved"]


@needs_cuda_core
def test_doctor_says_what_keeps_them_from_running(home: Path) -> None:
    found = json.loads(invoke("doctor", "--json").stdout)["facts"]["backend tensorrt-rtx"]
    assert "builds engines, cannot run them" in found
    assert "driver" in found
