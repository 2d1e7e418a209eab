"""Names of parameters that older versions of diffusers wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping

from costroute_rt.export.checkpoint.source.network import Region

_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""As `_convert_deprecated_attention_blocks` of diffusers renames them; the VAE of Stable Diffusion 1.5 is stored so."""
_OLD = re.compile(r"(.*\.mid_block\.attentions\.0)\.(query|key|value|proj_attn)\.(weight|bias)")


def rename_attention(found: Mapping[str, Region]) -> dict[str, Region]:
    """The tensors of a VAE with the names of today for its attention."""
    return {_new_name(name): region for name, region in found.items()}


def _new_name(name: str) -> str:
    match = _OLD.fullmatch(name)
    return f"{match[1]}.{_ATTENTION[match[2]]}.{match[3]}" if match else name
