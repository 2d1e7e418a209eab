"""Recipes: the information that a bundle needs and a checkpoint directory does not contain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from costroute_rt.error import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRecipe:
    """The settings of `export_bundle` besides the checkpoint; they become sections of the manifest and are checked there."""

    family: str
    revision: str
    license: str
    """SPDX identifier of the weights' licence."""
    pool: tuple[Mapping[str, Any], ...]
    """Candidates, cheapest first: name, denoiser, scheduler, num_inference_steps, guidance_scale, decoder; see also `GUIDANCE_DEFAULTS`."""
    quality: Mapping[str, Any]
    """{"metric": name, "candidates": {candidate: {"mean": score, "standard_error": score}}}"""
    schedulers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Scheduler configurations with _class_name, by the name the pool uses; `default` is the checkpoint's own."""
    sizes: tuple[tuple[int, int], ...] = ()
    """(height, width) pairs the denoisers were trained for, the default first; empty means the UNet's sample_size."""
    any_size: bool = False
    any_scheduler: bool = True
    """Whether every scheduler can be named at run time, also those that carry a latent: it costs a few sums in each step."""
    preview: Mapping[str, Any] | None = None
    """{"matrix": 3 floats per latent channel, "bias": 3 floats}; None means that it is fitted to the VAE."""

    def __post_init__(self) -> None:
        if not all(isinstance(row, Mapping) for row in _members(self.pool)):
            raise ConfigError("pool", self.pool, "a tuple of candidates, each a mapping")
        if not isinstance(self.quality, Mapping):
            raise ConfigError("quality", self.quality, "a mapping with metric and candidates")
        own = self.schedulers
        if not isinstance(own, Mapping) or not all(isinstance(key, str) and isinstance(own[key], Mapping) for key in own):
            raise ConfigError("schedulers", own, "a mapping from names to configurations")
        if not all(len(_members(size)) == 2 and all(isinstance(side, int) for side in size) for size in _members(self.sizes)):
            raise ConfigError("sizes", self.sizes, "a tuple of pairs (height, width)")


def _members(value: object) -> Sequence[Any]:
    """The value if it is a list or a tuple; else one member that is nothing."""
    return value if isinstance(value, list | tuple) else (None,)
