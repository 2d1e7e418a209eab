"""Composes the graphs of a bundle around exported components, with `onnx` alone.

The denoiser becomes `step` and `guided_step` (one call per row of a step table) and, if part of it depends on the text alone, `condition`
(one call per request); the VAE decoder becomes `decode` (latent to pixels). A composed graph refers to the same weight files as the
component, so it must be saved next to them. Names of the component get a prefix to avoid collisions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.manifest import CARRIED, GUIDANCE_RESCALE, IMAGE_SIZE, NEXT_CARRIED, GraphSpec, TensorSpec
from costroute_rt.engines.bundle.onnx_model import graph_spec
from costroute_rt.error import BundleError
from costroute_rt.sampling.step_table import COLUMNS, MEMORY

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

_COMPONENT = "net/"
_LATENT_NAMES = ("sample", "hidden_states")
GUIDANCE = "guidance"
"""The input of a denoiser that takes the guidance scale itself, one number per image."""
_OLDEST_OPSET = 13
_NOTHING: Mapping[str, TensorSpec] = {}


def condition_inputs(spec: GraphSpec) -> dict[str, TensorSpec]:
    """The conditioning inputs: all but latent, timestep and guidance scale; raises BundleError if the graph is no supported denoiser."""
    others = (_latent_input(spec), "timestep", GUIDANCE)
    return {name: port for name, port in spec.inputs.items() if name not in others}


def compose_condition(denoiser: ModelProto, crossing: Mapping[str, TensorSpec], sources: Mapping[str, str]) -> ModelProto:
    """The part of a denoiser that depends on its conditioning alone, computed once for all steps of a request.

    crossing: the result of `find_crossing`; its tensors become the outputs condition_0, condition_1 ...: [rows, ...].
    sources: for each conditioning input of the denoiser, its name in the runtime (`text_encoder.last_hidden_state`). Each has one row for
        `step`, and a negative and a positive row for `guided_step`.
    """
    graph, spec = _Composition(denoiser), graph_spec(denoiser)
    names, given = _outside_names(spec, crossing, sources), condition_inputs(spec)
    graph.call({name: names[name] for name in given})
    for name in crossing:
        graph.op("Identity", _COMPONENT + name, output=names[name])
    sides = ({names[name]: _with_rows(name, port, "rows") for name, port in side.items()} for side in (given, crossing))
    return graph.finish("condition", GraphSpec(*sides))


def compose_step(
    denoiser: ModelProto, sources: Mapping[str, str], crossing: Mapping[str, TensorSpec] = _NOTHING, *, memory: bool = False
) -> ModelProto:
    """The graph of one row of a step table without guidance, which runs the denoiser once on the latent's batch.

    Inputs: latent, denoised_before, noise: float32[batch, channels, height, width]; row: float32[9], see `step_table.COLUMNS`; and the
    tensors of `sources`, as in `compose_condition`, with a first axis of 1 that is used for the whole batch.
    Outputs: next_latent, denoised: float32[batch, channels, height, width].
    With `crossing`, the graph takes the outputs of `compose_condition`, and those of the sources that it still reads.
    memory: the graph also takes `carried`, in the shape of the latent, and row: float32[14], and outputs `next_carried`.
    """
    return _compose_denoising(denoiser, sources, crossing, is_guided=False, memory=memory)


def compose_guided_step(
    denoiser: ModelProto,
    sources: Mapping[str, str],
    crossing: Mapping[str, TensorSpec] = _NOTHING,
    *,
    memory: bool = False,
    rescale: bool = False,
) -> ModelProto:
    """The graph of one row of a step table with classifier-free guidance (Ho & Salimans 2022): one run at twice the latent's batch.

    As `compose_step`, with the row's guidance scale and two rows in each conditioning input: negative, positive.
    rescale: the graph also takes `guidance_rescale`: float32[1], see `_rescale`.
    """
    return _compose_denoising(denoiser, sources, crossing, is_guided=True, memory=memory, rescale=rescale)


def compose_decode(decoder: ModelProto, *, scale: npt.ArrayLike, shift: npt.ArrayLike) -> ModelProto:
    """The graph from a denoised latent to pixels.

    scale, shift: a number or one per channel; the decoder takes latent * scale + shift.
    latent: float32[batch, channels, height, width] -> pixels: uint8[batch, image_height, image_width, 3].
    """
    graph, spec = _Composition(decoder), graph_spec(decoder)
    ((source, taken),), (given,) = spec.inputs.items(), spec.outputs.values()
    scaled = graph.op("Mul", "latent", graph.constant(_per_channel(scale)))
    decoded = graph.call({source: graph.op("Add", scaled, graph.constant(_per_channel(shift)))})
    half = graph.constant(np.float32(0.5))
    unit = graph.op("Add", graph.op("Mul", decoded, half), half)
    unit = graph.op("Clip", unit, graph.constant(np.float32(0)), graph.constant(np.float32(1)))
    levels = graph.op("Cast", graph.op("Round", graph.op("Mul", unit, graph.constant(np.float32(255)))), to=_dtype("uint8"))
    graph.op("Transpose", levels, output="pixels", perm=[0, 2, 3, 1])
    latent = TensorSpec("float32", ("batch", taken.shape[1], "height", "width"))
    pixels = TensorSpec("uint8", ("batch", "image_height", "image_width", given.shape[1]))
    return graph.finish("decode", GraphSpec({"latent": latent}, {"pixels": pixels}))


def compose_encode(encoder: ModelProto, *, scale: npt.ArrayLike, shift: npt.ArrayLike) -> ModelProto:
    """The graph from pixels to a latent, the inverse of `compose_decode`.

    pixels: uint8[batch, image_height, image_width, 3] -> latent: float32[batch, channels, height, width].
    """
    graph, spec = _Composition(encoder), graph_spec(encoder)
    ((source, taken),), (given,) = spec.inputs.items(), spec.outputs.values()
    levels = graph.op("Cast", graph.op("Transpose", "pixels", perm=[0, 3, 1, 2]), to=_dtype("float32"))
    unit = graph.op("Div", levels, graph.constant(np.float32(127.5)))
    found = graph.call({source: graph.op("Sub", unit, graph.constant(np.float32(1)))})
    centred = graph.op("Sub", found, graph.constant(_per_channel(shift)))
    graph.op("Div", centred, graph.constant(_per_channel(scale)), output="latent")
    pixels = TensorSpec("uint8", ("batch", "image_height", "image_width", taken.shape[1]))
    latent = TensorSpec("float32", ("batch", given.shape[1], "height", "width"))
    return graph.finish("encode", GraphSpec({"pixels": pixels}, {"latent": latent}))


POOLINGS = ("mean", "cls", "last")


def compose_embedding(encoder: ModelProto, *, pooling: str | None, is_normalised: bool, filler: int = 0) -> ModelProto:
    """The graph from the tokens of prompts to one embedding per prompt.

    encoder: a graph whose first output is float32[batch, tokens, width], or float32[batch, width] without pooling.
    pooling: how to pool over the tokens of `attention_mask`, one of POOLINGS; None if the encoder outputs embeddings itself.
    filler: the token that replaces masked tokens, if the encoder takes no mask.
    input_ids, attention_mask: int64[batch, prompt_tokens] -> embedding: float32[batch, width], of length 1 if `is_normalised`.
    Raises BundleError for an encoder with inputs other than these and token_type_ids.
    """
    graph, spec = _Composition(encoder), graph_spec(encoder)
    unknown = set(spec.inputs) - {"input_ids", "attention_mask", "token_type_ids"}
    if unknown or "input_ids" not in spec.inputs:
        raise BundleError(None, f"the encoder's graph takes {', '.join(spec.inputs)}", "an encoder takes input_ids and attention_mask")
    mask = graph.op("Cast", "attention_mask", to=_dtype("float32"))
    feeds = {"input_ids": "input_ids", "attention_mask": "attention_mask"}
    feeds["token_type_ids"] = graph.op("Mul", "input_ids", graph.constant(np.int64(0)))
    if "attention_mask" not in spec.inputs:
        is_own = graph.op("Cast", "attention_mask", to=_dtype("bool"))
        feeds["input_ids"] = graph.op("Where", is_own, "input_ids", graph.constant(np.int64(filler)))
    result = graph.call({name: feeds[name] for name in spec.inputs})
    if pooling is not None:
        result = graph.op("Squeeze", _pool(graph, result, mask, pooling), graph.constant(np.array([1])))
    if is_normalised:
        squares = graph.op("ReduceSum", graph.op("Mul", result, result), graph.constant(np.array([1])), keepdims=1)
        result = graph.op("Div", result, graph.op("Max", graph.op("Sqrt", squares), graph.constant(np.float32(1e-12))))
    graph.op("Identity", result, output="embedding")
    width = next(iter(spec.outputs.values())).shape[-1]
    ids = TensorSpec("int64", ("batch", "prompt_tokens"))
    inputs = {"input_ids": ids, "attention_mask": ids}
    return graph.finish("encode", GraphSpec(inputs, {"embedding": TensorSpec("float32", ("batch", width))}))


def _pool(graph: _Composition, states: str, mask: str, pooling: str) -> str:
    """Pool states: float32[n, tokens, width] by mask: float32[n, tokens], ones and then zeros, to float32[n, 1, width]."""
    one, two = graph.constant(np.array([1])), graph.constant(np.array([2]))
    weights = mask
    if pooling != "mean":
        place = graph.op("CumSum", mask, graph.constant(np.int64(1)))
        count = graph.op("ReduceSum", mask, one, keepdims=1) if pooling == "last" else graph.constant(np.float32(1))
        weights = graph.op("Mul", mask, graph.op("Cast", graph.op("Equal", place, count), to=_dtype("float32")))
    total = graph.op("Max", graph.op("ReduceSum", weights, one, keepdims=1), graph.constant(np.float32(1e-9)))
    shares = graph.op("Unsqueeze", graph.op("Div", weights, total), two)
    return graph.op("ReduceSum", graph.op("Mul", states, shares), one, keepdims=1)


def _compose_denoising(
    denoiser: ModelProto,
    sources: Mapping[str, str],
    crossing: Mapping[str, TensorSpec],
    *,
    is_guided: bool,
    memory: bool,
    rescale: bool = False,
) -> ModelProto:
    spec = graph_spec(denoiser)
    source = _latent_input(spec)
    graph = _Composition(denoiser)
    columns = (*COLUMNS, *MEMORY) if memory else COLUMNS
    row = {field: graph.op("Gather", "row", graph.constant(np.int64(index)), axis=0) for index, field in enumerate(columns)}
    batch = graph.dimension("latent", 0)
    sample = graph.op("Mul", "latent", row["input_scale"])
    if is_guided:
        sample = graph.op("Concat", sample, sample, axis=0)
    feeds = {source: sample, "timestep": _number(graph, spec.inputs["timestep"], row["timestep"], sample)}
    if GUIDANCE in spec.inputs:
        feeds[GUIDANCE] = _number(graph, spec.inputs[GUIDANCE], row["guidance"], sample)
    conditions, names, texts = {}, _outside_names(spec, crossing, sources), 2 if is_guided else 1
    rows = _repeated_rows(graph, texts, batch)
    for name, port in {**condition_inputs(spec), **crossing}.items():
        conditions[names[name]] = _with_rows(name, port, texts)
        feeds[name] = names[name] if name == IMAGE_SIZE else graph.op("Gather", names[name], rows, axis=0)
    result = graph.call(feeds)
    _advance(graph, row, _guide(graph, row["guidance"], result, rescale=rescale) if is_guided else result, memory=memory)

    latent = TensorSpec("float32", ("batch", spec.inputs[source].shape[1], "height", "width"))
    inputs = dict.fromkeys(("latent", "denoised_before", "noise", *([CARRIED] if memory else [])), latent)
    inputs["row"] = TensorSpec("float32", (len(columns),))
    if rescale:
        inputs[GUIDANCE_RESCALE] = TensorSpec("float32", (1,))
    outputs = dict.fromkeys(("next_latent", "denoised", *([NEXT_CARRIED] if memory else [])), latent)
    return graph.finish("guided_step" if is_guided else "step", GraphSpec(inputs | conditions, outputs))


def _latent_input(spec: GraphSpec) -> str:
    """The name of the input that takes the latent; raises BundleError if the graph is not a supported denoiser."""
    name = next((name for name in _LATENT_NAMES if name in spec.inputs), None)
    if name is None or not {"timestep", "encoder_hidden_states"} <= set(spec.inputs) or len(spec.outputs) != 1:
        problem = f"the denoiser's graph has the inputs {', '.join(spec.inputs)} and the outputs {', '.join(spec.outputs)}"
        raise BundleError(None, problem, "a denoiser takes sample, timestep and encoder_hidden_states and has one output")
    (given,) = spec.outputs.values()
    if isinstance(given.shape[1], int) and given.shape[1] != spec.inputs[name].shape[1]:
        problem = f"the denoiser takes {spec.inputs[name].shape[1]} channels and outputs {given.shape[1]}"
        raise BundleError(None, problem, "denoisers that also predict a variance, and inpainting denoisers, are not supported")
    return name


def _outside_names(spec: GraphSpec, crossing: Mapping[str, TensorSpec], sources: Mapping[str, str]) -> dict[str, str]:
    """Names in composed graphs of the component's conditioning tensors; raises BundleError for an input without a source."""
    missing = [name for name in condition_inputs(spec) if name not in sources]
    if missing:
        raise BundleError("denoiser", f"nothing provides its inputs {', '.join(missing)}", "such denoisers are not supported")
    names = {name: sources[name] for name in condition_inputs(spec)}
    return names | {name: f"condition_{index}" for index, name in enumerate(crossing)}


