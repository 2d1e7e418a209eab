"""What cannot be used as a LoRA is refused in one line, before any work."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.lora.fuse import plan_fusion
from costroute_rt.export.checkpoint.lora.read_lora import read_lora
from tests.export.checkpoint.lora.lora_files import ATTENTION, LINEAR, kohya, make_factors, random, suffixed, tiny_source, write_numbers
from tests.tensor_file import write_safetensors

LAYER = f"lora_unet_{ATTENTION.replace('.', '_')}_attn1_to_q"
PLAIN = {f"{LAYER}.lora_down.weight": random(1, 2, 8), f"{LAYER}.lora_up.weight": random(2, 8, 2)}
MATRIX = np.zeros((2, 2), np.float32)


def refusal(tmp_path: Path, tensors: dict[str, Any], **options: Any) -> str:
    with pytest.raises(BundleError) as caught:
        read_lora(write_numbers(tmp_path / "a.safetensors", tensors, **options))
    assert str(caught.value).count("\n") == 0
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "named"),
    [
        (f"{LAYER}.dora_scale", "a DoRA"),
        ("unet.mid_block.attn1.to_q.lora_magnitude_vector.weight", "a DoRA"),
        (f"{LAYER}.hada_w1_a", "a LoHa"),
        (f"{LAYER}.lokr_w1", "a LoKr"),
        (f"{LAYER}.oft_blocks", "an OFT or BOFT"),
        (f"{LAYER}.oft_R.default.weight", "an OFT or BOFT"),
        (f"{LAYER}.a1.weight", "a GLoRA"),
        (f"{LAYER}.on_input", "an (IA)^3"),
        (f"{LAYER}.diff", "full differences"),
        (f"{LAYER}.diff_b", "full differences"),
        (f"{LAYER}.w_norm", "full differences"),
        ("unet.mid_block.to_q.lora_B.bias", "a LoRA with biases"),
        ("text_encoder.token_embedding.lora_embedding_A", "a LoRA of embeddings"),
    ],
)
def test_other_methods_are_named(tmp_path: Path, key: str, named: str) -> None:
    text = refusal(tmp_path, {**PLAIN, key: MATRIX})
    assert f"it is {named}" in text or named in text
    assert "use a plain LoRA" in text


@pytest.mark.parametrize(
    ("layer", "family"),
    [
        ("lora_unet_double_blocks_0_img_attn_qkv", "FLUX"),
        ("transformer.single_transformer_blocks.0.attn.to_q", "FLUX"),
        ("lora_unet_joint_blocks_0_x_block_attn_qkv", "Stable Diffusion 3"),
        ("transformer.transformer_blocks.0.attn.add_q_proj", "Stable Diffusion 3"),
        ("transformer.transformer_blocks.0.img_mlp.net.0.proj", "Qwen-Image"),
        ("diffusion_model.blocks.0.cross_attn.q", "Wan"),
        ("diffusion_model.layers.0.attention.qkv", "Z-Image"),
        ("lora_prior_unet_down_blocks_0", "Stable Cascade"),
    ],
)
def test_other_families_are_named(tmp_path: Path, layer: str, family: str) -> None:
    text = refusal(tmp_path, {f"{layer}.lora_down.weight": MATRIX, f"{layer}.lora_up.weight": MATRIX})
    assert f"it is a LoRA for {family}" in text
    assert "use one for Stable Diffusion 1.x, Stable Diffusion 2.x or SDXL" in text
    assert "FLUX" in refusal(tmp_path, PLAIN, metadata={"modelspec.architecture": "flux-1-dev/lora"})


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({}, "no tensors"),
        ({"what.is.this": MATRIX, **PLAIN}, "1 of its 3 tensors are of no known LoRA layout: 'what.is.this'"),
        ({f"{LAYER}.lora_down.weight": MATRIX}, "has no up part"),
        ({f"{LAYER}.alpha": MATRIX[0, :1]}, "has no down part"),
        ({**PLAIN, f"{LAYER}.alpha": MATRIX}, "expected one number"),
        ({**PLAIN, f"{LAYER}.lora_up.weight": random(1, 8, 3)}, "do not fit each other: their shapes are (2, 8), (8, 3)"),
        ({**PLAIN, f"{LAYER}.lora_up.weight": random(1, 8)}, "do not fit each other"),
        ({**PLAIN, f"{LAYER}.lora_up.weight": random(1, 0, 2)}, "do not fit each other"),
        ({**PLAIN, f"{LAYER}.lora_mid.weight": random(1, 3, 3, 3, 3)}, "do not fit each other"),
        ({**PLAIN, f"unet.{ATTENTION}.attn1.to_q.lora.up.weight": MATRIX}, "twice, under two names"),
        ({**PLAIN, f"{LAYER}.alpha": np.float32("nan")}, "holds NaN or infinity"),
        ({**PLAIN, f"{LAYER}.lora_up.weight": np.full((8, 2), np.inf, np.float32)}, "holds NaN or infinity"),
        ({"emb_params": MATRIX}, "it is a textual inversion; add it as one"),
        ({"model.diffusion_model.input_blocks.0.0.weight": MATRIX}, "it is a checkpoint"),
        ({"text_model.encoder.layers.0.mlp.fc1.weight": MATRIX}, "it is a checkpoint"),
    ],
)
def test_what_is_no_usable_lora_is_refused(tmp_path: Path, tensors: dict[str, Any], problem: str) -> None:
    assert problem in refusal(tmp_path, tensors)


def test_files_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    path = write_numbers(tmp_path / "a.safetensors", PLAIN)
    whole = path.read_bytes()
    for data, problem in [
        (whole[:-3], "incomplete"),
        (whole[:30], "incomplete"),
        (b"", "empty"),
        (b"<html>sign in</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ]:
        path.write_bytes(data)
        with pytest.raises(BundleError, match=problem):
            read_lora(path)
    for name in ("a.pt", "a.bin", "a.ckpt"):
        (tmp_path / name).write_bytes(pickle.dumps({"a": 1}))
        with pytest.raises(BundleError, match=r"so it is refused; use a \.safetensors file"):
            read_lora(tmp_path / name)
    with pytest.raises(BundleError, match="does not exist; check the path"):
        read_lora(tmp_path / "no.safetensors")
    with pytest.raises(BundleError, match=r"it is a folder; name the \.safetensors file"):
        read_lora(tmp_path)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("[", "not valid JSON"),
        ("[]", "not a JSON object"),
        ({"unet.use_dora": True}, "it is a DoRA"),
        ({"unet.lora_alpha": "4"}, "lora_alpha is 4: expected a number"),
        ({"unet.lora_alpha": 1e999}, "expected a number"),
        ({"unet.lora_alpha": 10**400}, "expected a number"),
        ({"unet.alpha_pattern": [1]}, "alpha_pattern is not"),
        ({"unet.alpha_pattern": {"(a+)+$": 1}}, "regular expression"),
    ],
)
def test_settings_of_peft_are_checked(tmp_path: Path, settings: Any, problem: str) -> None:
    tensors = suffixed(".lora_A.weight", ".lora_B.weight")(make_factors(tiny_source(tmp_path), LINEAR), 1.0)
    text = settings if isinstance(settings, str) else json.dumps(settings)
    assert problem in refusal(tmp_path, tensors, metadata={"lora_adapter_metadata": text})


def test_a_lora_for_another_model_says_which(tmp_path: Path) -> None:
    def plan(family: str, tensors: dict[str, Any], **options: Any) -> str:
        with pytest.raises(BundleError) as caught:
            plan_fusion(tiny_source(tmp_path, family=family), [(write_numbers(tmp_path / "a.safetensors", tensors, **options), 1.0)])
        return str(caught.value)

    wide = LAYER.replace("attn1_to_q", "attn2_to_k")
    text = plan("sd1", {f"{wide}.lora_down.weight": random(1, 2, 2048), f"{wide}.lora_up.weight": random(2, 8, 2)})
    assert text.endswith("it is a LoRA for SDXL, but the model tiny is Stable Diffusion 1.x; use one for Stable Diffusion 1.x")
    text = plan("sdxl", {f"{wide}.lora_down.weight": random(1, 2, 768), f"{wide}.lora_up.weight": random(2, 8, 2)})
    assert "it is a LoRA for Stable Diffusion 1.x, but the model tiny is SDXL" in text
    second = {key.replace("lora_unet", "lora_te2"): value for key, value in PLAIN.items()}
    assert "it is a LoRA for SDXL" in plan("sd1", second)
    other = {f"lora_unet_nothing_{index}.lora_{part}.weight": MATRIX for index in range(5) for part in ("up", "down")}
    names = "'lora_unet_nothing_0', 'lora_unet_nothing_1', 'lora_unet_nothing_2'"
    assert f"the model tiny does not have 5 of its 5 layers: {names}; use a LoRA that was made for" in plan("sd1", other)
    assert "it is a LoRA for SDXL" in plan("sd1", other, metadata={"ss_base_model_version": "sdxl_base_v1-0"})
    text = plan("sd1", {f"{LAYER}.lora_down.weight": random(1, 2, 12), f"{LAYER}.lora_up.weight": random(2, 8, 2)})
    assert "is for a weight of the shape (8, 12), but the model's has (8, 8)" in text
    kernel = "lora_unet_conv_in"
    text = plan("sd1", {f"{kernel}.lora_down.weight": random(1, 2, 4, 1, 1), f"{kernel}.lora_up.weight": random(2, 8, 2, 1, 1)})
    assert "(8, 4, 1, 1), but the model's has (8, 4, 3, 3)" in text
    numbered = {key.replace("down_blocks_1_attentions_0", "input_blocks_3_1"): value for key, value in PLAIN.items()}
    assert "2 times, under different names" in plan("sd1", PLAIN | numbered)


def test_kohya_files_read_the_rank_and_alpha(tmp_path: Path) -> None:
    lora = read_lora(write_numbers(tmp_path / "my style.safetensors", kohya(make_factors(tiny_source(tmp_path), LINEAR), 6.0), "BF16"))
    assert (lora.name, len(lora.modules), {module.scaling for module in lora.modules}) == ("my style", len(LINEAR), {2.0})


def test_an_alpha_may_be_a_whole_number(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "a.safetensors", {**PLAIN, f"{LAYER}.alpha": np.array(4)})
    assert [module.scaling for module in read_lora(path).modules] == [2.0]
    path = write_safetensors(tmp_path / "b.safetensors", {**PLAIN, f"{LAYER}.alpha": np.array([4], np.uint8)})
    with pytest.raises(BundleError, match="its numbers are 'U8'; use one in float16"):
        read_lora(path)
