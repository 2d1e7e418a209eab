"""Exports a diffusers checkpoint directory as a bundle."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from costroute_rt.engines.bundle.bundle import seal_bundle
from costroute_rt.engines.bundle.graph_spec import to_json
from costroute_rt.engines.bundle.onnx_model import graph_spec
from costroute_rt.engines.bundle.replacing import check_target
from costroute_rt.engines.machine.durable import replacing_folder
from costroute_rt.engines.machine.telemetry import opt_out_hub
from costroute_rt.error import BackendError, BundleError, ConfigError, OutputError
from costroute_rt.export.checkpoint.component import export_graph, remove_paths, write_json, write_weights
from costroute_rt.export.checkpoint.draft import TINY, check_recipe, image_section, rescales, step_graphs
from costroute_rt.export.checkpoint.folder import NOT_EXPORTED, CheckpointFolder, find_denoisers
from costroute_rt.export.checkpoint.latent import fit_preview, latent_scaling
from costroute_rt.export.checkpoint.recipe import BundleRecipe
from costroute_rt.export.checkpoint.scheduler import plain_config, read_scheduler
from costroute_rt.export.checkpoint.tokenizer import read_clip_tokenizer
from costroute_rt.export.checkpoint.weight_file import check_place, check_places, read_config
from costroute_rt.export.graph.compose import (
    compose_condition,
    compose_decode,
    compose_encode,
    compose_guided_step,
    compose_step,
    keep_outputs,
    save_graph,
)
from costroute_rt.export.graph.condition import find_crossing, fold_quotients
from costroute_rt.export.graph.distribution import keep_mean
from costroute_rt.family.family import Family
from costroute_rt.regular_file import read_regular
from costroute_rt.sampling.replacement import choose_scheduler
from costroute_rt.sampling.tables import Tables

_log = logging.getLogger(__name__)

_MADE_WITH = ("diffusers", "onnx", "optimum", "optimum-onnx", "tokenizers", "torch", "transformers")
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_SCRATCH = ".scratch"
_SOURCES = {"encoder_hidden_states": "text_encoder.last_hidden_state"}
"""Conditioning tensor of the runtime for each conditioning input of a Stable Diffusion denoiser."""
_TOKENIZER = "tokenizer"
_NOT_EXPORTED = {"requires_safety_checker": False} | {name: [None, None] for name in NOT_EXPORTED}
_SCORER = ("config.json", "model.safetensors", "scorer.onnx")
"""Files that `export_scorer` writes."""
_TINY = ("config.json", _WEIGHTS, "decode.onnx")
"""Files that `export_decoder` writes."""
_NOTICES, _MOST_NOTICE_BYTES = ("LICENSE", "NOTICE", "README"), 4 << 20
Progress = Callable[[str, int, int], None]
"""Called before each part with its name, its index and the number of parts."""


def export_bundle(source: Path, target: Path, recipe: BundleRecipe, *, overwrite: bool = False, progress: Progress | None = None) -> Path:
    """Writes the Stable Diffusion checkpoint in `source` as a bundle; returns `target`.

    source: directory of a StableDiffusionPipeline as diffusers saves it. Further denoisers are in folders `unet_NAME` next to `unet` and
        become components NAME; `unet` becomes `base`. The folders `scorer` (see `export_scorer`) and
        `tiny` (see `export_decoder`), a further decoder, are copied.
    target: written completely or not at all; it must not exist unless `overwrite`, which replaces a bundle and nothing else.
    Raises BundleError for a checkpoint or recipe that cannot become a bundle, OutputError if `target` exists or cannot be written.
    """
    plan = check_export(source, recipe)
    if (replaced := check_target(target, force=overwrite)) is not None:
        _log.info("%s will be replaced: %s", target, replaced)
    made_with = _versions()
    opt_out_hub()
    if plan.replaced is not None:
        _log.warning("%s: the runtime does not have the checkpoint's scheduler, which is replaced: %s", source, plan.replaced)
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(replacing_folder(target))
            (folder / _SCRATCH).mkdir()
        except OSError as error:
            raise OutputError(target, error.strerror or str(error)) from error
        export = _Export(plan, folder, recipe, made_with)
        parts: dict[str, Callable[[], None]] = {"text encoder": export.text_encoder}
        parts |= {f"denoiser {name}": partial(export.denoiser, name, at) for name, at in plan.checkpoint.denoisers.items()}
        parts |= {
            "decoder": export.decoder,
            "tokenizer": export.tokenizer,
            "further networks and notices": export.extras,
            "manifest": export.seal,
        }
        for index, (name, part) in enumerate(parts.items()):
            _log.info("exporting %s (%d of %d)", name, index + 1, len(parts))
            if progress is not None:
                progress(name, index, len(parts))
            part()
    return target


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    """A checkpoint and a recipe that were checked, with the schedulers of the bundle."""

    checkpoint: CheckpointFolder
    schedulers: Mapping[str, Mapping[str, Any]]
    """Configurations by the names that the pool uses; `default` is the checkpoint's own, or what replaces it."""
    replaced: str | None
    """What replaces the checkpoint's scheduler, such as `PNDMScheduler -> DPMSolverMultistepScheduler`; None if its own is used."""


