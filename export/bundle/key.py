"""What an export depends on, as one digest: equal keys give equal bundles, so that nothing is made twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from costroute_rt.error import BackendError, BundleError
from costroute_rt.export.bundle.weights import by_file
from costroute_rt.export.checkpoint.source.network import Network, Source
from costroute_rt.regular_file import open_regular, read_regular

_VERSION = 1
"""Raised when this program writes other bundles from the same source."""
_LIBRARIES = ("diffusers", "onnx", "tokenizers", "torch", "transformers")
_HEAD_BYTES = 1 << 20
"""Of each weight file: the header of a safetensors file, or most of it."""
_MOST_TEXT_BYTES = 64 << 20


def library_versions() -> dict[str, str]:
    """Versions of the libraries that export; raises BackendError if one is missing."""
    try:
        return {name: version(name) for name in _LIBRARIES}
    except PackageNotFoundError as error:
        raise BackendError("an export", f"no {error.name}", "install the export extra", ["costroute-rt[export]"]) from error


def export_key(source: Source, settings: Mapping[str, Any], made_with: Mapping[str, str]) -> str:
    """SHA-256 of everything that decides what the bundle holds, without reading the weights: a file that has its size, its time of change
    and its first megabyte is taken to be unchanged.

    settings: options, as JSON. Raises BundleError for files that cannot be read.
    """
    try:
        content = {
            "version": _VERSION,
            "costroute_rt": version("costroute-rt"),
            "made_with": dict(made_with),
            "settings": dict(settings),
            "name": source.name,
            "family": source.family,
            "pipeline": source.pipeline,
            "scheduler": dict(source.scheduler),
            "zeros": source.force_zeros_for_empty_prompt,
            "license": source.license,
            "networks": {name: _network(network) for name, network in sorted(source.networks.items())},
            "tokenizers": {name: _folder(folder) for name, folder in sorted(source.tokenizers.items())},
            "notices": {path.name: _text(path) for path in source.licenses},
        }
    except OSError as error:
        raise BundleError(error.filename or source.path, f"it cannot be read: {error.strerror or error}", "check the file") from error
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _network(network: Network) -> dict[str, Any]:
    files = [_head(file) for file in by_file(network)]
    number = {file: index for index, file in enumerate(by_file(network))}
    weights = {
        name: [number[region.file], region.offset, region.length, region.dtype, list(region.shape), region.is_transposed]
        for name, region in network.weights.items()
    }
    return {"class": network.class_name, "config": dict(network.config), "files": files, "weights": weights}


def _head(path: Path) -> list[Any]:
    state = path.stat()
    with open_regular(path) as file:
        return [state.st_size, state.st_mtime_ns, hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()]


def _folder(folder: Path) -> dict[str, str]:
    return {path.name: _text(path) for path in sorted(folder.iterdir()) if path.is_file()}


def _text(path: Path) -> str:
    return hashlib.sha256(read_regular(path, _MOST_TEXT_BYTES)).hexdigest()
