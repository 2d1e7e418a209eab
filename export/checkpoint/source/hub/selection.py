"""Which files of a repository an export needs: those of the networks, tokenizers and the scheduler, in one format and precision."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

INDEX = "model_index.json"
_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "LatentConsistencyModelPipeline")
_DIFFUSERS = {"safetensors": "diffusion_pytorch_model", "bin": "diffusion_pytorch_model"}
_TRANSFORMERS = {"safetensors": "model", "bin": "pytorch_model"}
_NETWORKS = {"unet": _DIFFUSERS, "vae": _DIFFUSERS, "text_encoder": _TRANSFORMERS, "text_encoder_2": _TRANSFORMERS}
"""Names of the weight files of each network, without variant and extension, by extension."""
_TOKENIZERS = ("tokenizer", "tokenizer_2")
_WORDS = ("vocab.json", "merges.txt")
_TOKENIZER_FILES = (*_WORDS, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_NOTICE = re.compile(r"(LICEN[CS]E|NOTICE|README)[\w.-]*", re.ASCII | re.IGNORECASE)
_VARIANTS = ("fp32", "fp16", "bf16")
"""Variants that hold the plain weights in another precision, best first; others (`non_ema`) come after them."""
Config = Mapping[str, Any]


class SelectionError(Exception):
    """The files of a repository do not make a model: what is wrong, and what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem, self.remedy = problem, remedy
        super().__init__(f"{problem}; {remedy}")


class UnsupportedError(SelectionError):
    """The repository is of a kind that cannot be exported, complete or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The files to have, by name inside the repository."""

    first: tuple[str, ...]
    """Small ones: settings, vocabularies, indexes of weights, licences."""
    weights: tuple[str, ...]
    """Weight files that stand alone; those that an index lists come from `shards`."""
    indexes: tuple[str, ...] = ()
    """The indexes of weights among `first`."""
    file: str | None = None
    """The model itself, if it is one file."""


def select_pipeline(names: Collection[str], index: Config, variant: str | None) -> Selection:
    """The files of the pipeline whose model_index.json is `index`; raises SelectionError for what is missing."""
    _check_pipeline(index)
    parts = [part for part, value in index.items() if isinstance(value, list) and value != [None, None]]
    networks = [part for part in _NETWORKS if part in parts]
    chosen = {part: choose_weights(names, f"{part}/", _NETWORKS[part], variant) for part in networks}
    _check_variant(names, chosen.values(), variant)
    first = [INDEX, *(f"{part}/config.json" for part in networks)]
    for part in _TOKENIZERS:
        if part in parts:
            first += _tokenizer_files(names, part)
    if "scheduler" in parts:
        first.append("scheduler/scheduler_config.json")
    missing = [name for name in first if name not in names]
    if missing:
        raise SelectionError(f"it has no {missing[0]}", "choose another repository, or download the model from its maker")
    return _make_selection([*first, *_notices(names)], chosen.values())


def select_network(names: Collection[str], variant: str | None) -> Selection | None:
    """The files of the network whose folder is the repository itself, such as a VAE; None if it is not one."""
    if "config.json" not in names:
        return None
    try:
        chosen = choose_weights(names, "", _DIFFUSERS, variant)
    except SelectionError:
        return None
    return _make_selection(["config.json", *_notices(names)], [chosen])


def select_file(names: Collection[str], file: str | None, repo_id: str) -> Selection:
    """One file that holds a whole model; raises SelectionError if it is not there, or was not named and is not the only one.

    file: its name; None for the only safetensors file outside folders.
    """
    found = sorted(name for name in names if name.endswith(".safetensors"))
    roots = [name for name in found if "/" not in name]
    if file is None and len(roots) == 1:
        file = roots[0]
    if file is not None and file in names:
        return Selection(first=tuple(_notices(names)), weights=(file,), file=file)
    listed = ", ".join(found[:6]) + (f" and {len(found) - 6} more" if len(found) > 6 else "")
    if file is not None:
        raise SelectionError(f"it has no file {file}", f"choose one of its files: {listed}" if found else "choose another repository")
    if found:
        raise SelectionError(f"it has no {INDEX}, and the safetensors files {listed}", f"name one of them: {repo_id}/{(roots or found)[0]}")
    raise SelectionError(
        f"it has neither a {INDEX} nor safetensors files", "choose a repository of a diffusers pipeline or of a single file"
    )


