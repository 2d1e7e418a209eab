"""The forms of files that people have, as tiny files: those that are models, and those that are refused, with what is said of them.

The names of tensors are those of real files; the numbers are few.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.checkpoints import (
    write_json,
    write_lcm_folder,
    write_sd2_folder,
    write_sd2_single_file,
    write_sd15_folder,
    write_sd15_single_file,
    write_sdxl_folder,
    write_sdxl_single_file,
)
from tests.tensor_file import write_raw, write_safetensors

_UNET = "model.diffusion_model."


@dataclass(frozen=True)
class Layout:
    """One form of a model."""

    write: Callable[[Path], Path]
    """Writes it under a folder; returns its path."""
    problem: str | None = None
    """What is said when it is refused; None if it is a model that can be exported."""


def _named(name: str, write: Callable[..., Path], **options: Any) -> Callable[[Path], Path]:
    return lambda folder: write(folder / name, **options)


def _tensors(*names: str, dtype: Any = np.float16, path: str = "model.safetensors") -> Callable[[Path], Path]:
    return lambda folder: write_safetensors(folder / path, {name: np.zeros((2, 2), dtype) for name in names})


def _low(dtype: str, *names: str) -> Callable[[Path], Path]:
    """A file whose tensors are of a dtype with one byte each."""
    header = {name: {"dtype": dtype, "shape": [2, 2], "data_offsets": [4 * index, 4 * index + 4]} for index, name in enumerate(names)}
    return lambda folder: write_raw(folder / "model.safetensors", header, bytes(4 * len(names)))


def _bytes(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        return folder / name

    return write


def _exported(name: str) -> Callable[[Path], Path]:
    """A folder of another runtime, with its graph of the denoiser."""

    def write(folder: Path) -> Path:
        write_json(folder / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
        _bytes(name, b"x")(folder / "unet")
        return folder

    return write


def _cut_off(folder: Path) -> Path:
    path = write_sd15_single_file(folder / "model.safetensors")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _empty(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


_OLD_PICKLE = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_LORA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
_CONV_IN = f"{_UNET}input_blocks.0.0.weight"
MODELS: dict[str, Layout] = {
    "diffusers folder, SD 1.5": Layout(_named("model", write_sd15_folder)),
    "diffusers folder, SD 2.1": Layout(_named("model", write_sd2_folder)),
    "diffusers folder, SDXL, variant and shards": Layout(_named("model", write_sdxl_folder, variant="fp16", shards=2)),
    "diffusers folder, LCM": Layout(_named("model", write_lcm_folder)),
    "diffusers folder, .bin": Layout(_named("model", write_sd15_folder, extension="bin")),
    "single file, SD 1.5": Layout(_named("model.safetensors", write_sd15_single_file)),
    "single file, SD 2.1": Layout(_named("model.safetensors", write_sd2_single_file)),
    "single file, SDXL": Layout(_named("model.safetensors", write_sdxl_single_file)),
    "single file, .ckpt": Layout(_named("model.ckpt", write_sd15_single_file)),
}
"""Those that can be exported; a .ckpt where pickles are allowed."""
REFUSED: dict[str, Layout] = {
    "GGUF": Layout(_bytes("model.gguf", b"GGUF" + struct.pack("<IQQ", 3, 0, 0)), "it is a GGUF"),
    "plain fp8": Layout(_low("F8_E4M3", _CONV_IN), r"it is stored as fp8 \(F8_E4M3\)"),
    "scaled fp8": Layout(_low("F8_E4M3", _CONV_IN, "scaled_fp8"), "it is scaled fp8"),
    "scaled fp8, later": Layout(_tensors(_CONV_IN, f"{_UNET}out.2.weight_scale"), "it is scaled fp8"),
    "nunchaku": Layout(_tensors("transformer_blocks.0.attn.to_qkv.wscales"), r"nunchaku \(SVDQuant\)"),
    "NVFP4": Layout(_tensors("blocks.0.weight", "blocks.0.weight_scale", "blocks.0.weight_scale_2"), "NVFP4"),
    "nf4": Layout(_tensors("a.weight", "a.weight.absmax", "a.weight.quant_state.bitsandbytes__nf4"), "bitsandbytes"),
    "LoRA, kohya": Layout(_tensors(f"{_LORA}.lora_down.weight", f"{_LORA}.lora_up.weight", f"{_LORA}.alpha"), "it is a LoRA; export the"),
    "LoRA, diffusers": Layout(_tensors("unet.mid_block.attentions.0.proj_in.lora.down.weight"), "it is a LoRA"),
    "LoRA, peft": Layout(_tensors("base_model.model.conv_in.lora_A.weight"), "it is a LoRA"),
    "LoKr": Layout(_tensors(f"{_LORA}.lokr_w1", f"{_LORA}.lokr_w2_a"), r"it is a LoKr \(LyCORIS\)"),
    "LoHa": Layout(_tensors(f"{_LORA}.hada_w1_a"), r"it is a LoHa \(LyCORIS\)"),
    "DoRA": Layout(_tensors(f"{_LORA}.lora_down.weight", f"{_LORA}.dora_scale"), "it is a DoRA"),
    "textual inversion": Layout(_tensors("emb_params"), "it is a textual inversion"),
    "textual inversion, SDXL": Layout(_tensors("clip_l", "clip_g"), "it is a textual inversion"),
    "VAE": Layout(_tensors("encoder.conv_in.weight", "decoder.mid.attn_1.q.weight"), "it is a VAE alone"),
    "TAESD": Layout(_tensors("encoder.layers.0.weight", "decoder.layers.3.conv.0.weight"), r"it is a tiny VAE \(TAESD\) alone"),
    "UNet": Layout(_tensors("conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"), "it is a UNet alone"),
    "text encoder": Layout(_tensors("text_model.final_layer_norm.weight"), "it is a text encoder alone"),
    "T5": Layout(_tensors("encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight"), "it is a text encoder alone"),
    "ControlNet": Layout(_tensors("control_model.time_embed.0.weight"), "it is a ControlNet"),
    "ControlNet, diffusers": Layout(_tensors("conv_in.weight", "controlnet_cond_embedding.conv_in.weight"), "it is a ControlNet"),
    "IP-Adapter": Layout(_tensors("ip_adapter.1.to_k_ip.weight", "image_proj.proj.weight"), "it is an IP-Adapter"),
    "refiner": Layout(_tensors(_CONV_IN, "conditioner.embedders.0.model.text_projection"), "it is the refiner of Stable Diffusion XL"),
    "CosXL": Layout(_tensors(_CONV_IN, "edm_vpred.sigma_max"), "it is CosXL"),
    "Playground 2.5": Layout(_tensors(_CONV_IN, "edm_mean"), "it is Playground 2.5"),
    "SD 3": Layout(_tensors(f"{_UNET}joint_blocks.0.x_block.attn.qkv.weight"), "it is Stable Diffusion 3; use a checkpoint of"),
    "FLUX.1": Layout(_tensors("double_blocks.0.img_attn.norm.key_norm.scale"), "it is FLUX;"),
    "FLUX.1, diffusers": Layout(_tensors("single_transformer_blocks.0.attn.to_q.weight"), "it is FLUX;"),
    "FLUX.2": Layout(_tensors("double_stream_modulation_img.lin.weight", "double_blocks.0.img_attn.qkv.weight"), r"it is FLUX\.2"),
    "Chroma": Layout(_tensors("distilled_guidance_layer.in_proj.weight", "double_blocks.0.img_attn.qkv.weight"), "it is Chroma"),
    "Z-Image": Layout(_tensors("layers.0.adaLN_modulation.0.weight", "cap_embedder.0.weight"), "it is Z-Image"),
    "Qwen-Image": Layout(_tensors("transformer_blocks.0.img_mod.1.weight", "txt_in.weight"), "it is Qwen-Image"),
    "Stable Cascade": Layout(_tensors("clip_txt_mapper.weight"), "it is Stable Cascade"),
    "PixArt": Layout(_tensors("adaln_single.linear.weight", "transformer_blocks.0.attn1.to_q.weight"), "it is PixArt"),
    "Wan": Layout(_tensors("head.modulation", "blocks.0.cross_attn.q.weight"), "it is Wan"),
    "LTX-Video": Layout(_tensors("patchify_proj.weight", "adaln_single.linear.weight"), "it is LTX-Video"),
    "SVD": Layout(_tensors(_CONV_IN, f"{_UNET}input_blocks.1.0.time_stack.in_layers.0.weight"), "it is a video model"),
    "another transformer": Layout(_tensors("transformer_blocks.0.attn1.to_q.weight"), "it is a transformer alone"),
    "unknown": Layout(_tensors("something"), r"it has no UNet of Stable Diffusion \(no tensor model\.diffusion_model\."),
    "DDUF": Layout(_bytes("model.dduf", b"PK\x03\x04"), "it is a DDUF archive; unpack it"),
    "archive": Layout(_bytes("model.zip", b"PK\x03\x04"), "it is an archive; unpack it"),
    "index": Layout(lambda folder: write_sd15_folder(folder) / "model_index.json", "it is a JSON file; give the folder that it is in"),
    "ONNX file": Layout(_bytes("model.onnx", b"\x08\x0a"), "it is an ONNX graph"),
    "ONNX folder": Layout(_exported("model.onnx"), "exported for ONNX Runtime already; use the original checkpoint"),
    "OpenVINO folder": Layout(_exported("openvino_model.xml"), "exported for OpenVINO already"),
    "pointer of Git LFS": Layout(_bytes("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"), "a pointer of Git LFS"),
    "web page": Layout(_bytes("model.safetensors", b"<!DOCTYPE html><title>404</title>"), "it is a web page"),
    "nothing": Layout(_bytes("model.safetensors", b""), "it is empty"),
    "noise": Layout(_bytes("model.safetensors", b"abcdefghijklmnop"), "it is incomplete or damaged: not a safetensors file"),
    "cut off": Layout(_cut_off, "it is incomplete or damaged: not a safetensors file: its tensors end after"),
    "old pickle": Layout(_bytes("model.ckpt", _OLD_PICKLE), r"it is in torch's format before version 1\.6"),
    "empty folder": Layout(_empty, r"it has no model_index\.json and no \.safetensors"),
    "folder with a single file": Layout(
        lambda folder: write_sd15_single_file(folder / "model.safetensors").parent, r"but 1 \.safetensors; give the file, such as"
    ),
    "part of a folder": Layout(lambda folder: write_sd15_folder(folder / "model") / "unet", "it is one part of a diffusers folder"),
    "hub cache": Layout(lambda folder: write_sd15_folder(folder / "a/snapshots/1").parents[1], "one of the folders in its `snapshots`"),
}  # fmt: skip
"""Those that are refused."""
