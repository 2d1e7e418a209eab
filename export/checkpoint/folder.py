"""A diffusers checkpoint folder, read and checked without loading its weights.

Whatever cannot be exported is refused here, by name and before any long work: missing or damaged files, other pipelines, and networks with
inputs that the runtime does not feed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.refusal import (
    BASE_MODEL,
    FUSE_LCM,
    check_class,
    check_tokenizer,
    plain_value,
    unknown_channels,
    unknown_input,
    unknown_width,
)
from costroute_rt.export.checkpoint.weight_file import WeightFiles, check_place, check_places, find_weights, read_config

PIPELINE = "StableDiffusionPipeline"
_MODEL_INDEX = "model_index.json"
_DIFFUSERS = {"safetensors": "diffusion_pytorch_model", "bin": "diffusion_pytorch_model"}
_TRANSFORMERS = {"safetensors": "model", "bin": "pytorch_model"}
NOT_EXPORTED = ("feature_extractor", "image_encoder", "safety_checker")
"""Parts of a pipeline that a bundle does not contain."""
_PARTS = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer(Fast)?"),
    "scheduler": ("diffusers", r"\w+Scheduler"),
}
"""Library and class of each part; whoever opens the bundle with diffusers imports what its index names."""
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_SINGLE_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
_OTHER_PIPELINES = {
    "LatentConsistencyModelPipeline": FUSE_LCM,
    "StableDiffusionInpaintPipeline": BASE_MODEL,
    "StableDiffusionDepth2ImgPipeline": BASE_MODEL,
    "StableDiffusionInstructPix2PixPipeline": BASE_MODEL,
    "StableDiffusionImageVariationPipeline": BASE_MODEL,
    "StableDiffusionControlNetPipeline": f"ControlNet is not supported; {BASE_MODEL}",
    "StableDiffusionImg2ImgPipeline": f"its networks are those of a {PIPELINE}: name that in {_MODEL_INDEX}",
}
"""What to do instead, for pipelines that a user may take for a supported one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFolder:
    """The configurations and weight files of a checkpoint."""

    source: Path
    denoisers: Mapping[str, str]
    """Folders of the denoisers by component name, `base` first."""
    configs: Mapping[str, Mapping[str, Any]]
    """By folder: of every denoiser, vae, text_encoder and scheduler."""
    weights: Mapping[str, WeightFiles]
    """By folder: of every denoiser, vae and text_encoder."""

    @classmethod
    def open(cls, source: Path) -> CheckpointFolder:
        """Reads the configurations and checks all files; raises BundleError for what cannot be exported."""
        denoisers = find_denoisers(source)
        _check_parts(source)
        networks = [*denoisers.values(), "vae", "text_encoder"]
        for folder in (*networks, "scheduler", "tokenizer"):
            if not (source / folder).is_dir():
                raise BundleError(source / folder, "this folder of the checkpoint is missing", "download the whole checkpoint")
            check_places(source / folder, source)
        configs = {folder: read_config(source / folder / "config.json") for folder in networks}
        for folder, config in configs.items():
            check_class(source / folder, folder, config)
        configs["scheduler"] = read_config(source / "scheduler" / "scheduler_config.json")
        check_tokenizer(source / "tokenizer")
        found = cls(source=source, denoisers=denoisers, configs=configs, weights={})
        for name, folder in denoisers.items():
            found._check_denoiser(name, folder)
        stems = {folder: _TRANSFORMERS if folder == "text_encoder" else _DIFFUSERS for folder in networks}
        weights = {folder: find_weights(source / folder, each) for folder, each in stems.items()}
        return cls(source=source, denoisers=denoisers, configs=configs, weights=weights)

    @property
    def latent_channels(self) -> int:
        return self._number("vae", "latent_channels", 4)

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent cell, along each axis."""
        widths = self.configs["vae"].get("block_out_channels", [64])
        if not isinstance(widths, list) or not widths:
            raise BundleError(self.source / "vae" / "config.json", f"block_out_channels is {widths!r}", "expected a list of numbers")
        return int(2 ** (len(widths) - 1))

    @property
    def sample_size(self) -> tuple[int, int]:
        """Height and width of the latents that the first denoiser was trained on."""
        size = self.configs["unet"].get("sample_size")
        pair: list[Any] = size if isinstance(size, list) else [size, size]
        if len(pair) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in pair):
            problem = f"sample_size is {size!r}: expected a number or two"
            raise BundleError(self.source / "unet" / "config.json", problem, "correct it, or give the recipe's sizes")
        return int(pair[0]), int(pair[1])

    @property
    def text_width(self) -> int:
        return self._number("text_encoder", "hidden_size", 512)

    @property
    def text_tokens(self) -> int:
        """Most tokens that the text encoder reads."""
        return self._number("text_encoder", "max_position_embeddings", 77)

    @property
    def vocabulary(self) -> int:
        """Tokens that the text encoder has embeddings for."""
        return self._number("text_encoder", "vocab_size", 49408)

    def _number(self, folder: str, key: str, default: int) -> int:
        value = self.configs[folder].get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            problem = f"{key} is {value!r}: expected a whole number above 0"
            raise BundleError(self.source / folder / "config.json", problem, "download the checkpoint again")
        return value

    def _check_denoiser(self, name: str, folder: str) -> None:
        """Raises BundleError if the denoiser has an input that the runtime does not feed, or does not fit the other networks."""
        config, latents = self.configs[folder], self.latent_channels
        found = unknown_input(config) or unknown_channels(config, latents) or unknown_width(config, self.text_width)
        if found is not None:
            problem, remedy = found
            raise BundleError(self.source / folder, f"denoiser {name} {problem}", remedy)


def find_denoisers(source: Path) -> dict[str, str]:
    """Folders of the denoisers in a checkpoint directory by component name, `base` first; raises BundleError."""
    _check_source(source)
    index = read_config(source / _MODEL_INDEX)
    pipeline = index.get("_class_name")
    if pipeline != PIPELINE:
        remedy = f"only {PIPELINE} checkpoints can be exported"
        instead = _OTHER_PIPELINES.get(pipeline) if isinstance(pipeline, str) else None
        raise BundleError(source, f"it holds a {plain_value(pipeline)}", f"{remedy}; {instead}" if instead else remedy)
    others = sorted(path.name for path in source.glob("unet_*") if path.is_dir())
    return {"base": "unet"} | {name.removeprefix("unet_"): name for name in others}


def _check_parts(source: Path) -> None:
    """Raises BundleError if the index names another library or class than those of a Stable Diffusion pipeline."""
    path = source / _MODEL_INDEX
    check_place(path, source)
    for name, value in read_config(path).items():
        if name.startswith("_") or name in NOT_EXPORTED or not isinstance(value, list) or value == [None, None]:
            continue
        library, kind = _PARTS.get(name, (None, ""))
        if len(value) != 2 or value[0] != library or not isinstance(value[1], str) or not re.fullmatch(kind, value[1], re.ASCII):
            raise BundleError(path, f"its part {name} is {plain_value(value)}", f"only the parts of a {PIPELINE} can be exported")


def _check_source(source: Path) -> None:
    """Raises BundleError for everything but a folder with a model_index.json."""
    folder = "give a directory as diffusers' save_pretrained writes it"
    if source.is_file():
        convert = f"convert it first: diffusers.{PIPELINE}.from_single_file({str(source)!r}).save_pretrained(FOLDER)"
        raise BundleError(source, "it is a single file", convert if source.suffix in _SINGLE_FILES else folder)
    if not source.exists():
        download = "if it is a model of the Hugging Face hub, download it first: "
        download += f"huggingface_hub.snapshot_download({source.as_posix()!r}, local_dir=FOLDER)"
        raise BundleError(source, "it does not exist", download if _HUB_ID.fullmatch(source.as_posix()) else folder)
    if not (source / _MODEL_INDEX).exists():
        raise BundleError(source, f"it has no {_MODEL_INDEX}", folder)
