"""Fused weights equal those of diffusers' load_lora_weights and fuse_lora, with the layouts that both read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.export.checkpoint.lora.fuse import fuse_loras
from costroute_rt.export.checkpoint.source import open_source
from costroute_rt.export.checkpoint.source.network import Source
from tests.checkpoints import write_sd15_folder, write_sdxl_folder
from tests.export.checkpoint.lora.lora_files import Factors, kohya, make_factors, suffixed, value_of, write_numbers
from tests.export.small_checkpoint import needs_export

pytest.importorskip("peft", reason="compares with diffusers, which needs peft for LoRAs (pip install costroute-rt[export])")
pytestmark = [*needs_export, pytest.mark.filterwarnings("ignore")]
SCALE, ALPHA, RANK = 0.7, 2.0, 4
ATTENTIONS = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_k", "ff.net.0.proj", "ff.net.2")
TEXT_LAYERS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")


def layers_of(source: Source, *, with_kernels: bool) -> set[str]:
    chosen = set()
    for name, network in source.networks.items():
        for parameter, region in network.weights.items():
            layer, is_weight = parameter.removesuffix(".weight"), parameter.endswith(".weight")
            is_kernel = len(region.shape) == 4 and ".resnets." in layer and layer.endswith(("conv1", "conv2"))
            if name != "vae" and is_weight and (layer.endswith((*ATTENTIONS, *TEXT_LAYERS)) or (with_kernels and is_kernel)):
                chosen.add(f"{name}.{layer}")
    return chosen


def write_original(factors: Factors, alpha: float) -> dict[str, Any]:
    """Names in the original numbering of this SDXL UNet, as kohya's scripts write them; one resnet per level down, two up."""
    numbers = {"down_blocks.1.attentions.0": "input_blocks.3.1", "down_blocks.2.attentions.0": "input_blocks.5.1"}
    numbers |= {f"up_blocks.{level}.attentions.{index}": f"output_blocks.{2 * level + index}.1" for level in (0, 1) for index in (0, 1)}
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
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {"sd1": write_sd15_folder(root / "sd1", dtype="F32"), "sdxl": write_sdxl_folder(root / "sdxl", dtype="F32")}


@pytest.mark.parametrize(
    ("family", "layout"),
    [
        *(("sd1", layout) for layout in ("kohya", "diffusers", "peft")),
        *(("sdxl", layout) for layout in ("kohya, SDXL", "original", "diffusers", "peft")),
    ],
)
def test_fused_weights_equal_those_of_diffusers(folders: dict[str, Path], tmp_path: Path, family: str, layout: str) -> None:
    from diffusers import DiffusionPipeline

    source = open_source(folders[family])
    factors = make_factors(source, layers_of(source, with_kernels=layout not in ("original", "diffusers")), RANK)
    write_numbers(tmp_path / "a.safetensors", LAYOUTS[layout](factors, ALPHA))
    fused = fuse_loras(source, [(tmp_path / "a.safetensors", SCALE)], tmp_path)

    pipeline = DiffusionPipeline.from_pretrained(folders[family])
    pipeline.load_lora_weights(str(tmp_path), weight_name="a.safetensors", adapter_name="a")
    pipeline.fuse_lora(components=[name for name in source.networks if name != "vae"], lora_scale=SCALE, adapter_names=["a"])
    pipeline.unload_lora_weights()
    for name, network in fused.networks.items():
        theirs, changed = getattr(pipeline, name).state_dict(), 0
        for parameter, region in network.weights.items():
            values = theirs[parameter].double().numpy()
            np.testing.assert_allclose(value_of(region), values, atol=1e-5, rtol=1e-5, err_msg=f"{name}.{parameter}")
            changed += bool(np.abs(values - value_of(source.networks[name].weights[parameter])).max() > 0.01)
        assert changed == sum(layer.startswith(f"{name}.") for layer in factors)
