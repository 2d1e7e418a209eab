"""Votes as cells, alone or joined with cells of scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from costroute_rt.error import LabelError, Reason
from costroute_rt.export.router.bradley_terry import Votes, connected, fit_slope, strengths, vote_cells
from costroute_rt.export.router.cells import Cells, group_texts
from costroute_rt.export.router.csv_file import shorten
from costroute_rt.export.router.vote_table import VoteTable
from costroute_rt.routing.array import FloatArray, IntArray

_RELIABLE = 0.5
"""Share of a score's difference between candidates that is taken for real where the noise of scores is unknown."""


def join_votes(scores: Cells | None, table: VoteTable, names: Sequence[str]) -> Cells:
    """Cells of votes between these candidates, joined with cells of scores of some of them.

    Cells of votes alone are in logits. With scores they are in units of the scores, and a cell with both is their mean, each weighted by
    the inverse of its variance. Raises LabelError for candidates without a vote or score, or that no vote connects where there are no
    scores, and for votes that contradict the scores.
    """
    votes = table.between(names)
    voted = np.bincount(np.concatenate([votes.first, votes.second]), minlength=len(names)) > 0
    absent = [
        name for name, has_votes in zip(names, voted, strict=True) if not has_votes and (scores is None or name not in scores.candidates)
    ]
    if absent:
        problem = f"no vote compares {', '.join(absent)} with another of these candidates"
        raise LabelError(table.path, problem, "collect some of such votes", reason=Reason.LABELS)
    if scores is None:
        return _alone(table, votes, names)
    wide, votes = _widen(scores, table, votes, names)
    return _add(wide, votes, table)


def _alone(table: VoteTable, votes: Votes, names: Sequence[str]) -> Cells:
    group = connected(votes, len(names))
    if len(set(group.tolist())) > 1:
        apart = [name for name, number in zip(names, group, strict=True) if number != group[0]]
        problem = f"no vote compares one of {', '.join(apart)} with one of the other candidates"
        raise LabelError(table.path, problem, "collect votes between them, or give scores too", reason=Reason.LABELS)
    used, prompt = np.unique(votes.prompt, return_inverse=True)
    votes = replace(votes, prompt=prompt.ravel())
    base = np.broadcast_to(strengths(votes, len(names)), (len(used), len(names)))
    mean, variance, count = vote_cells(votes, base)
    texts = tuple(table.prompts[row] for row in used)
    return Cells(
        prompt_ids=tuple(table.prompt_ids[row] for row in used),
        prompts=texts,
        categories=None if table.category is None else tuple(table.categories[row] for row in used),
        candidates=tuple(names),
        mean=mean,
        variance=variance,
        count=count,
        cost_ms=np.zeros(len(names)),
        has_cost=False,
        has_noise=True,
        groups=group_texts(texts),
    )


def _widen(scores: Cells, table: VoteTable, votes: Votes, names: Sequence[str]) -> tuple[Cells, Votes]:
    """The cells of scores with rows and columns for all prompts and candidates of the votes, and the votes by these rows."""
    ids, texts = list(scores.prompt_ids), list(scores.prompts)
    categories = None if scores.categories is None else list(scores.categories)
    by_id = {name: row for row, name in enumerate(ids)}
    by_text = {text: row for row, text in reversed(list(enumerate(texts)))}
    rows = np.zeros(len(table.prompts), dtype=np.int64)
    for number in np.unique(votes.prompt).tolist():
        name, text = table.prompt_ids[number], table.prompts[number]
        row = by_id.get(name, by_text.get(text, -1))
        if row < 0:
            row = len(ids)
            by_id[name], by_text[text] = row, row
            ids.append(name)
            texts.append(text)
            if categories is not None:
                categories.append(table.categories[number])
        elif texts[row] != text:
            problem = f"prompt_id {name!r} is {shorten(text)}, but in the table of scores it is {shorten(texts[row])}"
            raise LabelError(table.path, problem, "give different prompts different ids, or leave the column out")
        rows[number] = row
    columns = [names.index(name) for name in scores.candidates]

    def place(values: FloatArray | IntArray, missing: float) -> FloatArray:
        wide = np.full((len(ids), len(names)), missing)
        wide[: len(scores), columns] = values
        return wide

    cost = np.zeros(len(names))
    cost[columns] = scores.cost_ms
    wide = replace(
        scores,
        prompt_ids=tuple(ids),
        prompts=tuple(texts),
        categories=None if categories is None else tuple(categories),
        candidates=tuple(names),
        mean=place(scores.mean, np.nan),
        variance=place(scores.variance, np.nan),
        count=place(scores.count, 0).astype(np.int64),
        cost_ms=cost,
        has_cost=scores.has_cost and len(columns) == len(names),
        groups=group_texts(tuple(texts)),
    )
    return wide, replace(votes, prompt=rows[votes.prompt])


def _add(scores: Cells, votes: Votes, table: VoteTable) -> Cells:
    """The cells of scores joined with those of the votes, which are put at the level of their prompt's scores."""
    known = ~np.isnan(scores.mean)
    scored, average = np.asarray(known.any(0)), _means(scores.mean)
    level = _means((scores.mean - average).T)
    apart = np.where(known, scores.mean - average - level[:, None], 0.0)
    total = max(float((apart[known] ** 2).mean()), 1e-300)
    noise = np.maximum(scores.variance, 1e-6 * total) if scores.has_noise else np.where(known, total, np.nan)
    reliable = max(0.0, 1 - float(noise[known].mean()) / total) if scores.has_noise else _RELIABLE
    slope = _logits_per_score(average + reliable * apart, votes.select(scored[votes.first] & scored[votes.second]), table)
    if not scored.all():
        strength = strengths(votes, len(average)) / slope
        average = np.where(scored, average, strength + (average - strength)[scored].mean())
    mean, variance, count = vote_cells(votes, average + level[:, None], slope)
    weights = [np.nan_to_num(1 / each) for each in (noise, variance)]
    total_weight = np.where(known | (count > 0), weights[0] + weights[1], np.nan)
    joined = (weights[0] * np.nan_to_num(scores.mean) + weights[1] * np.nan_to_num(mean)) / total_weight
    return replace(scores, mean=joined, variance=1 / total_weight, count=scores.count + count, has_noise=True)


def _logits_per_score(likely: FloatArray, votes: Votes, table: VoteTable) -> float:
    """What one unit of score is in logits; likely: float64[prompts, candidates], scores without their noise."""
    difference = likely[votes.prompt, votes.first] - likely[votes.prompt, votes.second]
    slope = fit_slope(difference, votes.result)
    if slope > 0:
        return slope
    remedy = "fit to the votes or to the scores alone"
    if not len(votes):
        raise LabelError(table.path, "none of its votes is between two candidates with scores, so they have no common unit", remedy)
    if not difference.any():
        raise LabelError(table.path, "the scores of its candidates do not differ, so they have no common unit", remedy)
    raise LabelError(table.path, f"its {len(votes)} votes contradict the scores: the higher score does not win more often", remedy)


def _means(values: FloatArray) -> FloatArray:
    """The mean of each column's known values, 0 where there are none."""
    known = np.asarray(~np.isnan(values))
    return np.asarray(np.where(known, values, 0.0).sum(0) / np.maximum(known.sum(0), 1))
