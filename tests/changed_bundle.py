"""Copies of bundles with another manifest or other graphs, to test what the format allows and refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx

from costroute_rt.engines.bundle.bundle import Bundle, seal_bundle

Change = Callable[[dict[str, Any], Path], object]
"""Changes the manifest, and maybe the files in the bundle's folder."""


def change_bundle(source: Path, target: Path, change: Change) -> Bundle:
    """Copy a bundle to `target`, change it, and open it."""
    shutil.copytree(source, target)
    manifest = json.loads((target / "manifest.json").read_text())
    for key in ("format", "format_version", "files"):
        del manifest[key]
    change(manifest, target)
    return seal_bundle(target, manifest)


def rename_tensors(manifest: dict[str, Any], root: Path, path: str, names: Mapping[str, str]) -> None:
    """Rename inputs and outputs of a graph, in its file and in the manifest."""
    model = onnx.load(root / path, load_external_data=False)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    (root / path).write_bytes(model.SerializeToString())
    for side in ("inputs", "outputs"):
        manifest["graphs"][path][side] = {names.get(name, name): spec for name, spec in manifest["graphs"][path][side].items()}
