"""Interfaces of a bundle's graphs: the inputs and outputs that each role requires."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from costroute_rt.engines.bundle.manifest import (
    BATCH_AXES,
    CARRIED,
    GUIDANCE_RESCALE,
    IMAGE_SIZE,
    LOOP_INPUTS,
    LOOP_OPTIONS,
    MEMORY_ROW_LENGTH,
    NEXT_CARRIED,
    ROW_LENGTH,
    TEXT_TOKENS,
    Component,
    GraphSpec,
    ImageSpec,
    TensorSpec,
    TokenizerSpec,
)
from costroute_rt.engines.bundle.section import Fail

_STEP_OUTPUTS = {"next_latent": 4, "denoised": 4}
_STEPS = ("step", "guided_step")
_INTERFACES: dict[tuple[str, str], tuple[dict[str, int], dict[str, int]]] = {
    ("text_encoder", "encode"): ({"input_ids": 2}, {}),
    ("denoiser", "step"): (LOOP_INPUTS, _STEP_OUTPUTS),
    ("denoiser", "guided_step"): (LOOP_INPUTS, _STEP_OUTPUTS),
    ("decoder", "decode"): ({"latent": 4}, {"pixels": 4}),
    ("decoder", "encode"): ({"pixels": 4}, {"latent": 4}),
    ("scorer", "score"): ({"pixels": 4}, {}),
    ("router_encoder", "encode"): ({"input_ids": 2, "attention_mask": 2}, {"embedding": 2}),
    ("router_estimator", "estimate"): ({"states": 3, "lengths": 1}, {"mean": 2}),
}
"""By role and use: the required inputs and outputs of a graph, with their ranks."""
_INPUT_DTYPES = {"input_ids": {"int64", "int32"}, "attention_mask": {"int64", "int32"}, "lengths": {"int64"}, "pixels": {"uint8"}}
"""Dtypes of these required inputs; all other required inputs and outputs are float32."""
_LATENTS = frozenset({"latent", "denoised_before", "noise", "next_latent", "denoised", CARRIED, NEXT_CARRIED})


class Interfaces:
    """Checks that graphs have the inputs and outputs of their roles, and that every input of a denoiser has a source."""

    def __init__(
        self,
        components: Mapping[str, Component],
        graphs: Mapping[str, GraphSpec],
        image: ImageSpec,
        tokenizers: Mapping[str, TokenizerSpec],
        fail: Fail,
    ) -> None:
        self._components, self._graphs, self._image, self._fail = components, graphs, image, fail
        self._tokenizers = tokenizers
        self._sources = conditioning_sources(components, graphs, tokenizers)

    def check(self) -> None:
        for component in self._components.values():
            for use, path in component.graphs.items():
                inputs, outputs = _INTERFACES.get((component.role, use), ({}, {}))
                if (component.role, use) == ("decoder", "encode") and "pixels" not in self._graphs[path].inputs:
                    continue  # an encoder in another form, as bundles had it that were made before images could be encoded
                self._check_side(f"{path} inputs", inputs, self._graphs[path].inputs)
                self._check_side(f"{path} outputs", outputs, self._graphs[path].outputs)
            if component.role == "denoiser":
                self._check_denoiser(component)
            elif component.role == "text_encoder":
                self._check_encoder(component.graphs["encode"], self._tokenizers[str(component.tokenizer)])

    def _check_encoder(self, path: str, tokenizer: TokenizerSpec) -> None:
        graph = self._graphs[path]
        unknown = sorted(graph.inputs.keys() - {"input_ids", "attention_mask"})
        if unknown or not graph.outputs:
            self._fail(f"{path} takes {', '.join(graph.inputs)}: a text encoder takes input_ids, maybe attention_mask, and has outputs")
        for name, spec in graph.inputs.items():
            rows, tokens = spec.shape if len(spec.shape) == 2 else (0, 0)
            is_free = isinstance(tokens, str) and tokens != TEXT_TOKENS  # which has the tokens of several chunks
            fits = rows == 1 or isinstance(rows, str), tokens == tokenizer.max_length or is_free
            if not all(fits) or spec.dtype not in ("int32", "int64"):
                expected = f"int64 with the axes rows and tokens, or [1, {tokenizer.max_length}]"
                self._fail(f"{path} inputs: {name} is {_describe(spec)}, expected {expected}")
        for name, spec in graph.outputs.items():
            if len(spec.shape) < 2 or spec.dtype != "float32":
                self._fail(f"{path} outputs: {name} is {_describe(spec)}, expected float32 with rows and one axis or more")

    def _check_denoiser(self, component: Component) -> None:
        condition = component.graphs.get("condition")
        given, conditions = dict(self._sources), dict[str, TensorSpec]()
        if condition is not None:
            self._check_sources(f"{condition} inputs", self._graphs[condition].inputs, self._sources)
            self._check_rows(f"{condition} inputs", self._graphs[condition].inputs, 2 if "guided_step" in component.graphs else 1)
            conditions = dict(self._graphs[condition].outputs)
            given |= {name: len(spec.shape) for name, spec in conditions.items()}
        for use in _STEPS:
            path = component.graphs.get(use)
            if path is None:
                continue
            graph = self._graphs[path]
            taken = {name: spec for name, spec in graph.inputs.items() if name not in (*LOOP_INPUTS, *LOOP_OPTIONS)}
            self._check_sources(f"{path} inputs", taken, given)
            self._check_rows(f"{path} inputs", taken, 2 if use == "guided_step" else 1)
            self._check_conditions(f"{path} inputs", conditions, taken)
            self._check_memory(path, graph)
            if (rescale := graph.inputs.get(GUIDANCE_RESCALE)) is not None and (rescale.dtype, rescale.shape) != ("float32", (1,)):
                self._fail(f"{path} inputs: {GUIDANCE_RESCALE} is {_describe(rescale)}, expected float32 [1]")

    def _check_sources(self, where: str, taken: Mapping[str, TensorSpec], given: Mapping[str, int]) -> None:
        for name, spec in taken.items():
            dtype = "int64" if name == IMAGE_SIZE or name.endswith((".attention_mask", ".length")) else "float32"
            if given.get(name) != len(spec.shape) or (name in self._sources and spec.dtype != dtype):
                self._fail(f"{where}: {name} is {_describe(spec)}, which nothing provides; available: {', '.join(sorted(given))}")

    def _check_rows(self, where: str, taken: Mapping[str, TensorSpec], texts: int) -> None:
        """The first axis of conditioning tensors counts texts: with guidance the negative prompt and the prompt."""
        for name, spec in taken.items():
            rows = spec.shape[0] if spec.shape else 0
            if name != IMAGE_SIZE and rows != texts and (isinstance(rows, int) or rows in BATCH_AXES):
                self._fail(f"{where}: {name} is {_describe(spec)}, expected {texts} texts, or a free axis called rows, as its first axis")

    def _check_conditions(self, where: str, given: Mapping[str, TensorSpec], taken: Mapping[str, TensorSpec]) -> None:
        """Check that a step takes the outputs of `condition` with their dtypes and shapes, except for the number of rows."""
        for name, spec in taken.items():
            if name in given and (given[name].dtype, given[name].shape[1:]) != (spec.dtype, spec.shape[1:]):
                self._fail(f"{where}: {name} is {_describe(spec)}, but the condition graph outputs {_describe(given[name])}")

    def _check_memory(self, path: str, graph: GraphSpec) -> None:
        has_memory = CARRIED in graph.inputs
        length = MEMORY_ROW_LENGTH if has_memory else ROW_LENGTH
        if graph.inputs["row"].shape != (length,):
            self._fail(f"{path} inputs: row has the shape {list(graph.inputs['row'].shape)}, expected [{length}]")
        if has_memory:
            self._check_side(f"{path} inputs", {CARRIED: 4}, graph.inputs)
            self._check_side(f"{path} outputs", {NEXT_CARRIED: 4}, graph.outputs)

    def _check_side(self, where: str, needed: Mapping[str, int], found: Mapping[str, TensorSpec]) -> None:
        for name, rank in needed.items():
            spec = found.get(name)
            allowed = _INPUT_DTYPES.get(name, {"float32"})
            if spec is None or len(spec.shape) != rank or spec.dtype not in allowed:
                have = "missing" if spec is None else _describe(spec)
                self._fail(f"{where}: {name} is {have}, expected {' or '.join(sorted(allowed))} of rank {rank}")
            if name in _LATENTS and spec.shape[1] != self._image.latent_channels:
                self._fail(f"{where}: {name} has {spec.shape[1]} channels, the bundle's latents have {self._image.latent_channels}")


def _describe(spec: TensorSpec) -> str:
    return f"{spec.dtype}{list(spec.shape)}"


def conditioning_sources(components: Mapping[str, Component], graphs: Mapping[str, GraphSpec], tokenizers: Iterable[str]) -> dict[str, int]:
    """Ranks of the tensors that a denoiser's graphs may take by name, besides those of the loop."""
    sources = {IMAGE_SIZE: 1}
    for name in tokenizers:
        sources |= {f"{name}.attention_mask": 2, f"{name}.length": 1}
    for component in components.values():
        if component.role == "text_encoder":
            outputs = graphs[component.graphs["encode"]].outputs
            sources |= {f"{component.name}.{name}": len(spec.shape) for name, spec in outputs.items()}
    return sources
