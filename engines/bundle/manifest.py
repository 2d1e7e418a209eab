"""The bundle manifest: its value types, and the reading of each section into them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from costroute_rt.engines.bundle.section import Fail, Section, shorten

FORMAT = "costroute-bundle"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MANIFEST_SHA256 = "manifest.sha256"
DTYPES = frozenset({"float32", "float16", "int64", "int32", "uint8", "int8", "bool"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]*")
_MOST_TOKENS, _LONGEST_SIDE_PX = 1 << 16, 1 << 16
"""Beyond any model there is; what is larger would only exhaust the memory."""
_REQUIRED_GRAPHS = {"text_encoder": {"encode"}, "decoder": {"decode"}, "scorer": {"score"}}
ROUTER_GRAPHS = {"router_encoder": "encode", "router_estimator": "estimate"}
"""Roles of the networks that a router may run, and the graph of each."""
_REQUIRED_GRAPHS |= {role: {graph} for role, graph in ROUTER_GRAPHS.items()}
_STEP_INPUTS = {"latent": 4, "denoised_before": 4, "noise": 4, "row": 1, "text_states": 3}
"""Where the denoiser has a `condition` graph, its outputs stand for text_states."""
_STEP_OUTPUTS = {"next_latent": 4, "denoised": 4}
_INTERFACES: dict[tuple[str, str], tuple[dict[str, int], dict[str, int]]] = {
    ("text_encoder", "encode"): ({"input_ids": 2}, {"last_hidden_state": 3}),
    ("denoiser", "step"): (_STEP_INPUTS, _STEP_OUTPUTS),
    ("denoiser", "condition"): ({"text_states": 3}, {}),
    ("denoiser", "guided_step"): ({**_STEP_INPUTS, "guidance": 0}, _STEP_OUTPUTS),
    ("decoder", "decode"): ({"latent": 4}, {"pixels": 4}),
    ("scorer", "score"): ({"pixels": 4}, {}),
    ("router_encoder", "encode"): ({"input_ids": 2, "attention_mask": 2}, {"embedding": 2}),
    ("router_estimator", "estimate"): ({"states": 3, "lengths": 1}, {"mean": 2}),
}
"""By role and use: the inputs and outputs (name: rank) a graph has at least."""
_GRAPH_DTYPES = {"input_ids": {"int64", "int32"}, "attention_mask": {"int64"}, "lengths": {"int64"}, "pixels": {"uint8"}}
"""Everything else in those graphs is float32."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a graph."""

    dtype: str
    shape: tuple[int | str, ...]
    """Axis lengths; a name stands for a length that may vary."""


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """What one ONNX file takes and gives."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What a file of the bundle must be."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Component:
    """One network: its graphs share one weight file."""

    name: str
    role: str
    """text_encoder, denoiser, decoder, scorer, router_encoder, router_estimator, or a role this version does not use."""
    graphs: Mapping[str, str]
    """Path of the ONNX file for each use: encode, condition, step, guided_step, decode, score ..."""
    weights: str | None


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """Where the tokenizer is, and how long its output may be."""

    file: str
    max_length: int
    pad: str


@dataclass(frozen=True, slots=True)
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
    """Other multiples of vae_scale_factor, up to twice the default, may be asked for."""


@dataclass(frozen=True, slots=True)
class PreviewSpec:
    """Linear map from a latent cell to RGB in 0..1: latent @ matrix + bias."""

    matrix: tuple[tuple[float, float, float], ...]
    bias: tuple[float, float, float]


def parse(manifest: Section) -> dict[str, Any]:
    """Everything in the manifest, typed and cross-checked, under the field names of `Bundle`."""
    _check_format(manifest)
    files = {check_path(name, manifest.fail, "a file"): _file_entry(entry) for name, entry in manifest.sections("files")}
    graphs = {name: parse_graph_spec(spec) for name, spec in manifest.sections("graphs")}
    components = {name: _component(name, section, files, graphs) for name, section in manifest.sections("components")}
    if not any(component.role == "text_encoder" for component in components.values()):
        manifest.fail("manifest components has none with the role text_encoder")
    image = _image(manifest.section("image"))
    schedulers = {name: _scheduler(section) for name, section in manifest.sections("schedulers")}
    pool = _pool(manifest, components, schedulers)
    _check_interfaces(components, graphs, image, manifest.fail)
    return {
        "family": _name(manifest, "family"),
        "revision": manifest.text("revision"),
        "license": manifest.text("license"),
        "made_with": manifest.texts("made_with"),
        "files": files,
        "components": components,
        "graphs": graphs,
        "tokenizer": _tokenizer(manifest.section("tokenizer"), files),
        "image": image,
        "preview": _preview(manifest.section("preview"), image) if manifest.values.get("preview") is not None else None,
        "schedulers": schedulers,
        "pool": pool,
        "quality": _quality(manifest.section("quality"), [str(row["name"]) for row in pool]),
        "router": _router(manifest.section("router"), files) if manifest.values.get("router") is not None else None,
    }


def check_path(name: str, fail: Fail, what: str) -> str:
    """`name`, where it is a plain relative path that cannot leave its directory."""
    parts = name.split("/")
    if not name or "\\" in name or "\0" in name or ":" in parts[0] or any(part in ("", ".", "..") for part in parts):
        fail(f"{what} has the path {shorten(name)}: expected a relative path that stays inside the bundle")
    return name


def _check_format(manifest: Section) -> None:
    if manifest.values.get("format") != FORMAT:
        manifest.fail(f"manifest format is {shorten(manifest.values.get('format'))}: expected {FORMAT!r}")
    version = manifest.integer("format_version", minimum=1)
    if version > FORMAT_VERSION:
        manifest.fail(f"it has format version {version}, this costroute-rt reads up to {FORMAT_VERSION}: upgrade costroute-rt")


def _name(section: Section, key: str) -> str:
    value = section.text(key)
    if not _NAME.fullmatch(value):
        place = f"{section.place}.{key}".lstrip(".")
        section.fail(f"manifest {place} is {shorten(value)}: expected a name of letters, digits and . _ @ + -")
    return value


def _listed(section: Section, key: str, files: Mapping[str, FileEntry]) -> str:
    name = check_path(section.text(key), section.fail, f"{section.place}.{key}")
    if name not in files:
        section.fail(f"manifest {section.place}.{key} names {shorten(name)}, which is not among its files")
    return name


def _file_entry(section: Section) -> FileEntry:
    return FileEntry(section.sha256("sha256"), section.integer("bytes"))


def _tensor_spec(section: Section) -> TensorSpec:
    dtype = section.text("dtype")
    if dtype not in DTYPES:
        section.fail(f"manifest {section.place}.dtype is {shorten(dtype)}: expected one of {', '.join(sorted(DTYPES))}")
    shape = section.items("shape")
    for axis in shape:
        if isinstance(axis, bool) or not ((isinstance(axis, str) and axis) or (isinstance(axis, int) and axis > 0)):
            section.fail(f"manifest {section.place}.shape has the axis {shorten(axis)}: expected a positive length or a name")
    return TensorSpec(dtype, tuple(shape))


def parse_graph_spec(section: Section) -> GraphSpec:
    """The entries `inputs` and `outputs` of a manifest; fails as the section does."""
    inputs = {name: _tensor_spec(spec) for name, spec in section.sections("inputs")}
    return GraphSpec(inputs, {name: _tensor_spec(spec) for name, spec in section.sections("outputs")})


def _component(name: str, section: Section, files: Mapping[str, FileEntry], graphs: Mapping[str, GraphSpec]) -> Component:
    if not _NAME.fullmatch(name):
        section.fail(f"manifest has a component named {shorten(name)}: expected letters, digits and . _ @ + -")
    role, inner = section.text("role"), section.section("graphs")
    paths = {key: _listed(inner, key, files) for key in inner.values}
    for key, path in paths.items():
        if path not in graphs:
            section.fail(f"manifest graphs says nothing about {path}, the {key} graph of {name}")
    missing = _REQUIRED_GRAPHS.get(role, set()) - set(paths)
    if missing:
        section.fail(f"manifest component {name} has the role {role} but no graph {', '.join(sorted(missing))}")
    return Component(name, role, paths, _listed(section, "weights", files) if section.values.get("weights") is not None else None)


def _check_interfaces(components: Mapping[str, Component], graphs: Mapping[str, GraphSpec], image: ImageSpec, fail: Fail) -> None:
    for component in components.values():
        condition = component.graphs.get("condition")
        for use, path in component.graphs.items():
            inputs, outputs = _INTERFACES.get((component.role, use), ({}, {}))
            if outputs is _STEP_OUTPUTS and condition is not None:
                inputs = {name: rank for name, rank in inputs.items() if name != "text_states"}
                _check_conditions(f"{path} inputs", graphs[condition].outputs, graphs[path].inputs, fail)
            _check_side(f"{path} inputs", inputs, graphs[path].inputs, image, fail)
            _check_side(f"{path} outputs", outputs, graphs[path].outputs, image, fail)


def _check_conditions(where: str, given: Mapping[str, TensorSpec], taken: Mapping[str, TensorSpec], fail: Fail) -> None:
    """What a step takes of the text is what `condition` gives, but for the number of rows."""
    for name, spec in given.items():
        found = taken.get(name)
        if found is None or (found.dtype, found.shape[1:]) != (spec.dtype, spec.shape[1:]):
            have = "nothing" if found is None else f"{found.dtype}{list(found.shape)}"
            fail(f"{where}: {name} is {have}, the condition graph gives {spec.dtype}{list(spec.shape)}")


def _check_side(where: str, needed: Mapping[str, int], found: Mapping[str, TensorSpec], image: ImageSpec, fail: Fail) -> None:
    for name, rank in needed.items():
        spec = found.get(name)
        allowed = _GRAPH_DTYPES.get(name, {"float32"})
        if spec is None or len(spec.shape) != rank or spec.dtype not in allowed:
            have = "nothing" if spec is None else f"{spec.dtype}{list(spec.shape)}"
            fail(f"{where}: {name} is {have}, expected {' or '.join(sorted(allowed))} of rank {rank}")
        if name in ("latent", "denoised_before", "noise", "next_latent", "denoised") and spec.shape[1] != image.latent_channels:
            fail(f"{where}: {name} has {spec.shape[1]} channels, the bundle's latents have {image.latent_channels}")
        if name == "row" and spec.shape != (8,):
            fail(f"{where}: row has the shape {list(spec.shape)}, expected [8]")


def _tokenizer(section: Section, files: Mapping[str, FileEntry]) -> TokenizerSpec:
    max_length = section.integer("max_length", minimum=1)
    if max_length > _MOST_TOKENS:
        section.fail(f"manifest tokenizer.max_length is {shorten(max_length)}: expected {_MOST_TOKENS} or less")
    return TokenizerSpec(_listed(section, "file", files), max_length, section.text("pad"))


def _image(section: Section) -> ImageSpec:
    factor = section.integer("vae_scale_factor", minimum=1)
    height, width = section.integer("height", minimum=1), section.integer("width", minimum=1)
    sizes = [tuple(pair) if isinstance(pair, list) else (pair,) for pair in section.items("sizes")]
    for pair in [(height, width), *sizes]:
        whole = len(pair) == 2 and all(isinstance(side, int) and not isinstance(side, bool) for side in pair)
        if not whole or any(side % factor or not 1 <= side <= _LONGEST_SIDE_PX for side in pair):
            limit = f"multiples of {factor} up to {_LONGEST_SIDE_PX}"
            section.fail(f"manifest image has the size {shorten(list(pair))}: expected [height, width] in {limit}")
    if (height, width) not in sizes:
        section.fail(f"manifest image.sizes does not contain the default size [{height}, {width}]")
    channels = section.integer("latent_channels", minimum=1)
    return ImageSpec(height, width, factor, channels, tuple((int(h), int(w)) for h, w in sizes), section.flag("any_size", False))


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
            "name": _name(section, "name"),
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
            section.fail(f"manifest {section.place}.{key} names {row[key]!r}, which is no {key} of this bundle")
    if row["scheduler"] not in schedulers:
        section.fail(f"manifest {section.place}.scheduler names {row['scheduler']!r}, which is not among its schedulers")
    graph = step_graph(row["guidance_scale"])
    if graph not in components[row["denoiser"]].graphs:
        section.fail(
            f"manifest {section.place} has guidance_scale {row['guidance_scale']}, for which {row['denoiser']!r} would need a {graph} graph"
        )


ROW = ("input_scale", "timestep", "p", "q", "a", "b", "c", "s")
"""What the eight numbers of a step table's row mean, in the order that step graphs take them."""


def step_graph(guidance_scale: float) -> str:
    """The denoiser graph a candidate runs: guidance above 1 needs two passes in one."""
    return "guided_step" if guidance_scale > 1 else "step"


def _router(section: Section, files: Mapping[str, FileEntry]) -> Mapping[str, Any]:
    paths = {name: _listed(section, name, files) for name in ("file", "arrays")}
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
        section.fail(f"manifest quality says nothing about {', '.join(missing)}")
    return {"metric": section.text("metric"), "candidates": candidates}
