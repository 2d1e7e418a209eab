"""Reads a textual inversion: A1111's form, diffusers', and the one of SDXL with vectors for both text encoders."""

from __future__ import annotations

import re
from pathlib import Path

from costroute_rt.engines.bundle.safetensors_file import StoredTensor
from costroute_rt.engines.bundle.section import shorten
from costroute_rt.error import BundleError, ConfigError
from costroute_rt.export.checkpoint.embedding.embedding import Embedding, count_vectors
from costroute_rt.export.checkpoint.lora.layout import read_key
from costroute_rt.export.checkpoint.tensor.file import check_numbers, read_tensors

_FIRST, _SECOND = "text_encoder", "text_encoder_2"
_UNNAMED = {"emb_params", "*", "string_to_param", "string_to_param.*"}
"""Names of tensors that tell no word: it is the name of the file."""
_PAIR = {"clip_l": _FIRST, "clip_g": _SECOND}
_NAME = re.compile(r"[^\x00-\x1f\x7f()\[\]\\|]{2,64}")
"""Words without the brackets and bars that mean something in prompts."""


def read_embedding(path: Path, name: str | None = None) -> Embedding:
    """The textual inversion in a safetensors file; raises BundleError for anything else.

    name: what stands for it in prompts. None means the word that the file tells (diffusers), else the file's name without extension.
    """
    path = Path(path)
    tensors = read_tensors(path, "textual inversion")
    if tensors.keys() == _PAIR.keys():
        vectors, told = {encoder: tensors[key] for key, encoder in _PAIR.items()}, None
    elif len(tensors) == 1:
        ((key, tensor),) = tensors.items()
        vectors, told = {_FIRST: tensor}, None if key in _UNNAMED else key
    elif any(map(read_key, tensors)):
        raise BundleError(path, "it is a LoRA", "add it as one")
    else:
        problem = f"it is no textual inversion: it holds {len(tensors)} tensors, such as {', '.join(map(shorten, sorted(tensors)[:3]))}"
        raise BundleError(path, problem, "give one that holds emb_params, its word alone, or clip_l and clip_g")
    _check_shapes(path, vectors)
    word = name or told or path.stem
    if not _NAME.fullmatch(word) or word != word.strip():
        if name is not None:
            raise ConfigError("the word of a textual inversion", name, "2 to 64 characters without brackets, backslashes and bars")
        problem = f"its word {shorten(word)} cannot stand in a prompt: expected 2 to 64 characters without brackets, backslashes and bars"
        raise BundleError(path, problem, "rename the file, or give it another word")
    return Embedding(path=path, sha256=check_numbers(path, tensors), name=word, vectors=vectors)


def _check_shapes(path: Path, vectors: dict[str, StoredTensor]) -> None:
    shapes = [tensor.shape for tensor in vectors.values()]
    are_rows = all(len(shape) in (1, 2) and 0 not in shape for shape in shapes)
    if not are_rows or len(set(map(count_vectors, vectors.values()))) != 1:
        problem = f"its vectors have the shapes {', '.join(map(str, shapes))}: expected (vectors, width), of as many vectors each"
        raise BundleError(path, problem, "use another version of it")
