"""The weight files of a checkpoint's networks, found and checked without loading them.

A network has one file or an index of several, in safetensors or in torch's format, and maybe under the name of a variant (`.fp16.`).
"""

from __future__ import annotations

import json
import os
import re
import stat
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costroute_rt.engines.bundle.json_bound import check_json_size
from costroute_rt.engines.bundle.safetensors_file import read_stored_tensors
from costroute_rt.error import BundleError
from costroute_rt.regular_file import find_link_out, open_regular, read_regular

_POINTER = b"version https://git-lfs.github.com/spec/"
_MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<head")
_HEAD_BYTES = 512
_VARIANTS = ("fp32", "fp16", "bf16")
"""Variants that hold the plain weights in another precision, best first; others (`non_ema`) come after them."""
_PRECISIONS = frozenset({"F64", "F32", "F16", "BF16", "I64", "I32", "BOOL", "U8"})
_WHOLE = frozenset({"I64", "I32", "BOOL", "U8"})
_MOST_JSON_BYTES, _MOST_JSON_VALUES = 64 << 20, 3_000_000
DOWNLOAD_AGAIN = "download the checkpoint again"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFiles:
    """The files of one network that its weights are read from."""

    files: tuple[Path, ...]
    variant: str | None
    """As diffusers and transformers call it: `fp16`; None for the plain files."""
    is_safetensors: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightName:
    """The name of a weight file, or of the index of several."""

    name: str
    variant: str | None
    is_safetensors: bool


def find_weights(folder: Path, stems: Mapping[str, str]) -> WeightFiles:
    """As `find_weight_files`; raises BundleError also for a file that is incomplete, a pointer of Git LFS or something else."""
    found = find_weight_files(folder, stems)
    for file in found.files:
        check_weights(file)
    return found


def find_weight_files(folder: Path, stems: Mapping[str, str], variant: str | None = None) -> WeightFiles:
    """The weight files in a network's folder, as `choose_weight_file` chooses.

    Raises BundleError for a folder without weights, and for a damaged index.
    """
    chosen = choose_weight_file([path.name for path in folder.iterdir()], stems, variant)
    if chosen is None:
        problem = f"it has no weights, such as {stems['safetensors']}.safetensors or {stems['safetensors']}.fp16.safetensors"
        raise BundleError(folder, problem, "download the whole checkpoint, with its large files")
    path = folder / chosen.name
    files = listed_files(path) if path.suffix == ".json" else (path,)
    return WeightFiles(files=files, variant=chosen.variant, is_safetensors=chosen.is_safetensors)


def choose_weight_file(names: Iterable[str], stems: Mapping[str, str], variant: str | None = None) -> WeightName | None:
    """The weight file of a network among the files of its folder, or the index of several; None if there is none.

    Safetensors go before torch's files, and plain ones before variants.

    stems: names of the files without variant and extension, by extension: `safetensors` and `bin`.
    variant: is taken before all others where it exists.
    """
    found: list[tuple[tuple[object, ...], WeightName]] = []
    known = tuple(names)
    for extension in ("safetensors", "bin"):
        stem, tail = re.escape(stems[extension]), re.escape(extension)
        form = re.compile(rf"{stem}(?:\.(?P<one>\w+))?\.{tail}|{stem}\.{tail}\.index(?:\.(?P<many>\w+))?\.json")
        for match in filter(None, map(form.fullmatch, known)):
            each = WeightName(name=match[0], variant=match["one"] or match["many"], is_safetensors=extension == "safetensors")
            is_other = variant is not None and each.variant != variant
            found.append(((is_other, not each.is_safetensors, _rank(each.variant), each.name), each))
    return min(found, key=lambda entry: entry[0])[1] if found else None


