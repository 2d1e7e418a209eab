"""A source of a few kilobytes whose networks lie in one safetensors file, as in a single-file checkpoint, and its graphs without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from costroute_rt.export.bundle.export import GraphSettings
from costroute_rt.export.bundle.plan import ComponentPlan
from costroute_rt.export.checkpoint.source.network import Network, Region, Source
from tests import tiny_bundle
from tests.tiny_bundle import CHANNELS, FACTOR, LATENT, PIXELS, STATES, WIDTH, Graph

TOKENS, HIDDEN, WORDS = 16, 8, 64
CLASSES = {"text_encoder": "CLIPTextModel", "unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
CONFIGS: dict[str, dict[str, Any]] = {
    "text_encoder": {"hidden_size": WIDTH, "max_position_embeddings": TOKENS, "vocab_size": WORDS},
    "unet": {"in_channels": CHANNELS, "out_channels": CHANNELS, "sample_size": 4, "cross_attention_dim": WIDTH},
    "vae": {"latent_channels": CHANNELS, "block_out_channels": [8] * 5, "scaling_factor": 0.18215},
}
SCHEDULER = {"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def make_weights(seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """float16 weights by network and name."""
    rng = np.random.default_rng(seed)
    shapes = {
        "text_encoder": {"token": (WORDS, WIDTH), "mix": (WIDTH, WIDTH)},
        "unet": {
            "first": (HIDDEN, CHANNELS, 3, 3), "text": (WIDTH, HIDDEN), "block_0": (HIDDEN, HIDDEN, 3, 3), "last": (CHANNELS, HIDDEN, 3, 3),
        },
        "vae": {"out": (3 * FACTOR**2, CHANNELS, 1, 1)},
    }  # fmt: skip
    return {
        network: {name: (0.1 * rng.standard_normal(shape)).astype(np.float16) for name, shape in each.items()}
        for network, each in shapes.items()
    }


def write_source(folder: Path, *, name: str = "fox-v1", seed: int = 0, **changes: Any) -> Source:
    """Writes `NAME.safetensors` and a tokenizer; changes: fields of the source."""
    weights, file = make_weights(seed), folder / f"{name}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    flat = {f"{network}.{key}": array for network, arrays in weights.items() for key, array in arrays.items()}
    offsets = tiny_bundle.write_weights(file, flat)
    networks = {
        network: Network(
            name=network,
            class_name=CLASSES[network],
            config=CONFIGS[network],
            weights={
                key: Region(
                    file=file, offset=offsets[f"{network}.{key}"], length=array.nbytes, dtype="F16", shape=tuple(map(int, array.shape))
                )
                for key, array in arrays.items()
            },
        )
        for network, arrays in weights.items()
    }
    source = Source(
        path=file,
        name=name,
        family="sd1",
        pipeline="StableDiffusionPipeline",
        networks=networks,
        tokenizers={"tokenizer": write_words(folder / "tokenizer")},
        scheduler=SCHEDULER,
    )
    return replace(source, **changes)


def write_words(folder: Path) -> Path:
    """A CLIP tokenizer of single letters and few merges, as transformers saves it."""
    folder.mkdir(exist_ok=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "th", "the</w>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\n", encoding="utf-8")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS}
    tokens = {"unk_token": "<|endoftext|>", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **tokens}), encoding="utf-8")
    return folder


def make_graphs(source: Source, component: ComponentPlan, settings: GraphSettings) -> Mapping[str, onnx.ModelProto]:
    """Graphs of the tiny networks; each refers to the regions of its network."""
    network = source.networks[component.name]
    uses = [use for use in component.graphs if (component.role, use) != ("decoder", "encode")]
    made = {use: _GRAPHS[use](Graph(dict.fromkeys(network.weights, np.empty(0)))) for use in uses}
    return {use: _model(*graph, network) for use, graph in made.items()}


def _encode(graph: Graph) -> tuple[Graph, dict[str, Any], dict[str, Any]]:
    states = graph.op("Gather", graph.weight("token"), "input_ids")
    graph.op("Tanh", graph.op("MatMul", states, graph.weight("mix")), out="last_hidden_state")
    return graph, {"input_ids": ("int64", ["batch", "tokens"])}, {"last_hidden_state": ("float32", ["batch", "tokens", WIDTH])}


def _condition(graph: Graph) -> tuple[Graph, dict[str, Any], dict[str, Any]]:
    graph.op("Identity", tiny_bundle._read_text(graph, STATES), out="condition_0")
    return graph, {STATES: ("float32", ["rows", "tokens", WIDTH])}, {"condition_0": ("float32", ["rows", HIDDEN])}


def _step(passes: int, graph: Graph) -> tuple[Graph, dict[str, Any], dict[str, Any]]:
    tiny_bundle._step(graph, 1, passes, "condition_0")
    inputs: dict[str, Any] = dict.fromkeys(("latent", "denoised_before", "noise"), ("float32", LATENT))
    inputs |= {"row": ("float32", [9]), "condition_0": ("float32", [passes, HIDDEN])}
    return graph, inputs, dict.fromkeys(("next_latent", "denoised"), ("float32", LATENT))


def _decode(graph: Graph) -> tuple[Graph, dict[str, Any], dict[str, Any]]:
    image = graph.op("DepthToSpace", graph.conv("latent", "out", pad=0), blocksize=FACTOR)
    half = graph.const(127.5, np.float32)
    levels = graph.op("Add", graph.op("Mul", graph.op("Clip", image, graph.const(-1, np.float32), graph.const(1, np.float32)), half), half)
    graph.op("Transpose", graph.op("Cast", graph.op("Round", levels), to=TensorProto.UINT8), out="pixels", perm=[0, 2, 3, 1])
    return graph, {"latent": ("float32", LATENT)}, {"pixels": ("uint8", PIXELS)}


_GRAPHS: dict[str, Any] = {
    "encode": _encode,
    "condition": _condition,
    "step": lambda graph: _step(1, graph),
    "guided_step": lambda graph: _step(2, graph),
    "decode": _decode,
}


def _model(graph: Graph, inputs: dict[str, Any], outputs: dict[str, Any], network: Network) -> onnx.ModelProto:
    external = [_external(name, network.weights[name]) for name in dict.fromkeys(graph.used)]
    sides = tiny_bundle._values(inputs), tiny_bundle._values(outputs)
    made = helper.make_graph(graph.nodes, "tiny", *sides, external + graph.constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="tiny_source")


def _external(name: str, region: Region) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT16, dims=region.shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", region.file.name), ("offset", region.offset), ("length", region.length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
