"""The bundle manifest, format 2: its value types, and the reading of each section into them.

A family is data, and no family has code of its own here. Tokenizers and encoders have names, the inputs of a denoiser's graphs name the
tensors that they take, and the runtime feeds each input the tensor of that name:

    TOKENIZER.attention_mask, TOKENIZER.length     int64[rows, tokens], int64[rows]
    ENCODER.OUTPUT                                 an output of a text encoder's graph `encode`, rows first
    image_size                                     int64[2]: height and width in pixels

A denoiser's `condition` graph takes any of these, once per request; its `step` and `guided_step` take the outputs of `condition`, and any
of these too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from costroute_rt.engines.bundle.section import Fail, Section, shorten

FORMAT = "costroute-bundle"
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
MANIFEST_SHA256 = "manifest.sha256"
DTYPES = frozenset({"float32", "float16", "bfloat16", "int64", "int32", "uint8", "int8", "bool"})
ROW_LENGTH, MEMORY_ROW_LENGTH = 9, 14
"""Numbers in a row of a step table, without and with a latent that is carried from row to row."""
GUIDANCE_KINDS = ("none", "classifier_free", "embedded")
"""none: the denoiser takes no scale. classifier_free: a scale above 1 runs `guided_step`, with two rows of text. embedded: `step` reads the
scale from its row."""
NEGATIVE_RULES = ("empty_text", "zeros")
"""What replaces a missing negative prompt: the encoders' outputs for the empty text, or zeros."""
IMAGE_SIZE = "image_size"
ROUTER_GRAPHS = {"router_encoder": "encode", "router_estimator": "estimate"}
"""Roles of the networks that a router may run, with the graph of each."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]*")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names of families and graphs, without the @ that separates the size in names of engines."""
_MOST_TOKENS, _LARGEST_TOKEN, _LONGEST_SIDE_PX = 1 << 16, 2**31 - 1, 1 << 16
"""Limits beyond any known model, to refuse values that would exhaust the memory."""
BATCH_AXES = ("batch", "batch_size")
"""Names of axes that count images."""
_REQUIRED_GRAPHS = {"text_encoder": {"encode"}, "decoder": {"decode"}, "scorer": {"score"}}
_REQUIRED_GRAPHS |= {role: {graph} for role, graph in ROUTER_GRAPHS.items()}
LOOP_INPUTS = {"latent": 4, "denoised_before": 4, "noise": 4, "row": 1}
"""Inputs of every step graph besides the conditioning, with their ranks."""
CARRIED, NEXT_CARRIED = "carried", "next_carried"
"""Input and output of step graphs that carry one more latent."""
_STEP_OUTPUTS = {"next_latent": 4, "denoised": 4}
_STEPS = ("step", "guided_step")
_INTERFACES: dict[tuple[str, str], tuple[dict[str, int], dict[str, int]]] = {
    ("text_encoder", "encode"): ({"input_ids": 2}, {}),
    ("denoiser", "step"): (LOOP_INPUTS, _STEP_OUTPUTS),
    ("denoiser", "guided_step"): (LOOP_INPUTS, _STEP_OUTPUTS),
    ("decoder", "decode"): ({"latent": 4}, {"pixels": 4}),
    ("scorer", "score"): ({"pixels": 4}, {}),
    ("router_encoder", "encode"): ({"input_ids": 2, "attention_mask": 2}, {"embedding": 2}),
    ("router_estimator", "estimate"): ({"states": 3, "lengths": 1}, {"mean": 2}),
}
"""By role and use: the required inputs and outputs of a graph, with their ranks."""
_INPUT_DTYPES = {"input_ids": {"int64", "int32"}, "attention_mask": {"int64", "int32"}, "lengths": {"int64"}, "pixels": {"uint8"}}
"""Dtypes of these required inputs; all other required inputs and outputs are float32."""
_LATENTS = frozenset({"latent", "denoised_before", "noise", "next_latent", "denoised", CARRIED, NEXT_CARRIED})


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a graph."""

    dtype: str
    shape: tuple[int | str, ...]
    """Axis lengths; a name is a length that may vary."""


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """Inputs and outputs of one ONNX file."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """The expected digest and size of a file of the bundle."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One network: graphs that share weight files."""

    name: str
    role: str
    """text_encoder, denoiser, decoder, scorer, router_encoder, router_estimator, or a role this version does not use."""
    graphs: Mapping[str, str]
    """Path of the ONNX file for each use: encode, condition, step, guided_step, decode, score ..."""
    weights: tuple[str, ...] = ()
    """Paths of its safetensors files, in float16, bfloat16 or float32."""
    tokenizer: str | None = None
    """For a text encoder, the name of the tokenizer whose tokens it reads."""
    guidance: str = "none"
    """For a denoiser, one of `GUIDANCE_KINDS`."""

    def step_graph(self, guidance_scale: float) -> str:
        """The graph that a candidate with this guidance scale runs at each row."""
        return "guided_step" if self.guidance == "classifier_free" and guidance_scale > 1 else "step"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerSpec:
    """One tokenizer: its file, and how it turns a prompt into tokens."""

    file: str
    max_length: int
    """Tokens that an encoder reads, padding included."""
    pad_id: int
    pad_side: str = "right"
    prefix: str = ""
    """Text before each prompt: the start of a template, rendered when the bundle was made."""
    suffix: str = ""
    """Text after each prompt."""
    drop: int = 0
    """Leading tokens (those of the prefix) that are cut from the encoders' outputs, from the mask and from the length."""
    lower_case: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """Sizes of images and latents."""

    height: int
    width: int
    vae_scale_factor: int
    """Pixels per latent cell, along each axis."""
    latent_channels: int
    sizes: tuple[tuple[int, int], ...]
    """(height, width) pairs the denoisers were trained for."""
    any_size: bool = False
    """Whether requests may use other multiples of vae_scale_factor * patch_size, up to twice the default."""
    patch_size: int = 1
    """Latent cells, along each axis, that a denoiser reads as one token."""

    def tokens(self, height: int, width: int) -> int:
        """Latent tokens of an image of that size in pixels."""
        side = self.vae_scale_factor * self.patch_size
        return (height // side) * (width // side)


@dataclass(frozen=True, slots=True)
class PreviewSpec:
    """Linear map from a latent cell to RGB in 0..1: latent @ matrix + bias."""

    matrix: tuple[tuple[float, float, float], ...]
    bias: tuple[float, float, float]


def parse(manifest: Section) -> dict[str, Any]:
    """The fields of `Bundle` from the manifest, typed and cross-checked."""
    _check_format(manifest)
    files = {check_path(name, manifest.fail, "a file"): _file_entry(entry) for name, entry in manifest.sections("files")}
    graphs = {name: parse_graph_spec(spec) for name, spec in manifest.sections("graphs")}
    tokenizers = {_checked_name(manifest, "a tokenizer", name): _tokenizer(spec, files) for name, spec in manifest.sections("tokenizers")}
    components = {name: _component(name, section, files, graphs, tokenizers) for name, section in manifest.sections("components")}
    if not any(component.role == "text_encoder" for component in components.values()):
        manifest.fail("manifest components has no component with the role text_encoder")
    image = _image(manifest.section("image"))
    schedulers = {name: _scheduler(section) for name, section in manifest.sections("schedulers")}
    pool = _pool(manifest, components, schedulers)
    _Interfaces(components, graphs, image, tokenizers, manifest.fail).check()
    return {
        "family": _checked_name(manifest, "a family", manifest.text("family"), _PLAIN_NAME),
        "revision": manifest.text("revision"),
        "license": manifest.text("license"),
        "made_with": manifest.texts("made_with"),
        "files": files,
        "components": components,
        "graphs": graphs,
        "tokenizers": tokenizers,
        "negative_prompt": _choice(manifest, "negative_prompt", NEGATIVE_RULES),
        "image": image,
        "preview": _preview(manifest.section("preview"), image) if manifest.values.get("preview") is not None else None,
        "schedulers": schedulers,
        "pool": pool,
        "quality": _quality(manifest.section("quality"), [str(row["name"]) for row in pool]),
        "router": _router(manifest.section("router"), files) if manifest.values.get("router") is not None else None,
    }


def check_path(name: str, fail: Fail, what: str) -> str:
    """`name`, checked; fails if it is not a plain relative path that stays inside its directory."""
    parts = name.split("/")
    if not name or "\\" in name or "\0" in name or ":" in parts[0] or any(part in ("", ".", "..") for part in parts):
        fail(f"{what} has the path {shorten(name)}: expected a relative path that stays inside the bundle")
    return name


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


def parse_graph_spec(section: Section) -> GraphSpec:
    """The entries `inputs` and `outputs` of a section; fails if they are not valid."""
    inputs = {name: _tensor_spec(spec) for name, spec in section.sections("inputs")}
    return GraphSpec(inputs, {name: _tensor_spec(spec) for name, spec in section.sections("outputs")})


def _check_format(manifest: Section) -> None:
    if manifest.values.get("format") != FORMAT:
        manifest.fail(f"manifest format is {shorten(manifest.values.get('format'))}: expected {FORMAT!r}")
    version = manifest.integer("format_version", minimum=1)
    if version > FORMAT_VERSION:
        manifest.fail(f"it has format version {version}, this costroute-rt reads {FORMAT_VERSION}: upgrade costroute-rt")
    if version < FORMAT_VERSION:
        manifest.fail(f"it has format version {version}, this costroute-rt reads {FORMAT_VERSION}: export it again")


def _checked_name(section: Section, what: str, name: str, form: re.Pattern[str] = _NAME) -> str:
    if not form.fullmatch(name):
        marks = ". _ @ + -" if form is _NAME else ". _ -"
        section.fail(f"manifest has {what} named {shorten(name)}: expected letters, digits and {marks}")
    return name


def _choice(section: Section, key: str, choices: tuple[str, ...], default: str | None = None) -> str:
    value = default if default is not None and section.values.get(key) is None else section.text(key)
    if value not in choices:
        section.fail(f"manifest {section.at(key)} is {shorten(value)}: expected {' or '.join(choices)}")
    return str(value)


def _listed(section: Section, key: str, files: Mapping[str, FileEntry]) -> str:
    return _listed_path(section, key, section.text(key), files)


def _listed_path(section: Section, key: str, path: object, files: Mapping[str, FileEntry]) -> str:
    if not isinstance(path, str):
        section.fail(f"manifest {section.at(key)} holds {shorten(path)}: expected a path")
    name = check_path(path, section.fail, section.at(key))
    if name not in files:
        section.fail(f"manifest {section.at(key)} names {shorten(name)}, which is not among its files")
    return name


def _file_entry(section: Section) -> FileEntry:
    return FileEntry(section.sha256("sha256"), section.integer("bytes"))


def _tensor_spec(section: Section) -> TensorSpec:
    dtype = section.text("dtype")
    if dtype not in DTYPES:
        section.fail(f"manifest {section.at('dtype')} is {shorten(dtype)}: expected one of {', '.join(sorted(DTYPES))}")
    shape = section.items("shape")
    for axis in shape:
        if isinstance(axis, bool) or not ((isinstance(axis, str) and axis) or (isinstance(axis, int) and axis > 0)):
            section.fail(f"manifest {section.at('shape')} has the axis {shorten(axis)}: expected a positive length or a name")
    return TensorSpec(dtype, tuple(shape))


def _component(
    name: str,
    section: Section,
    files: Mapping[str, FileEntry],
    graphs: Mapping[str, GraphSpec],
    tokenizers: Mapping[str, TokenizerSpec],
) -> Component:
    _checked_name(section, "a component", name)
    role, inner = section.text("role"), section.section("graphs")
    paths = {_checked_name(section, "a graph", key, _PLAIN_NAME): _listed(inner, key, files) for key in inner.values}
    for key, path in paths.items():
        if path not in graphs:
            section.fail(f"manifest graphs has no entry for {path}, the {key} graph of {name}")
    missing = _REQUIRED_GRAPHS.get(role, set()) - set(paths)
    if missing:
        section.fail(f"manifest component {name} has the role {role} but no graph {', '.join(sorted(missing))}")
    weights = section.items("weights") if section.values.get("weights") is not None else []
    return Component(
        name=name,
        role=role,
        graphs=paths,
        weights=tuple(_listed_path(section, "weights", path, files) for path in weights),
        tokenizer=_tokenizer_name(section, tokenizers) if role == "text_encoder" else None,
        guidance=_choice(section, "guidance", GUIDANCE_KINDS, "classifier_free" if "guided_step" in paths else "none"),
    )


def _tokenizer_name(section: Section, tokenizers: Mapping[str, TokenizerSpec]) -> str:
    name = section.text("tokenizer")
    if name not in tokenizers:
        section.fail(f"manifest {section.at('tokenizer')} names {shorten(name)}, which is not among its tokenizers")
    return name


class _Interfaces:
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
            fits = rows == 1 or isinstance(rows, str), tokens == tokenizer.max_length or isinstance(tokens, str)
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
            taken = {name: spec for name, spec in graph.inputs.items() if name not in (*LOOP_INPUTS, CARRIED)}
            self._check_sources(f"{path} inputs", taken, given)
            self._check_rows(f"{path} inputs", taken, 2 if use == "guided_step" else 1)
            self._check_conditions(f"{path} inputs", conditions, taken)
            self._check_memory(path, graph)

    def _check_sources(self, where: str, taken: Mapping[str, TensorSpec], given: Mapping[str, int]) -> None:
        for name, spec in taken.items():
            dtype = "int64" if name == IMAGE_SIZE or name.endswith((".attention_mask", ".length")) else "float32"
            if given.get(name) != len(spec.shape) or (name in self._sources and spec.dtype != dtype):
                self._fail(f"{where}: {name} is {_describe(spec)}, which nothing provides; available: {', '.join(sorted(given))}")

    def _check_rows(self, where: str, taken: Mapping[str, TensorSpec], texts: int) -> None:
        """The first axis of conditioning tensors counts texts: with guidance the negative prompt and the prompt."""
        for name, spec in taken.items():
            if name != IMAGE_SIZE and spec.shape[0] != texts and (isinstance(spec.shape[0], int) or spec.shape[0] in BATCH_AXES):
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


def _tokenizer(section: Section, files: Mapping[str, FileEntry]) -> TokenizerSpec:
    max_length, pad_id = section.integer("max_length", minimum=1), section.integer("pad_id")
    if pad_id > _LARGEST_TOKEN:
        section.fail(f"manifest {section.at('pad_id')} is {shorten(pad_id)}: expected {_LARGEST_TOKEN} or less")
    if max_length > _MOST_TOKENS:
        section.fail(f"manifest {section.at('max_length')} is {shorten(max_length)}: expected {_MOST_TOKENS} or less")
    drop = section.integer("drop") if "drop" in section.values else 0
    if drop >= max_length:
        section.fail(f"manifest {section.at('drop')} is {drop}: expected less than max_length, {max_length}")
    pad_side = _choice(section, "pad_side", ("right", "left"), "right")
    if drop and pad_side == "left":
        section.fail(f"manifest {section.at('drop')} is {drop}: expected 0 with pad_side left")
    return TokenizerSpec(
        file=_listed(section, "file", files),
        max_length=max_length,
        pad_id=pad_id,
        pad_side=pad_side,
        prefix=_template(section, "prefix"),
        suffix=_template(section, "suffix"),
        drop=drop,
        lower_case=section.flag("lower_case", False),
    )


def _template(section: Section, key: str) -> str:
    text = str(section.get(key, str, "text")) if key in section.values else ""
    if not text.isprintable() and any("\ud800" <= character <= "\udfff" for character in text):
        section.fail(f"manifest {section.at(key)} is {shorten(text)}: expected text without halves of surrogate pairs")
    return text


def _image(section: Section) -> ImageSpec:
    factor = section.integer("vae_scale_factor", minimum=1)
    patch = section.integer("patch_size", minimum=1) if "patch_size" in section.values else 1
    height, width = section.integer("height", minimum=1), section.integer("width", minimum=1)
    sizes = [tuple(pair) if isinstance(pair, list) else (pair,) for pair in section.items("sizes")]
    for pair in [(height, width), *sizes]:
        whole = len(pair) == 2 and all(isinstance(side, int) and not isinstance(side, bool) for side in pair)
        if not whole or any(side % (factor * patch) or not 1 <= side <= _LONGEST_SIDE_PX for side in pair):
            limit = f"multiples of {factor * patch} up to {_LONGEST_SIDE_PX}"
            section.fail(f"manifest image has the size {shorten(list(pair))}: expected [height, width] in {limit}")
    if (height, width) not in sizes:
        section.fail(f"manifest image.sizes does not contain the default size [{height}, {width}]")
    return ImageSpec(
        height=height,
        width=width,
        vae_scale_factor=factor,
        latent_channels=section.integer("latent_channels", minimum=1),
        sizes=tuple((int(h), int(w)) for h, w in sizes),
        any_size=section.flag("any_size", False),
        patch_size=patch,
    )


def _preview(section: Section, image: ImageSpec) -> PreviewSpec:
    rows = [_rgb(section, row) for row in section.items("matrix")]
    if len(rows) != image.latent_channels:
        section.fail(f"manifest preview.matrix has {len(rows)} rows: expected {image.latent_channels}, one per latent channel")
    return PreviewSpec(tuple(rows), _rgb(section, section.items("bias")))


def _rgb(section: Section, row: Any) -> tuple[float, float, float]:
    numbers = isinstance(row, list) and len(row) == 3 and all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in row)
    if not numbers or any(abs(x) > 1e6 for x in row):
        section.fail(f"manifest preview has {shorten(row)}: expected three finite numbers")
    return float(row[0]), float(row[1]), float(row[2])


