"""Adding tags of the prompt to an encoder, when a router is fitted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from costroute_rt.routing.prompt_encoder import PromptEncoder, TextStates
from costroute_rt.routing.tagged_encoder import TaggedEncoder

SUFFIX = "+tags"
"""Ends the name of an encoder that tags are added to, as in `hashed+tags`."""
_SAMPLE = 256


def split_tags(encoder: str) -> tuple[str, bool]:
    """The name without the suffix, and whether it had it; a folder may have a name that ends so."""
    has_tags = encoder.endswith(SUFFIX) and not Path(encoder).expanduser().is_dir()
    return (encoder.removesuffix(SUFFIX), True) if has_tags else (encoder, False)


def add_tags(encoder: PromptEncoder, prompts: Sequence[str], states: TextStates | None) -> TaggedEncoder:
    """The encoder with tags that weigh about as much as its own features: their factor is the mean length of those, centred.

    prompts, states: the labelled ones, of which an even sample is read.
    """
    rows = np.linspace(0, len(prompts) - 1, min(len(prompts), _SAMPLE)).astype(int)
    features = encoder.encode([prompts[row] for row in rows], None if states is None else states.select(rows))
    length = float(np.linalg.norm(features - features.mean(0), axis=1).mean())
    return TaggedEncoder(encoder, weight=length if length > 0 else 1.0)
