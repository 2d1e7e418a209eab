"""The prompts to label, read from a CSV and checked."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from costroute_rt.error import CostrouteError, LabelError
from costroute_rt.export.router.csv_file import opened
from costroute_rt.request import check_prompt

WRITTEN = ("candidate", "seed", "score", "cost_ms", "scorer", "fingerprint", "image_seed")
"""Columns that labelling writes; a table of prompts must not have them."""
_REMEDY = "correct the table of prompts"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRow:
    """One prompt to label."""

    prompt_id: str
    prompt: str
    extra: Mapping[str, str]
    """Further columns that are copied into the labels, such as `category`."""
    stated: Mapping[str, object] | None = None
    """Values of attributes that the prompt states; None if the table does not say."""


def read_prompts(path: str | Path) -> list[PromptRow]:
    """Prompts of a .csv or .csv.gz file with the column prompt and, optionally, prompt_id, stated (a JSON object) and others.

    The default prompt_id is the prompt; repeated rows are dropped. Raises LabelError.
    """
    path = Path(path)
    found: dict[str, PromptRow] = {}
    with opened(path, "name a CSV with a column prompt") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            _check_header(path, reader.fieldnames)
            for row in reader:
                prompt = _read_row(path, reader.line_num, row)
                if found.setdefault(prompt.prompt_id, prompt) != prompt:
                    raise LabelError(path, f"line {reader.line_num}: prompt_id {prompt.prompt_id!r} stands for two prompts", _REMEDY)
        except csv.Error as error:
            raise LabelError(path, f"line {reader.line_num}: it is not CSV: {error}", _REMEDY) from error
    if not found:
        raise LabelError(path, "it has no prompts", _REMEDY)
    return list(found.values())


def _check_header(path: Path, names: object) -> None:
    header = list(names) if isinstance(names, list) else []
    if "prompt" not in header:
        raise LabelError(path, f"it has no column prompt, only {', '.join(header) or 'an empty line'}", _REMEDY)
    if len(set(header)) < len(header):
        raise LabelError(path, f"two columns have the same name: {', '.join(header)}", _REMEDY)
    reserved = [name for name in header if name in WRITTEN or name.startswith("score_")]
    if reserved:
        raise LabelError(path, f"it has the column {', '.join(reserved)}, which labelling writes", "give that column another name")


def _read_row(path: Path, line: int, row: dict[str, str | None]) -> PromptRow:
    if None in row or None in row.values():
        raise LabelError(path, f"line {line}: it has more or fewer fields than the header", _REMEDY)
    cells = {name: text or "" for name, text in row.items()}
    text, stated = cells.pop("prompt"), cells.pop("stated", "").strip()
    try:
        check_prompt(text)
        values = json.loads(stated) if stated else None
    except CostrouteError as error:
        raise LabelError(path, f"line {line}: {error}", _REMEDY) from error
    except ValueError as error:
        raise LabelError(path, f"line {line}: stated is not JSON: {error}", _REMEDY) from error
    if values is not None and not isinstance(values, dict):
        raise LabelError(path, f"line {line}: stated is {stated[:60]}, which is not a JSON object", _REMEDY)
    return PromptRow(prompt_id=cells.pop("prompt_id", "") or text, prompt=text, extra=cells, stated=values)