def check_weights(path: Path) -> None:
    """Raises BundleError for a weight file that is missing, incomplete, quantised or something else than weights."""
    head = check_content(path)
    if path.suffix == ".bin":
        if not (zipfile.is_zipfile(path) if head.startswith(b"PK") else head.startswith(b"\x80")):
            raise BundleError(path, "it is incomplete, or it does not hold torch weights", DOWNLOAD_AGAIN)
        return
    try:
        tensors = read_stored_tensors(path)
    except BundleError as error:
        raise BundleError(path, f"it is incomplete or damaged: {error.problem.removeprefix('it is ')}", DOWNLOAD_AGAIN) from error
    kinds = {tensor.dtype for tensor in tensors.values()}
    other = sorted(kinds - _PRECISIONS) or (["U8"] if "U8" in kinds and kinds <= _WHOLE else [])
    if other:
        raise BundleError(path, f"its weights are quantised ({', '.join(other)})", "use the checkpoint in float16, bfloat16 or float32")


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a checkpoint; raises BundleError that names what the file is instead."""
    check_content(path)
    try:
        data = read_regular(path, _MOST_JSON_BYTES)
        check_json_size(data, _MOST_JSON_VALUES)
        value = json.loads(data.decode("utf-8"))
    except OSError as error:
        raise BundleError(path, f"it cannot be read: {error.strerror or error}", DOWNLOAD_AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise BundleError(path, f"it is not valid JSON: {error}", DOWNLOAD_AGAIN) from error
    if not isinstance(value, dict):
        raise BundleError(path, "it does not hold a JSON object", DOWNLOAD_AGAIN)
    return value


def check_content(path: Path) -> bytes:
    """The first bytes of a file; raises BundleError if it cannot be read, is empty, a pointer of Git LFS, or a web page."""
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError as error:
        raise BundleError(path, "it is missing", "download the whole checkpoint") from error
    except OSError as error:
        raise BundleError(path, f"it cannot be read: {error.strerror or error}", "check the path and its permissions") from error
    if not head:
        raise BundleError(path, "it is empty", DOWNLOAD_AGAIN)
    if head.startswith(_POINTER):
        raise BundleError(path, "it is a pointer of Git LFS, not the file itself", "run `git lfs pull` in the checkpoint's folder")
    if head.lstrip().lower().startswith(_MARKUP):
        raise BundleError(path, "it is a web page, such as an error message of the site it was downloaded from", DOWNLOAD_AGAIN)
    return head


def check_place(path: Path, root: Path) -> None:
    """Raises BundleError for a link out of the checkpoint in `root`, and for anything but a regular file or a folder.

    What a link leads to would be copied into the bundle, and published with it.
    """
    try:
        target, mode = find_link_out(path, root), path.stat().st_mode
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise BundleError(path, f"it cannot be read: {getattr(error, 'strerror', None) or error}", DOWNLOAD_AGAIN) from error
    if target is not None:
        raise BundleError(path, f"it is a link out of the checkpoint, to {target}", "replace the link with the file itself")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise BundleError(path, "it is not a regular file", DOWNLOAD_AGAIN)


def check_places(folder: Path, root: Path) -> None:
    """As `check_place`, for a folder of the checkpoint and everything in it."""
    check_place(folder, root)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            check_place(Path(parent, name), root)


def _rank(variant: str | None) -> tuple[int, str]:
    if variant is None:
        return 0, ""
    return (1 + _VARIANTS.index(variant), "") if variant in _VARIANTS else (1 + len(_VARIANTS), variant)


def listed_files(index: Path) -> tuple[Path, ...]:
    """The weight files that an index names; raises BundleError for one that is not beside it."""
    names = read_config(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise BundleError(index, "it has no weight_map from tensors to files", DOWNLOAD_AGAIN)
    files = tuple(index.parent / name for name in dict.fromkeys(names.values()))
    for file in files:
        if file.parent != index.parent or file.name in ("", ".."):
            raise BundleError(index, f"it names {file.name or file}, which is not a file beside it", DOWNLOAD_AGAIN)
    return files