def _with_rows(name: str, port: TensorSpec, rows: int | str) -> TensorSpec:
    """A conditioning tensor with `rows` texts; the size of the image belongs to none of them."""
    return port if name == IMAGE_SIZE else TensorSpec(port.dtype, (rows, *port.shape[1:]))


def _number(graph: _Composition, port: TensorSpec, value: str, sample: str) -> str:
    """A number of the row in the dtype of the denoiser's input, as a scalar or as one number per image."""
    if port.dtype != "float32":
        value = graph.op("Cast", value, to=_dtype(port.dtype))
    if not port.shape:
        return value
    return graph.op("Expand", value, graph.dimension(sample, 0) if isinstance(port.shape[0], str) else graph.constant(np.array(port.shape)))


def _repeated_rows(graph: _Composition, rows: int, batch: str) -> str:
    """The numbers of the rows, each `batch` times, which is the order of the doubled latent: int64[rows * batch].

    Gather by them keeps the known lengths of axes in sight of shape inference, as a reshape does not.
    """
    count = graph.op("Squeeze", batch)
    total = graph.op("Mul", count, graph.constant(np.int64(rows)))
    numbers = graph.op("Range", graph.constant(np.int64(0)), total, graph.constant(np.int64(1)))
    return graph.op("Div", numbers, count)


