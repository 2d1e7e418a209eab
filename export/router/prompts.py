"""The prompts to label, read from a CSV and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from costroute_rt.error import CostrouteError, LabelError
from costroute_rt.export.router.csv_file import CsvTable, opened
from costroute_rt.request import check_prompt

WRITTEN = ("candidate", "seed", "score", "cost_ms", "scorer", "fingerprint", "image_seed")
"""Columns that labelling writes; a table of prompts must not have them."""
_KNOWN = ("prompt", "prompt_id", "stated", *WRITTEN)
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
        table = CsvTable.open(path, lines, known=_KNOWN, needed=["prompt"], remedy=_REMEDY)
        reserved = [name for name in table.columns if name in WRITTEN or name.startswith("score_")]
        if reserved:
            problem = f"it has the column {', '.join(reserved)}, which labelling writes"
            raise LabelError(path, problem, "give that column another name")
        for line, row in table.rows():
            prompt = _read_row(table, line, {name: row[index] for name, index in table.columns.items()})
            if found.setdefault(prompt.prompt_id, prompt) != prompt:
                table.fail(line, f"prompt_id {prompt.prompt_id!r} stands for two prompts")
    if not found:
        raise LabelError(path, "it has no prompts", _REMEDY)
    return list(found.values())


def _read_row(table: CsvTable, line: int, cells: dict[str, str]) -> PromptRow:
    text, stated = cells.pop("prompt"), cells.pop("stated", "").strip()
    try:
        check_prompt(text)
        values = json.loads(stated) if stated else None
    except CostrouteError as error:
        table.fail(line, str(error))
    except (ValueError, RecursionError) as error:
        table.fail(line, f"stated is not JSON: {error}")
    if values is not None and not isinstance(values, dict):
        table.fail(line, f"stated is {stated[:60]}, which is not a JSON object")
    return PromptRow(prompt_id=cells.pop("prompt_id", "") or text, prompt=text, extra=cells, stated=values)
