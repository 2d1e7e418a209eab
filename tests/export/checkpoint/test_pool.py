"""The pool of a recipe is checked before anything is exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.error import BundleError, ConfigError
from costroute_rt.export.checkpoint.checkpoint import export_bundle
from costroute_rt.export.checkpoint.recipe import BundleRecipe

GOOD = {"name": "base@4", "denoiser": "base", "scheduler": "default", "num_inference_steps": 4, "guidance_scale": 3.0, "decoder": "vae"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"denoiser": "turbo"}, "denoiser 'turbo'; use one of base"),
        ({"scheduler": "typo"}, "scheduler 'typo'; use one of default, flow"),
        ({"scheduler": None}, "scheduler None"),
        ({"num_inference_steps": None}, "no num_inference_steps"),
    ],
)
def test_a_candidate_that_cannot_be_exported_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    flow = {"flow": {"_class_name": "FlowMatchEulerDiscreteScheduler"}}
    recipe = BundleRecipe(family="small", revision="1", license="MIT", pool=({**GOOD, **changes},), quality={}, schedulers=flow)
    with pytest.raises(BundleError, match=f"'base@4' of the recipe has {message}|'base@4' of the recipe has the {message}"):
        export_bundle(tmp_path, tmp_path / "bundle", recipe)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"pool": None}, "pool"),
        ({"pool": ("base@4",)}, "pool"),
        ({"quality": ()}, "quality"),
        ({"schedulers": ("default",)}, "schedulers"),
        ({"schedulers": {"default": None}}, "schedulers"),
        ({"schedulers": {1: {}}}, "schedulers"),
        ({"sizes": (512, 512)}, "sizes"),
        ({"sizes": ((512,),)}, "sizes"),
        ({"sizes": (("512", "512"),)}, "sizes"),
    ],
)
def test_a_recipe_refuses_values_of_other_types(changes: dict[str, Any], name: str) -> None:
    fields: dict[str, Any] = {"family": "small", "revision": "1", "license": "MIT", "pool": (GOOD,), "quality": {}}
    with pytest.raises(ConfigError, match=f"^{name} is "):
        BundleRecipe(**{**fields, **changes})
