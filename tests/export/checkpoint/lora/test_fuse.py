"""Fused weights equal W + scale * alpha / rank * up @ down, in every layout; only what changes is written, once."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.error import BundleError, CancelledError, ConfigError, OutputError
from costroute_rt.export.checkpoint.lora import fuse
from costroute_rt.export.checkpoint.lora.fuse import fuse_loras, plan_fusion
from costroute_rt.export.checkpoint.lora.read_lora import read_lora
from costroute_rt.export.checkpoint.source.network import Network, Region, Source
from costroute_rt.export.checkpoint.tensor import writer
from tests.export.checkpoint.lora.lora_files import (
    ATTENTION,
    KERNELS,
    LINEAR,
    RANK,
    TEXTS,
    Factors,
    Tensors,
    expected,
    kohya,
    kohya_original,
    make_factors,
    processors,
    random,
    suffixed,
    tiny_source,
    value_of,
    write_numbers,
)

TOLERANCE = {"F32": 1e-6, "F16": 1e-3, "BF16": 8e-3}


def check(source: Source, fused: Source, wanted: dict[str, Any], dtype: str = "F32") -> None:
    """The changed weights have the wanted values in the dtype of the model, and all others lie where they did."""
    for name, network in source.networks.items():
        for parameter, region in network.weights.items():
            moved = fused.networks[name].weights[parameter]
            if (key := f"{name}.{parameter.removesuffix('.weight')}") in wanted:
                assert moved.dtype == dtype
                np.testing.assert_allclose(value_of(moved), wanted[key], rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
            else:
                assert moved == region


ALL = LINEAR | TEXTS | KERNELS
PEFT = suffixed(".lora_A.weight", ".lora_B.weight")
UNET_ALONE = {name for name in ALL if name.startswith("unet.")}


def without_network(factors: Factors, alpha: float) -> Tensors:
    return {f"base_model.model.{name.removeprefix('unet.')}": value for name, value in PEFT(factors, alpha).items()}


@pytest.mark.parametrize(
    ("write", "layers", "alpha"),
    [
        pytest.param(kohya, ALL, 1.5, id="kohya"),
        pytest.param(kohya_original, ALL, 1.5, id="kohya with the original numbering"),
        pytest.param(suffixed(".lora.down.weight", ".lora.up.weight"), ALL, RANK, id="diffusers"),
        pytest.param(suffixed(".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"), TEXTS, RANK, id="diffusers text"),
        pytest.param(processors, LINEAR, RANK, id="attention processors"),
        pytest.param(PEFT, ALL, RANK, id="peft in diffusers"),
        pytest.param(suffixed(".lora_A.default.weight", ".lora_B.default.weight", "base_model.model."), ALL, RANK, id="peft"),
        pytest.param(without_network, UNET_ALONE, RANK, id="peft of one network"),
    ],
)
def test_every_layout_adds_the_same(tmp_path: Path, write: Callable[[Factors, float], Tensors], layers: set[str], alpha: float) -> None:
    source = tiny_source(tmp_path)
    factors = make_factors(source, layers)
    path = write_numbers(tmp_path / "style.safetensors", write(factors, alpha))
    fused = fuse_loras(source, [(path, 0.7)], tmp_path / "fused")
    check(source, fused, expected(source, factors, 0.7 * alpha / RANK))
    assert {path.name for path in (tmp_path / "fused").glob("*.safetensors")} == {
        f"{name.split('.')[0]}.lora.safetensors" for name in layers
    }


def test_both_text_encoders_and_a_transposed_matrix(tmp_path: Path) -> None:
    source = tiny_source(tmp_path, "F16", "sdxl")
    factors = make_factors(
        source, {*TEXTS, *(name.replace("encoder.", "encoder_2.", 1) for name in TEXTS), "text_encoder_2.text_projection"}
    )
    names = {name.replace("lora_te_", "lora_te1_"): value for name, value in kohya(factors, 2.0).items()}
    fused = fuse_loras(source, [(write_numbers(tmp_path / "a.safetensors", names, "F16"), -1.0)], tmp_path)
    halved = {name: tuple(value.astype(np.float16).astype(np.float32) for value in each) for name, each in factors.items()}
    check(source, fused, expected(source, halved, -2.0 / RANK), "F16")


def test_several_loras_add_up_in_bfloat16(tmp_path: Path) -> None:
    source = tiny_source(tmp_path, "BF16")
    one, two = make_factors(source, LINEAR), make_factors(source, {f"unet.{ATTENTION}.attn1.to_q"}, rank=1)
    paths = [write_numbers(tmp_path / f"{index}.safetensors", kohya(each, 1.0)) for index, each in enumerate((one, two))]
    fused = fuse_loras(source, [(paths[0], 0.5), (read_lora(paths[1]), 2.0)], tmp_path)
    wanted = expected(source, one, 0.5 / RANK)
    for name, value in expected(source, two, 2.0).items():
        network, _, layer = name.partition(".")
        wanted[name] += value - value_of(source.networks[network].weights[f"{layer}.weight"])
    check(source, fused, wanted, "BF16")


def test_a_decomposed_kernel_is_multiplied_out(tmp_path: Path) -> None:
    source = tiny_source(tmp_path)
    layer = "down_blocks.0.resnets.0.conv1"
    down, mid, up = random(1, RANK, 8, 1, 1), random(2, RANK, RANK, 3, 3), random(3, 8, RANK, 1, 1)
    key = f"lora_unet_{layer.replace('.', '_')}"
    tensors = {f"{key}.lora_{part}.weight": value for part, value in (("down", down), ("mid", mid), ("up", up))}
    fused = fuse_loras(source, [(write_numbers(tmp_path / "a.safetensors", tensors), 1.0)], tmp_path)
    delta = np.zeros((8, 8, 3, 3))
    for y in range(3):
        for x in range(3):
            delta[:, :, y, x] = up[:, :, 0, 0].astype(float) @ mid[:, :, y, x].astype(float) @ down[:, :, 0, 0].astype(float)
    weight = value_of(source.networks["unet"].weights[f"{layer}.weight"])
    check(source, fused, {f"unet.{layer}": weight + delta})


def test_alpha_of_peft_is_read_from_the_files_settings(tmp_path: Path) -> None:
    source = tiny_source(tmp_path)
    factors = make_factors(source, {f"unet.{ATTENTION}.attn1.to_q", f"unet.{ATTENTION}.attn1.to_k", f"text_encoder.{min(TEXTS)[13:]}"})
    settings = {
        "unet.lora_alpha": 6,
        "unet.alpha_pattern": {"attn1.to_k": 1.5},
        "text_encoder.lora_alpha": 3,
        "text_encoder.use_rslora": True,
    }
    path = tmp_path / "a.safetensors"
    write_numbers(path, PEFT(factors, 0), metadata={"lora_adapter_metadata": json.dumps(settings)})
    (text,) = (name for name in factors if name.startswith("text"))
    alphas = {f"unet.{ATTENTION}.attn1.to_q": 6 / RANK, f"unet.{ATTENTION}.attn1.to_k": 1.5 / RANK, text: 3 / RANK**0.5}
    wanted = {name: expected(source, {name: factors[name]}, factor)[name] for name, factor in alphas.items()}
    check(source, fuse_loras(source, [(path, 1.0)], tmp_path), wanted)

    saved = tmp_path / "adapter_model.safetensors"
    write_numbers(saved, PEFT({name: factors[name] for name in factors if name != text}, 0))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 6, "alpha_pattern": {"attn1.to_k": 1.5}}))
    check(source, fuse_loras(source, [(saved, 1.0)], tmp_path / "other"), {name: wanted[name] for name in wanted if name != text})


def test_only_networks_whose_scale_or_lora_changed_are_computed_again(tmp_path: Path) -> None:
    source = tiny_source(tmp_path)
    unet = write_numbers(tmp_path / "unet.safetensors", kohya(make_factors(source, LINEAR), 1.0))
    text = write_numbers(tmp_path / "text.safetensors", kohya(make_factors(source, TEXTS), 1.0))
    begun: list[str] = []

    def fuse_again(scale: float) -> Source:
        begun.clear()
        return fuse_loras(source, [(unet, 1.0), (text, scale)], tmp_path, progress=lambda name, index, total: begun.append(name))

    fused = fuse_again(0.5)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.lora.safetensors")}
    assert len(begun) == len(LINEAR) + len(TEXTS)
    assert fuse_again(0.5) == fused
    assert begun == []
    fuse_again(0.6)
    assert {name.split()[0] for name in begun} == {"text_encoder"}
    plans = [plan_fusion(source, [(unet, 1.0), (text, scale)]) for scale in (0.5, 0.6)]
    assert plans[0].keys["unet"] == plans[1].keys["unet"]
    assert plans[0].keys["text_encoder"] != plans[1].keys["text_encoder"]
    assert plans[1].record()[1] == {"name": "text", "sha256": read_lora(text).sha256, "scale": 0.6, "networks": ["text_encoder"]}
    fuse_again(0.5)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.lora.safetensors")} == before

    os.utime(source.path, ns=(1, 1))  # other weights, as far as can be told without reading them
    fuse_again(0.5)
    assert len(begun) == len(LINEAR) + len(TEXTS)


def test_scale_0_changes_nothing(tmp_path: Path) -> None:
    source = tiny_source(tmp_path)
    path = write_numbers(tmp_path / "a.safetensors", kohya(make_factors(source, LINEAR), 1.0))
    assert fuse_loras(source, [(path, 0.0)], tmp_path / "fused") == source
    assert not (tmp_path / "fused").exists()
    with pytest.raises(ConfigError, match="finite"):
        plan_fusion(source, [(path, float("nan"))])


def test_a_sum_that_float16_cannot_hold_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    source = tiny_source(tmp_path, "F16")
    path = write_numbers(tmp_path / "a.safetensors", kohya(make_factors(source, LINEAR), 1.0))
    for scale in (1e6, 1e38):
        with pytest.raises(BundleError, match=r"a\.safetensors added.*not finite in F16; use a smaller scale"):
            fuse_loras(source, [(path, scale)], tmp_path / "fused")
    assert list((tmp_path / "fused").iterdir()) == []


def test_cancelling_and_a_full_disk_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny_source(tmp_path)
    path = write_numbers(tmp_path / "a.safetensors", kohya(make_factors(source, LINEAR), 1.0))
    cancel = threading.Event()
    with pytest.raises(CancelledError):
        fuse_loras(source, [(path, 1.0)], tmp_path / "fused", progress=lambda *_: cancel.set(), cancel=cancel)
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda _: type("", (), {"free": 100})())
    with pytest.raises(OutputError, match=r"no room: 0 MiB free, 1 MiB needed"):
        fuse_loras(source, [(path, 1.0)], tmp_path / "fused")
    assert list((tmp_path / "fused").iterdir()) == []


_KILLED = """
import os, pickle, sys
from pathlib import Path
from costroute_rt.export.checkpoint.lora.fuse import fuse_loras
folder = Path(sys.argv[1])
def kill(name, index, total):
    if index == total - 2:
        os._exit(9)
