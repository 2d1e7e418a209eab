"""A family made only for tests, to show that a family needs no code: tiny random networks, written with numpy, onnx and tokenizers alone.

    python tests/patchwork_bundle.py DIRECTORY

Two tokenizers (one padded on the left, one with a template whose first tokens are cut off), two text encoders, one with a pooled output, a
condition that depends on the image size, a denoiser with embedded guidance and one with classifier-free guidance, latents that are packed
into patches inside the denoiser, a carried latent, a shift that depends on the number of tokens, two decoders, and weights in two bfloat16
shards. `reference` and `guided_reference` compute the same images in NumPy.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from tokenizers import Tokenizer, models, pre_tokenizers

from costroute_rt.engines.bundle.bundle import Bundle, seal_bundle
from costroute_rt.sampling.step_table import StepTable, advance

WORDS = ("<pad>", "<unk>", "say", "this", "a", "red", "house", "by", "lake", "green", "boat", "night", "moon", "hill", "tree", "road")
UNKNOWN = {"words": ("moon", "road"), "letters": ("hill", "tree")}
"""Words that a tokenizer does not know: each encoder distinguishes words that are the same to the other."""
LENGTHS = {"words": 10, "letters": 14}
TEMPLATE, DROP = ("say this ", " night"), 2
CHANNELS, FACTOR, PATCH, HIDDEN = 4, 8, 2, 12
SHIFT = {"base_image_seq_len": 4, "max_image_seq_len": 64, "base_shift": 0.5, "max_shift": 1.2}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "use_dynamic_shifting": True, **SHIFT}
UNIPC = {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 2.0}
SHARDS = ("denoiser-00001-of-00002.safetensors", "denoiser-00002-of-00002.safetensors")
LATENT = ("float32", ["batch", CHANNELS, "height", "width"])
COLUMNS = ("input_scale", "timestep", "guidance", "p", "q", "a", "b", "c", "s", "e", "f", "g", "h", "k")


def make_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """float32 arrays by name, with values that bfloat16 represents exactly."""
    rng = np.random.default_rng(seed)
    shapes = {
        "words": (len(WORDS), 6), "letters": (len(WORDS), 5), "pool": (5, 7), "states_in": (6, HIDDEN), "penultimate_in": (5, HIDDEN),
        "pooled_in": (7, HIDDEN), "size_in": (2, HIDDEN), "patch_in": (CHANNELS * PATCH**2, HIDDEN), "mix": (HIDDEN, HIDDEN),
        "patch_out": (HIDDEN, CHANNELS * PATCH**2), "full": (CHANNELS, 3 * FACTOR**2), "tiny": (CHANNELS, 3),
    }  # fmt: skip
    return {name: _round((0.4 * rng.standard_normal(shape)).astype(np.float32)) for name, shape in shapes.items()}


def write_patchwork_bundle(root: Path, seed: int = 0) -> Bundle:
    """Write the bundle into `root`, a new directory, and open it."""
    weights = make_weights(seed)
    for folder in ("words", "letters", "text_encoder", "text_encoder_2", "denoiser", "guided", "full", "tiny"):
        (root / folder).mkdir(parents=True)
    for name in ("words", "letters"):
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS) if word not in UNKNOWN[name]}, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.save(str(root / name / "tokenizer.json"))
    writers = {
        "text_encoder/encode.onnx": _text_encoder,
        "text_encoder_2/encode.onnx": _text_encoder_2,
        "denoiser/condition.onnx": _condition,
        "denoiser/step.onnx": _step,
        "guided/condition.onnx": _condition,
        "guided/guided_step.onnx": lambda graph: _step(graph, passes=2),
        "full/decode.onnx": lambda graph: _decoder(graph, "full", FACTOR),
        "tiny/decode.onnx": lambda graph: _decoder(graph, "tiny", 1),
    }
    graphs = {}
    for path, write in writers.items():
        graph = _Graph(weights)
        inputs, outputs = write(graph)
        graphs[path] = graph.save(root / path, inputs, outputs)
    return seal_bundle(root, _manifest(graphs))


def reference(prompt: str, *, seed: int, steps: int, guidance_scale: float, decoder: str, size: tuple[int, int]) -> Any:
    """The image, uint8[height, width, 3], computed in NumPy without any code of the package.

    The scheduler is flow-matching Euler with a shift that depends on the number of tokens.
    """
    weights, (height, width) = make_weights(), size
    context = _reference_context(weights, prompt, size)
    tokens = (height // FACTOR // PATCH) * (width // FACTOR // PATCH)
    mu = SHIFT["base_shift"] + (SHIFT["max_shift"] - SHIFT["base_shift"]) * (tokens - 4) / (64 - 4)
    times = np.linspace(1, 1 / steps, steps)
    sigmas = np.append(np.exp(mu) / (np.exp(mu) + 1 / times - 1), 0.0)
    x = _noise(seed, size)
    for now, after in pairwise(sigmas):
        x = x + (after - now) * _denoise(weights, x, now * 1000, context, guidance_scale)
    return _decode(weights, x, decoder)


def guided_reference(
    prompt: str, negative_prompt: str, *, uses_zeros: bool, seed: int, table: StepTable, guidance_scale: float, size: tuple[int, int]
) -> Any:
    """The image of the denoiser `guided` and the decoder `full`, computed in NumPy with a step table of the package.

    uses_zeros: zeros take the place of the text encoders' outputs for the negative prompt.
    """
    weights = make_weights()
    positive, negative = (
        _reference_context(weights, prompt, size),
        _reference_context(weights, negative_prompt, size, uses_zeros=uses_zeros),
    )
    x = _noise(seed, size) * table.initial_noise_scale
    denoised = carried = np.zeros_like(x)
    for row in range(len(table)):
        scaled, timestep = x * table.input_scale[row], table.timestep[row]
        with_prompt, without = (_denoise(weights, scaled, timestep, context) for context in (positive, negative))
        m = without + guidance_scale * (with_prompt - without)
        x, denoised, carried = advance(table, row, x, m, denoised, np.zeros_like(x), carried)
    return _decode(weights, x, "full")


def _reference_context(weights: dict[str, np.ndarray], prompt: str, size: tuple[int, int], *, uses_zeros: bool = False) -> np.ndarray:
    """The output of `condition`."""
    ids, inner = _ids("words", prompt), _ids("letters", f"{TEMPLATE[0]}{prompt}{TEMPLATE[1]}")
    states = np.tanh(weights["words"][[0] * (LENGTHS["words"] - len(ids)) + ids])
    padding = LENGTHS["letters"] - len(inner)
    mask = np.array([1.0] * len(inner) + [0.0] * padding)
    penultimate = np.tanh(weights["letters"][inner + [0] * padding]) * mask[:, None]
    pooled = penultimate.sum(0) / mask.sum() @ weights["pool"]
    if uses_zeros:
        states, penultimate, pooled = (np.zeros_like(array) for array in (states, penultimate, pooled))
    kept, kept_mask = penultimate[DROP:], mask[DROP:]
    return np.tanh(
        states[-1] @ weights["states_in"]
        + kept.sum(0) / kept_mask.sum() @ weights["penultimate_in"]
        + pooled @ weights["pooled_in"]
        + np.array(size) / 64 @ weights["size_in"]
        + len(ids) / 10
    )


def _ids(tokenizer: str, text: str) -> list[int]:
    return [WORDS.index(word) if word in WORDS and word not in UNKNOWN[tokenizer] else 1 for word in text.split()]


def _noise(seed: int, size: tuple[int, int]) -> np.ndarray:
    shape = CHANNELS, size[0] // FACTOR, size[1] // FACTOR
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape, dtype=np.float32).astype(np.float64)


def _denoise(weights: dict[str, np.ndarray], x: np.ndarray, timestep: float, context: np.ndarray, guidance: float = 0.0) -> np.ndarray:
    """The denoiser: packs the latent into patches, adds position and context, applies one layer, and unpacks."""
    channels, height, width = x.shape
    rows, columns = height // PATCH, width // PATCH
    patches = x.reshape(channels, rows, PATCH, columns, PATCH).transpose(1, 3, 0, 2, 4).reshape(rows * columns, -1)
    position = np.arange(rows * columns)[:, None] / 16
    hidden = np.tanh(patches @ weights["patch_in"] + context + np.sin(timestep / 1000 + position) + guidance / 10)
    out = np.tanh(hidden @ weights["mix"]) @ weights["patch_out"]
    return out.reshape(rows, columns, channels, PATCH, PATCH).transpose(2, 0, 3, 1, 4).reshape(x.shape)


def _decode(weights: dict[str, np.ndarray], x: np.ndarray, decoder: str) -> np.ndarray:
    _, rows, columns = x.shape
    if decoder == "full":
        planes = np.einsum("chw,cp->phw", x, weights["full"]).reshape(3, FACTOR, FACTOR, rows, columns)
        image = planes.transpose(3, 1, 4, 2, 0).reshape(rows * FACTOR, columns * FACTOR, 3)
    else:
        image = np.einsum("chw,cp->hwp", x, weights["tiny"]).repeat(FACTOR, 0).repeat(FACTOR, 1)
    return np.rint(np.clip(image * 60 + 128, 0, 255)).astype(np.uint8)


class _Graph:
    """Builder of one ONNX graph; weights are bfloat16 initialisers in the component's file or files."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self._weights, self._nodes, self._constants, self._used = weights, list[Any](), list[Any](), list[str]()

    def op(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        name = out or f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"const_{len(self._constants)}"
        self._constants.append(onnx.numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(values, np.int64)

    def weight(self, name: str) -> str:
        self._used.append(name)
        return self.op("Cast", name, to=TensorProto.FLOAT)

    def save(self, path: Path, inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
        """Write the graph and its weights, a denoiser's in two shards; returns its section of the manifest's `graphs`."""
        names = sorted(set(self._used))
        is_denoiser = path.parent.name in ("denoiser", "guided")
        files = SHARDS if is_denoiser else ("model.safetensors",)
        everything = _denoiser_weights() if is_denoiser else names
        places: dict[str, tuple[str, int]] = {}
        for index, file in enumerate(files):
            shard = {name: self._weights[name] for name in everything[index :: len(files)]}
            places |= {name: (file, offset) for name, offset in _write_bfloat16(path.parent / file, shard).items()}
        external = [_external(name, self._weights[name], *places[name]) for name in names]
        graph = helper.make_graph(self._nodes, path.stem, _values(inputs), _values(outputs), external + self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        path.write_bytes(model.SerializeToString())
        sides = {"inputs": inputs, "outputs": outputs}
        return {key: {name: {"dtype": dtype, "shape": shape} for name, (dtype, shape) in side.items()} for key, side in sides.items()}


def _denoiser_weights() -> list[str]:
    return sorted(name for name in make_weights() if name.endswith(("_in", "_out")) or name == "mix")


def _text_encoder(graph: _Graph) -> tuple[dict[str, Any], dict[str, Any]]:
    graph.op("Tanh", graph.op("Gather", graph.weight("words"), "input_ids"), out="states")
    return {"input_ids": ("int64", ["rows", "word_tokens"])}, {"states": ("float32", ["rows", "word_tokens", 6])}


def _text_encoder_2(graph: _Graph) -> tuple[dict[str, Any], dict[str, Any]]:
    mask = graph.op("Unsqueeze", graph.op("Cast", "attention_mask", to=TensorProto.FLOAT), graph.ints(2))
    states = graph.op("Tanh", graph.op("Gather", graph.weight("letters"), "input_ids"))
    graph.op("Mul", states, mask, out="penultimate")
    mean = graph.op("Div", _sum(graph, "penultimate"), _sum(graph, mask))
    graph.op("MatMul", mean, graph.weight("pool"), out="pooled")
    ids = ("int64", ["rows", "letter_tokens"])
    outputs = {"penultimate": ("float32", ["rows", "letter_tokens", 5]), "pooled": ("float32", ["rows", 7])}
    return {"input_ids": ids, "attention_mask": ids}, outputs


def _condition(graph: _Graph) -> tuple[dict[str, Any], dict[str, Any]]:
    mask = graph.op("Cast", "letters.attention_mask", to=TensorProto.FLOAT)
    kept = graph.op("Div", _sum(graph, "text_encoder_2.penultimate"), graph.op("ReduceSum", mask, graph.ints(1), keepdims=1))
    count = graph.op("Unsqueeze", graph.op("Cast", "words.length", to=TensorProto.FLOAT), graph.ints(1))
    size = graph.op("Div", graph.op("Cast", "image_size", to=TensorProto.FLOAT), graph.const(64))
    terms = [
        graph.op("MatMul", graph.op("Gather", "text_encoder.states", graph.const(-1, np.int64), axis=1), graph.weight("states_in")),
        graph.op("MatMul", kept, graph.weight("penultimate_in")),
        graph.op("MatMul", "text_encoder_2.pooled", graph.weight("pooled_in")),
        graph.op("MatMul", size, graph.weight("size_in")),
        graph.op("Div", count, graph.const(10)),
    ]
    graph.op("Tanh", graph.op("Sum", *terms), out="context")
    inputs = {
        "text_encoder.states": ("float32", ["rows", "word_tokens", 6]),
        "text_encoder_2.penultimate": ("float32", ["rows", "kept_tokens", 5]),
        "text_encoder_2.pooled": ("float32", ["rows", 7]),
        "letters.attention_mask": ("int64", ["rows", "kept_tokens"]),
        "words.length": ("int64", ["rows"]),
        "image_size": ("int64", [2]),
    }
    return inputs, {"context": ("float32", ["rows", HIDDEN])}


def _step(graph: _Graph, passes: int = 1) -> tuple[dict[str, Any], dict[str, Any]]:
    """passes: 1 with embedded guidance, 2 with classifier-free guidance."""
    cell = {name: graph.op("Gather", "row", graph.const(index, np.int64), axis=0) for index, name in enumerate(COLUMNS)}
    x = graph.op("Mul", "latent", cell["input_scale"])
    sides = [graph.op("Gather", graph.op("Shape", "latent"), graph.ints(axis), axis=0) for axis in range(4)]
    rows, columns = (graph.op("Div", side, graph.ints(PATCH)) for side in sides[2:])
    two, channels = graph.ints(PATCH), graph.ints(CHANNELS)
    split = graph.op("Reshape", x, graph.op("Concat", sides[0], channels, rows, two, columns, two, axis=0))
    moved = graph.op("Transpose", split, perm=[0, 2, 4, 1, 3, 5])
    patches = graph.op("Reshape", moved, graph.op("Concat", sides[0], graph.ints(-1), graph.ints(CHANNELS * PATCH**2), axis=0))
    count = graph.op("Squeeze", graph.op("Mul", rows, columns))
    places = graph.op("Range", graph.const(0, np.int64), count, graph.const(1, np.int64))
    position = graph.op("Div", graph.op("Unsqueeze", graph.op("Cast", places, to=TensorProto.FLOAT), graph.ints(1)), graph.const(16))
    wave = graph.op("Sin", graph.op("Add", position, graph.op("Div", cell["timestep"], graph.const(1000))))
    patched = graph.op("MatMul", patches, graph.weight("patch_in"))

    def velocity(context: str) -> str:
        pushed = [graph.op("Div", cell["guidance"], graph.const(10))] if passes == 1 else []
        hidden = graph.op("Tanh", graph.op("Sum", patched, graph.op("Unsqueeze", context, graph.ints(1)), wave, *pushed))
        out = graph.op("MatMul", graph.op("Tanh", graph.op("MatMul", hidden, graph.weight("mix"))), graph.weight("patch_out"))
        unfolded = graph.op("Reshape", out, graph.op("Concat", sides[0], rows, columns, channels, two, two, axis=0))
        return graph.op("Reshape", graph.op("Transpose", unfolded, perm=[0, 3, 1, 4, 2, 5]), graph.op("Shape", "latent"))

    if passes == 1:
        m = velocity("context")
    else:
        negative, positive = (velocity(graph.op("Gather", "context", graph.ints(row), axis=0)) for row in range(2))
        m = graph.op("Add", negative, graph.op("Mul", cell["guidance"], graph.op("Sub", positive, negative)))
    graph.op("Add", graph.op("Mul", cell["p"], "latent"), graph.op("Mul", cell["q"], m), out="denoised")
    after = {"a": "latent", "b": "denoised", "c": "denoised_before", "s": "noise", "e": "carried"}
    kept = {"f": "latent", "g": "denoised", "h": "denoised_before", "k": "carried"}
    for name, terms in (("next_latent", after), ("next_carried", kept)):
        graph.op("Sum", *(graph.op("Mul", cell[letter], term) for letter, term in terms.items()), out=name)
    inputs = dict.fromkeys(("latent", "denoised_before", "noise", "carried"), LATENT)
    inputs |= {"row": ("float32", [len(COLUMNS)]), "context": ("float32", [passes, HIDDEN])}
    return inputs, dict.fromkeys(("next_latent", "denoised", "next_carried"), LATENT)


def _decoder(graph: _Graph, name: str, factor: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """factor: pixels per latent cell and axis that the network computes; with 1, they are repeated to FACTOR pixels."""
    last = graph.op("MatMul", graph.op("Transpose", "latent", perm=[0, 2, 3, 1]), graph.weight(name))
    planes = graph.op("Transpose", last, perm=[0, 3, 1, 2])
    if factor > 1:
        planes = graph.op("DepthToSpace", planes, blocksize=factor, mode="CRD")
    else:
        planes = graph.op("Resize", planes, "", graph.const([1, 1, FACTOR, FACTOR]), mode="nearest", nearest_mode="floor",
                          coordinate_transformation_mode="asymmetric")  # fmt: skip
    levels = graph.op("Add", graph.op("Mul", planes, graph.const(60)), graph.const(128))
    clipped = graph.op("Round", graph.op("Clip", levels, graph.const(0), graph.const(255)))
    graph.op("Transpose", graph.op("Cast", clipped, to=TensorProto.UINT8), out="pixels", perm=[0, 2, 3, 1])
    return {"latent": LATENT}, {"pixels": ("uint8", ["batch", "image_height", "image_width", 3])}


def _sum(graph: _Graph, name: str) -> str:
    """Sum over the tokens."""
    return graph.op("ReduceSum", name, graph.ints(1), keepdims=0)


def _manifest(graphs: dict[str, Any]) -> dict[str, Any]:
    def component(role: str, folder: str, *uses: str, weights: tuple[str, ...] = ("model.safetensors",), **more: str) -> dict[str, Any]:
        paths = {use: f"{folder}/{use}.onnx" for use in uses}
        return {"role": role, "graphs": paths, "weights": [f"{folder}/{name}" for name in weights], **more}

    fields = ("name", "denoiser", "scheduler", "num_inference_steps", "decoder")
    rows = (
        ("patchwork@2", "denoiser", "flow", 2, "tiny"),
        ("patchwork@4", "denoiser", "flow", 4, "full"),
        ("patchwork-unipc@4", "denoiser", "unipc", 4, "full"),
        ("guided@4", "guided", "flow", 4, "full"),
        ("guided-unipc@4", "guided", "unipc", 4, "full"),
    )
    pool = [{**dict(zip(fields, row, strict=True)), "guidance_scale": 3.5} for row in rows]
    return {
        "family": "patchwork",
        "revision": "1",
        "license": "Apache-2.0",
        "made_with": {"onnx": onnx.__version__},
        "components": {
            "text_encoder": component("text_encoder", "text_encoder", "encode", tokenizer="words"),
            "text_encoder_2": component("text_encoder", "text_encoder_2", "encode", tokenizer="letters"),
            "denoiser": component("denoiser", "denoiser", "condition", "step", weights=SHARDS, guidance="embedded"),
            "guided": component("denoiser", "guided", "condition", "guided_step", weights=SHARDS, guidance="classifier_free"),
            "full": component("decoder", "full", "decode"),
            "tiny": component("decoder", "tiny", "decode"),
        },
        "graphs": graphs,
        "tokenizers": {
            "words": {"file": "words/tokenizer.json", "max_length": LENGTHS["words"], "pad_id": 0, "pad_side": "left"},
            "letters": {
                "file": "letters/tokenizer.json", "max_length": LENGTHS["letters"], "pad_id": 0,
                "prefix": TEMPLATE[0], "suffix": TEMPLATE[1], "drop": DROP,
            },
        },
        "negative_prompt": "zeros",
        "image": {
            "height": 64, "width": 64, "vae_scale_factor": FACTOR, "latent_channels": CHANNELS, "patch_size": PATCH,
            "sizes": [[64, 64], [64, 96]],
        },
        "preview": None,
        "schedulers": {"flow": FLOW, "unipc": UNIPC},
        "pool": pool,
        "quality": {"metric": "none", "candidates": {row["name"]: {"mean": 0.5, "standard_error": 0.1} for row in pool}},
        "router": None,
    }  # fmt: skip


def _round(values: np.ndarray) -> np.ndarray:
    """Values rounded towards zero to bfloat16, as float32."""
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def _write_bfloat16(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, int]:
    """Write a .safetensors file; returns the offset of each array in bytes."""
    header, at, parts = dict[str, Any](), 0, []
    for name, array in arrays.items():
        data = (np.ascontiguousarray(array).view(np.uint32) >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": list(array.shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
        parts.append(data)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
    return {name: 8 + len(text) + entry["data_offsets"][0] for name, entry in header.items()}


def _external(name: str, array: np.ndarray, file: str, offset: int) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.BFLOAT16, dims=array.shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", file), ("offset", offset), ("length", 2 * array.size)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _values(ports: dict[str, Any]) -> list[Any]:
    return [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
        for name, (dtype, shape) in ports.items()
    ]


if __name__ == "__main__":
    print(write_patchwork_bundle(Path(sys.argv[1])).root)  # noqa: T201
