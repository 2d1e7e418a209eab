"""The report's section on choices that averages would not have made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from costroute_rt.export.router.page import escape, table

ABOUT = (
    "Prompts that get another candidate than averages choose at the same trade-off between quality and time, where the "
    "router is surest. Examples are chosen by the router's estimates, not by their labels."
)
_LONGEST_PROMPT = 240


def write(rows: Sequence[Mapping[str, Any]]) -> str:
    """HTML: a table of all candidates, and the examples of each; rows: as `against_trend` returns them."""
    chosen = [row for row in rows if row["prompts"]]
    if not chosen:
        return "<p>In this evaluation, every prompt gets the candidate that averages choose.</p>"
    header = ["", "prompts", "labels of both", "mean gain in quality", "mean ms more", "came true"]
    body = [
        [
            row["name"],
            str(row["prompts"]),
            str(row["labelled"]),
            _signed(row["quality"], 3),
            _signed(row["cost_ms"], 0),
            "–" if row["came_true"] is None else f"{100 * row['came_true']:.0f} %",
        ]
        for row in rows
    ]
    note = "Came true: by the labels, too, the candidate is worth more than that of averages at this trade-off. Ties count as not."
    return table(header, body) + f'<p class="quiet note">{escape(note)}</p>' + "".join(map(_examples, chosen))


def _examples(row: Mapping[str, Any]) -> str:
    boxes = "".join(map(_example, row["examples"]))
    return f'<h3 class="name">{escape(row["name"])}</h3><div class="against">{boxes}</div>'


def _example(example: Mapping[str, Any]) -> str:
    """The prompt, its two candidates, and the multiplier of `route --lambda` at which they differ."""
    return f'<div>{escape(_short(example["prompt"]))}{_pair(example)}<small class="quiet">λ {example["lambda"]:.3g}</small></div>'


def _pair(example: Mapping[str, Any]) -> str:
    rows = [
        [f"{title}\n{side['name']}", _plain(side["label"], 3), _plain(side["estimate"], 3), _plain(side["cost_ms"], 0)]
        for title, side in (("router", example["chosen"]), ("averages", example["average"]))
    ]
    return table(["", "label", "estimate", "ms"], rows)


def _short(prompt: str) -> str:
    return prompt if len(prompt) <= _LONGEST_PROMPT else f"{prompt[: _LONGEST_PROMPT - 3]}..."


def _plain(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:.{decimals}f}"


def _signed(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{round(value, decimals) + 0.0:+.{decimals}f}"
