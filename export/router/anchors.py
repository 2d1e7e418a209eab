"""Anchors: the few prompts of a table on which a new candidate is labelled; the others are predicted."""

from __future__ import annotations

import numpy as np

from costroute_rt.error import ConfigError, LabelError, Reason
from costroute_rt.export.router.labels import LabelTable


def choose_anchors(table: LabelTable, count: int, new: tuple[str, ...]) -> list[str]:
    """prompt_ids of `count` prompts, spread evenly from the hardest to the easiest; all of them if there are fewer.

    Prompts are ordered by the mean of the other candidates' labels, each relative to its candidate's mean. Labels of the new candidates do
    not matter, so a resumed run chooses the same prompts. Raises LabelError if no other candidate has labels.
    """
    if count < 1:
        raise ConfigError("anchors", count, "1 or more")
    others = [name for name in table.candidates if name not in new]
    if not others:
        problem = "it has no labels of other candidates to anchor to"
        raise LabelError(table.path, problem, "label all candidates without anchors", reason=Reason.LABELS)
    cells = table.cells(others)
    ease = np.nanmean(cells.mean - np.nanmean(cells.mean, axis=0), axis=1)
    order = np.lexsort((np.array(cells.prompt_ids), ease))
    count = min(count, len(order))
    middles = ((np.arange(count) + 0.5) * len(order) / count).astype(int)
    chosen = set(order[middles].tolist())
    return [prompt_id for index, prompt_id in enumerate(cells.prompt_ids) if index in chosen]