fuse_loras(pickle.loads((folder / "source").read_bytes()), [(folder / "a.safetensors", 1.0)], folder / "fused", progress=kill)
"""


def test_a_killed_fusion_continues_with_the_network_it_was_at(tmp_path: Path) -> None:
    source = tiny_source(tmp_path)
    factors = make_factors(source, LINEAR | TEXTS)
    path = write_numbers(tmp_path / "a.safetensors", kohya(factors, 1.0))
    (tmp_path / "source").write_bytes(pickle.dumps(source))
    assert subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False, timeout=60).returncode == 9
    assert len(list((tmp_path / "fused").glob("*.part"))) == 1
    begun: list[str] = []
    fused = fuse_loras(source, [(path, 1.0)], tmp_path / "fused", progress=lambda name, *_: begun.append(name))
    check(source, fused, expected(source, factors, 1 / RANK))
    assert {name.split()[0] for name in begun} == {"unet"}
    assert list((tmp_path / "fused").glob("*.part")) == []


def test_memory_is_that_of_blocks_and_factors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    count, rows, columns = 6, 2048, 1024
    weights = {f"mid_block.attentions.{index}.proj.weight": np.zeros((rows, columns), np.float32) for index in range(count)}
    path = write_numbers(tmp_path / "model.safetensors", weights, "F16")
    data_bytes = rows * columns * 2
    start = path.stat().st_size - count * data_bytes
    regions = {
        name: Region(file=path, offset=start + index * data_bytes, length=data_bytes, dtype="F16", shape=(rows, columns))
        for index, name in enumerate(weights)
    }
    network = Network(name="unet", class_name="UNet2DConditionModel", config={}, weights=regions)
    source = dataclasses.replace(tiny_source(tmp_path / "tiny"), networks={"unet": network})
    layers = {f"unet.{name.removesuffix('.weight')}" for name in weights}
    lora = write_numbers(tmp_path / "a.safetensors", kohya({name: (random(1, 4, columns), random(2, rows, 4)) for name in layers}, 4.0))
    monkeypatch.setattr(fuse, "_BLOCK_VALUES", 1 << 16)
    tracemalloc.start()
    try:
        fuse_loras(source, [(lora, 1.0)], tmp_path / "fused")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < rows * columns * 4 / 2  # of one weight in float32; all of them have six times as much
