"""Reading the manifest of a bundle: every section, typed and cross-checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from costroute_rt.engines.bundle.image_gate import read_image_gates
from costroute_rt.engines.bundle.interfaces import Interfaces
from costroute_rt.engines.bundle.manifest import (
    DTYPES,
    FORMAT,
    FORMAT_VERSION,
    GUIDANCE_DEFAULTS,
    GUIDANCE_KINDS,
    GUIDANCE_RESCALE,
    LONGEST_SIDE_PX,
    MOST_ELEMENTS,
    NEGATIVE_RULES,
    PROMPT_SYNTAXES,
    ROUTER_GRAPHS,
    WEIGHT_PRECISIONS,
    Component,
    FileEntry,
    GraphSpec,
    ImageSpec,
    PreviewSpec,
    TensorSpec,
    TokenizerSpec,
)
from costroute_rt.engines.bundle.section import Fail, Section, shorten

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]*")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names of families and graphs, without the @ that separates the size in names of engines."""
_MOST_TOKENS, _LARGEST_TOKEN, _MOST_CHANNELS, _MOST_FACTOR = 1 << 16, 2**31 - 1, 64, 256
_LONGEST_AXIS, _MOST_AXES = 1 << 20, 8
_MOST_CANDIDATES, _MOST_SIZES, _MOST_STEPS = 1000, 256, 10_000
"""Limits beyond any known model, to refuse values that would exhaust the memory."""
_NOT_IN_NAMES = re.compile(r'[\\:<>"|?*\x00-\x1f\x7f]')
"""Characters that names of files must not have on some system: `a:b` is a stream of the file `a` on Windows."""
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE)
"""Names that are devices on Windows, with any extension."""
GRAPH_SUFFIX = ".onnx"
_REQUIRED_GRAPHS = {"text_encoder": {"encode"}, "decoder": {"decode"}, "scorer": {"score"}}
_REQUIRED_GRAPHS |= {role: {graph} for role, graph in ROUTER_GRAPHS.items()}


def parse_manifest(manifest: Section) -> dict[str, Any]:
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
    pool = _pool(manifest, components, schedulers, graphs)
    Interfaces(components, graphs, image, tokenizers, manifest.fail).check()
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
        "quality_gates": read_image_gates(manifest, components),
        "router": _router(manifest.section("router"), files) if manifest.values.get("router") is not None else None,
    }


def check_path(name: str, fail: Fail, what: str) -> str:
    """`name`, checked; fails if it is not a plain relative path that stays inside its directory on every system."""
    for part in name.split("/"):
        if part in ("", ".", "..") or part[-1] in ". " or _NOT_IN_NAMES.search(part) or _RESERVED.fullmatch(part):
            fail(f"{what} has the path {shorten(name)}: expected a relative path that stays inside the bundle")
    return name


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
        is_length = type(axis) is int and 0 < axis <= _LONGEST_AXIS
        if not is_length and not (isinstance(axis, str) and axis):
            section.fail(f"manifest {section.at('shape')} has the axis {shorten(axis)}: expected a positive length or a name")
    if len(shape) > _MOST_AXES or math.prod(axis for axis in shape if isinstance(axis, int)) > MOST_ELEMENTS:
        section.fail(f"manifest {section.at('shape')} is {shorten(shape)}: expected {_MOST_AXES} axes, {MOST_ELEMENTS} numbers at most")
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
        if not path.endswith(GRAPH_SUFFIX):  # libraries choose the format by it, and other formats use other files
            section.fail(f"manifest {inner.at(key)} is {shorten(path)}: expected a file that ends in {GRAPH_SUFFIX}")
        if path not in graphs:
            section.fail(f"manifest graphs has no entry for {path}, the {key} graph of {name}")
    missing = _REQUIRED_GRAPHS.get(role, set()) - set(paths)
    if missing:
        section.fail(f"manifest component {name} has the role {role} but no graph {', '.join(sorted(missing))}")
    listed = section.items("weights") if section.values.get("weights") is not None else []
    weights = tuple(_listed_path(section, "weights", path, files) for path in listed)
    return Component(
        name=name,
        role=role,
        graphs=paths,
        weights=weights,
        weights_bytes=_weights_bytes(section, sum(files[path].bytes for path in set(weights))),
        tokenizer=_tokenizer_name(section, tokenizers) if role == "text_encoder" else None,
        guidance=_choice(section, "guidance", GUIDANCE_KINDS, "classifier_free" if "guided_step" in paths else "none"),
        weight_precision=_choice(section, "weight_precision", WEIGHT_PRECISIONS) if "weight_precision" in section.values else "float",
    )


def _weights_bytes(section: Section, stored_bytes: int) -> int | None:
    return section.integer("weights_bytes", maximum=stored_bytes) if "weights_bytes" in section.values else None


def _tokenizer_name(section: Section, tokenizers: Mapping[str, TokenizerSpec]) -> str:
    name = section.text("tokenizer")
    if name not in tokenizers:
        section.fail(f"manifest {section.at('tokenizer')} names {shorten(name)}, which is not among its tokenizers")
    return name


def _tokenizer(section: Section, files: Mapping[str, FileEntry]) -> TokenizerSpec:
    max_length = section.integer("max_length", minimum=1, maximum=_MOST_TOKENS)
    pad_id = section.integer("pad_id", maximum=_LARGEST_TOKEN)
    drop = section.integer("drop") if "drop" in section.values else 0
    if drop >= max_length:
        section.fail(f"manifest {section.at('drop')} is {drop}: expected less than max_length, {max_length}")
    pad_side = _choice(section, "pad_side", ("right", "left"), "right")
    if drop and pad_side == "left":
        section.fail(f"manifest {section.at('drop')} is {drop}: expected 0 with pad_side left")
    prefix, suffix, syntax = _template(section, "prefix"), _template(section, "suffix"), _prompt_syntax(section)
    if syntax != "none" and (drop or prefix or suffix or pad_side == "left"):
        section.fail(f"manifest {section.at('prompt_syntax')} is {syntax!r}: expected no template, and padding on the right")
    return TokenizerSpec(
        file=_listed(section, "file", files),
        max_length=max_length,
        pad_id=pad_id,
        pad_side=pad_side,
        prefix=prefix,
        suffix=suffix,
        drop=drop,
        lower_case=section.flag("lower_case", False),
        prompt_syntax=syntax,
    )