def check_export(source: Path, recipe: BundleRecipe) -> ExportPlan:
    """Checks all that can be checked without loading weights, and needs no torch; raises BundleError like `export_bundle`."""
    _check_pool(source, recipe, find_denoisers(source))
    checkpoint = CheckpointFolder.open(source)
    schedulers, replaced = {name: plain_config(config) for name, config in recipe.schedulers.items()}, None
    if "default" not in schedulers and any(row.get("scheduler") == "default" for row in recipe.pool):
        schedulers["default"], replaced = _own_scheduler(checkpoint)
    check_recipe(checkpoint, recipe, schedulers)
    return ExportPlan(checkpoint=checkpoint, schedulers=schedulers, replaced=replaced)


def _own_scheduler(checkpoint: CheckpointFolder) -> tuple[dict[str, Any], str | None]:
    """The checkpoint's scheduler, or what replaces it, and the replacement in words; raises BundleError if nothing does."""
    path = checkpoint.source / "scheduler" / "scheduler_config.json"
    try:
        return choose_scheduler(read_scheduler(checkpoint.configs["scheduler"]))
    except ConfigError as error:
        remedy = "name another one as `default` in the recipe's schedulers, such as DPMSolverMultistepScheduler with the same betas"
        raise BundleError(path, f"the runtime does not have this scheduler: {error}", remedy) from error


def _versions() -> dict[str, str]:
    """Versions of the libraries that export; raises BackendError if one is missing."""
    try:
        return {name: version(name) for name in _MADE_WITH}
    except PackageNotFoundError as error:
        raise BackendError("an export", f"no {error.name}", "install the export extra", ["costroute-rt[export]"]) from error


def _check_pool(source: Path, recipe: BundleRecipe, denoisers: Iterable[str]) -> None:
    """Raises BundleError for a pool that names what the checkpoint and the recipe do not have; `seal_bundle` checks the rest."""
    known = {"denoiser": set(denoisers), "scheduler": {"default", *recipe.schedulers}}
    for row in recipe.pool:
        for key, names in known.items():
            if not isinstance(row.get(key), str) or row[key] not in names:
                problem = f"the candidate {row.get('name')!r} of the recipe has the {key} {row.get(key)!r}"
                raise BundleError(source, problem, f"use one of {', '.join(sorted(names))}")
        if not isinstance(row.get("num_inference_steps"), int):
            raise BundleError(source, f"the candidate {row.get('name')!r} of the recipe has no num_inference_steps", "give a whole number")


