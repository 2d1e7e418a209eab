"""A complete bundle of a few kilobytes, written with numpy, onnx and tokenizers alone, for tests.

    python tests/tiny_bundle.py DIRECTORY

Its networks have random weights, scaled such that outputs stay near 1; it has every part of a real bundle but a router.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from costroute_rt.engines.bundle.bundle import Bundle, seal_bundle

CHANNELS, FACTOR, WIDTH, LENGTH = 4, 16, 8, 16
STATES = "text_encoder.last_hidden_state"
START, END = "<|startoftext|>", "<|endoftext|>"
LINES = (
    "a red house by a lake with snowy mountains behind",
    "three pine trees in the snow under a starry night",
    "a white sailboat on the sea at sunset",
    "birds over a green meadow, a rainbow and two small clouds",
)
POOL = (("tiny-turbo@1", "turbo", 1, 1.0, 0.70), ("tiny-turbo@2", "turbo", 2, 1.0, 0.78))
POOL += (("tiny-base@4", "base", 4, 3.0, 0.86), ("tiny-base@8", "base", 8, 3.0, 0.91))
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0, "use_dynamic_shifting": False}
LATENT = ["batch", CHANNELS, "height", "width"]
PIXELS = ["batch", "image_height", "image_width", 3]


class Graph:
    """Builder of one ONNX graph; weights are named float16 arrays of the component's weight file."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights, self.nodes, self.constants = weights, list[Any](), list[Any]()
        self.used: list[str] = []

    def op(self, kind: str, *inputs: str, out: str = "", outputs: int = 1, **attributes: Any) -> Any:
        names = [out] if out else [f"{kind}_{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if len(names) == 1 else names

    def const(self, value: Any, dtype: Any = np.int64) -> str:
        name = f"const_{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def weight(self, name: str) -> str:
        """A float16 weight, cast to float32 as exported graphs do."""
        self.used.append(name)
        return str(self.op("Cast", name, to=TensorProto.FLOAT))

    def conv(self, x: str, name: str, pad: int = 1) -> str:
        return str(self.op("Conv", x, self.weight(name), pads=[pad] * 4))

    def save(self, path: Path, weight_file: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
        """Write the graph beside its weight file; returns its section of the manifest's `graphs`."""
        offsets = write_weights(path.parent / weight_file, self.weights)
        external = [_external(name, self.weights[name], weight_file, offsets[name]) for name in dict.fromkeys(self.used)]
        graph = helper.make_graph(self.nodes, path.stem, _values(inputs), _values(outputs), external + self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="tiny_bundle")
        path.write_bytes(model.SerializeToString())
        sides = {"inputs": inputs, "outputs": outputs}
        return {key: {name: {"dtype": dtype, "shape": shape} for name, (dtype, shape) in side.items()} for key, side in sides.items()}


def write_tiny_bundle(root: Path, seed: int = 0, *, hidden: int = 64, prompt_syntax: str | None = None) -> Bundle:
    """Write the bundle into `root`, a new or empty directory, and open it.

    hidden: channels of the larger denoiser. prompt_syntax: that of the manifest; with one, denoisers take the states of several chunks.
    """
    rng = np.random.default_rng(seed)
    for folder in ("text_encoder", "unet", "unet_turbo", "vae", "scorer", "tokenizer"):
        (root / folder).mkdir(parents=True)
    tokens = write_tokenizer(root / "tokenizer" / "tokenizer.json")
    graphs = dict(_write_text(root, rng, tokens))
    axis = "sequence" if prompt_syntax is None else "text_tokens"
    graphs |= dict(_write_denoiser(root / "unet", rng, axis, hidden=hidden, blocks=6, has_condition=True))
    graphs |= dict(_write_denoiser(root / "unet_turbo", rng, axis, hidden=16, blocks=1, has_condition=False))
    graphs |= dict(_write_vae(root, rng)) | dict(_write_scorer(root, rng))
    manifest = _manifest(graphs)
    if prompt_syntax is not None:
        manifest["tokenizers"]["tokenizer"]["prompt_syntax"] = prompt_syntax
    return seal_bundle(root, manifest)


def _in_order(trained: dict[str, Any]) -> models.BPE:
    """The trained tokens and merges in a fixed order, because training returns them in a different order each time."""
    words = [START, END, *sorted(trained["vocab"].keys() - {START, END}, key=lambda word: (len(word), word))]
    merges = sorted((tuple(pair) for pair in trained["merges"]), key=lambda pair: (len("".join(pair)), pair))
    return models.BPE({word: i for i, word in enumerate(words)}, merges, unk_token=END, end_of_word_suffix="</w>")


def write_tokenizer(path: Path) -> int:
    """Train a small byte-pair tokenizer in CLIP's format; returns its number of tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=160,
        special_tokens=[START, END],
        end_of_word_suffix="</w>",
        show_progress=False,
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz"),
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.model = _in_order(json.loads(tokenizer.to_str())["model"])
    pair = [(token, tokenizer.token_to_id(token)) for token in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=pair)
    tokenizer.save(str(path))
    return int(tokenizer.get_vocab_size())


def write_weights(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, int]:
    """Write a .safetensors file; returns the offset of each array in bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F16", "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in arrays.values()))
    return {name: 8 + len(text) + header[name]["data_offsets"][0] for name in arrays}