def _scheduler(section: Section) -> Mapping[str, Any]:
    section.text("_class_name")
    return dict(section.values)


def _pool(manifest: Section, components: Mapping[str, Component], schedulers: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    rows = []
    for section in manifest.rows("pool"):
        row = {
            "name": _checked_name(section, "a candidate", section.text("name")),
            "denoiser": section.text("denoiser"),
            "scheduler": section.text("scheduler"),
            "num_inference_steps": section.integer("num_inference_steps", minimum=1),
            "guidance_scale": section.number("guidance_scale", minimum=0),
            "decoder": section.text("decoder"),
        }
        _check_candidate(section, row, components, schedulers)
        rows.append({**section.values, **row})
    names = [row["name"] for row in rows]
    if not names or len(set(names)) != len(names):
        manifest.fail("manifest pool is empty or names a candidate twice")
    return tuple(rows)


def _check_candidate(section: Section, row: Mapping[str, Any], components: Mapping[str, Component], schedulers: Mapping[str, Any]) -> None:
    for key in ("denoiser", "decoder"):
        component = components.get(row[key])
        if component is None or component.role != key:
            section.fail(f"manifest {section.at(key)} names {row[key]!r}, which is not a {key} of this bundle")
    if row["scheduler"] not in schedulers:
        section.fail(f"manifest {section.at('scheduler')} names {row['scheduler']!r}, which is not among its schedulers")
    denoiser, scale = components[row["denoiser"]], row["guidance_scale"]
    if denoiser.guidance == "none" and scale > 1:
        section.fail(f"manifest {section.place} has guidance_scale {scale}, but {denoiser.name!r} takes no guidance: expected 1")
    graph = denoiser.step_graph(scale)
    if graph not in denoiser.graphs:
        section.fail(f"manifest {section.place} has guidance_scale {scale}, for which {denoiser.name!r} would need a {graph} graph")


def _router(section: Section, files: Mapping[str, FileEntry]) -> Mapping[str, Any]:
    paths = {name: _listed(section, name, files) for name in ("file", "arrays")}
    if "states" in section.values:
        section.text("states")
    if section.values.get("tokenizer") is None:
        return {**section.values, **paths}
    own = {"tokenizer": _listed(section, "tokenizer", files), "max_length": section.integer("max_length", minimum=1)}
    return {**section.values, **paths, **own}


def _quality(section: Section, names: list[str]) -> Mapping[str, Any]:
    candidates = {}
    for name, row in section.sections("candidates"):
        if name not in names:
            section.fail(f"manifest quality has the candidate {shorten(name)}, which is not in the pool")
        candidates[name] = {"mean": row.number("mean"), "standard_error": row.number("standard_error", minimum=0)}
    missing = [name for name in names if name not in candidates]
    if missing:
        section.fail(f"manifest quality has no entry for {', '.join(missing)}")
    return {"metric": section.text("metric"), "candidates": candidates}
