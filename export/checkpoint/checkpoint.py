"""Exports a diffusers checkpoint directory as a bundle."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any

from costroute_rt.engines.bundle.bundle import seal_bundle
from costroute_rt.engines.bundle.graph_spec import to_json
from costroute_rt.engines.bundle.manifest import step_graph
from costroute_rt.engines.bundle.onnx_model import graph_spec
from costroute_rt.engines.machine.durable import replacing_folder
from costroute_rt.engines.machine.telemetry import opt_out_hub
from costroute_rt.error import BundleError, OutputError, Reason
from costroute_rt.export.checkpoint.component import export_graph, remove_paths, write_json, write_weights
from costroute_rt.export.checkpoint.latent import fit_preview, latent_scaling
from costroute_rt.export.checkpoint.recipe import BundleRecipe
from costroute_rt.export.checkpoint.tokenizer import convert_clip_tokenizer
from costroute_rt.export.graph.compose import (
    compose_condition,
    compose_decode,
    compose_guided_step,
    compose_step,
    keep_outputs,
    save_graph,
)
from costroute_rt.export.graph.condition import find_crossing, fold_quotients
from costroute_rt.sampling.tables import Tables

_log = logging.getLogger(__name__)

_MADE_WITH = ("diffusers", "onnx", "optimum", "optimum-onnx", "tokenizers", "torch", "transformers")
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_SCRATCH = ".scratch"
_SOURCES = {"encoder_hidden_states": "text_encoder.last_hidden_state"}
"""Conditioning tensor of the runtime for each conditioning input of a Stable Diffusion denoiser."""
_TOKENIZER = "tokenizer"
_NOT_EXPORTED = {"requires_safety_checker": False} | {
    name: [None, None] for name in ("feature_extractor", "image_encoder", "safety_checker")
}
Progress = Callable[[str, int, int], None]
"""Called before each part with its name, its index and the number of parts."""


def export_bundle(source: Path, target: Path, recipe: BundleRecipe, *, overwrite: bool = False, progress: Progress | None = None) -> Path:
    """Writes the Stable Diffusion checkpoint in `source` as a bundle; returns `target`.

    source: directory of a StableDiffusionPipeline as diffusers saves it. Further denoisers are in folders `unet_NAME` next to `unet` and
        become components NAME; `unet` becomes `base`. A folder `scorer` (see `export_scorer`) is copied.
    target: written completely or not at all; it must not exist unless `overwrite`.
    Raises BundleError for a checkpoint or recipe that cannot become a bundle, OutputError if `target` exists or cannot be written.
    """
    denoisers = find_denoisers(source)
    _check_pool(source, recipe, denoisers)
    if os.path.lexists(target) and not overwrite:
        raise OutputError(target, "it exists already", reason=Reason.EXISTS)
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(replacing_folder(target))
            (folder / _SCRATCH).mkdir()
        except OSError as error:
            raise OutputError(target, error.strerror or str(error)) from error
        export = _Export(source, folder, recipe)
        parts: dict[str, Callable[[], None]] = {"text encoder": export.text_encoder}
        parts |= {f"denoiser {name}": partial(export.denoiser, name, at) for name, at in denoisers.items()}
        parts |= {"decoder": export.decoder, "tokenizer": export.tokenizer, "scorer and notices": export.extras, "manifest": export.seal}
        for index, (name, part) in enumerate(parts.items()):
            _log.info("exporting %s (%d of %d)", name, index + 1, len(parts))
            if progress is not None:
                progress(name, index, len(parts))
            part()
    return target


def find_denoisers(source: Path) -> dict[str, str]:
    """Folders of the denoisers in a checkpoint directory by component name, `base` first; raises BundleError."""
    if not (source / "model_index.json").is_file():
        raise BundleError(source, "it has no model_index.json", "give a directory as diffusers' save_pretrained writes it")
    pipeline = json.loads((source / "model_index.json").read_text(encoding="utf-8")).get("_class_name")
    if pipeline != "StableDiffusionPipeline":
        raise BundleError(source, f"it holds a {pipeline}", "only StableDiffusionPipeline checkpoints can be exported")
    others = sorted(path.name for path in source.glob("unet_*") if path.is_dir())
    return {"base": "unet"} | {name.removeprefix("unet_"): name for name in others}


def _check_pool(source: Path, recipe: BundleRecipe, denoisers: Iterable[str]) -> None:
    """Raises BundleError for a pool that names what the checkpoint and the recipe do not have; `seal_bundle` checks the rest."""
    known = {"denoiser": set(denoisers), "scheduler": {"default", *recipe.schedulers}}
    for row in recipe.pool:
        for key, names in known.items():
            if row.get(key) not in names:
                problem = f"the candidate {row.get('name')!r} of the recipe has the {key} {row.get(key)!r}"
                raise BundleError(source, problem, f"use one of {', '.join(sorted(names))}")
        if not isinstance(row.get("num_inference_steps"), int):
            raise BundleError(source, f"the candidate {row.get('name')!r} of the recipe has no num_inference_steps", "give a whole number")


class _Export:
    """The parts of one export; each is written to `folder` and added to the manifest."""

    def __init__(self, source: Path, folder: Path, recipe: BundleRecipe) -> None:
        self._source, self._folder, self._recipe = source, folder, recipe
        self._pipeline = _load_pipeline(source)
        size = self._pipeline.unet.config.sample_size
        self._sample_size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        self._components: dict[str, Any] = {}
        self._graphs: dict[str, Any] = {}

    def text_encoder(self) -> None:
        encoder = self._pipeline.text_encoder
        weights = self._write_module(encoder, "text_encoder", "model.safetensors")
        model = self._export("text_encoder", weights)
        keep_outputs(model, ["last_hidden_state"])
        graphs = {"encode": self._save(model, weights.parent / "model.onnx")}
        self._add_component("text_encoder", "text_encoder", weights, graphs, tokenizer=_TOKENIZER)

    def denoiser(self, name: str, folder: str) -> None:
        from diffusers import UNet2DConditionModel

        if folder != "unet":
            self._pipeline.register_modules(unet=UNet2DConditionModel.from_pretrained(self._source / folder, local_files_only=True))
        unet = self._pipeline.unet.eval().float()
        self._check_denoiser(unet, name)
        weights = self._write_module(unet, folder, _WEIGHTS)
        model = self._export("unet", weights)
        graphs = {}
        fold_quotients(model)
        crossing = find_crossing(model)
        if crossing:
            graphs["condition"] = self._save(compose_condition(model, crossing, _SOURCES), weights.parent / "condition.onnx")
        memory = self._needs_memory(name)
        for graph in self._step_graphs(name):
            compose = compose_guided_step if graph == "guided_step" else compose_step
            graphs[graph] = self._save(compose(model, _SOURCES, crossing, memory=memory), weights.parent / f"{graph}.onnx")
        self._add_component(name, "denoiser", weights, graphs, guidance="classifier_free" if "guided_step" in graphs else "none")

    def decoder(self) -> None:
        vae = self._pipeline.vae
        weights = self._write_module(vae, "vae", _WEIGHTS)
        encoder, decoder = self._export("vae_encoder", weights), self._export("vae_decoder", weights)
        scale, shift = latent_scaling(vae.config)
        models = {"decode": compose_decode(decoder, scale=scale, shift=shift), "encode": encoder}
        graphs = {use: self._save(model, weights.parent / f"{use}.onnx") for use, model in models.items()}
        self._add_component("vae", "decoder", weights, graphs)

    def tokenizer(self) -> None:
        folder = self._folder / "tokenizer"
        self._pipeline.tokenizer.save_pretrained(folder)
        convert_clip_tokenizer(self._pipeline.tokenizer, self._max_length).save(str(folder / "tokenizer.json"))

    def extras(self) -> None:
        """Copies the scorer that `export_scorer` wrote into the checkpoint directory, and the licence files."""
        import onnx

        if (self._source / "scorer").is_dir():
            folder = Path(shutil.copytree(self._source / "scorer", self._folder / "scorer"))
            model = onnx.load(folder / "scorer.onnx", load_external_data=False)
            graphs = {"score": self._save(model, folder / "scorer.onnx")}
            self._add_component("scorer", "scorer", folder / "model.safetensors", graphs)
        for path in sorted(self._source.iterdir()):
            if path.is_file() and path.name.upper().startswith(("LICENSE", "NOTICE", "README")):
                shutil.copy(path, self._folder / path.name)

    def seal(self) -> None:
        """Writes the files that diffusers expects and the manifest; `seal_bundle` then checks the whole bundle."""
        self._pipeline.scheduler.save_pretrained(self._folder / "scheduler")
        index = json.loads((self._source / "model_index.json").read_text(encoding="utf-8"))
        write_json(self._folder / "model_index.json", index | _NOT_EXPORTED)
        shutil.rmtree(self._folder / _SCRATCH)
        remove_paths(self._folder)
        seal_bundle(self._folder, self._manifest())

    def _manifest(self) -> dict[str, Any]:
        recipe, vae = self._recipe, self._pipeline.vae
        return {
            "family": recipe.family,
            "revision": recipe.revision,
            "license": recipe.license,
            "made_with": {name: version(name) for name in _MADE_WITH},
            "components": self._components,
            "graphs": self._graphs,
            "tokenizers": {
                _TOKENIZER: {
                    "file": "tokenizer/tokenizer.json",
                    "max_length": self._max_length,
                    "pad_id": int(self._pipeline.tokenizer.pad_token_id),
                }
            },
            "negative_prompt": "empty_text",
            "image": self._image(),
            "preview": recipe.preview or fit_preview(vae, *latent_scaling(vae.config)),
            "schedulers": self._schedulers(),
            "pool": [dict(candidate) for candidate in recipe.pool],
            "quality": dict(recipe.quality),
            "router": None,
        }

    def _schedulers(self) -> dict[str, dict[str, Any]]:
        """Configurations of the checkpoint's scheduler, called `default`, and of the recipe's schedulers."""
        own = json.loads(self._pipeline.scheduler.to_json_string())
        return {name: _plain(config) for name, config in ({"default": own} | dict(self._recipe.schedulers)).items()}

    def _image(self) -> dict[str, Any]:
        config = self._pipeline.vae.config
        factor = 2 ** (len(config.block_out_channels) - 1)
        sizes = self._recipe.sizes or ((self._sample_size[0] * factor, self._sample_size[1] * factor),)
        return {
            "height": sizes[0][0],
            "width": sizes[0][1],
            "vae_scale_factor": factor,
            "latent_channels": config.latent_channels,
            "sizes": [list(size) for size in sizes],
            "any_size": self._recipe.any_size,
        }

    @property
    def _max_length(self) -> int:
        return min(int(self._pipeline.tokenizer.model_max_length), int(self._pipeline.text_encoder.config.max_position_embeddings))

    def _candidates(self, denoiser: str) -> list[Mapping[str, Any]]:
        return [row for row in self._recipe.pool if row.get("denoiser") == denoiser]

    def _step_graphs(self, denoiser: str) -> list[str]:
        """The step graphs that candidates of the pool run; both for a denoiser that no candidate uses."""
        used = {step_graph("classifier_free", row.get("guidance_scale", 1.0)) for row in self._candidates(denoiser)}
        return sorted(used) or ["guided_step", "step"]

    def _needs_memory(self, denoiser: str) -> bool:
        """Whether a candidate's scheduler carries one more latent from step to step."""
        tables, tokens = Tables(self._schedulers()), self._sample_size[0] * self._sample_size[1]
        rows = self._candidates(denoiser)
        return any(tables.table(row["scheduler"], row["num_inference_steps"], tokens).has_memory for row in rows)

    def _check_denoiser(self, unet: Any, name: str) -> None:
        channels, latents = unet.config.in_channels, self._pipeline.vae.config.latent_channels
        if channels != latents:
            problem = f"denoiser {name} takes {channels} channels, the VAE's latents have {latents}"
            raise BundleError(self._source, problem, "inpainting and image-conditioned denoisers are not supported")

    def _write_module(self, module: Any, folder: str, filename: str) -> Path:
        """Configuration and weights as diffusers reads them; returns the weight file."""
        path = self._folder / folder / filename
        path.parent.mkdir()
        if hasattr(module, "save_config"):
            module.save_config(path.parent)
        else:
            module.config.save_pretrained(path.parent)
        write_weights(module, path)
        return path

    def _export(self, submodel: str, weights: Path) -> Any:
        """The ONNX graph of one of the pipeline's networks; submodel: its name in optimum."""
        import optimum.exporters.onnx.model_configs  # noqa: F401  registers the configurations looked up next
        from optimum.exporters.utils import get_diffusion_models_for_export

        module, config = get_diffusion_models_for_export(self._pipeline)[submodel]
        return export_graph(module, config, weights, self._folder / _SCRATCH)

    def _save(self, model: Any, path: Path) -> str:
        save_graph(model, path)
        name = path.relative_to(self._folder).as_posix()
        self._graphs[name] = to_json(graph_spec(model))
        return name

    def _add_component(self, name: str, role: str, weights: Path, graphs: Mapping[str, str], **more: str) -> None:
        """Add a component to the manifest; more: `tokenizer` of a text encoder, `guidance` of a denoiser."""
        location = weights.relative_to(self._folder).as_posix()
        self._components[name] = {"role": role, "weights": [location], "graphs": dict(graphs), **more}


def _plain(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's configuration as JSON; infinities (lambda_min_clipped), which JSON cannot hold, are defaults and left out."""
    without = {"_diffusers_version", "_name_or_path"}
    return {k: v for k, v in scheduler.items() if k not in without and not (isinstance(v, float) and not isfinite(v))}


def _load_pipeline(source: Path) -> Any:
    """The checkpoint in float32, without the modules that a bundle does not contain."""
    opt_out_hub()
    import torch
    from diffusers import StableDiffusionPipeline

    absent = {"safety_checker": None, "feature_extractor": None, "image_encoder": None, "requires_safety_checker": False}
    with _no_progress_bar():
        pipeline = StableDiffusionPipeline.from_pretrained(source, torch_dtype=torch.float32, local_files_only=True, **absent)
    for module in (pipeline.text_encoder, pipeline.unet, pipeline.vae):
        module.eval()
    return pipeline


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Disable the progress bar that diffusers shows on stderr for every pipeline it loads."""
    from diffusers.utils import logging as diffusers_logging

    was_enabled = diffusers_logging.is_progress_bar_enabled()
    diffusers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            diffusers_logging.enable_progress_bar()