class _Export:
    """The parts of one export; each is written to `folder` and added to the manifest."""

    def __init__(self, plan: ExportPlan, folder: Path, recipe: BundleRecipe, made_with: Mapping[str, str]) -> None:
        checkpoint = plan.checkpoint
        self._plan, self._checkpoint, self._source, self._folder = plan, checkpoint, checkpoint.source, folder
        self._recipe, self._made_with = recipe, made_with
        tokenizer, self._tokenizer, self._max_length = read_clip_tokenizer(
            self._source / "tokenizer", max_length=checkpoint.text_tokens, vocabulary=checkpoint.vocabulary
        )
        self._pipeline = _load_pipeline(plan, tokenizer)
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
        if folder != "unet":
            self._pipeline.register_modules(unet=_load_network(self._checkpoint, folder))
        unet = self._pipeline.unet
        weights = self._write_module(unet, folder, _WEIGHTS)
        model = self._export("unet", weights)
        graphs = {}
        fold_quotients(model)
        crossing = find_crossing(model)
        if crossing:
            graphs["condition"] = self._save(compose_condition(model, crossing, _SOURCES), weights.parent / "condition.onnx")
        memory = self._recipe.any_scheduler or self._needs_memory(name)
        for graph in step_graphs(self._recipe, name):
            compose = compose_step
            if graph == "guided_step":
                compose = partial(compose_guided_step, rescale=rescales(self._recipe, name))
            graphs[graph] = self._save(compose(model, _SOURCES, crossing, memory=memory), weights.parent / f"{graph}.onnx")
        self._add_component(name, "denoiser", weights, graphs, guidance="classifier_free" if "guided_step" in graphs else "none")

    def decoder(self) -> None:
        vae = self._pipeline.vae
        weights = self._write_module(vae, "vae", _WEIGHTS)
        encoder, decoder = self._export("vae_encoder", weights), self._export("vae_decoder", weights)
        scale, shift = latent_scaling(vae.config)
        keep_mean(encoder, int(vae.config.latent_channels))
        models = {"decode": compose_decode(decoder, scale=scale, shift=shift), "encode": compose_encode(encoder, scale=scale, shift=shift)}
        graphs = {use: self._save(model, weights.parent / f"{use}.onnx") for use, model in models.items()}
        self._add_component("vae", "decoder", weights, graphs)

    def tokenizer(self) -> None:
        folder = self._folder / "tokenizer"
        self._pipeline.tokenizer.save_pretrained(folder)
        self._tokenizer.save(str(folder / "tokenizer.json"))

    def extras(self) -> None:
        """Copies the networks that were exported into the checkpoint directory, and the licence files; no link's target."""
        self._copy_network("scorer", "scorer", _SCORER, "score")
        self._copy_network(TINY, "decoder", _TINY, "decode")
        for path in sorted(self._source.iterdir()):
            if path.name.upper().startswith(_NOTICES) and not path.is_dir():
                check_place(path, self._source)
                (self._folder / path.name).write_bytes(_read_notice(path))

    def _copy_network(self, name: str, role: str, files: Sequence[str], use: str) -> None:
        """Copies the folder `name`, if there is one, and adds its component; files: configuration, weights and graph."""
        import onnx

        source, folder = self._source / name, self._folder / name
        if not source.is_dir():
            return
        check_places(source, self._source)
        folder.mkdir()
        for each in files:
            if (source / each).exists():
                shutil.copyfile(source / each, folder / each)
        _, weights, graph = files
        model = onnx.load(folder / graph, load_external_data=False)
        self._add_component(name, role, folder / weights, {use: self._save(model, folder / graph)})

    def seal(self) -> None:
        """Writes the files that diffusers expects and the manifest; the whole bundle is then checked and opened."""
        self._pipeline.scheduler.save_pretrained(self._folder / "scheduler")
        index = read_config(self._source / "model_index.json")
        write_json(self._folder / "model_index.json", index | _NOT_EXPORTED)
        shutil.rmtree(self._folder / _SCRATCH)
        remove_paths(self._folder)
        Family.open(seal_bundle(self._folder, self._manifest()))

    def _manifest(self) -> dict[str, Any]:
        recipe, vae = self._recipe, self._pipeline.vae
        return {
            "family": recipe.family,
            "revision": recipe.revision,
            "license": recipe.license,
            "made_with": dict(self._made_with),
            "notes": [] if self._plan.replaced is None else [f"scheduler: {self._plan.replaced}"],
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
            "image": image_section(self._checkpoint, recipe),
            "preview": recipe.preview or fit_preview(vae, *latent_scaling(vae.config)),
            "schedulers": self._schedulers(),
            "pool": [dict(candidate) for candidate in recipe.pool],
            "quality": dict(recipe.quality),
            "router": None,
        }

    def _schedulers(self) -> dict[str, dict[str, Any]]:
        """The plan's schedulers; the checkpoint's own with the settings that diffusers gave it."""
        own = {}
        if "default" in self._plan.schedulers and "default" not in self._recipe.schedulers:
            own["default"] = plain_config(choose_scheduler(json.loads(self._pipeline.scheduler.to_json_string()))[0])
        return {**{name: dict(config) for name, config in self._plan.schedulers.items()}, **own}

    def _candidates(self, denoiser: str) -> list[Mapping[str, Any]]:
        return [row for row in self._recipe.pool if row.get("denoiser") == denoiser]

    def _needs_memory(self, denoiser: str) -> bool:
        """Whether a candidate's scheduler carries one more latent from step to step."""
        height, width = self._checkpoint.sample_size
        tables, tokens = Tables(self._schedulers()), height * width
        rows = self._candidates(denoiser)
        return any(tables.table(row["scheduler"], row["num_inference_steps"], tokens).has_memory for row in rows)

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


