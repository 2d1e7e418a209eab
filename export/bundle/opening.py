"""Finds the model that a user names: on this machine, or on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from costroute_rt.export.checkpoint.lora.argument import parse_lora
from costroute_rt.export.checkpoint.lora.fuse import Fusion, plan_fusion
from costroute_rt.export.checkpoint.source import open_source
from costroute_rt.export.checkpoint.source.hub.repository import read_place
from costroute_rt.export.checkpoint.source.network import Source

FetchProgress = Callable[[int, int, str], "bool | None"]
"""Called with the bytes that are there, the bytes of all files, and the name of the current file."""


def open_model(
    text: str,
    *,
    prediction_type: str | None = None,
    variant: str | None = None,
    revision: str | None = None,
    offline: bool = False,
    progress: FetchProgress | None = None,
) -> Source:
    """The model called `text`: a path, or else OWNER/NAME or OWNER/NAME/FILE on the hub, which is downloaded unless its cache has it.

    The other arguments, and the errors, are those of `open_source` and `fetch_model`.
    """
    path = fetch(text, revision=revision, variant=variant, offline=offline, progress=progress)
    return open_source(path, prediction_type=prediction_type, variant=variant)


def fetch(
    text: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    offline: bool = False,
    progress: FetchProgress | None = None,
) -> Path:
    """The path of what `text` names; see `open_model`."""
    place = read_place(text)
    if isinstance(place, Path):
        return place
    from costroute_rt.export.checkpoint.source.hub.fetch import fetch_model

    return fetch_model(text, revision=revision, variant=variant, offline=offline, progress=progress)


def open_loras(source: Source, texts: tuple[str, ...]) -> Fusion | None:
    """LoRAs as they are given on a command line, FILE or FILE:SCALE, checked against the model; None if there are none."""
    return plan_fusion(source, [parse_lora(text) for text in texts]) if texts else None