def _guide(graph: _Composition, scale: str, both: str, *, rescale: bool = False) -> str:
    """m = m_neg + scale * (m_pos - m_neg)"""
    negative, positive = graph.split(both)
    guided = graph.op("Add", negative, graph.op("Mul", scale, graph.op("Sub", positive, negative)))
    return _rescale(graph, guided, positive) if rescale else guided


def _rescale(graph: _Composition, guided: str, positive: str) -> str:
    """m * (1 + phi * (std(m_pos) / std(m) - 1)), per image (Lin et al. 2024, equations 15 and 16; diffusers' rescale_noise_cfg)."""
    change = graph.op("Sub", graph.op("Div", _deviation(graph, positive), _deviation(graph, guided)), graph.constant(np.float32(1)))
    factor = graph.op("Add", graph.op("Mul", GUIDANCE_RESCALE, change), graph.constant(np.float32(1)))
    return graph.op("Mul", guided, factor)


def _deviation(graph: _Composition, value: str) -> str:
    """Standard deviation of each image: float32[batch, 1, 1, 1]; its sums stay near 1, within the range of half precision."""
    rest = graph.constant(np.array([1, 2, 3]))
    sizes = [graph.dimension(value, axis) for axis in (1, 2, 3)]
    count = graph.op("Cast", graph.op("Mul", graph.op("Mul", sizes[0], sizes[1]), sizes[2]), to=_dtype("float32"))
    mean = graph.op("ReduceSum", graph.op("Div", value, count), rest, keepdims=1)
    difference = graph.op("Div", graph.op("Sub", value, mean), graph.op("Sqrt", count))
    return graph.op("Sqrt", graph.op("ReduceSum", graph.op("Mul", difference, difference), rest, keepdims=1))


