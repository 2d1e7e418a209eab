"""Opens a model in whatever form it has: a diffusers folder or a single file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.source.diffusers_folder import MODEL_INDEX, open_folder
from costroute_rt.export.checkpoint.source.network import Source
from costroute_rt.export.checkpoint.source.prediction import check_prediction, with_prediction
from costroute_rt.export.checkpoint.source.single_file.opening import open_single_file
from costroute_rt.export.checkpoint.source.weights import is_pickle, read_weights
from costroute_rt.export.checkpoint.weight_file import check_content

_FORMS = "give a folder as diffusers' save_pretrained writes it, or a single .safetensors file of a whole model"
_NO_WEIGHTS = "use the original checkpoint, in safetensors"
_HEADS = {
    b"GGUF": ("it is a GGUF, whose weights are quantised", "use the same model in float16, bfloat16 or float32, in safetensors"),
    b"\x08": ("it is an ONNX graph", _NO_WEIGHTS),
}
_SUFFIXES = {
    ".dduf": ("it is a DDUF archive", "unpack it, and give the folder"),
    **dict.fromkeys(
        (".zip", ".7z", ".rar", ".tar", ".gz"), ("it is an archive", "unpack it, and give the folder or the .safetensors in it")
    ),
    ".json": ("it is a JSON file", "give the folder that it is in"),
    ".onnx": ("it is an ONNX graph", _NO_WEIGHTS),
    ".xml": ("it is a graph of OpenVINO", _NO_WEIGHTS),
}
"""What a file is by its first bytes or its name, and what to use instead."""
_EXPORTS = {"unet/model.onnx": "ONNX Runtime", "unet/openvino_model.xml": "OpenVINO", "transformer/openvino_model.xml": "OpenVINO"}
"""Files that tell a folder that was exported already, and for which library."""


def open_source(path: Path, *, allow_pickle: bool = False, prediction_type: str | None = None, variant: str | None = None) -> Source:
    """The model at `path`, identified and checked without loading weights and without torch.

    path: a folder as diffusers saves it, or a single file with the whole model, as A1111 and ComfyUI read it.
    allow_pickle: also reads single files in torch's format (.ckpt); no code in them runs in either case.
    prediction_type: epsilon or v_prediction, where the files do not tell or are wrong.
    variant: of a folder's weight files, such as `fp16`; it is taken where it exists.
    Raises BundleError for what cannot be exported, with what to use instead, and ConfigError for a wrong argument.
    """
    check_prediction(prediction_type)
    try:
        return _open(path, allow_pickle, prediction_type, variant)
    except OSError as error:
        raise BundleError(path, f"it cannot be read: {error.strerror or error}", "check the path and its permissions") from error


def _open(path: Path, allow_pickle: bool, prediction_type: str | None, variant: str | None) -> Source:
    if os.path.isdir(path):
        _check_folder(path)
        found = open_folder(path, variant=variant)
        return replace(found, scheduler=with_prediction(found.scheduler, prediction_type))
    if not os.path.exists(path):
        raise BundleError(path, "it does not exist", _FORMS)
    check_file(path, allow_pickle=allow_pickle)
    return open_single_file(path, read_weights(path), prediction_type=prediction_type)


def check_file(path: Path, *, allow_pickle: bool) -> None:
    """Raises BundleError for a file that is neither in safetensors nor in torch's format, and for the latter if it is not allowed."""
    head = check_content(path)
    found = _SUFFIXES.get(path.suffix.lower()) or next((kind for start, kind in _HEADS.items() if head.startswith(start)), None)
    if found is not None and head[8:9] != b"{":
        raise BundleError(path, *found)
    if is_pickle(head) and not allow_pickle:
        problem = "it is a pickle of torch, a format that can hold code"
        raise BundleError(path, problem, "use a .safetensors file of the same model, or allow pickles: no code of theirs will run")


def _check_folder(path: Path) -> None:
    """Raises BundleError for a folder that is no diffusers pipeline with weights."""
    for name, library in _EXPORTS.items():
        if (path / name).exists():
            raise BundleError(path, f"it is a model that was exported for {library} already", "use the original checkpoint")
    if (path / MODEL_INDEX).exists():
        return
    files = sorted(file.name for file in path.iterdir() if file.suffix == ".safetensors")
    if (path / "manifest.json").exists():
        raise BundleError(path, "it has no model_index.json, but a manifest.json: it may be a bundle already", _FORMS)
    if (path / "snapshots").is_dir():
        raise BundleError(path, "it is a model's folder in a hub cache", "give one of the folders in its `snapshots`")
    if (path.parent / MODEL_INDEX).exists():
        raise BundleError(path, "it is one part of a diffusers folder", f"give the whole folder: {path.parent}")
    if files:
        raise BundleError(path, f"it has no {MODEL_INDEX}, but {len(files)} .safetensors", f"give the file, such as {path / files[0]}")
    raise BundleError(path, f"it has no {MODEL_INDEX} and no .safetensors", _FORMS)
