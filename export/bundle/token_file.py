"""Writes a tokenizer as the runtime reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from costroute_rt.export.bundle.plan import whole_number
from costroute_rt.export.checkpoint.source.network import Network, Source
from costroute_rt.export.checkpoint.tokenizer import read_clip_tokenizer

_FILE = "tokenizer.json"
_SYNTAX = "a1111"
"""How users of Stable Diffusion write prompts: with weights in brackets, and longer than one chunk."""


def write_tokenizer(source: Source, name: str, encoder: Network, folder: Path) -> dict[str, Any]:
    """Write a source's tokenizer into `folder`, the bundle's folder of that name; returns its section of the manifest.

    encoder: the text encoder that reads its tokens. Raises BundleError for a tokenizer that cannot be converted.
    """
    length = whole_number(encoder, "max_position_embeddings", 77, source.path)
    words = whole_number(encoder, "vocab_size", 49408, source.path)
    original, converted, max_length = read_clip_tokenizer(source.tokenizers[name], max_length=length, vocabulary=words)
    (folder / _FILE).write_text(converted.to_str(pretty=True), encoding="utf-8")  # its own `save` raises bare exceptions
    settings = {"max_length": max_length, "pad_id": int(original.pad_token_id), "prompt_syntax": _SYNTAX}
    return {"file": f"{name}/{_FILE}", **settings}