def _prompt_syntax(section: Section) -> str:
    return _choice(section, "prompt_syntax", PROMPT_SYNTAXES) if "prompt_syntax" in section.values else "none"


def _template(section: Section, key: str) -> str:
    return str(section.get(key, str, "text")) if key in section.values else ""


def _image(section: Section) -> ImageSpec:
    factor = section.integer("vae_scale_factor", minimum=1, maximum=_MOST_FACTOR)
    patch = section.integer("patch_size", minimum=1, maximum=_MOST_FACTOR) if "patch_size" in section.values else 1
    height, width = section.integer("height", minimum=1), section.integer("width", minimum=1)
    sizes = [tuple(pair) if isinstance(pair, list) else (pair,) for pair in section.items("sizes")]
    if len(sizes) > _MOST_SIZES:
        section.fail(f"manifest image.sizes has {len(sizes)} sizes: expected {_MOST_SIZES} at most")
    for pair in [(height, width), *sizes]:
        whole = len(pair) == 2 and all(isinstance(side, int) and not isinstance(side, bool) for side in pair)
        if not whole or any(side % (factor * patch) or not 1 <= side <= LONGEST_SIDE_PX for side in pair):
            limit = f"multiples of {factor * patch} up to {LONGEST_SIDE_PX}"
            section.fail(f"manifest image has the size {shorten(list(pair))}: expected [height, width] in {limit}")
    if (height, width) not in sizes:
        section.fail(f"manifest image.sizes does not contain the default size [{height}, {width}]")
    return ImageSpec(
        height=height,
        width=width,
        vae_scale_factor=factor,
        latent_channels=section.integer("latent_channels", minimum=1, maximum=_MOST_CHANNELS),
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


def _pool(
    manifest: Section, components: Mapping[str, Component], schedulers: Mapping[str, Any], graphs: Mapping[str, GraphSpec]
) -> tuple[Mapping[str, Any], ...]:
    rows = []
    if (count := len(manifest.items("pool"))) > _MOST_CANDIDATES:
        manifest.fail(f"manifest pool has {count} candidates: expected {_MOST_CANDIDATES} at most")
    for section in manifest.rows("pool"):
        row = {
            "name": _checked_name(section, "a candidate", section.text("name")),
            "denoiser": section.text("denoiser"),
            "scheduler": section.text("scheduler"),
            "num_inference_steps": section.integer("num_inference_steps", minimum=1, maximum=_MOST_STEPS),
            "guidance_scale": section.number("guidance_scale", minimum=0),
            "decoder": section.text("decoder"),
        }
        _check_candidate(section, row, components, schedulers)
        row |= _guidance(section, components[str(row["denoiser"])], section.number("guidance_scale"), graphs)
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


def _guidance(section: Section, denoiser: Component, scale: float, graphs: Mapping[str, GraphSpec]) -> dict[str, float]:
    """The settings of a candidate's guidance by row, as far as the manifest has them."""
    found = {name: section.number(name, minimum=0) for name in GUIDANCE_DEFAULTS if name in section.values}
    if found and denoiser.step_graph(scale) != "guided_step" and denoiser.guidance != "embedded":
        section.fail(f"manifest {section.place} has {next(iter(found))}, but guidance_scale {scale:g} means no guidance")
    start, end = found.get("guidance_start", 0.0), found.get("guidance_end", 1.0)
    if not start < end <= 1:
        section.fail(
            f"manifest {section.place} has guidance from {start:g} to {end:g}: expected shares of the run, the start before the end"
        )
    rescale = found.get("guidance_rescale", 0.0)
    if rescale > 1:
        section.fail(f"manifest {section.at('guidance_rescale')} is {rescale:g}: expected 0 to 1")
    path = denoiser.graphs[denoiser.step_graph(scale)]
    if rescale and GUIDANCE_RESCALE not in graphs[path].inputs:
        section.fail(f"manifest {section.at('guidance_rescale')} is {rescale:g}, but {path} has no input for it: export it with rescaling")
    return found


def _router(section: Section, files: Mapping[str, FileEntry]) -> Mapping[str, Any]:
    paths = {name: _listed(section, name, files) for name in ("file", "arrays")}
    if "states" in section.values:
        section.text("states")
    if section.values.get("tokenizer") is None:
        return {**section.values, **paths}
    own = {"tokenizer": _listed(section, "tokenizer", files), "max_length": section.integer("max_length", minimum=1, maximum=_MOST_TOKENS)}
    return {**section.values, **paths, **own}


def _quality(section: Section, names: list[str]) -> Mapping[str, Any]:
    candidates, known = {}, frozenset(names)
    for name, row in section.sections("candidates"):
        if name not in known:
            section.fail(f"manifest quality has the candidate {shorten(name)}, which is not in the pool")
        candidates[name] = {"mean": row.number("mean"), "standard_error": row.number("standard_error", minimum=0)}
    missing = [name for name in names if name not in candidates]
    if missing:
        section.fail(f"manifest quality has no entry for {', '.join(missing[:3])}" + (" and others" if len(missing) > 3 else ""))
    return {"metric": section.text("metric"), "candidates": candidates}
