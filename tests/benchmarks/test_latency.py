"""`python -m benchmarks.latency` on a tiny bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import latency, overhead
from benchmarks.peer import Job, Peer, TimedImage, psnr_db, with_steps
from benchmarks.scenario import Scenario, Target
from costroute_rt import Bundle, Runtime

FAST = TimedImage(pixels=np.zeros((8, 8, 3), np.uint8), total_ms=10.0, stages={"outside the stages": 1.0})


def test_our_stages_and_targets_are_printed(
    tiny_bundle: Path, engine_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overhead, "TARGETS", {"overhead": Target(high=1e6), "PSNR to the plain loop": Target(low=99.0)})
    assert latency.main(["--quick", "--bundle", str(tiny_bundle), "--home", str(engine_home)]) == 0
    out = capsys.readouterr().out
    assert "costroute-rt, 8 steps" in out
    for name in ("total", "text", "denoise", "decode", "outside the stages", "threads", "plain loop", "overhead"):
        assert name in out


def test_a_slow_program_misses_its_target_and_a_missing_peer_is_reported_as_failed(
    tiny_bundle: Path, engine_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(bundle: Bundle, threads: int) -> Peer:
        raise ModuleNotFoundError("No module named 'torch'")

    monkeypatch.setattr(overhead, "TARGETS", {"overhead": Target(high=-1e6)})
    monkeypatch.setattr(latency, "open_diffusers", missing)
    monkeypatch.setattr(latency, "open_optimum", lambda bundle, threads: lambda job: FAST)
    arguments = ["--quick", "--json", "--peers", "--bundle", str(tiny_bundle), "--home", str(engine_home)]
    assert latency.main(arguments) == 1
    rows = {row["scenario"]["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert rows["diffusers, 8 steps"]["error"] == "ModuleNotFoundError: No module named 'torch'"
    assert rows["diffusers, 8 steps"]["missing"] == ["PSNR to ours", "time relative to ours"]
    assert not rows["overhead, onnxruntime float32, 8 steps"]["good"]
    assert rows["overhead, onnxruntime float32, 8 steps"]["error"] is None
    assert {row["scenario"]["settings"]["threads"] for row in rows.values()} == {rows["optimum, 1 step"]["scenario"]["settings"]["threads"]}


def test_a_peer_is_compared_with_ours() -> None:
    slower = [TimedImage(pixels=FAST.pixels, total_ms=ms, stages={}) for ms in (25.0, 35.0)]
    job = Job(prompt="a lake", seed=1, num_inference_steps=8, guidance_scale=3.0)
    scenario = latency.make_scenario("diffusers", job, "base", 1, quick=True)
    measurement = latency.summarise({latency.OURS: [FAST, FAST], "diffusers": slower}, "diffusers", scenario)
    assert {figure.name: figure.value for figure in measurement.figures} == {
        "total": 30.0,
        "time relative to ours": 3.0,
        "PSNR to ours": 99.0,
    }


@pytest.mark.parametrize("variant", latency.VARIANTS)
def test_the_plain_loop_makes_the_same_image_and_the_breakdown_counts_its_calls(variant: str, tiny_bundle: Path, engine_home: Path) -> None:
    if not latency.is_supported(variant):
        pytest.skip(f"this processor does not compute in {variant}")
    backend, precision = variant.split()
    job = Job(prompt="a lake", seed=3, num_inference_steps=2, guidance_scale=3.0)
    scenario = Scenario(name=variant, warm_up=0, repeats=2)
    with (
        with_steps(Bundle.open(tiny_bundle), "base", (2,)) as root,
        Runtime.open(root, home=engine_home, backend=backend, precision=precision, build=True, preload=False) as runtime,
    ):
        found = {figure.name: figure.value for figure in overhead.measure(runtime, job, scenario).figures}
        assert np.array_equal(overhead.make_image(runtime, job).pixels[0], overhead.make_image(runtime, job).pixels[0])
    assert found["PSNR to the plain loop"] == 99.0
    assert found["library calls"] >= 4
    assert 0 < found["in the library"] < found["total"] * 10


def test_psnr_of_equal_and_of_different_images() -> None:
    assert psnr_db(FAST.pixels, FAST.pixels) == 99.0
    assert psnr_db(FAST.pixels, FAST.pixels + np.uint8(2)) == pytest.approx(42.1, abs=0.1)


def test_a_temporary_bundle_has_another_pool(tiny_bundle: Path, engine_home: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    with with_steps(bundle, "base", (1, 3)) as root, Runtime.open(root, home=engine_home, build=True, preload=False) as runtime:
        assert [(each.name, each.num_inference_steps, each.is_guided) for each in runtime.candidates] == [
            ("guided@1", 1, True),
            ("guided@3", 3, True),
        ]
    assert not root.exists()
    with pytest.raises(ValueError, match="turbo with guidance"), with_steps(bundle, "turbo", (1,)):
        pass
