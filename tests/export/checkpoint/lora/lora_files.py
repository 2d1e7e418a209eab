"""A tiny model and LoRA files for it in every layout, written with NumPy alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from costroute_rt.engines.bundle.safetensors_file import read_stored_tensors
from costroute_rt.export.checkpoint.source.network import Network, Region, Source
from costroute_rt.export.checkpoint.tensor.number import from_float32, to_float32

WIDTH, TEXT, RANK = 8, 6, 3
ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0"
SELF_ATTENTION = "text_model.encoder.layers.0.self_attn"
UNET = {
    "conv_in.weight": (WIDTH, 4, 3, 3),
    "conv_in.bias": (WIDTH,),
    "down_blocks.0.resnets.0.conv1.weight": (WIDTH, WIDTH, 3, 3),
    "down_blocks.0.resnets.0.time_emb_proj.weight": (WIDTH, 16),
    "down_blocks.0.downsamplers.0.conv.weight": (WIDTH, WIDTH, 3, 3),
    "down_blocks.1.attentions.0.proj_in.weight": (WIDTH, WIDTH, 1, 1),
    **{f"{ATTENTION}.attn1.{layer}.weight": (WIDTH, WIDTH) for layer in ("to_q", "to_k", "to_v", "to_out.0")},
    f"{ATTENTION}.attn2.to_k.weight": (WIDTH, TEXT),
    f"{ATTENTION}.ff.net.0.proj.weight": (4 * WIDTH, WIDTH),
    "mid_block.resnets.1.conv2.weight": (WIDTH, WIDTH, 3, 3),
    "up_blocks.0.attentions.1.proj_out.weight": (WIDTH, WIDTH, 1, 1),
    "up_blocks.0.upsamplers.0.conv.weight": (WIDTH, WIDTH, 3, 3),
}
TEXT_ENCODER = {
    **{f"{SELF_ATTENTION}.{layer}.weight": (TEXT, TEXT) for layer in ("q_proj", "k_proj", "v_proj", "out_proj")},
    "text_model.encoder.layers.0.mlp.fc1.weight": (4 * TEXT, TEXT),
    "text_model.embeddings.token_embedding.weight": (20, TEXT),
}
ORIGINAL = {
    "conv_in": "input_blocks.0.0",
    "down_blocks.0.resnets.0.conv1": "input_blocks.1.0.in_layers.2",
    "down_blocks.0.resnets.0.time_emb_proj": "input_blocks.1.0.emb_layers.1",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.attentions.0.proj_in": "input_blocks.3.1.proj_in",
    f"{ATTENTION}.attn1.to_q": "input_blocks.3.1.transformer_blocks.0.attn1.to_q",
    "mid_block.resnets.1.conv2": "middle_block.2.out_layers.3",
    "up_blocks.0.attentions.1.proj_out": "output_blocks.1.1.proj_out",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
}
"""Names in the original numbering, written by hand for this model: one resnet per level down, two up."""
LINEAR = {f"unet.{ATTENTION}.attn1.{layer}" for layer in ("to_q", "to_k", "to_v", "to_out.0")} | {f"unet.{ATTENTION}.attn2.to_k"}
TEXTS = {f"text_encoder.{SELF_ATTENTION}.{layer}" for layer in ("q_proj", "k_proj", "v_proj", "out_proj")}
KERNELS = {f"unet.{name}" for name in ORIGINAL if "conv" in name or "proj_in" in name}

CONFIG = {"layers_per_block": 1, "block_out_channels": [8, 8], "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}

Factors = dict[str, tuple[Any, Any]]
"""`down` and `up` by network and layer."""
Tensors = dict[str, Any]


def random(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def tiny_source(folder: Path, dtype: str = "F32", family: str = "sd1") -> Source:
    """A model whose text encoder is stored as single files do it: q, k and v are rows of one tensor, and a matrix is transposed."""
    folder.mkdir(parents=True, exist_ok=True)
    second = {f"second.{name}": shape for name, shape in TEXT_ENCODER.items()} | {"second.text_projection.weight": (TEXT, 5)}
    shapes = {**UNET, **TEXT_ENCODER, **(second if family == "sdxl" else {})}
    values = {name: random(index, *shape) for index, (name, shape) in enumerate(shapes.items())}
    joined = [values.pop(f"{SELF_ATTENTION}.{layer}.weight") for layer in ("q_proj", "k_proj", "v_proj")]
    values["in_proj_weight"] = np.concatenate(joined)
    path = folder / "model.safetensors"
    write_numbers(path, values, dtype)
    networks = {"unet": Network(name="unet", class_name="UNet2DConditionModel", config=CONFIG, weights=_regions(path, UNET))}
    networks["text_encoder"] = Network(name="text_encoder", class_name="CLIPTextModel", config={}, weights=_text_regions(path))
    if family == "sdxl":
        weights = {name.removeprefix("second."): region for name, region in _regions(path, second).items()}
        kind = "CLIPTextModelWithProjection"
        networks["text_encoder_2"] = Network(name="text_encoder_2", class_name=kind, config={}, weights=weights)
    pipeline = "StableDiffusionXLPipeline" if family == "sdxl" else "StableDiffusionPipeline"
    return Source(path=path, name="tiny", family=family, pipeline=pipeline, networks=networks, tokenizers={}, scheduler={})


def _regions(path: Path, names: Mapping[str, Any]) -> dict[str, Region]:
    stored = read_stored_tensors(path)
    return {
        name: Region(
            file=path,
            offset=stored[name].offset,
            length=stored[name].length,
            dtype=stored[name].dtype,
            shape=stored[name].shape,
            is_transposed=name.endswith("text_projection.weight"),
        )
        for name in names
    }


def _text_regions(path: Path) -> dict[str, Region]:
    rows = [f"{SELF_ATTENTION}.{layer}.weight" for layer in ("q_proj", "k_proj", "v_proj")]
    (whole,) = _regions(path, ["in_proj_weight"]).values()
    part = whole.length // 3
    found = _regions(path, [name for name in TEXT_ENCODER if name not in rows])
    for index, name in enumerate(rows):
        found[name] = Region(file=path, offset=whole.offset + index * part, length=part, dtype=whole.dtype, shape=(TEXT, TEXT))
    return found


def write_numbers(path: Path, values: Mapping[str, Any], dtype: str = "F32", metadata: Mapping[str, str] | None = None) -> Path:
    """A safetensors file; bfloat16, which NumPy does not know, is written as uint16 and then renamed in the header."""
    stored = {name: np.ascontiguousarray(from_float32(value, dtype)).reshape(np.shape(value)) for name, value in values.items()}
    save_file(stored, path, metadata=dict(metadata) if metadata else None)
    if dtype == "BF16":
        path.write_bytes(_renamed(path.read_bytes()))
    return path


def _renamed(data: bytes) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].replace(b'"U16"', b'"BF16"')
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def value_of(region: Region) -> Any:
    """The parameter's values as the module has them, in float64."""
    with region.file.open("rb") as file:
        file.seek(region.offset)
        data = file.read(region.length)
    values = to_float32(data, region.dtype).reshape(region.shape).astype(np.float64)
    return values.T if region.is_transposed else values


