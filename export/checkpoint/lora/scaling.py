"""Scalings of LoRA files in peft's layout, which are in settings beside the numbers: `r`, `lora_alpha`, `alpha_pattern`, `use_rslora`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from costroute_rt.engines.bundle.json_bound import check_json_size
from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.weight_file import read_config

_METADATA = "lora_adapter_metadata"
"""Where diffusers stores peft's settings: in the file's metadata, each under the name of its network and a dot."""
_ADAPTER, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
_MOST_VALUES = 100_000
_MOST_ALPHA = 1e9
_REMEDY = "use a plain LoRA"


def read_settings(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """peft's settings of a LoRA file: from its metadata, or from the file that peft saves beside it; empty if there are none.

    Raises BundleError for settings that cannot be read.
    """
    if _METADATA in metadata:
        try:
            check_json_size(metadata[_METADATA].encode(), _MOST_VALUES)
            settings = json.loads(metadata[_METADATA])
        except (ValueError, RecursionError) as error:
            raise BundleError(path, f"its metadata {_METADATA} is not valid JSON: {error}", "save it again with diffusers") from error
        if not isinstance(settings, dict):
            raise BundleError(path, f"its metadata {_METADATA} is not a JSON object", "save it again with diffusers")
        return settings
    config = path.with_name(_CONFIG)
    return read_config(config) if path.name == _ADAPTER and config.exists() else {}


def find_scaling(path: Path, settings: Mapping[str, Any], network: str, name: str, rank: int) -> float:
    """alpha / rank of a layer without an alpha of its own (alpha / sqrt(rank) with `use_rslora`); 1 without settings.

    name: of the layer, dotted. Raises BundleError for settings that mean another method, or that are not understood.
    """

    def setting(key: str, default: Any) -> Any:
        return settings.get(f"{network}.{key}", settings.get(key, default))

    if setting("use_dora", False):
        raise BundleError(path, "it is a DoRA, which cannot be added to weights as they are stored", _REMEDY)
    pattern = setting("alpha_pattern", {}) or {}
    if not isinstance(pattern, dict):
        raise BundleError(path, "its setting alpha_pattern is not a JSON object", _REMEDY)
    if regex := next((key for key in pattern if not key.replace(".", "").replace("_", "").isalnum()), None):
        raise BundleError(path, f"its alpha_pattern {regex!r} is a regular expression, which is not supported", _REMEDY)
    own = next((value for key, value in pattern.items() if f".{name}".endswith(f".{key}")), None)
    alpha = setting("lora_alpha", rank) if own is None else own
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) <= _MOST_ALPHA:
        raise BundleError(path, f"its lora_alpha is {str(alpha)[:40]}: expected a number", _REMEDY)
    return float(alpha) / (math.sqrt(rank) if setting("use_rslora", False) else rank)