def _write_text(root: Path, rng: np.random.Generator, tokens: int) -> Iterator[tuple[str, Any]]:
    graph = Graph({"token": _random(rng, 1.0, tokens, WIDTH), "mix": _random(rng, WIDTH**-0.5, WIDTH, WIDTH)})
    states = graph.op("Gather", graph.weight("token"), "input_ids")
    graph.op("Tanh", graph.op("MatMul", states, graph.weight("mix")), out="last_hidden_state")
    yield (
        "text_encoder/model.onnx",
        graph.save(
            root / "text_encoder/model.onnx",
            "model.safetensors",
            {"input_ids": ("int64", ["batch", "sequence"])},
            {"last_hidden_state": ("float32", ["batch", "sequence", WIDTH])},
        ),
    )


def _write_denoiser(
    folder: Path, rng: np.random.Generator, tokens: str, hidden: int, blocks: int, has_condition: bool
) -> Iterator[tuple[str, Any]]:
    """tokens: name of the axis of tokens. has_condition: whether the part that depends on the text is a graph of its own."""
    weights = {"first": _random(rng, (9 * CHANNELS) ** -0.5, hidden, CHANNELS, 3, 3), "text": _random(rng, WIDTH**-0.5, WIDTH, hidden)}
    weights |= {f"block_{index}": _random(rng, 0.5 * (9 * hidden) ** -0.5, hidden, hidden, 3, 3) for index in range(blocks)}
    weights["last"] = _random(rng, 0.5 * (9 * hidden) ** -0.5, CHANNELS, hidden, 3, 3)
    file = "diffusion_pytorch_model.safetensors"
    if has_condition:
        graph = Graph(weights)
        graph.op("Identity", _read_text(graph, STATES), out="condition_0")
        inputs, outputs = {STATES: ("float32", ["rows", tokens, WIDTH])}, {"condition_0": ("float32", ["rows", hidden])}
        yield f"{folder.name}/condition.onnx", graph.save(folder / "condition.onnx", file, inputs, outputs)
    for name, passes in (("step", 1), ("guided_step", 2)):
        graph = Graph(weights)
        text = "condition_0" if has_condition else _read_text(graph, STATES)
        _step(graph, blocks, passes, text)
        inputs = dict.fromkeys(("latent", "denoised_before", "noise"), ("float32", LATENT))
        inputs |= {"row": ("float32", [9])}
        inputs |= {text: ("float32", [passes, hidden])} if has_condition else {STATES: ("float32", [passes, tokens, WIDTH])}
        outputs = {"next_latent": ("float32", LATENT), "denoised": ("float32", LATENT)}
        yield f"{folder.name}/{name}.onnx", graph.save(folder / f"{name}.onnx", file, inputs, outputs)


def _read_text(graph: Graph, states: str) -> str:
    """states f32[b,T,D] -> f32[b,hidden]"""
    return str(graph.op("MatMul", graph.op("ReduceMean", states, axes=[1], keepdims=0), graph.weight("text")))


