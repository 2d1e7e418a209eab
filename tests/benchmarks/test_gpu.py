"""`python -m benchmarks.gpu --dry-run` on a tiny bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu


def test_a_dry_run_runs_every_scenario_on_the_cpu(
    tiny_bundle: Path, engine_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "open_torch", lambda *_, **__: lambda: 5.0)
    monkeypatch.setattr(gpu, "torch_denoiser", missing)
    assert gpu.main(["--dry-run", "--json", "--bundle", str(tiny_bundle), "--home", str(engine_home)]) == 1
    rows = {row["scenario"]["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    failed = {name: row["error"] for name, row in rows.items() if row["error"]}
    assert list(failed) == ["utilisation"]
    figures = {name: {figure["name"]: figure["value"] for figure in row["figures"]} for name, row in rows.items()}
    assert figures["same image as on the CPU"]["PSNR"] == 99.0
    assert figures["denoising loop"]["device-to-host copies"] == 0
    assert figures["denoising loop"]["bytes to device per step"] == 0  # the rows are there before the first step
    assert figures["4 steps"]["total"] > 0
    assert figures["ours, guided step"]["speedup"] == pytest.approx(5.0 / figures["ours, guided step"]["guided step"], rel=1e-3)
    assert rows["denoising loop"]["scenario"]["settings"]["gpu"]


def missing(*_: Any) -> None:
    raise ModuleNotFoundError("No module named 'torch'")


def test_every_transfer_is_counted() -> None:
    class Engine:
        def to_host(self, value: object) -> object:
            return value

        to_device = to_host

    engine = Engine()
    transfers = gpu.count_transfers(engine)
    engine.to_host(engine.to_device(np.zeros(8, np.float32)))
    assert transfers == {"to_host": 1, "to_device": 1, "bytes": 32}