def _read_notice(path: Path) -> bytes:
    try:
        return read_regular(path, _MOST_NOTICE_BYTES)
    except OSError as error:
        raise BundleError(path, f"it cannot be copied: {error.strerror or error}", "shorten it, or give it another name") from error


def _load_pipeline(plan: ExportPlan, tokenizer: Any) -> Any:
    """The checkpoint in float32, without the modules that a bundle does not contain."""
    from diffusers import StableDiffusionPipeline

    networks = {name: _load_network(plan.checkpoint, name) for name in ("text_encoder", "unet", "vae")}
    absent = {"safety_checker": None, "feature_extractor": None, "image_encoder": None, "requires_safety_checker": False}
    return StableDiffusionPipeline(tokenizer=tokenizer, scheduler=_load_scheduler(plan), **networks, **absent)


def _load_network(checkpoint: CheckpointFolder, folder: str) -> Any:
    """A network in float32; raises BundleError for weights that do not fit its configuration, and for weights that are missing."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    kinds: dict[str, Any] = {"text_encoder": CLIPTextModel, "vae": AutoencoderKL}
    weights, path = checkpoint.weights[folder], checkpoint.source / folder
    # Where there are no safetensors, both libraries call torch.load with weights_only=True.
    how = {"variant": weights.variant, "use_safetensors": weights.is_safetensors, "local_files_only": True, "torch_dtype": torch.float32}
    try:
        with _no_progress_bar():
            network, report = kinds.get(folder, UNet2DConditionModel).from_pretrained(path, output_loading_info=True, **how)
    except Exception as error:  # torch, diffusers and transformers raise many kinds
        problem = f"its weights cannot be loaded: {type(error).__name__}: {str(error)[:300]}"
        raise BundleError(path, problem, "download the checkpoint again") from error
    missing = sorted(report["missing_keys"])
    if missing:  # the libraries would make these up
        problem = f"{len(missing)} of its weights are missing, such as {missing[0]}"
        raise BundleError(path, problem, "use the weights of this network, not those of an adapter (LoRA) or of a part")
    return network.eval().float()


def _load_scheduler(plan: ExportPlan) -> Any:
    """The checkpoint's own scheduler, which stays in the bundle for diffusers; if diffusers cannot load it, one of the plan's."""
    import diffusers

    path, name = plan.checkpoint.source / "scheduler", str(plan.checkpoint.configs["scheduler"].get("_class_name"))
    instead = plan.schedulers.get("default") or next(iter(plan.schedulers.values()))
    try:
        if name.endswith("Scheduler"):  # not another class of diffusers, which might run code of the checkpoint
            return getattr(diffusers, name).from_pretrained(path, local_files_only=True)
    except Exception as error:  # diffusers raises many kinds; LMSDiscreteScheduler needs scipy
        _log.info("diffusers cannot load %s: %s", name, error)
    try:
        return getattr(diffusers, instead["_class_name"]).from_config(instead)
    except Exception as error:
        problem = f"diffusers refuses the scheduler {instead['_class_name']}: {type(error).__name__}: {str(error)[:300]}"
        raise BundleError(path, problem, "correct its settings") from error


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