def _denoise(graph: Graph, blocks: int, sample: str, timestep: str, text: str) -> str:
    """sample f32[b,C,h,w], timestep f32[], text f32[b,hidden] -> f32[b,C,h,w]"""
    term = graph.op("Add", text, graph.op("Sin", graph.op("Mul", timestep, graph.const(0.001, np.float32))))
    x = graph.op("Add", graph.conv(sample, "first"), graph.op("Unsqueeze", term, graph.const([2, 3])))
    for index in range(blocks):
        x = graph.op("Add", x, graph.op("Tanh", graph.conv(x, f"block_{index}")))
    return graph.conv(x, "last")


def _step(graph: Graph, blocks: int, passes: int, text: str) -> None:
    """One row of a step table, with guidance (2 passes) or without; text f32[passes,hidden]"""
    fields = ("input_scale", "timestep", "guidance", "p", "q", "a", "b", "c", "s")
    cell = {name: graph.op("Gather", "row", graph.const(index), axis=0) for index, name in enumerate(fields)}
    x = graph.op("Mul", "latent", cell["input_scale"])
    batch = graph.op("Slice", graph.op("Shape", "latent"), graph.const([0]), graph.const([1]))
    shape = graph.op("Concat", batch, graph.op("Slice", graph.op("Shape", text), graph.const([1]), graph.const([2])), axis=0)
    texts = [graph.op("Expand", graph.op("Gather", text, graph.const([index]), axis=0), shape) for index in range(passes)]
    if passes == 1:
        m = _denoise(graph, blocks, x, cell["timestep"], texts[0])
    else:
        both = _denoise(graph, blocks, graph.op("Concat", x, x, axis=0), cell["timestep"], graph.op("Concat", *texts, axis=0))
        negative, positive = graph.op("Split", both, outputs=2, axis=0)
        m = graph.op("Add", negative, graph.op("Mul", cell["guidance"], graph.op("Sub", positive, negative)))
    graph.op("Add", graph.op("Mul", cell["p"], "latent"), graph.op("Mul", cell["q"], m), out="denoised")
    terms = [("latent", cell["a"]), ("denoised", cell["b"]), ("denoised_before", cell["c"]), ("noise", cell["s"])]
    graph.op("Sum", *[graph.op("Mul", *term) for term in terms], out="next_latent")


def _write_vae(root: Path, rng: np.random.Generator) -> Iterator[tuple[str, Any]]:
    patch, file = 3 * FACTOR**2, "diffusion_pytorch_model.safetensors"
    shared = {"in": _random(rng, patch**-0.5, CHANNELS, patch, 1, 1), "out": _random(rng, CHANNELS**-0.5, patch, CHANNELS, 1, 1)}
    graph = Graph(shared)
    image = graph.op("DepthToSpace", graph.conv("latent", "out", pad=0), blocksize=FACTOR)
    half = graph.const(127.5, np.float32)
    levels = graph.op("Add", graph.op("Mul", graph.op("Clip", image, graph.const(-1, np.float32), graph.const(1, np.float32)), half), half)
    graph.op("Transpose", graph.op("Cast", graph.op("Round", levels), to=TensorProto.UINT8), out="pixels", perm=[0, 2, 3, 1])
    latent, pixels = {"latent": ("float32", LATENT)}, {"pixels": ("uint8", PIXELS)}
    yield "vae/decode.onnx", graph.save(root / "vae/decode.onnx", file, latent, pixels)
    graph = Graph(shared)
    graph.op("Identity", graph.conv(_unit_patches(graph), "in", pad=0), out="latent")
    yield "vae/encoder.onnx", graph.save(root / "vae/encoder.onnx", file, pixels, latent)


