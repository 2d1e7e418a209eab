"""Changes to the manifest of a copy of a bundle, whose hash is right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.security.hostile_graph import copy_bundle, seal


def set_to(value: Any, *keys: str | int) -> Callable[[Any], None]:
    def edit(manifest: Any) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = value

    return edit


def change(source: Path, tmp_path: Path, edit: Callable[[Any], object]) -> Path:
    root = copy_bundle(source, tmp_path)
    manifest = json.loads((root / "manifest.json").read_text())
    edit(manifest)
    (root / "manifest.json").write_text(json.dumps(manifest))
    seal(root)
    return root
