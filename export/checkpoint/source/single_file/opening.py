"""Opens a single file of Stable Diffusion 1.x, 2.x or XL: the family by its tensors' names, settings by shapes and templates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source.fit import check_configs
from costroute_rt.export.checkpoint.source.known_file import check_special, refuse_other
from costroute_rt.export.checkpoint.source.license import UNKNOWN
from costroute_rt.export.checkpoint.source.model_name import name_of_model
from costroute_rt.export.checkpoint.source.network import Network, Region, Source
from costroute_rt.export.checkpoint.source.parameter.of_class import parameters
from costroute_rt.export.checkpoint.source.prediction import V_PREDICTION, Prediction
from costroute_rt.export.checkpoint.source.single_file import clip, unet, vae
from costroute_rt.export.checkpoint.source.single_file.stored import Stored
from costroute_rt.export.checkpoint.source.single_file.template import TOKENIZERS, read_template
from costroute_rt.export.checkpoint.source.weights import StoredWeights, choose_weights

_FIRST = f"{unet.PREFIX}input_blocks.0.0.weight"
_TOKENS = "embeddings.token_embedding.weight"
_WHOLE = "use a file that holds the whole model, or a diffusers folder"
_SD1 = ("cond_stage_model.transformer.text_model.", "cond_stage_model.transformer.")
"""Prefixes of the text encoder; the second is that of files merged by old programs."""
_SD2 = "cond_stage_model.model."
_XL, _XL_2 = "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."
_V_SIZE, _V_PIXELS = 96, 768
"""Latent and image size of Stable Diffusion 2.x with v-prediction."""


def open_single_file(path: Path, stored: StoredWeights, *, prediction_type: str | None = None) -> Source:
    """The model in a file whose tensors were found; raises BundleError for what cannot be exported."""
    check_special(stored.tensors, path)
    if _FIRST not in stored.tensors:
        raise refuse_other(stored.tensors, path)
    return _File(path, stored, *_find_family(stored.tensors, path)).source(prediction_type)


def _find_family(tensors: Mapping[str, Region], path: Path) -> tuple[str, str]:
    """The family by its text encoders, and the prefix of the first of them; raises BundleError if one is missing."""
    for prefix in _SD1:
        if f"{prefix}{_TOKENS}" in tensors:
            return "sd1", prefix
    if f"{_SD2}token_embedding.weight" in tensors:
        return "sd2", _SD2
    found = [name in tensors for name in (f"{_XL}{_TOKENS}", f"{_XL_2}token_embedding.weight")]
    if not all(found):
        lack = "one of its two text encoders is missing" if any(found) else "it has no text encoder that is known"
        raise BundleError(path, f"{lack} ({_SD1[0]}, {_SD2}, or {_XL} and {_XL_2})", _WHOLE)
    return "sdxl", _XL


@dataclass(frozen=True, slots=True)
class _File:
    """A single file whose family is known."""

    path: Path
    stored: StoredWeights
    family: str
    text_prefix: str

    def select(self, prefix: str) -> Stored:
        return Stored.select(self.stored.tensors, prefix, self.path)

    def source(self, prediction_type: str | None) -> Source:
        template = read_template(self.family)
        prediction = Prediction.find(self.family, self.stored.tensors, self.stored.metadata, prediction_type)
        configs = self.configs(template, prediction)
        check_configs(configs, self.path)
        title = template["title"]
        notes = [f"A single file has no settings: those of {title} are used, with the widths and depths that its tensors have."]
        return Source(
            path=self.path,
            name=name_of_model(self.path),
            family=self.family,
            pipeline=template["pipeline"],
            networks={name: self.network(name, config) for name, config in configs.items()},
            tokenizers=TOKENIZERS[self.family],
            scheduler=prediction.configure(template["scheduler"]),
            force_zeros_for_empty_prompt=self.family == "sdxl",
            license=self.stored.metadata.get("modelspec.license", "").strip()[:80] or UNKNOWN,
            notes=(*notes, *([prediction.note] if prediction.note else [])),
        )

    def configs(self, template: Mapping[str, Any], prediction: Prediction) -> dict[str, dict[str, Any]]:
        """The settings of each network: those of the template, and what shapes tell."""
        found = {"unet": unet.unet_settings(self.select(unet.PREFIX)), "vae": self.vae_settings()}
        if self.family == "sd2":
            found["text_encoder"] = clip.open_clip_settings(self.select(_SD2), is_sd2=True)
            if prediction.type == V_PREDICTION:
                found["unet"]["sample_size"], found["vae"]["sample_size"] = _V_SIZE, _V_PIXELS
        else:
            found["text_encoder"] = clip.clip_settings(self.select(self.text_prefix))
        if self.family == "sdxl":
            found["text_encoder_2"] = clip.open_clip_settings(self.select(_XL_2), is_sd2=False)
        return {name: template[name] | settings for name, settings in found.items()}

    def vae_settings(self) -> dict[str, Any]:
        stored = self.select(vae.PREFIX)
        if not stored.tensors:
            raise BundleError(self.path, f"it has no VAE (no tensor {vae.PREFIX}...)", _WHOLE)
        return vae.vae_settings(stored)

    def network(self, name: str, config: dict[str, Any]) -> Network:
        class_name = config["_class_name"] if "_class_name" in config else config["architectures"][0]
        wanted = parameters(class_name, config, self.path)
        if name == "unet":
            found = unet.find_unet(self.select(unet.PREFIX), wanted, config)
        elif name == "vae":
            found = vae.find_vae(self.select(vae.PREFIX), wanted, config)
        elif name == "text_encoder" and self.family != "sd2":
            found = clip.find_clip(self.select(self.text_prefix), wanted)
        else:
            found = clip.find_open_clip(self.select(_SD2 if self.family == "sd2" else _XL_2), wanted)
        return Network(name=name, class_name=class_name, config=config, weights=choose_weights(found, wanted, name, self.path))
