"""Decoders of choice beside a model: another VAE, and a small decoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from costroute_rt.export.checkpoint.source.network import Source
from costroute_rt.export.checkpoint.source.separate_vae import open_vae
from costroute_rt.export.checkpoint.source.tiny_decoder import TINY, open_tiny_decoder


def with_decoders(source: Source, *, vae: Path | None = None, tiny: Path | None = None, allow_pickle: bool = False) -> Source:
    """The model with another VAE in the place of its own, and with a small decoder as its network `tiny`, where they are given.

    allow_pickle: also reads files in torch's format; no code in them runs in either case.
    Raises BundleError for what is not one, and for decoders of other latents than the model's.
    """
    networks = dict(source.networks)
    if vae is not None:
        networks["vae"] = open_vae(vae, source, allow_pickle=allow_pickle)
    if tiny is not None:
        networks[TINY] = open_tiny_decoder(tiny, source, allow_pickle=allow_pickle)
    return replace(source, networks=networks)
