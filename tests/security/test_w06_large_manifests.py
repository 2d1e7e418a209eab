"""W6, and the manifests that a fuzzer found: limits of numbers and sizes, and nothing but BundleErrors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.size import check_bundle_size, free_axes
from costroute_rt.error import BundleError, ConfigError
from tests.security.hostile_graph import copy_bundle
from tests.security.hostile_manifest import change, set_to

STEP = ("graphs", "unet_turbo/step.onnx", "inputs", "latent", "shape")


def repeat_candidates(count: int) -> Callable[[Any], None]:
    def edit(manifest: Any) -> None:
        row = manifest["pool"][0]
        manifest["pool"] = [{**row, "name": f"c{index}"} for index in range(count)]
        manifest["quality"]["candidates"] = {f"c{index}": {"mean": 0.5, "standard_error": 0.1} for index in range(count)}

    return edit


REFUSED: dict[str, tuple[Callable[[Any], None], str]] = {
    "candidates": (repeat_candidates(1001), "has 1001 candidates: expected 1000 at most"),
    "candidates beyond the file": (repeat_candidates(20_000), "larger than 2 MiB"),
    "steps": (set_to(10**400, "pool", 0, "num_inference_steps"), "expected 10000 or less"),
    "bytes": (set_to(10**400, "files", "vae/decode.onnx", "bytes"), "or less"),
    "axis": (set_to(["batch", 4, 10**12, "width"], *STEP), "expected a positive length or a name"),
    "axes": (set_to([1 << 20] * 3, *STEP), "numbers at most"),
    "many axes": (set_to(["a"] * 9, *STEP), "8 axes"),
    "axis true": (set_to([True, 4, 8, 8], *STEP), "expected a positive length or a name"),
    "scalar for a step": (
        lambda manifest: [set_to([], "graphs", path, side, "condition_0", "shape")(manifest) for path, side in SCALARS],
        "condition_0 is float32",
    ),
}
SCALARS = [("unet/condition.onnx", "outputs"), ("unet/step.onnx", "inputs"), ("unet/guided_step.onnx", "inputs")]


@pytest.mark.parametrize(("edit", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_is_beyond_any_model_is_refused(tiny_bundle: Path, tmp_path: Path, edit: Callable[[Any], object], problem: str) -> None:
    with pytest.raises(BundleError, match=problem):
        Bundle.open(change(tiny_bundle, tmp_path, edit), verify=False)


def test_what_is_at_the_limit_opens(tiny_bundle: Path, tmp_path: Path) -> None:
    def edit(manifest: Any) -> None:
        repeat_candidates(1000)(manifest)
        manifest["image"] |= {"height": 4096, "sizes": [[4096, 64]]}
        manifest["license"] = "first line\nsecond \U0001f600 line"

    bundle = Bundle.open(change(tiny_bundle, tmp_path, edit), verify=False)
    assert len(bundle.pool) == 1000
    assert bundle.image.any_size
    assert check_bundle_size(bundle.image, 4096, 128) == (4096, 128)
    with pytest.raises(ConfigError, match="to 4096"):
        check_bundle_size(bundle.image, 4112, 64)
    assert max(most for axis, _, _, most in free_axes(bundle) if axis == "image_height") == 4096


def test_an_example_of_free_axes_is_not_huge(tiny_bundle: Path) -> None:
    shape = ["image_height"] * 8
    bundle = Bundle.open(tiny_bundle)
    object.__setattr__(bundle.graphs["vae/decode.onnx"].inputs["latent"], "shape", tuple(shape))
    with pytest.raises(BundleError, match="the input latent has more than"):
        example_feeds(bundle, "vae/decode.onnx")


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256"])
def test_a_manifest_that_is_no_regular_file_is_refused(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    root = copy_bundle(tiny_bundle, tmp_path)
    (root / name).unlink()
    (root / name).mkdir()
    with pytest.raises(BundleError, match="a bundle needs this file"):
        Bundle.open(root)
