"""Writes the models with random weights as diffusers saves them, and files that are added to them: LoRAs, words, tiny decoders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.parity.model import Model

WORD = "frosty"
"""The word of the textual inversion, whose vectors are two for each text encoder."""
LORA_SCALE = 0.7
_RANK, _ALPHA = 4, 2.0
_TOKENIZERS = Path(__file__).parents[2] / "export/checkpoint/source/single_file/templates"
_CONTRAST = 0.4
"""Of the last layer of decoders, for images that are hardly ever black or white."""


def write_checkpoint(model: Model, folder: Path) -> Path:
    """The model's folder, with its weights in float32."""
    import diffusers
    import torch
    import transformers

    torch.manual_seed(1)
    parts: dict[str, Any] = {
        "unet": diffusers.UNet2DConditionModel(**model.unet),
        "vae": diffusers.AutoencoderKL(**model.vae),
        "scheduler": make_scheduler(model.scheduler),
    }
    for index, settings in enumerate(model.texts):
        tail, config = "" if index == 0 else "_2", transformers.CLIPTextConfig(**settings)
        kind = transformers.CLIPTextModel if index == 0 else transformers.CLIPTextModelWithProjection
        tokenizer = "tokenizer_open_clip" if settings["pad_token_id"] == 0 else "tokenizer_clip"
        parts[f"text_encoder{tail}"] = kind(config)
        parts[f"tokenizer{tail}"] = transformers.CLIPTokenizer.from_pretrained(_TOKENIZERS / tokenizer)
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if name in parts:
            _randomise(parts[name])
    _pipeline(model)(**parts, **_unused(model)).save_pretrained(folder)
    return folder


def _pipeline(model: Model) -> Any:
    import diffusers

    if "time_cond_proj_dim" in model.denoiser:
        return diffusers.LatentConsistencyModelPipeline
    return diffusers.StableDiffusionXLPipeline if model.family == "sdxl" else diffusers.StableDiffusionPipeline


def _unused(model: Model) -> dict[str, Any]:
    if model.family == "sdxl":
        return {"add_watermarker": False}
    return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def make_scheduler(settings: dict[str, Any]) -> Any:
    """The scheduler of the class that the settings name."""
    import diffusers

    return getattr(diffusers, settings["_class_name"]).from_config({key: value for key, value in settings.items() if key != "_class_name"})


def _randomise(module: Any) -> None:
    """Weights of a variance that keeps the size of what passes through; norms near 1; token embeddings with a mean, as CLIP's have."""
    import torch

    generator = torch.Generator().manual_seed(7)
    for name, parameter in module.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if "embedding.weight" in name:
            values = 0.6 * values + 0.15
        elif parameter.ndim > 1:
            values = values / parameter[0].numel() ** 0.5
        else:
            values = 0.1 * values + (1.0 if name.endswith("weight") else 0.0)
        if name.endswith("final_layer_norm.bias"):
            values = values + 0.2
        if name == "decoder.conv_out.weight" or name == "decoder.layers.14.weight":
            values = _CONTRAST * values
        if ".attn2.to_out.0.weight" in name or ".attn2.to_q.weight" in name:
            values = 2 * values  # what the text says shows in the image
        parameter.data.copy_(values)


def write_lora(model: Model, checkpoint: Path, path: Path) -> Path:
    """A kohya file for attention, feed-forward and convolution layers of the denoiser, and for the text encoders."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(3)
    tensors: dict[str, torch.Tensor] = {}
    for key, shape in _lora_layers(model, checkpoint):
        down = torch.randn((_RANK, *shape[1:]), generator=generator) / (shape[1:].numel() ** 0.5)
        up = torch.randn((shape[0], _RANK, *(1,) * (len(shape) - 2)), generator=generator) * 0.3
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(_ALPHA)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def _lora_layers(model: Model, checkpoint: Path) -> Iterator[tuple[str, Any]]:
    """Kohya's key and the shape of each layer that the LoRA changes."""
    import diffusers
    import transformers
    from torch import nn

    unet = diffusers.UNet2DConditionModel.from_pretrained(checkpoint / "unet")
    for name, module in unet.named_modules():
        is_convolution = isinstance(module, nn.Conv2d) and "resnets.0.conv1" in name
        if is_convolution or (isinstance(module, nn.Linear) and "transformer_blocks" in name):
            yield f"lora_unet_{name.replace('.', '_')}", module.weight.shape
    for index in range(len(model.texts)):
        folder = checkpoint / ("text_encoder" if index == 0 else "text_encoder_2")
        kind = transformers.CLIPTextModel if index == 0 else transformers.CLIPTextModelWithProjection
        prefix = "lora_te" if len(model.texts) == 1 else f"lora_te{index + 1}"
        for name, module in kind.from_pretrained(folder).named_modules():
            if isinstance(module, nn.Linear) and "encoder.layers" in name:
                yield f"{prefix}_{name.replace('.', '_')}", module.weight.shape


def write_word(model: Model, path: Path) -> Path:
    """A textual inversion: `emb_params` for one text encoder, `clip_l` and `clip_g` for two."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(5)
    vectors = [torch.randn((2, settings["hidden_size"]), generator=generator) for settings in model.texts]
    names = ("emb_params",) if len(vectors) == 1 else ("clip_l", "clip_g")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(zip(names, vectors, strict=True)), path)
    return path


def write_tiny_decoder(model: Model, folder: Path) -> Path:
    """An AutoencoderTiny with few channels."""
    import diffusers
    import torch

    torch.manual_seed(2)
    tiny = diffusers.AutoencoderTiny(encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4)
    _randomise(tiny)
    tiny.save_pretrained(folder)
    return folder
