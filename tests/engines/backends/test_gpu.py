"""ONNX Runtime's CUDA provider on a card: `pytest -m gpu`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from costroute_rt import Runtime, StepEvent
from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
from costroute_rt.engines.backends.onnxruntime.providers import check_providers
from costroute_rt.engines.backends.setup import Setup
from costroute_rt.engines.building.build import build_each, open_engine
from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.size import with_size
from costroute_rt.engines.store.store import Store

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def cuda() -> None:
    """Skips where CUDA does not run."""
    found = {check.name: check for check in check_providers()}
    if "cuda" not in found:
        pytest.skip("needs onnxruntime-gpu: pip install 'costroute-rt[cuda]'")
    if not found["cuda"].works:
        pytest.skip(f"the CUDA provider does not work here: {found['cuda'].problem}")


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("float16", 2e-2)])
@pytest.mark.parametrize("is_fixed", [False, True], ids=["free", "fixed"])
def test_a_step_is_that_of_the_reference(tiny_bundle: Path, tmp_path: Path, precision: str, tolerance: float, is_fixed: bool) -> None:
    bundle, store = Bundle.open(tiny_bundle), Store.open(tmp_path)
    setup = Setup(provider="cuda", precision=precision, threads=1)
    (name,) = with_size(bundle, ["tiny/base/guided_step"], (64, 64)) if is_fixed else ["tiny/base/guided_step"]
    build_each(bundle, store, [name], setup, measure=False)
    feeds = example_feeds(bundle, "unet/guided_step.onnx")
    with open_engine(bundle, store, name, setup) as engine:
        assert engine.provider == "cuda"
        assert (engine._replay is not None) is is_fixed  # type: ignore[attr-defined]
        found = {name: engine.to_device(array) for name, array in feeds.items()}
        for _ in range(3):  # the first calls of a fixed one record its graph, later ones replay it
            expected = OnnxRuntimeBackend().open_reference(tiny_bundle / "unet/guided_step.onnx").run(feeds)
            outputs = engine.run(found)
            for name, want in expected.items():
                np.testing.assert_allclose(
                    engine.to_host(outputs[name]), want, rtol=tolerance, atol=tolerance * max(1.0, np.abs(want).max())
                )
            found |= {"latent": outputs["next_latent"], "denoised_before": outputs["denoised"]}
            feeds |= {"latent": engine.to_host(outputs["next_latent"]), "denoised_before": engine.to_host(outputs["denoised"])}


def test_an_image_is_that_of_the_processor_and_its_latent_stays_on_the_card(tiny_bundle: Path, tmp_path: Path) -> None:
    from benchmarks.gpu import count_transfers

    pixels = []
    for provider in ("cpu", "cuda"):
        with Runtime.open(tiny_bundle, home=tmp_path, provider=provider, threads=1, build=True) as runtime:
            candidate = next(each for each in runtime.candidates if each.is_guided)
            pixels.append(runtime.generate("a lake", seed=3, candidate=candidate.name).pixels.astype(int))
            if provider == "cuda":
                moved, downloads = count_transfers(runtime._resources.engines.get(f"{runtime.family}/{candidate.denoiser}/guided_step")), []
                for event in runtime.stream("a lake", seed=3, candidate=candidate.name):
                    if isinstance(event, StepEvent):
                        downloads.append(moved["to_host"])
                assert set(downloads) == {0}
    assert np.abs(pixels[0] - pixels[1]).max() <= 2
