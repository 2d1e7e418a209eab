"""Names of parameters that other versions of diffusers and transformers write."""

from __future__ import annotations

import re
from collections.abc import Mapping

from costroute_rt.export.checkpoint.source.network import Region

_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""As `_convert_deprecated_attention_blocks` of diffusers renames them; the VAE of Stable Diffusion 1.5 is stored so."""
_OLD = re.compile(r"(.*\.mid_block\.attentions\.0)\.(query|key|value|proj_attn)\.(weight|bias)")
_BARE = ("embeddings.", "encoder.layers.", "final_layer_norm.")
"""How the names in a CLIPTextModel begin since transformers 5."""


def rename_old(found: Mapping[str, Region], class_name: str) -> dict[str, Region]:
    """The tensors of a network by the names that diffusers 0.39 and transformers 4.57 give its parameters."""
    rename = {"AutoencoderKL": _rename_attention, "CLIPTextModel": _add_text_model}.get(class_name, str)
    return {rename(name): region for name, region in found.items()}


def rename_attention(found: Mapping[str, Region]) -> dict[str, Region]:
    """As `rename_old`, for an AutoencoderKL."""
    return rename_old(found, "AutoencoderKL")


def _rename_attention(name: str) -> str:
    match = _OLD.fullmatch(name)
    return f"{match[1]}.{_ATTENTION[match[2]]}.{match[3]}" if match else name


def _add_text_model(name: str) -> str:
    return f"text_model.{name}" if name.startswith(_BARE) else name