def choose_weights(names: Collection[str], folder: str, stems: Mapping[str, str], variant: str | None) -> str:
    """The weight file of a network, or the index of several: of `variant` if there is one, safetensors before torch's, plain before others.

    folder: what the names begin with, such as `unet/`. stems: names of the files without variant and extension, by extension.
    """
    ranks: dict[str, tuple[bool, bool, int, str]] = {}
    for extension, stem in stems.items():
        plain, tail = re.escape(folder + stem), re.escape(extension)
        form = re.compile(rf"{plain}(?:\.(?P<one>\w+))?\.{tail}|{plain}\.{tail}\.index(?:\.(?P<many>\w+))?\.json", re.ASCII)
        for name in names:
            if match := form.fullmatch(name):
                found = match["one"] or match["many"]
                ranks[name] = (variant is not None and found != variant, extension != "safetensors", *_rank(found))
    if not ranks:
        raise SelectionError(
            f"it has no weights {folder}{stems['safetensors']}.safetensors", "choose a repository with weights for diffusers"
        )
    return min(ranks, key=lambda name: (ranks[name], name))


def shards(index: str, content: Config) -> tuple[str, ...]:
    """The weight files that an index lists, by name inside the repository; raises SelectionError for one that is not beside it."""
    listed = content.get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(name, str) for name in listed.values()):
        raise SelectionError(f"its {index} has no weight_map from tensors to files", "choose another revision or repository")
    found = tuple(dict.fromkeys(listed.values()))
    for name in found:
        if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
            raise SelectionError(f"its {index} names {name!r}, which is not a file beside it", "choose another repository")
    return tuple(str(PurePosixPath(index).parent / name) for name in found)


def all_weights(selection: Selection, names: Collection[str], read: Callable[[str], Config]) -> tuple[str, ...]:
    """Every weight file, with those that indexes list; raises SelectionError for one that the repository lacks.

    read: returns the content of an index.
    """
    found = [*selection.weights, *(name for index in selection.indexes for name in shards(index, read(index)))]
    missing = [name for name in found if name not in names]
    if missing:
        raise SelectionError(f"it lacks {missing[0]}, which an index of its weights lists", "choose another revision or repository")
    return tuple(dict.fromkeys(found))


def _make_selection(first: Collection[str], chosen: Collection[str]) -> Selection:
    indexes = tuple(name for name in chosen if name.endswith(".json"))
    return Selection(first=(*first, *indexes), weights=tuple(name for name in chosen if name not in indexes), indexes=indexes)


def _check_pipeline(index: Config) -> None:
    found = index.get("_class_name")
    if found not in _PIPELINES:
        kind = found[:80] if isinstance(found, str) else "pipeline without a class"
        raise UnsupportedError(f"it is a {kind}", f"choose a repository of a {', '.join(_PIPELINES[:-1])} or {_PIPELINES[-1]}")


def _check_variant(names: Collection[str], chosen: Collection[str], variant: str | None) -> None:
    """Raises SelectionError if no network has weights of the variant that was asked for."""
    if variant is None or any(variant in re.split(r"[./]", name) for name in chosen):
        return
    found = {part for name in names if name.startswith(tuple(_NETWORKS)) for part in re.split(r"[./]", name) if part in _VARIANTS}
    remedy = f"ask for one of {', '.join(sorted(found))}, or for none" if found else "ask for none: it has only plain weights"
    raise SelectionError(f"it has no weights of the variant {variant}", remedy)


def _tokenizer_files(names: Collection[str], part: str) -> list[str]:
    found = [f"{part}/{name}" for name in _TOKENIZER_FILES if f"{part}/{name}" in names]
    has_words = f"{part}/tokenizer.json" in found or all(f"{part}/{name}" in found for name in _WORDS)
    return found if has_words else [f"{part}/{name}" for name in _WORDS]


def _notices(names: Collection[str]) -> list[str]:
    return sorted(name for name in names if _NOTICE.fullmatch(name))


def _rank(variant: str | None) -> tuple[int, str]:
    if variant is None:
        return 0, ""
    return (1 + _VARIANTS.index(variant), "") if variant in _VARIANTS else (1 + len(_VARIANTS), variant)