def _advance(graph: _Composition, row: Mapping[str, str], guided: str, *, memory: bool) -> None:
    """D = p x + q m; next = a x + b D + c D_before + s noise, and with memory + e y; y_next = f x + g D + h D_before + k y"""
    denoised = graph.op("Add", graph.op("Mul", row["p"], "latent"), graph.op("Mul", row["q"], guided), output="denoised")
    terms = [graph.op("Mul", row[k], v) for k, v in (("a", "latent"), ("b", denoised), ("c", "denoised_before"), ("s", "noise"))]
    plain = "" if memory else "next_latent"
    after = graph.op("Add", graph.op("Add", terms[0], terms[1]), graph.op("Add", terms[2], terms[3]), output=plain or None)
    if memory:
        graph.op("Add", after, graph.op("Mul", row["e"], CARRIED), output="next_latent")
        kept = [graph.op("Mul", row[k], v) for k, v in (("f", "latent"), ("g", denoised), ("h", "denoised_before"), ("k", CARRIED))]
        graph.op("Add", graph.op("Add", kept[0], kept[1]), graph.op("Add", kept[2], kept[3]), output=NEXT_CARRIED)


class _Composition:
    """A graph of nodes around a component, in the order in which they are added."""

    def __init__(self, component: ModelProto) -> None:
        from onnx.compose import add_prefix

        self._opset = next(entry.version for entry in component.opset_import if entry.domain in ("", "ai.onnx"))
        if self._opset < _OLDEST_OPSET:
            raise BundleError(None, f"the component's graph is of opset {self._opset}", f"export it with opset {_OLDEST_OPSET} or later")
        self._model = add_prefix(component, _COMPONENT)
        self._inner = list(self._model.graph.node)
        self._nodes: list[Any] = []
        self._constants: dict[tuple[Any, ...], Any] = {}

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Adds a node with one output; returns the output's name."""
        from onnx.helper import make_node

        output = output or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, value: npt.NDArray[Any] | np.generic) -> str:
        """Adds a constant unless an equal one exists; returns its name."""
        from onnx.numpy_helper import from_array

        array = np.asarray(value)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = from_array(array, f"constant_{len(self._constants)}")
        return str(self._constants[key].name)

    def dimension(self, name: str, axis: int) -> str:
        """Adds nodes for the length of one axis, int64[1]; returns their output's name."""
        return self.op("Gather", self.op("Shape", name), self.constant(np.array([axis])), axis=0)

    def split(self, name: str) -> tuple[str, str]:
        """Adds a node that splits a tensor along its first axis; returns the names of both halves."""
        attributes: dict[str, Any] = {"axis": 0} | ({"num_outputs": 2} if self._opset >= 18 else {})
        first = self.op("Split", name, **attributes)
        second = f"{first}_second"
        self._nodes[-1].output.append(second)
        return first, second

    def call(self, feeds: Mapping[str, str]) -> str:
        """Adds the component's nodes; returns its first output. Tensors inside it may be fed too, which replaces their nodes."""
        for name, value in feeds.items():
            self.op("Identity", value, output=_COMPONENT + name)
        given = {_COMPONENT + name for name in feeds}
        self._nodes += [node for node in self._inner if given.isdisjoint(node.output)]
        return str(self._model.graph.output[0].name)

    def finish(self, name: str, spec: GraphSpec) -> ModelProto:
        """The composed graph, with only the inputs and parts of the component that its outputs need."""
        graph = self._model.graph
        for field in (graph.node, graph.input, graph.output, graph.value_info):
            del field[:]
        graph.name = name
        graph.node.extend(self._nodes)
        graph.initializer.extend(self._constants.values())
        graph.output.extend(value_info(*item) for item in spec.outputs.items())
        keep_outputs(self._model, list(spec.outputs))
        needed = {name for node in graph.node for name in node.input}
        graph.input.extend(value_info(*item) for item in spec.inputs.items() if item[0] in needed)
        return self._model


