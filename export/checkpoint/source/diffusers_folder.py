"""A pipeline as diffusers saves it: one folder for each network, with its configuration and weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.refusal import (
    BASE_MODEL,
    check_tokenizer,
    plain_value,
)
from costroute_rt.export.checkpoint.source.fit import check_configs
from costroute_rt.export.checkpoint.source.license import find_licenses, license_name
from costroute_rt.export.checkpoint.source.model_name import name_of_model
from costroute_rt.export.checkpoint.source.network import Network, Source
from costroute_rt.export.checkpoint.source.old_name import rename_old
from costroute_rt.export.checkpoint.source.parameter.clip import KNOWN as CLIP_SETTINGS
from costroute_rt.export.checkpoint.source.parameter.of_class import CLASSES, parameters
from costroute_rt.export.checkpoint.source.weights import choose_weights, read_all_weights
from costroute_rt.export.checkpoint.weight_file import (
    WeightFiles,
    check_content,
    check_place,
    check_places,
    find_weight_files,
    read_config,
)

MODEL_INDEX = "model_index.json"
DIFFUSERS = {"safetensors": "diffusion_pytorch_model", "bin": "diffusion_pytorch_model"}
TRANSFORMERS = {"safetensors": "model", "bin": "pytorch_model"}
"""Names of weight files without variant and extension, by extension."""
_TOKENIZER = ("transformers", "CLIPTokenizer(Fast)?")
_STABLE_DIFFUSION = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": _TOKENIZER,
    "scheduler": ("diffusers", r"\w+Scheduler"),
}
_XL = _STABLE_DIFFUSION | {"text_encoder_2": ("transformers", "CLIPTextModelWithProjection"), "tokenizer_2": _TOKENIZER}
PIPELINES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "StableDiffusionPipeline": _STABLE_DIFFUSION,
    "LatentConsistencyModelPipeline": _STABLE_DIFFUSION,
    "StableDiffusionXLPipeline": _XL,
}
"""Library and class of each part, by pipeline; whoever opens the bundle with diffusers imports what its index names."""
_NOT_EXPORTED = ("feature_extractor", "image_encoder", "safety_checker")
_SUPPORTED = "only pipelines of Stable Diffusion 1.x, 2.x and XL, and latent consistency models can be exported"
_INSTEAD = {
    "StableDiffusionXLImg2ImgPipeline": "of an XL refiner, export its base model; otherwise name StableDiffusionXLPipeline in its place",
    "StableDiffusionImg2ImgPipeline": "its networks are those of a StableDiffusionPipeline: name that in its place",
    "StableDiffusionControlNetPipeline": f"ControlNet is not supported; {BASE_MODEL}",
    "StableDiffusionXLControlNetPipeline": f"ControlNet is not supported; {BASE_MODEL}",
    **dict.fromkeys(
        (
            "StableDiffusionInpaintPipeline", "StableDiffusionXLInpaintPipeline", "StableDiffusionDepth2ImgPipeline",
            "StableDiffusionInstructPix2PixPipeline", "StableDiffusionXLInstructPix2PixPipeline", "StableDiffusionUpscalePipeline",
            "StableDiffusionImageVariationPipeline",
        ),
        BASE_MODEL,
    ),
}  # fmt: skip
"""What to do instead, for pipelines that a user may take for a supported one."""


def open_folder(path: Path, *, variant: str | None = None) -> Source:
    """The pipeline in a folder; raises BundleError for what cannot be exported.

    variant: of the weight files, such as `fp16`; it is taken where it exists.
    """
    return _Folder.read(path, variant).source()


def check_settings(path: Path) -> None:
    """Raises BundleError for a pipeline that cannot be exported, as far as its settings tell; its weight files need not exist yet."""
    _Folder.read(path, None).configs()


def check_pipeline(index: Mapping[str, Any], path: Path | str) -> str:
    """The class of the pipeline that a model_index.json names; raises BundleError if it is not supported.

    path: the folder or repository, for the message.
    """
    pipeline = index.get("_class_name")
    if isinstance(pipeline, str) and pipeline in PIPELINES:
        return pipeline
    instead = _INSTEAD.get(pipeline) if isinstance(pipeline, str) else None
    raise BundleError(path, f"it holds a {plain_value(pipeline)}", f"{_SUPPORTED}; {instead}" if instead else _SUPPORTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """A folder whose index and places were checked."""

    path: Path
    index: Mapping[str, Any]
    pipeline: str
    variant: str | None

    @classmethod
    def read(cls, path: Path, variant: str | None) -> _Folder:
        check_place(path / MODEL_INDEX, path)
        index = read_config(path / MODEL_INDEX)
        found = cls(path=path, index=index, pipeline=check_pipeline(index, path), variant=variant)
        found.check_parts()
        return found

    @property
    def parts(self) -> Mapping[str, tuple[str, str]]:
        return PIPELINES[self.pipeline]

    def check_parts(self) -> None:
        """Raises BundleError if the index names other classes than those of the pipeline, or a folder is missing or leads out."""
        if self.index.get("requires_aesthetics_score") is True:
            raise BundleError(self.path, "it is a refiner, which needs an image and an aesthetic score", BASE_MODEL)
        for name, value in self.index.items():
            if name.startswith("_") or name in _NOT_EXPORTED or not isinstance(value, list):
                continue
            library, kind = self.parts.get(name, (None, ""))
            is_known = len(value) == 2 and value[0] == library and isinstance(value[1], str) and re.fullmatch(kind, value[1], re.ASCII)
            if not is_known and not (value == [None, None] and library is None):
                problem = f"its part {name} is {plain_value(value)}"
                raise BundleError(self.path / MODEL_INDEX, problem, f"only the usual parts of a {self.pipeline} can be exported")
        for name in self.parts:
            if not (self.path / name).is_dir():
                raise BundleError(self.path / name, "this folder of the checkpoint is missing", "download the whole checkpoint")
            check_places(self.path / name, self.path)

    def source(self) -> Source:
        configs = self.configs()
        self.check_variant()
        licenses = find_licenses(self.path)
        is_xl = "text_encoder_2" in configs
        return Source(
            path=self.path,
            name=name_of_model(self.path.resolve() if self.path.name in ("", "..") else self.path),
            family="sdxl" if is_xl else "sd2" if configs["unet"].get("use_linear_projection") is True else "sd1",
            pipeline=self.pipeline,
            networks={name: self.network(name, config) for name, config in configs.items()},
            tokenizers={name: self.tokenizer(name) for name in self.parts if self.parts[name] == _TOKENIZER},
            scheduler=read_config(self.path / "scheduler" / "scheduler_config.json"),
            force_zeros_for_empty_prompt=is_xl and self.index.get("force_zeros_for_empty_prompt", True) is True,
            licenses=licenses,
            license=license_name(licenses),
        )

    def configs(self) -> dict[str, dict[str, Any]]:
        """The settings of all networks; raises BundleError for networks that cannot be exported together."""
        configs = {name: self.config(name) for name in self.parts if self.parts[name][1] in CLASSES}
        check_configs(configs, self.path)
        return configs

    def config(self, name: str) -> dict[str, Any]:
        """The settings of a network; raises BundleError if its class is another one."""
        config = read_config(self.path / name / "config.json")
        class_name = self.parts[name][1]
        check_network_class(self.path / name, config, class_name)
        return {key: config[key] for key in CLIP_SETTINGS if key in config} if class_name.startswith("CLIP") else config

    def network(self, name: str, config: Mapping[str, Any]) -> Network:
        """One network with its weights; raises BundleError if a parameter is missing or has another shape."""
        folder, class_name = self.path / name, self.parts[name][1]
        wanted = parameters(class_name, config, folder / "config.json")
        found = rename_old(read_all_weights(self.weight_files(name).files), class_name)
        return Network(name=name, class_name=class_name, config=config, weights=choose_weights(found, wanted, name, folder))

    def check_variant(self) -> None:
        """Raises BundleError if a variant is wanted that no network has."""
        found = {self.weight_files(name).variant for name in self.parts if self.parts[name][1] in CLASSES}
        if self.variant is not None and self.variant not in found:
            raise BundleError(self.path, f"it has no weight file of the variant {self.variant}", "name one that it has, or none")

    def weight_files(self, name: str) -> WeightFiles:
        stems = TRANSFORMERS if self.parts[name][0] == "transformers" else DIFFUSERS
        return find_weight_files(self.path / name, stems, self.variant)

    def tokenizer(self, name: str) -> Path:
        """The folder of a tokenizer whose files exist and are text; raises BundleError."""
        folder = self.path / name
        check_tokenizer(folder)
        words = [folder / "vocab.json", folder / "merges.txt"]
        if not all(path.exists() for path in words):
            words = [folder / "tokenizer.json"]
            if not words[0].exists():
                raise BundleError(folder, "it has neither vocab.json and merges.txt nor tokenizer.json", "download the whole checkpoint")
        for path in words:
            check_content(path)
        return folder


def check_network_class(folder: Path, config: Mapping[str, Any], class_name: str) -> None:
    """Raises BundleError for a network of another class, or with quantised weights."""
    names = config.get("architectures") if class_name.startswith("CLIP") else config.get("_class_name")
    found = names[0] if isinstance(names, list) and len(names) == 1 else names
    if found is not None and found != class_name:
        raise BundleError(folder, f"it is a {plain_value(found)}", f"only a {class_name} can be exported here")
    if config.get("quantization_config") is not None:
        raise BundleError(folder, "its weights are quantised", "use the checkpoint in float16, bfloat16 or float32")
