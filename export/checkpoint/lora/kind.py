"""Which few-step method a LoRA adds to a model, so that its scheduler, steps and guidance can be chosen."""

from __future__ import annotations

import re

from costroute_rt.export.checkpoint.lora.lora import Lora

_KINDS = (
    ("lcm", r"(^|[^a-z])lcm([^a-z]|$)"),
    ("lightning", r"lightning"),
    ("hyper", r"hyper[-_ ]?(sd|sdxl)|(^|[^a-z])hyper([^a-z]|$)"),
    ("dmd2", r"(^|[^a-z])dmd2?([^a-z]|$)"),
    ("turbo", r"(^|[^a-z])turbo([^a-z]|$)"),
)
_TEXTS = ("ss_output_name", "modelspec.title")
"""Where trainers write what they call their LoRA."""
_STEPS = re.compile(r"(?:^|[^a-z0-9])(\d{1,2})[-_ ]?steps?(?:[^a-z]|$)")


def kind_of_lora(lora: Lora) -> str | None:
    """lcm, lightning, hyper, dmd2 or turbo, by the names of the file, its title, and its folder; None for one that changes no scheduler."""
    for text in _texts(lora):
        for kind, form in _KINDS:
            if re.search(form, text):
                return kind
    return None


def steps_of_lora(lora: Lora) -> int | None:
    """The number of steps that it was made for, such as 4 in `sdxl_lightning_4step_lora`; None if the names do not tell."""
    match = next(filter(None, map(_STEPS.search, _texts(lora))), None)
    return int(match[1]) if match and int(match[1]) else None


def _texts(lora: Lora) -> list[str]:
    """The folder comes last: files are called pytorch_lora_weights.safetensors in a folder such as lcm-lora-sdv1-5."""
    named = [lora.metadata[key] for key in _TEXTS if key in lora.metadata]
    return [text.lower() for text in (lora.path.stem, *named, lora.path.absolute().parent.name)]
