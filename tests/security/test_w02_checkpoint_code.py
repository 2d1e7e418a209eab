"""W2: no code that a checkpoint names or holds runs: its classes are from a list, and its pickles are read by torch without code."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.checkpoint import check_export, export_bundle
from tests.export.checkpoint_folder import simple_recipe, write_folder
from tests.export.small_checkpoint import make_recipe, needs_export, write_checkpoint


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "checkpoint")


FOREIGN_PARTS: dict[str, Any] = {
    "unet": ["os", "system"],
    "vae": ["diffusers", "DiffusionPipeline"],
    "text_encoder": ["my_module", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer\n"],
    "scheduler": ["diffusers_modules.local.x", "DDIMScheduler"],
    "extra": ["diffusers", "UNet2DConditionModel"],
    "vae ": ["diffusers", 3],
}


@pytest.mark.parametrize("name", FOREIGN_PARTS)
def test_an_index_that_names_other_code_is_refused(tmp_path: Path, name: str) -> None:
    source = write_folder(tmp_path / "checkpoint", model_index={name: FOREIGN_PARTS[name]})
    with pytest.raises(BundleError, match=r"model_index\.json: its part"):
        check_export(source, simple_recipe())


def test_the_parts_of_stable_diffusion_are_accepted(tmp_path: Path) -> None:
    parts = {
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"], "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizerFast"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "image_encoder": [None, None],
        "feature_extractor": ["transformers", "CLIPImageProcessor"], "requires_safety_checker": True, "_diffusers_version": "0.39.0",
    }  # fmt: skip
    check_export(write_folder(tmp_path / "checkpoint", model_index=parts), simple_recipe())


@pytest.mark.parametrize("text", ["[]", "null", "{", '{"_class_name": []}', "[" * 100_000, '{"a": 1' + "0" * 5000 + "}"])
def test_a_damaged_index_is_a_bundle_error(source: Path, text: str) -> None:
    (source / "model_index.json").write_text(text)
    with pytest.raises(BundleError):
        check_export(source, simple_recipe())


class Marker:
    """What a pickle of a stranger holds: loading it calls a function."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@pytest.mark.skipif(find_spec("torch") is None, reason="loads networks by torch")
@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"])
class TestPickles:
    pytestmark = needs_export

    def test_a_pickle_runs_no_code(self, tmp_path: Path, name: str) -> None:
        import torch

        source, marker = write_checkpoint(tmp_path / "checkpoint"), tmp_path / "ran"
        (source / f"{name}.safetensors").unlink()
        torch.save({"weight": Marker(marker)}, source / f"{name.replace('/model', '/pytorch_model')}.bin")
        with pytest.raises(BundleError):
            export_bundle(source, tmp_path / "bundle", make_recipe())
        assert not marker.exists()
        assert not (tmp_path / "bundle").exists()

    def test_a_pickle_beside_safetensors_is_not_read(self, tmp_path: Path, name: str) -> None:
        import torch

        source, marker = write_checkpoint(tmp_path / "checkpoint"), tmp_path / "ran"
        torch.save({"weight": Marker(marker)}, source / f"{name.replace('/model', '/pytorch_model')}.bin")
        export_bundle(source, tmp_path / "bundle", make_recipe())
        assert not marker.exists()
