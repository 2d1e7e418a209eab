"""Finds the model that a user names: on this machine, or on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from costroute_rt.export.bundle.additions import Additions
from costroute_rt.export.checkpoint.embedding.add import plan_embeddings
from costroute_rt.export.checkpoint.embedding.argument import parse_embedding
from costroute_rt.export.checkpoint.embedding.read_embedding import read_embedding
from costroute_rt.export.checkpoint.lora.argument import parse_lora
from costroute_rt.export.checkpoint.lora.fuse import plan_fusion
from costroute_rt.export.checkpoint.source import open_source
from costroute_rt.export.checkpoint.source.decoders import with_decoders
from costroute_rt.export.checkpoint.source.hub.repository import read_place
from costroute_rt.export.checkpoint.source.network import Source

FetchProgress = Callable[[int, int, str], "bool | None"]
"""Called with the bytes that are there, the bytes of all files, and the name of the current file."""


def open_model(
    text: str,
    *,
    vae: str | None = None,
    tiny_decoder: str | None = None,
    prediction_type: str | None = None,
    variant: str | None = None,
    revision: str | None = None,
    offline: bool = False,
    allow_pickle: bool = False,
    progress: FetchProgress | None = None,
) -> Source:
    """The model called `text`: a path, or else OWNER/NAME or OWNER/NAME/FILE on the hub, which is downloaded unless its cache has it.

    vae, tiny_decoder: decoders of choice, called in the same way; see `with_decoders`.
    The other arguments, and the errors, are those of `open_source` and `fetch_model`.
    """
    path = _fetch(text, revision=revision, variant=variant, offline=offline, progress=progress)
    source = open_source(path, allow_pickle=allow_pickle, prediction_type=prediction_type, variant=variant)
    own, tiny = (None if each is None else _fetch(each, offline=offline, progress=progress) for each in (vae, tiny_decoder))
    return with_decoders(source, vae=own, tiny=tiny, allow_pickle=allow_pickle)


def _fetch(
    text: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    offline: bool = False,
    progress: FetchProgress | None = None,
) -> Path:
    place = read_place(text)
    if isinstance(place, Path):
        return place
    from costroute_rt.export.checkpoint.source.hub.fetch import fetch_model

    return fetch_model(text, revision=revision, variant=variant, offline=offline, progress=progress)


def open_additions(source: Source, loras: Sequence[str] = (), embeddings: Sequence[str] = ()) -> Additions:
    """LoRAs (FILE or FILE:SCALE) and textual inversions (FILE or WORD=FILE), checked against the model."""
    return Additions(
        fusion=plan_fusion(source, [parse_lora(text) for text in loras]) if loras else None,
        embeddings=plan_embeddings(source, [read_embedding(*parse_embedding(text)) for text in embeddings]) if embeddings else None,
    )
