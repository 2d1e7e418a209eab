"""The models of full size that benchmarks write, and what is made of the programs' reports."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import costroute_rt
from benchmarks.peers import bench, model
from benchmarks.peers.model import MODELS
from benchmarks.peers.program import Finished
from benchmarks.peers.programs.ceiling_openvino import measure_product
from benchmarks.scenario import Scenario
from costroute_rt.export.checkpoint.source.opening import open_source
from costroute_rt.export.checkpoint.source.parameter.of_class import parameters
from tests.full_size import full_size_tensors

COUNTS = {
    ("sd15", "unet"): 859_520_964,
    ("sd15", "vae"): 83_653_863,
    ("sd15", "text_encoder"): 123_060_480,
    ("sdxl", "unet"): 2_567_463_684,
    ("sdxl", "text_encoder_2"): 694_659_840,
}
"""Parameters of the published models."""


@pytest.mark.parametrize(("name", "network"), COUNTS)
def test_networks_have_the_published_sizes(name: str, network: str) -> None:
    config = MODELS[name][network]
    shapes = parameters(config.get("_class_name") or config["architectures"][0], config, Path("config.json"))
    assert sum(math.prod(shape) for shape in dict(shapes).values()) == COUNTS[name, network]


@pytest.mark.parametrize(("name", "family"), [("sd15", "sd1"), ("sdxl", "sdxl")])
def test_single_files_have_the_published_names_and_shapes(name: str, family: str) -> None:
    stored = {
        tensor.name: tensor.stored_shape
        for network, config in MODELS[name].items()
        for parameter, shape in model._parameters(config).items()
        for tensor in model._stored(name, network, config, parameter, shape)
    }
    assert stored == {key: tensor.shape for key, tensor in full_size_tensors(family).items()}


def test_both_forms_of_a_model_have_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unet = MODELS["sdxl"]["unet"] | {
        "block_out_channels": [32, 64], "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "cross_attention_dim": 96,
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "transformer_layers_per_block": [1, 2], "attention_head_dim": [1, 1],
        "projection_class_embeddings_input_dim": 6 * 256 + 64,
    }  # fmt: skip
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    networks = {
        "unet": unet,
        "vae": MODELS["sdxl"]["vae"] | {"block_out_channels": [32, 32]}
        | {f"{way}_block_types": [f"{way.title()}{kind}Block2D"] * 2 for way, kind in (("down", "Encoder"), ("up", "Decoder"))},
        "text_encoder": MODELS["sdxl"]["text_encoder"] | small,
        "text_encoder_2": MODELS["sdxl"]["text_encoder_2"] | small | {"hidden_size": 64, "num_hidden_layers": 2, "projection_dim": 64},
    }  # fmt: skip
    monkeypatch.setattr(model, "MODELS", {"sdxl": networks})
    monkeypatch.setattr(model, "_POOL_VALUES", 1 << 12)
    folder, file = (open_source(model.write_model("sdxl", tmp_path / name)) for name in ("model", "model.safetensors"))
    for name in networks:
        ours, theirs = (source.networks[name].weights for source in (folder, file))
        assert ours.keys() == theirs.keys()
        for parameter in ours:
            assert np.array_equal(read(ours[parameter]), read(theirs[parameter])), parameter


def read(region: Any) -> Any:
    shape = region.shape[::-1] if region.is_transposed else region.shape
    with open(region.file, "rb") as file:
        file.seek(region.offset)
        values = np.frombuffer(file.read(region.length), dtype=np.float16).reshape(shape)
    return (values.T if region.is_transposed else values).ravel()


def runs(*steps: float) -> list[bench.Run]:
    report = {"image_s": [sum(steps)], "step_s": list(steps), "decode_s": 1.0, "first_step_s": 2.0}
    return [(report, Finished(output="", seconds=1, cpu_s=1, peak_bytes=1))]


def test_a_program_is_compared_with_the_fastest_peer_of_its_precision() -> None:
    found = {
        "onnxruntime float32": runs(1.0),
        "diffusers float32": runs(4.0, 5.0, 6.0),
        "OpenVINO GenAI float32": runs(2.0, 2.0),
        "diffusers bfloat16": RuntimeError("no memory"),
    }
    fastest = bench.fastest_peers(found, "step")
    assert fastest == {"float32": 2.0, "auto": 2.0}
    assert bench.fastest_peers(found, "image") == {"float32": 4.0, "auto": 4.0}
    both = bench.fastest_peers(found | {"diffusers bfloat16": runs(1.5)}, "step")
    assert both == {"float32": 2.0, "bfloat16": 1.5, "auto": 1.5}
    measured = bench.summarise(found["onnxruntime float32"], "step", fastest["float32"], {}, "float32", Scenario(name="x"))
    assert {each.name: each.value for each in measured.figures}["of the fastest peer"] == 0.5
    with pytest.raises(RuntimeError, match="no memory"):
        bench.summarise(found["diffusers bfloat16"], "step", None, {}, "bfloat16", Scenario(name="x"))


def test_steps_are_compared_with_a_matrix_product() -> None:
    ceiling = {"float32": 100.0, "bfloat16": 400.0, "step": 50.0}
    measured = bench.summarise(runs(1.0), "step", None, ceiling, "float32", Scenario(name="x"))
    assert {each.name: each.value for each in measured.figures}["share of a matrix product's speed"] == 0.5


def test_what_auto_has_chosen_is_compared_in_its_precision() -> None:
    (report, done), *_ = runs(1.0)
    chosen = {**report, "precision": "bfloat16", "engines": "openvino cpu bfloat16"}
    ceiling = {"float32": 100.0, "bfloat16": 400.0, "step": 50.0}
    measured = bench.summarise([(chosen, done)], "step", 2.0, ceiling, "auto", Scenario(name="x"))
    figures = {each.name: each.value for each in measured.figures}
    assert (figures["of the fastest peer"], figures["share of a matrix product's speed"]) == (0.5, 0.125)
    assert measured.notes == {"engines": "openvino cpu bfloat16"}


def test_the_ceiling_is_the_fastest_library_by_precision() -> None:
    torch, openvino = {"float32": 100.0, "bfloat16": 400.0, "step": 50.0}, {"float32": 200.0, "bfloat16": 300.0}
    assert bench._fastest(torch, openvino) == {"float32": 200.0, "bfloat16": 400.0, "step": 50.0}


def test_a_matrix_product_of_openvino_is_timed() -> None:
    openvino = pytest.importorskip("openvino")
    assert measure_product(openvino.Core(), "f32", size=64) > 0


def test_the_shipped_family_becomes_models_of_other_programs(tmp_path: Path) -> None:
    bench._write_postcard(tmp_path / "postcard-turbo")
    bench._write_postcard(tmp_path / "postcard-base")
    turbo, base = (tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors" for name in ("postcard-turbo", "postcard-base"))
    shipped = costroute_rt.shipped_bundle()
    assert turbo.read_bytes() == (shipped / "unet_turbo" / turbo.name).read_bytes()
    assert base.read_bytes() == (shipped / "unet" / base.name).read_bytes()
