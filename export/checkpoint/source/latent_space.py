"""Whether a decoder belongs to the latents of a model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.refusal import plain_value
from costroute_rt.export.checkpoint.source.model_name import repository_of
from costroute_rt.export.checkpoint.source.network import Source

_DEFAULTS = {"latent_channels": 4, "scaling_factor": 0.18215, "shift_factor": None, "latents_mean": None, "latents_std": None}
"""Settings of AutoencoderKL that say how latents are scaled, with the class's own values."""
_XL, _SD = "Stable Diffusion XL", "Stable Diffusion 1.x and 2.x"
_NAMES = {_XL: r"sd[-_ ]?xl|taesdxl|\bxl[-_]?vae|vae[-_]?xl", _SD: r"taesd(?![x3])|vae[-_]ft[-_](mse|ema)|kl[-_]f8"}
"""What the usual names of decoders contain, by the latents that they decode."""
_CLOSE = 1e-3


def check_same_latents(config: Mapping[str, Any], source: Source, path: Path) -> None:
    """Raises BundleError if a VAE of these settings has other latents than the model's own."""
    own = source.networks["vae"].config
    for key, default in _DEFAULTS.items():
        found, wanted = config.get(key, default), own.get(key, default)
        if not _is_same(found, wanted):
            problem = f"its latents are not those of {source.name}: {key} is {plain_value(found)}, and {plain_value(wanted)} there"
            raise BundleError(path, problem, f"use a VAE of {_space(source)}")


def check_name(path: Path, source: Source) -> None:
    """Raises BundleError if the name of a file, or of its repository, says that it decodes other latents: its shapes do not tell."""
    text = f"{repository_of(path) or ''} {path.name}"
    found = [space for space, form in _NAMES.items() if re.search(form, text, re.IGNORECASE)]
    if found and found != [_space(source)]:
        problem = f"by its name it is for latents of {found[0]}, and {source.name} is a model of {_space(source)}"
        raise BundleError(path, problem, f"use one for {_space(source)}, or rename it if its name is wrong")


def _space(source: Source) -> str:
    return _XL if source.family == "sdxl" else _SD


def _is_same(found: object, wanted: object) -> bool:
    if isinstance(found, int | float) and isinstance(wanted, int | float):
        return math.isclose(found, wanted, rel_tol=_CLOSE)
    return found == wanted
