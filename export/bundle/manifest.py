"""The manifest of a bundle, from the plan of its export and from what its parts added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costroute_rt.export.bundle.plan import DECODER, DENOISER, ExportPlan, vae_scale_factor, whole_number
from costroute_rt.plain_text import one_line

_LATENT_CHANNELS = 4


def make_manifest(plan: ExportPlan, key: str, made_with: Mapping[str, str], parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All sections but those that `seal_bundle` adds.

    parts: what each part added: `component`, `graphs` and perhaps `image_gate` of a component, `tokenizer` of a tokenizer.
    """
    components, graphs, tokenizers, gates = dict[str, Any](), dict[str, Any](), dict[str, Any](), dict[str, Any]()
    for name, added in parts.items():
        graphs |= added.get("graphs", {})
        components |= {name: added["component"]} if "component" in added else {}
        gates |= {name: added["image_gate"]} if "image_gate" in added else {}
        tokenizers |= {name: added["tokenizer"]} if "tokenizer" in added else {}
    source, pool = plan.source, plan.pool
    return {
        "family": plan.family.name,
        "revision": key[:12],
        "license": one_line(source.license).strip() or "unknown",
        "made_with": dict(made_with),
        "notes": [one_line(note) for note in plan.notes],
        "export": {"key": key, "model": one_line(source.name), "kind": plan.kind.kind.name, **plan.additions.record()},
        "components": components,
        "graphs": graphs,
        "tokenizers": tokenizers,
        "negative_prompt": "zeros" if source.force_zeros_for_empty_prompt else "empty_text",
        "image": _image(plan),
        "preview": _preview(plan),
        "schedulers": {name: dict(config) for name, config in pool.schedulers.items()},
        "pool": [dict(row) for row in pool.rows],
        "quality": dict(pool.quality),
        "quality_gates": gates,
        "router": None,
    }


def _image(plan: ExportPlan) -> dict[str, Any]:
    height, width = plan.sizes[0]
    return {
        "height": height,
        "width": width,
        "vae_scale_factor": vae_scale_factor(plan.source),
        "latent_channels": _channels(plan),
        "sizes": [list(size) for size in plan.sizes],
        "any_size": plan.any_size,
    }


def _preview(plan: ExportPlan) -> dict[str, Any] | None:
    """The family's map; None for a model whose latents are not the family's."""
    preview = plan.family.preview
    return {"matrix": preview.matrix, "bias": preview.bias} if _channels(plan) == len(preview.matrix) else None


def _channels(plan: ExportPlan) -> int:
    source = plan.source
    default = whole_number(source.networks[DENOISER], "in_channels", _LATENT_CHANNELS, source.path)
    return whole_number(source.networks[DECODER], "latent_channels", default, source.path)
