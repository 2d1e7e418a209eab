"""What was given instead of a bundle, so that the error can say what to do: checkpoints, archives, a folder too high or too low."""

from __future__ import annotations

import os
import re
from itertools import islice
from pathlib import Path

from costroute_rt.engines.bundle.manifest import MANIFEST, MANIFEST_SHA256
from costroute_rt.error import BundleError, Reason

_EXPORT = "a bundle is needed: export the checkpoint to one first"
_PIPELINE = "model_index.json"
"""The file that makes a folder a diffusers checkpoint."""
_CHECKPOINT_SUFFIXES = {".bin", ".ckpt", ".gguf", ".msgpack", ".onnx", ".pt", ".pth", ".safetensors", ".sft"}
_ARCHIVE_SUFFIXES = {".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".whl", ".xz", ".zip", ".zst"}
_HUB_NAME = re.compile(r"(?:https?://huggingface\.co/|hf://|huggingface\.co/)?[\w-][\w.-]*/[\w-][\w.-]*/?(?:@\w+|/tree/[\w.-]+)?")
POOL_JSON = "pool.json"
"""The file that makes a folder a pool."""
_MOST_ENTRIES = 1000
"""Of a folder that are looked at."""


def mistaken_path(path: Path) -> BundleError | None:
    """The error for a path that holds no bundle; None if it may hold one, however damaged."""
    if os.path.isfile(path / MANIFEST):
        return _check_encoding(path)
    if os.path.isdir(path):
        return _mistaken_folder(path)
    return _mistaken_file(path) if os.path.exists(path) else _missing(path)


def _check_encoding(path: Path) -> BundleError | None:
    try:
        os.path.abspath(path).encode()
    except UnicodeEncodeError:
        problem = "its path holds bytes that are not UTF-8, which libraries that read models cannot open"
        return BundleError(path, problem, "rename the folder, or set a locale that fits its name", reason=Reason.NOT_A_BUNDLE)
    return None


def _mistaken_folder(path: Path) -> BundleError | None:
    try:
        with os.scandir(path) as found:
            entries = list(islice(found, _MOST_ENTRIES))
    except OSError:
        return None
    names = {entry.name for entry in entries}
    if MANIFEST_SHA256 in names:
        return None
    folders = [path / entry.name for entry in entries if entry.is_dir()]
    bundles = [folder for folder in folders if os.path.isfile(folder / MANIFEST)]
    if len(bundles) == 1:
        return _not_a_bundle(path, f"it is not a bundle, but the folder {bundles[0].name} in it is", f"name that folder: {bundles[0]}")
    if bundles:
        return _not_a_bundle(path, f"it is not a bundle, but holds {len(bundles)} of them", "name one of these folders")
    if os.path.isfile(path.parent / MANIFEST):
        return _not_a_bundle(path, "it is a part of a bundle", f"name the whole bundle: {path.parent}")
    if POOL_JSON in names:
        return _not_a_bundle(path, "it is a pool of bundles, not a bundle", "open it as a pool")
    if _PIPELINE in names:
        return _checkpoint(path, "it is a diffusers checkpoint, not a bundle", _EXPORT)
    if any(os.path.isfile(folder / _PIPELINE) or folder.name.startswith(("models--", "snapshots")) for folder in folders):
        return _checkpoint(path, "it holds checkpoints, but it is not a bundle", _EXPORT)
    if "vae" in names or any(Path(name).suffix.lower() in _CHECKPOINT_SUFFIXES for name in names):
        return _checkpoint(path, f"it looks like a checkpoint: it has no {MANIFEST}, as bundles do", _EXPORT)
    if not names:
        return _not_a_bundle(path, "the folder is empty", "name the folder of a bundle")
    return _not_a_bundle(path, f"it is not a bundle: it has no {MANIFEST}", "check the path")


def _mistaken_file(path: Path) -> BundleError:
    suffix = path.suffix.lower()
    if path.name == MANIFEST or os.path.isfile(path.parent / MANIFEST):
        return _not_a_bundle(path, "it is a file of a bundle", f"name its folder: {path.parent}")
    if path.name == _PIPELINE:
        return _checkpoint(path, "it is a file of a diffusers checkpoint, not a bundle", _EXPORT)
    if suffix in _CHECKPOINT_SUFFIXES:
        return _checkpoint(path, "it is a single file, not a bundle", _EXPORT)
    if suffix in _ARCHIVE_SUFFIXES:
        return _not_a_bundle(path, "it is an archive, not a bundle", "unpack it and name the folder")
    return _not_a_bundle(path, "it is a file, but a bundle is a folder", "name the folder of a bundle")


def _missing(path: Path) -> BundleError:
    text, problem = re.sub(r"^(https?|hf):/(?!/)", r"\1://", str(path)), "no bundle directory exists here"
    if text.startswith("~"):
        return BundleError(
            path, problem, f"if ~ stands for your home directory, write {os.path.expanduser(text)}", reason=Reason.NOT_A_BUNDLE
        )
    if _HUB_NAME.fullmatch(text) and not os.path.isdir(path.parent):
        remedy = "check the path; a model of this name on a hub has to be exported to a bundle first"
        return _checkpoint(text, problem, remedy)
    return BundleError(path, problem, "check the path, or get the bundle again")


def _not_a_bundle(path: Path, problem: str, remedy: str) -> BundleError:
    return BundleError(path, problem, remedy, reason=Reason.NOT_A_BUNDLE)


def _checkpoint(path: Path | str, problem: str, remedy: str) -> BundleError:
    return BundleError(path, problem, remedy, reason=Reason.CHECKPOINT)