def _write_scorer(root: Path, rng: np.random.Generator) -> Iterator[tuple[str, Any]]:
    heads = {"sky": 3, "ground": 4}
    graph = Graph({f"{name}.weight": _random(rng, 0.3, 3 * FACTOR**2, values) for name, values in heads.items()})
    pooled = graph.op("ReduceMean", _unit_patches(graph), axes=[2, 3], keepdims=0)
    for name in heads:
        graph.op("Softmax", graph.op("MatMul", pooled, graph.weight(f"{name}.weight")), out=name, axis=1)
    outputs = {name: ("float32", ["batch", values]) for name, values in heads.items()}
    yield "scorer/scorer.onnx", graph.save(root / "scorer/scorer.onnx", "model.safetensors", {"pixels": ("uint8", PIXELS)}, outputs)


def _unit_patches(graph: Graph) -> str:
    """pixels uint8[b,H,W,3] -> f32[b,3*F*F,H/F,W/F] in -1..1"""
    planes = graph.op("Cast", graph.op("Transpose", "pixels", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    half = graph.const(127.5, np.float32)
    return str(graph.op("SpaceToDepth", graph.op("Div", graph.op("Sub", planes, half), half), blocksize=FACTOR))


def _manifest(graphs: dict[str, Any]) -> dict[str, Any]:
    file = "diffusion_pytorch_model.safetensors"
    denoiser = {"step": "step.onnx", "guided_step": "guided_step.onnx"}
    return {
        "family": "tiny",
        "revision": "1",
        "license": "Apache-2.0",
        "made_with": {"onnx": onnx.__version__},
        "components": {
            "text_encoder": {
                **_component("text_encoder", "text_encoder", "model.safetensors", encode="model.onnx"),
                "tokenizer": "tokenizer",
            },
            "base": _component("denoiser", "unet", file, condition="condition.onnx", **denoiser),
            "turbo": _component("denoiser", "unet_turbo", file, **denoiser),
            "vae": _component("decoder", "vae", file, decode="decode.onnx", encode="encoder.onnx"),
            "scorer": _component("scorer", "scorer", "model.safetensors", score="scorer.onnx"),
        },
        "graphs": graphs,
        "tokenizers": {"tokenizer": {"file": "tokenizer/tokenizer.json", "max_length": LENGTH, "pad_id": 1}},
        "negative_prompt": "empty_text",
        "image": {
            "height": 64, "width": 64, "vae_scale_factor": FACTOR, "latent_channels": CHANNELS,
            "sizes": [[64, 64], [64, 96]], "any_size": True,
        },
        "preview": {"matrix": [[0.3, 0.1, -0.1], [-0.1, 0.2, 0.1], [0.1, -0.2, 0.3], [0.0, 0.1, 0.1]], "bias": [0.5, 0.5, 0.5]},
        "schedulers": {"default": FLOW, "turbo": {**FLOW, "shift": 3.0}},
        "pool": [_candidate(*row[:4]) for row in POOL],
        "quality": {"metric": "scorer", "candidates": {name: {"mean": mean, "standard_error": 0.01} for name, *_, mean in POOL}},
        "router": None,
    }  # fmt: skip


def _component(role: str, folder: str, weights: str, **graphs: str) -> dict[str, Any]:
    return {"role": role, "graphs": {use: f"{folder}/{name}" for use, name in graphs.items()}, "weights": [f"{folder}/{weights}"]}


def _candidate(name: str, denoiser: str, steps: int, guidance_scale: float) -> dict[str, Any]:
    scheduler = "turbo" if denoiser == "turbo" else "default"
    row = {"name": name, "denoiser": denoiser, "scheduler": scheduler, "num_inference_steps": steps}
    return {**row, "guidance_scale": guidance_scale, "decoder": "vae"}


def _random(rng: np.random.Generator, scale: float, *shape: int) -> np.ndarray:
    return (scale * rng.standard_normal(shape)).astype(np.float16)


def _values(specs: dict[str, tuple[str, Sequence[int | str]]]) -> list[Any]:
    kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "uint8": TensorProto.UINT8}
    return [helper.make_tensor_value_info(name, kinds[dtype], list(shape)) for name, (dtype, shape) in specs.items()]


def _external(name: str, array: np.ndarray, location: str, offset: int) -> Any:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT16, dims=array.shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


if __name__ == "__main__":
    sys.stdout.write(f"{write_tiny_bundle(Path(sys.argv[1])).root}\n")