def make_factors(source: Source, layers: set[str], rank: int = RANK) -> Factors:
    """Random factors for layers called NETWORK.LAYER."""
    factors = {}
    for index, name in enumerate(sorted(layers)):
        network, _, layer = name.partition(".")
        shape = value_of(source.networks[network].weights[f"{layer}.weight"]).shape
        tail = (1,) * (len(shape) - 2)
        factors[name] = random(100 + index, rank, *shape[1:]), random(200 + index, shape[0], rank, *tail)
    return factors


def expected(source: Source, factors: Factors, factor: float) -> dict[str, Any]:
    """W + factor * up @ down by the formula, in float64."""
    found = {}
    for name, (down, up) in factors.items():
        network, _, layer = name.partition(".")
        weight = value_of(source.networks[network].weights[f"{layer}.weight"])
        rank = down.shape[0]
        product = up.reshape(-1, rank).astype(np.float64) @ down.reshape(rank, -1).astype(np.float64)
        found[name] = weight + factor * product.reshape(weight.shape)
    return found


def kohya(factors: Factors, alpha: float, name_of: Callable[[str], str] = lambda name: name) -> Tensors:
    prefixes = {"unet": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}
    tensors = {}
    for name, (down, up) in factors.items():
        network, _, layer = name.partition(".")
        key = f"{prefixes[network]}_{name_of(layer).replace('.', '_')}"
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": np.float32(alpha)}
    return tensors


def kohya_original(factors: Factors, alpha: float) -> Tensors:
    return kohya(factors, alpha, lambda layer: ORIGINAL.get(layer, layer))


def suffixed(down_suffix: str, up_suffix: str, prefix: str = "") -> Callable[[Factors, float], Tensors]:
    """A layout that names layers as the module does, without alpha."""

    def write(factors: Factors, alpha: float) -> Tensors:
        downs = {f"{prefix}{name}{down_suffix}": down for name, (down, _) in factors.items()}
        return downs | {f"{prefix}{name}{up_suffix}": up for name, (_, up) in factors.items()}

    return write


def processors(factors: Factors, alpha: float) -> Tensors:
    """The attention processors of diffusers before 0.18."""
    tensors = {}
    for name, (down, up) in factors.items():
        head, _, layer = name.partition(".attn")
        number, _, linear = layer.partition(".")
        key = f"{head}.attn{number}.processor.{linear.removesuffix('.0')}_lora"
        tensors |= {f"{key}.down.weight": down, f"{key}.up.weight": up}
    return tensors
