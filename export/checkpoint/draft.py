"""A draft of a bundle's manifest, from the checkpoint's configurations and the recipe alone.

It goes through the same checks as a finished manifest, so that what reading a bundle would refuse is refused before the export begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from costroute_rt.engines.bundle.graph_spec import to_json
from costroute_rt.engines.bundle.manifest import FORMAT, FORMAT_VERSION, GUIDANCE_RESCALE, GraphSpec, TensorSpec
from costroute_rt.engines.bundle.manifest import step_graphs as graphs_of
from costroute_rt.engines.bundle.manifest_reader import parse_manifest
from costroute_rt.engines.bundle.section import canonical_json, parse_section
from costroute_rt.error import BundleError, ConfigError
from costroute_rt.export.checkpoint.folder import CheckpointFolder
from costroute_rt.export.checkpoint.recipe import BundleRecipe
from costroute_rt.sampling.step_table import COLUMNS
from costroute_rt.sampling.tables import Tables

_FILE = {"sha256": "0" * 64, "bytes": 1}
_STATES = "text_encoder.last_hidden_state"
TINY = "tiny"
"""The further decoder of a checkpoint: its folder and its component."""


def image_section(folder: CheckpointFolder, recipe: BundleRecipe) -> dict[str, Any]:
    """The sizes of images and latents, as in a manifest."""
    factor = folder.vae_scale_factor
    sizes = [list(size) for size in recipe.sizes] or [[side * factor for side in folder.sample_size]]
    return {
        "height": sizes[0][0],
        "width": sizes[0][1],
        "vae_scale_factor": factor,
        "latent_channels": folder.latent_channels,
        "sizes": sizes,
        "any_size": recipe.any_size,
    }


def step_graphs(recipe: BundleRecipe, denoiser: str) -> list[str]:
    """The step graphs that candidates of the pool run; both for a denoiser that no candidate uses."""
    rows = [row for row in recipe.pool if row.get("denoiser") == denoiser]
    used = {graph for row in rows for graph in graphs_of("classifier_free", row)}
    return sorted(used) or ["guided_step", "step"]


def rescales(recipe: BundleRecipe, denoiser: str) -> bool:
    """Whether a candidate with this denoiser rescales its guided outputs."""
    return any(row.get("guidance_rescale") for row in recipe.pool if row.get("denoiser") == denoiser)


def check_recipe(folder: CheckpointFolder, recipe: BundleRecipe, schedulers: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises BundleError for a recipe whose manifest could not be read, or whose candidates have schedulers that cannot be compiled.

    schedulers: configurations by the names that the pool uses.
    """

    def fail(problem: str) -> NoReturn:
        raise BundleError(folder.source, f"the recipe cannot be used: {problem}", "correct the recipe")

    try:
        draft = canonical_json(_draft(folder, recipe, schedulers))
    except (TypeError, ValueError) as error:
        fail(str(error))
    image = parse_manifest(parse_section(draft, fail))["image"]
    tables = Tables(schedulers)
    for row in recipe.pool:
        for size in image.sizes:
            try:
                tables.table(row["scheduler"], row["num_inference_steps"], image.tokens(*size))
            except ConfigError as error:
                problem = f"the candidate {row['name']!r} cannot use the scheduler {row['scheduler']!r}: {error}"
                remedy = "change the candidate, or name another scheduler in the recipe's schedulers"
                raise BundleError(folder.source, problem, remedy) from error


def _draft(folder: CheckpointFolder, recipe: BundleRecipe, schedulers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    image = image_section(folder, recipe)
    channels, width = image["latent_channels"], folder.text_width
    latent = TensorSpec("float32", ("batch", channels, "height", "width"))
    loop = dict.fromkeys(("latent", "denoised_before", "noise"), latent) | {"row": TensorSpec("float32", (len(COLUMNS),))}
    stepped = dict.fromkeys(("next_latent", "denoised"), latent)
    tokens = TensorSpec("int64", ("batch", "tokens"))
    pixels = TensorSpec("uint8", ("batch", "image_height", "image_width", 3))
    states = TensorSpec("float32", ("batch", "tokens", width))
    graphs = {
        "text_encoder/encode.onnx": GraphSpec({"input_ids": tokens}, {"last_hidden_state": states}),
        "vae/decode.onnx": GraphSpec({"latent": latent}, {"pixels": pixels}),
    }
    components: dict[str, Any] = {
        "text_encoder": {"role": "text_encoder", "graphs": {"encode": "text_encoder/encode.onnx"}, "tokenizer": "tokenizer"},
        "vae": {"role": "decoder", "graphs": {"decode": "vae/decode.onnx"}},
    }
    if (folder.source / TINY).is_dir():
        graphs[f"{TINY}/decode.onnx"] = graphs["vae/decode.onnx"]
        components[TINY] = {"role": "decoder", "graphs": {"decode": f"{TINY}/decode.onnx"}}
    for name in folder.denoisers:
        own = {}
        for graph in step_graphs(recipe, name):
            states = TensorSpec("float32", (2 if graph == "guided_step" else 1, "tokens", width))
            own[graph] = f"{name}/{graph}.onnx"
            option = {GUIDANCE_RESCALE: TensorSpec("float32", (1,))} if graph == "guided_step" and rescales(recipe, name) else {}
            graphs[own[graph]] = GraphSpec({**loop, **option, _STATES: states}, stepped)
        components[name] = {"role": "denoiser", "graphs": own, "guidance": "classifier_free" if "guided_step" in own else "none"}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "family": recipe.family,
        "revision": recipe.revision,
        "license": recipe.license,
        "made_with": {},
        "files": dict.fromkeys([*graphs, "tokenizer/tokenizer.json"], _FILE),
        "components": components,
        "graphs": {name: to_json(spec) for name, spec in graphs.items()},
        "tokenizers": {"tokenizer": {"file": "tokenizer/tokenizer.json", "max_length": folder.text_tokens, "pad_id": 0}},
        "negative_prompt": "empty_text",
        "image": image,
        "preview": recipe.preview,
        "schedulers": {name: dict(config) for name, config in schedulers.items()},
        "pool": [dict(row) for row in recipe.pool],
        "quality": dict(recipe.quality),
        "router": None,
    }
