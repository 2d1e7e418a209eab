"""Fused weights equal those of diffusers' load_lora_weights and fuse_lora, with the layouts that both read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.bundle.safetensors_file import read_stored_tensors
from costroute_rt.export.checkpoint.lora.fuse import fuse_loras
from costroute_rt.export.checkpoint.source.network import Network, Region, Source
from tests.export.checkpoint.lora.lora_files import Factors, kohya, make_factors, suffixed, value_of, write_numbers
from tests.export.small_checkpoint import needs_export, write_tokenizer

pytest.importorskip("peft", reason="compares with diffusers, which needs peft for LoRAs (pip install costroute-rt[export])")
pytestmark = [*needs_export, pytest.mark.filterwarnings("ignore")]
SCALE, ALPHA, RANK = 0.7, 2.0, 4
ATTENTIONS = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_k", "ff.net.0.proj", "ff.net.2")
TEXT_LAYERS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")


def make_pipeline(family: str, folder: Path) -> Any:
    """A pipeline of the real classes, narrow, with random weights."""
    import torch
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    torch.set_num_threads(1)
    is_xl = family == "sdxl"
    text = CLIPTextConfig(
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        vocab_size=600,
        projection_dim=32,
        hidden_act="gelu",
    )
    extra = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 80,
        "transformer_layers_per_block": (1, 2),
        "use_linear_projection": True,
        "attention_head_dim": (2, 4),
    }
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=2,
        sample_size=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64 if is_xl else 32,
        norm_num_groups=8,
        **(extra if is_xl else {"attention_head_dim": 4}),
    )
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    tokenizer = write_tokenizer(folder / "tokenizer")
    parts: dict[str, Any] = {
        "vae": AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, **blocks),
        "unet": unet,
        "scheduler": DDIMScheduler(),
        "tokenizer": tokenizer,
        "text_encoder": CLIPTextModel(text),
    }
    if is_xl:
        return StableDiffusionXLPipeline(**parts, text_encoder_2=CLIPTextModelWithProjection(text), tokenizer_2=tokenizer)
    return StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def open_folder(folder: Path, family: str) -> Source:
    networks = {}
    for name in ("unet", "text_encoder", "text_encoder_2"):
        for path in (folder / name).glob("*.safetensors"):
            weights = {
                tensor.name: Region(file=path, offset=tensor.offset, length=tensor.length, dtype=tensor.dtype, shape=tensor.shape)
                for tensor in read_stored_tensors(path).values()
            }
            config = json.loads((folder / name / "config.json").read_text())
            networks[name] = Network(name=name, class_name="", config=config, weights=weights)
    return Source(path=folder, name="tiny", family=family, pipeline="", networks=networks, tokenizers={}, scheduler={})


def layers_of(source: Source, *, with_kernels: bool) -> set[str]:
    chosen = set()
    for name, network in source.networks.items():
        for parameter, region in network.weights.items():
            layer, is_weight = parameter.removesuffix(".weight"), parameter.endswith(".weight")
            is_kernel = len(region.shape) == 4 and ".resnets." in layer and layer.endswith(("conv1", "conv2"))
            if is_weight and (layer.endswith((*ATTENTIONS, *TEXT_LAYERS)) or (with_kernels and is_kernel)):
                chosen.add(f"{name}.{layer}")
    return chosen


def write_original(factors: Factors, alpha: float) -> dict[str, Any]:
    """Names in the original numbering of this SDXL UNet, as kohya's scripts write them; two resnets per level down, three up."""
    numbers = {"down_blocks.1.attentions.0": "input_blocks.4.1", "down_blocks.1.attentions.1": "input_blocks.5.1"}
    numbers |= {f"up_blocks.0.attentions.{index}": f"output_blocks.{index}.1" for index in range(3)}
    numbers["mid_block.attentions.0"] = "middle_block.1"

    def rename(layer: str) -> str:
        for ours, theirs in numbers.items():
            layer = layer.replace(ours, theirs)
        return layer

    return {name.replace("lora_te_", "lora_te1_"): value for name, value in kohya(factors, alpha, rename).items()}


def write_first_text_encoder(factors: Factors, alpha: float) -> dict[str, Any]:
    return {name.replace("lora_te_", "lora_te1_"): value for name, value in kohya(factors, alpha).items()}


def write_diffusers(factors: Factors, alpha: float) -> dict[str, Any]:
    """The layout that diffusers wrote before it used peft."""
    tensors = suffixed(".lora.down.weight", ".lora.up.weight")(factors, alpha)
    return {name.replace(".lora.", ".lora_linear_layer.") if name.startswith("text") else name: each for name, each in tensors.items()}


LAYOUTS = {
    "kohya": kohya,
    "kohya, SDXL": write_first_text_encoder,
    "original": write_original,
    "diffusers": write_diffusers,
    "peft": suffixed(".lora_A.weight", ".lora_B.weight"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Folder and pipeline by family."""
    found = {}
    for family in ("sd1", "sdxl"):
        folder = tmp_path_factory.mktemp(family)
        found[family] = folder, make_pipeline(family, folder)
        found[family][1].save_pretrained(folder, safe_serialization=True)
    return found


@pytest.mark.parametrize(
    ("family", "layout"),
    [
        *(("sd1", layout) for layout in ("kohya", "diffusers", "peft")),
        *(("sdxl", layout) for layout in ("kohya, SDXL", "original", "diffusers", "peft")),
    ],
)
def test_fused_weights_equal_those_of_diffusers(saved: Any, tmp_path: Path, family: str, layout: str) -> None:
    folder, made = saved[family]
    source = open_folder(folder, family)
    factors = make_factors(source, layers_of(source, with_kernels=layout not in ("original", "diffusers")), RANK)
    write_numbers(tmp_path / "a.safetensors", LAYOUTS[layout](factors, ALPHA))
    fused = fuse_loras(source, [(tmp_path / "a.safetensors", SCALE)], tmp_path)

    before = {name: getattr(made, name).state_dict() for name in source.networks}
    pipeline = type(made).from_pretrained(folder)
    pipeline.load_lora_weights(str(tmp_path), weight_name="a.safetensors", adapter_name="a")
    pipeline.fuse_lora(components=list(source.networks), lora_scale=SCALE, adapter_names=["a"])
    pipeline.unload_lora_weights()
    for name, network in fused.networks.items():
        theirs, changed = getattr(pipeline, name).state_dict(), 0
        for parameter, region in network.weights.items():
            values = theirs[parameter].double().numpy()
            np.testing.assert_allclose(value_of(region), values, atol=1e-5, rtol=1e-5, err_msg=f"{name}.{parameter}")
            changed += bool(np.abs(values - before[name][parameter].double().numpy()).max() > 0.01)
        assert changed == sum(layer.startswith(f"{name}.") for layer in factors)
