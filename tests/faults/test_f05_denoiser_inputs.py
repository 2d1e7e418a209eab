"""F5: denoisers with inputs that the runtime does not feed (`timestep_cond` of LCM) are refused by name before the export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint import checkpoint
from costroute_rt.export.checkpoint.checkpoint import check_export, export_bundle
from tests.export.checkpoint_folder import simple_recipe, write_folder, write_json

UNSUPPORTED: dict[str, tuple[dict[str, Any], str, str]] = {
    "LCM": ({"time_cond_proj_dim": 256}, "latent consistency model, which embeds the guidance scale (timestep_cond)", "LCM LoRA"),
    "class labels": ({"num_class_embeds": 1000}, "takes class labels (class_labels)", "base text-to-image checkpoint"),
    "upscaler": ({"class_embed_type": "timestep", "in_channels": 7}, "takes class labels (class_labels)", "base text-to-image"),
    "unCLIP": ({"class_embed_type": "projection", "projection_class_embeddings_input_dim": 8}, "takes class labels", "base text-to-image"),
    "SDXL": (
        {"addition_embed_type": "text_time"},
        "takes pooled text and image sizes (text_embeds, time_ids)",
        "only a StableDiffusionXLPipeline gives",
    ),
    "Kandinsky": ({"addition_embed_type": "text_image"}, "takes more than text (addition_embed_type text_image)", "base text-to-image"),
    "IP-Adapter": ({"encoder_hid_dim_type": "ip_image_proj"}, "IP-Adapter, which takes an image (image_embeds)", "unload_ip_adapter()"),
    "image projection": ({"encoder_hid_dim_type": "image_proj"}, "takes image embeddings (encoder_hid_dim_type image_proj)", "base"),
    "inpainting": ({"in_channels": 9}, "takes 9 channels (inpainting), the VAE's latents have 4", "base text-to-image checkpoint"),
    "depth": ({"in_channels": 5}, "takes 5 channels (depth to image)", "base text-to-image checkpoint"),
    "instructions": ({"in_channels": 8}, "takes 8 channels (image editing, such as InstructPix2Pix)", "base text-to-image checkpoint"),
    "odd channels": ({"in_channels": 17}, "takes 17 channels, the VAE's", "not supported"),
    "no number": ({"in_channels": "4"}, "takes 4 channels, the VAE's", "not supported"),
    "variance": ({"out_channels": 8}, "gives 8 channels, the VAE's latents have 4", "predict a variance"),
    "other text encoder": ({"cross_attention_dim": 1024}, "takes text of width 1024, the text encoder's has 768", "text encoder that the"),
    "widths per block": ({"cross_attention_dim": [768, 768, 1024]}, "takes text of width [768, 768, 1024]", "text encoder that the"),
}


@pytest.fixture(autouse=True)
def no_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a weight is loaded or a file is written."""

    def refuse(*_: object) -> None:
        raise AssertionError("long work has begun")

    monkeypatch.setattr(checkpoint, "_Export", refuse)


@pytest.mark.parametrize("folder", ["unet", "unet_small"])
@pytest.mark.parametrize("name", UNSUPPORTED)
def test_f5_a_denoiser_with_other_inputs_is_refused_by_name(tmp_path: Path, name: str, folder: str) -> None:
    changes, problem, remedy = UNSUPPORTED[name]
    source = write_folder(tmp_path / "checkpoint", **{folder: changes})
    with pytest.raises(BundleError) as caught:
        export_bundle(source, tmp_path / "bundle", simple_recipe())
    own = "base" if folder == "unet" else "small"
    text = str(caught.value)
    assert f"{folder}: denoiser {own} {'is a ' if name == 'LCM' else ''}" in text
    assert problem in text
    assert remedy in text
    assert "\n" not in text
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"addition_embed_type": "text"},
        {"encoder_hid_dim_type": "text_proj", "encoder_hid_dim": 768, "cross_attention_dim": 320},
        {"encoder_hid_dim": 768, "cross_attention_dim": 320},
        {"time_cond_proj_dim": None, "class_embed_type": None, "cross_attention_dim": [768] * 4},
    ],
)
def test_f5_inputs_from_the_text_alone_are_accepted(tmp_path: Path, changes: dict[str, Any]) -> None:
    check_export(write_folder(tmp_path / "checkpoint", unet=changes), simple_recipe())


