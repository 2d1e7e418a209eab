"""What to call a model: by its folder, its file, or its repository on the hub."""

from __future__ import annotations

import re
from pathlib import Path

MODEL_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
"""What the names of single files end with."""
_SNAPSHOT = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)", re.ASCII)


def repository_of(path: Path) -> str | None:
    """The repository whose snapshot in the hub's cache is, or contains, `path`; None if it is elsewhere."""
    for folder in (path, *path.parents):
        if folder.parent.name == "snapshots" and (match := _SNAPSHOT.fullmatch(folder.parent.parent.name)):
            return f"{match['owner']}/{match['name']}"
    return None


def name_of_model(path: Path) -> str:
    """What to call the model in a folder or file: its name, or for a snapshot in the hub's cache the repository's."""
    repo_id = repository_of(path) if path.parent.name == "snapshots" else None
    if repo_id is not None:
        return repo_id.rpartition("/")[2]
    return path.stem if path.suffix in MODEL_FILES else path.name
