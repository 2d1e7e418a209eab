"""Which files of a repository an export needs: those of the networks, tokenizers and the scheduler, in one format and precision."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from costroute_rt.export.checkpoint.source.diffusers_folder import DIFFUSERS, MODEL_INDEX, TRANSFORMERS
from costroute_rt.export.checkpoint.weight_file import choose_weight_file, listed_files

_NETWORKS = {"": DIFFUSERS, "unet": DIFFUSERS, "vae": DIFFUSERS, "text_encoder": TRANSFORMERS, "text_encoder_2": TRANSFORMERS}
"""Names of the weight files of each network, without variant and extension, by extension; "" is a repository of one network."""
_TOKENIZERS = ("tokenizer", "tokenizer_2")
_WORDS = ("vocab.json", "merges.txt")
_TOKENIZER_FILES = (*_WORDS, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_NOTICE = re.compile(r"(LICEN[CS]E|NOTICE|README)[\w.-]*", re.ASCII | re.IGNORECASE)
Config = Mapping[str, Any]


class SelectionError(Exception):
    """The files of a repository do not make a model: what is wrong, and what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem, self.remedy = problem, remedy
        super().__init__(f"{problem}; {remedy}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The files to have, by name inside the repository."""

    first: tuple[str, ...]
    """Small ones: settings, vocabularies, indexes of weights, licences."""
    weights: tuple[str, ...]
    """Weight files that stand alone; `all_weights` adds those that an index lists."""
    indexes: tuple[str, ...] = ()
    """The indexes of weights among `first`."""
    file: str | None = None
    """The model itself, if it is one file."""


def select_pipeline(names: Collection[str], index: Config, variant: str | None) -> Selection:
    """The files of the pipeline whose model_index.json is `index`; raises SelectionError for what is missing."""
    parts = [part for part, value in index.items() if isinstance(value, list) and value != [None, None]]
    networks = [part for part in _NETWORKS if part in parts]
    chosen = {part: _choose_weights(names, part, variant) for part in networks}
    if variant is not None and variant not in {found for _, found in chosen.values()}:
        raise SelectionError(f"it has no weights of the variant {variant}", "name a variant that it has, or none")
    first = [MODEL_INDEX, *(f"{part}/config.json" for part in networks)]
    for part in _TOKENIZERS:
        if part in parts:
            first += _tokenizer_files(names, part)
    if "scheduler" in parts:
        first.append("scheduler/scheduler_config.json")
    missing = [name for name in first if name not in names]
    if missing:
        raise SelectionError(f"it has no {missing[0]}", "choose another repository, or download the model from its maker")
    return _make_selection([*first, *_notices(names)], [name for name, _ in chosen.values()])


def select_network(names: Collection[str], variant: str | None) -> Selection | None:
    """The files of the network whose folder is the repository itself, such as a VAE; None if it is not one."""
    if "config.json" not in names:
        return None
    try:
        chosen, _ = _choose_weights(names, "", variant)
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
        raise SelectionError(
            f"it has no {MODEL_INDEX}, and the safetensors files {listed}", f"name one of them: {repo_id}/{(roots or found)[0]}"
        )
    raise SelectionError(
        f"it has neither a {MODEL_INDEX} nor safetensors files", "choose a repository of a diffusers pipeline or of a single file"
    )


def all_weights(selection: Selection, names: Collection[str], locate: Callable[[str], Path]) -> tuple[str, ...]:
    """Every weight file, with those that indexes list; raises SelectionError for one that the repository lacks.

    locate: returns the path of an index. Raises BundleError for a damaged one.
    """
    found = list(selection.weights)
    for index in selection.indexes:
        found += [str(PurePosixPath(index).with_name(path.name)) for path in listed_files(locate(index))]
    missing = [name for name in found if name not in names]
    if missing:
        raise SelectionError(f"it lacks {missing[0]}, which an index of its weights lists", "choose another revision or repository")
    return tuple(dict.fromkeys(found))


def _choose_weights(names: Collection[str], part: str, variant: str | None) -> tuple[str, str | None]:
    """The weight file of a network, or the index of several, and its variant; raises SelectionError if there is none.

    part: the network's folder; empty for the repository itself.
    """
    folder, stems = f"{part}/" if part else "", _NETWORKS[part]
    here = [name.removeprefix(folder) for name in names if name.startswith(folder) and "/" not in name.removeprefix(folder)]
    chosen = choose_weight_file(here, stems, variant)
    if chosen is None:
        raise SelectionError(
            f"it has no weights {folder}{stems['safetensors']}.safetensors", "choose a repository with weights for diffusers"
        )
    return folder + chosen.name, chosen.variant


def _make_selection(first: Collection[str], chosen: Collection[str]) -> Selection:
    indexes = tuple(name for name in chosen if name.endswith(".json"))
    return Selection(first=(*first, *indexes), weights=tuple(name for name in chosen if name not in indexes), indexes=indexes)


def _tokenizer_files(names: Collection[str], part: str) -> list[str]:
    found = [f"{part}/{name}" for name in _TOKENIZER_FILES if f"{part}/{name}" in names]
    has_words = f"{part}/tokenizer.json" in found or all(f"{part}/{name}" in found for name in _WORDS)
    return found if has_words else [f"{part}/{name}" for name in _WORDS]


def _notices(names: Collection[str]) -> list[str]:
    return sorted(name for name in names if _NOTICE.fullmatch(name))