PIPELINES = {
    "LatentConsistencyModelPipeline": "fuse the LCM LoRA into its base checkpoint",
    "StableDiffusionXLPipeline": "only StableDiffusionPipeline checkpoints can be exported",
    "StableDiffusionInpaintPipeline": "export the base text-to-image checkpoint instead",
    "StableDiffusionControlNetPipeline": "ControlNet is not supported",
    "StableDiffusionImageVariationPipeline": "export the base text-to-image checkpoint instead",
    "StableDiffusionImg2ImgPipeline": "its networks are those of a StableDiffusionPipeline",
    "FluxPipeline": "only StableDiffusionPipeline checkpoints can be exported",
}


@pytest.mark.parametrize("name", PIPELINES)
def test_f5_other_pipelines_are_named(tmp_path: Path, name: str) -> None:
    source = write_folder(tmp_path / "checkpoint", model_index={"_class_name": name})
    with pytest.raises(BundleError, match=f"it holds a {name}; only StableDiffusionPipeline.*{PIPELINES[name]}|{PIPELINES[name]}"):
        check_export(source, simple_recipe())


@pytest.mark.parametrize("value", [None, 3, ["StableDiffusionPipeline"], {}, ""])
def test_f5_a_pipeline_without_a_name_is_refused(tmp_path: Path, value: object) -> None:
    source = write_folder(tmp_path / "checkpoint")
    write_json(source / "model_index.json", {"_class_name": value})
    with pytest.raises(BundleError, match="it holds a "):
        check_export(source, simple_recipe())


@pytest.mark.parametrize(
    ("folder", "changes", "problem"),
    [
        ("unet", {"_class_name": "UNet3DConditionModel"}, "it is a UNet3DConditionModel; only a UNet2DConditionModel"),
        ("vae", {"_class_name": "AutoencoderTiny"}, "it is a AutoencoderTiny; only a AutoencoderKL"),
        ("text_encoder", {"architectures": ["T5EncoderModel"]}, "it is a T5EncoderModel; only a CLIPTextModel"),
        ("unet", {"quantization_config": {"quant_method": "bitsandbytes"}}, "its weights are quantised"),
        ("text_encoder", {"architectures": ["CLIPTextModel", "Other"]}, "it is a"),
        ("unet", {"sample_size": None}, "sample_size is None"),
        ("unet", {"sample_size": [64, "64"]}, "sample_size is"),
        ("vae", {"latent_channels": 0}, "latent_channels is 0"),
        ("vae", {"block_out_channels": 4}, "block_out_channels is 4"),
        ("text_encoder", {"hidden_size": "768"}, "hidden_size is '768'"),
        ("text_encoder", {"max_position_embeddings": True}, "max_position_embeddings is True"),
    ],
)
def test_f5_other_networks_and_odd_settings_are_refused(tmp_path: Path, folder: str, changes: dict[str, Any], problem: str) -> None:
    source = write_folder(tmp_path / "checkpoint", **{folder: changes})
    with pytest.raises(BundleError, match=problem.replace("(", r"\(")) as caught:
        check_export(source, simple_recipe())
    assert folder in str(caught.value.path)


def test_f5_another_tokenizer_is_named(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "checkpoint")
    write_json(source / "tokenizer" / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer"})
    with pytest.raises(BundleError, match="it is a T5Tokenizer; only a CLIPTokenizer can be exported"):
        check_export(source, simple_recipe())
    (source / "tokenizer" / "tokenizer_config.json").unlink()  # transformers does without it
    check_export(source, simple_recipe())
