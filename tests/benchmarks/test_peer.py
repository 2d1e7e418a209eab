"""The programs that `benchmarks.latency --peers` compares, on one small checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.latency import compare_pictures
from benchmarks.peer import Job, open_diffusers, open_optimum, open_ours, with_steps
from costroute_rt import Bundle, Runtime
from tests.export.small_checkpoint import make_recipe, needs_export, write_checkpoint

pytestmark = [*needs_export, pytest.mark.slow]


def test_all_draw_the_same_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from costroute_rt.export.checkpoint import export_bundle

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bundle = Bundle.open(export_bundle(write_checkpoint(tmp_path / "checkpoint"), tmp_path / "bundle", make_recipe()))
    job = Job(prompt="the red cat", seed=7, num_inference_steps=3, guidance_scale=3.0)
    with with_steps(bundle, "base", (3,)) as root, Runtime.open(root, home=tmp_path / "home", build=True) as runtime:
        ours = open_ours(runtime)(job)
    for peer in (open_diffusers(bundle, 1), open_optimum(bundle, 1), open_optimum(bundle, 1)):
        assert compare_pictures(peer(job).pixels, ours.pixels).value > 60
    assert len(list((tmp_path / "costroute-rt-benchmarks").iterdir())) == 1  # one export serves both
