"""W6, W7, W13 and the manifests that a fuzzer found: limits of numbers and sizes, and nothing but BundleErrors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.engines.building.example import example_feeds
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.section import parse_section
from costroute_rt.engines.bundle.size import check_bundle_size, free_axes
from costroute_rt.error import BundleError, ConfigError
from tests.security.hostile_graph import copy_bundle, seal

STEP = ("graphs", "unet_turbo/step.onnx", "inputs", "latent", "shape")


def set_to(value: Any, *keys: str | int) -> Callable[[Any], None]:
    def edit(manifest: Any) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = value

    return edit


def repeat_candidates(count: int) -> Callable[[Any], None]:
    def edit(manifest: Any) -> None:
        row = manifest["pool"][0]
        manifest["pool"] = [{**row, "name": f"c{index}"} for index in range(count)]
        manifest["quality"]["candidates"] = {f"c{index}": {"mean": 0.5, "standard_error": 0.1} for index in range(count)}

    return edit


REFUSED: dict[str, tuple[Callable[[Any], None], str]] = {
    "candidates": (repeat_candidates(1001), "has 1001 candidates: expected 1000 at most"),
    "candidates beyond the file": (repeat_candidates(20_000), "larger than 2 MiB"),
    "names": (set_to({f"n{index}": "" for index in range(300_000)}, "extra"), "larger than 2 MiB"),
    "lists": (set_to([[] for _ in range(1_000_000)], "extra"), "larger than 2 MiB"),
    "side": (set_to(65536, "image", "height"), "up to 4096"),
    "sizes": (set_to([[64, 4112]], "image", "sizes"), "up to 4096"),
    "many sizes": (set_to([[64, 64]] * 257, "image", "sizes"), "257 sizes: expected 256 at most"),
    "channels": (set_to(65, "image", "latent_channels"), "latent_channels is 65: expected 64 or less"),
    "channels without end": (set_to(10**400, "image", "latent_channels"), "expected 64 or less"),
    "factor": (set_to(1 << 40, "image", "vae_scale_factor"), "expected 256 or less"),
    "patch": (set_to(1 << 40, "image", "patch_size"), "expected 256 or less"),
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
    "half a pair in a file's name": (set_to({"sha256": "0" * 64, "bytes": 1}, "files", "\ud800"), "half of a surrogate pair"),
    "half a pair in the license": (set_to("\udfff", "license"), "half of a surrogate pair"),
    "half a pair deep inside": (set_to([[{"a": "x\ud800y"}]], "extra"), "half of a surrogate pair"),
    "control characters": (set_to("\x1b]0;PWN\x07", "license"), "license is empty or not plain text"),
    "control characters of the second set": (set_to("a\x9b2J", "revision"), "revision is empty or not plain text"),
}
SCALARS = [("unet/condition.onnx", "outputs"), ("unet/step.onnx", "inputs"), ("unet/guided_step.onnx", "inputs")]


def change(source: Path, tmp_path: Path, edit: Callable[[Any], object]) -> Path:
    root = copy_bundle(source, tmp_path)
    manifest = json.loads((root / "manifest.json").read_text())
    edit(manifest)
    (root / "manifest.json").write_text(json.dumps(manifest))
    seal(root)
    return root


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


def test_pairs_of_surrogates_are_one_character() -> None:
    assert parse_section(rb'{"a": "\ud83d\ude00", "b": "\\ud800"}', pytest.fail).values == {"a": "\U0001f600", "b": r"\ud800"}


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