def value_info(name: str, port: TensorSpec) -> ValueInfoProto:
    """An input or output of a graph."""
    from onnx.helper import make_tensor_value_info

    return make_tensor_value_info(name, _dtype(port.dtype), list(port.shape))


def _dtype(name: str) -> int:
    from onnx.helper import np_dtype_to_tensor_dtype

    return int(np_dtype_to_tensor_dtype(np.dtype(name)))


def _per_channel(value: npt.ArrayLike) -> npt.NDArray[np.float32]:
    array = np.asarray(value, dtype=np.float32)
    return array.reshape(1, -1, 1, 1) if array.ndim else array


def keep_outputs(model: ModelProto, names: Sequence[str]) -> None:
    """Removes all outputs but `names`, and the nodes and constants that only they needed; changes `model`."""
    graph = model.graph
    kept = [value for value in graph.output if value.name in names]
    needed = {value.name for value in kept}
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    for field, values in ((graph.output, kept), (graph.node, nodes[::-1]), (graph.initializer, constants)):
        values = list(values)
        del field[:]
        field.extend(values)


def strip_notes(model: ModelProto) -> None:
    """Removes an exporter's debugging information: inferred shapes, source lines, metadata, node names; changes `model`."""
    del model.graph.value_info[:]
    del model.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    for node in model.graph.node:
        node.doc_string = node.name = ""
        del node.metadata_props[:]


def save_graph(model: ModelProto, path: Path) -> None:
    """Writes a graph next to the weights it refers to and checks it, shapes included; raises BundleError if it is not valid ONNX."""
    import onnx

    path.write_bytes(model.SerializeToString(deterministic=True))
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BundleError(path, f"the graph is not valid: {error}", "this checkpoint cannot be exported") from error
