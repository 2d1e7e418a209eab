"""Label tables: each candidate's score for each prompt and seed, read from a CSV and checked."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from costroute_rt.engines.bundle.digest import sha256_file
from costroute_rt.error import LabelError, Reason
from costroute_rt.export.router.cells import Cells, make_cells
from costroute_rt.export.router.csv_file import MARK, opened, suggest
from costroute_rt.export.router.label_row import REMEDY, LabelRows
from costroute_rt.export.router.rater_level import remove_levels
from costroute_rt.export.router.score_mix import Scale, Scores, measure_scales, mix_scores, score_weights, show_scores

__all__ = ["Cells", "Label", "LabelTable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One row of a label table."""

    prompt_id: str
    prompt: str
    candidate: str
    seed: int
    score: float
    cost_ms: float | None
    extra: Mapping[str, str]
    """All other columns, as text: categories, scores of further scorers."""


class LabelTable:
    """A checked table in columns; made by `LabelTable.open`. Rows without a score are left out."""

    def __init__(
        self, path: Path, sha256: str, weights: Mapping[str, float], scales: Mapping[str, Scale], category: str | None, rows: LabelRows
    ) -> None:
        self.path, self.sha256, self.category = path, sha256, category
        self.scores = show_scores(weights)
        """The columns of scores, with their weights if there are several."""
        self.scales = scales
        """How each score was standardised; empty for a single score, which keeps its units."""
        self.raters = len(rows.raters)
        self.partly = tuple(rows.partly)
        """Lines that are left out because they lack some of the scores."""
        self.prompt_ids, self.prompts, self.candidates = tuple(rows.prompts.ids), tuple(rows.prompts.texts), tuple(rows.candidates)
        self._categories = rows.prompts.categories
        self._prompt = np.array(rows.prompt, dtype=np.int64)
        self._candidate = np.array(rows.candidate, dtype=np.int64)
        self._seed = np.array(rows.seed, dtype=np.int64)
        values = np.array(rows.score, dtype=np.float64)
        self._score = mix_scores(values, weights, scales) if scales else values[:, 0]
        self._rater = np.array(rows.rater, dtype=np.int64)
        self.has_levels = bool(self.raters > 1 and np.bincount(self._rater + 1)[1:].max() > 1)
        """Whether raters' own levels are removed from the scores; only if one of two raters or more rated twice."""
        if self.has_levels:
            self._score = remove_levels(self._score, self._prompt, self._candidate, self._rater)
        self._cost_ms = np.array(rows.cost_ms, dtype=np.float64)
        self._extra = rows.extra

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        score: Scores = "score",
        category: str | None = None,
        rater: str | None = None,
        scales: Mapping[str, Scale] | None = None,
    ) -> LabelTable:
        """Reads a .csv or .csv.gz file with the columns prompt, candidate, `score` and, if they are given, `category` and `rater`.

        score: a column, or the weights of several: the label is the weighted mean of their standardised scores, and rows that lack one are
        left out. scales: how scores are standardised, such as those of another table; by default by their own mean and spread.
        rater: the column with the rater of each label; by default `rater`, if the table has it. Levels of raters are removed.

        Optional columns: prompt_id (default: the prompt), seed (default: 0) and cost_ms. An empty score is a missing label. Raises
        LabelError for a file that is missing or empty, or has no such columns or no label at all, and for damaged rows, scores that are not
        finite or too large, a prompt_id with two texts or categories, repeated labels, and for a score of several that never differs
        between candidates; ConfigError for weights that cannot be used.
        """
        path, weights = Path(path), score_weights(score)
        rows = LabelRows(path, weights, category, rater)
        with opened(path, "label some prompts first", Reason.LABELS) as lines:
            rows.read(lines)
        used, scales = {name: weight for name, weight in weights.items() if weight}, dict(scales or {})
        if len(used) < 2:
            scales = {}
        elif set(scales) != set(used):
            values, prompt = np.array(rows.score, dtype=np.float64), np.array(rows.prompt, dtype=np.int64)
            scales = measure_scales(path, tuple(used), values, prompt)
        table = cls(path, sha256_file(path), used, scales, category, rows)
        table._check_repeats(rows)
        return table

    def __len__(self) -> int:
        return len(self._score)

    @property
    def labels(self) -> tuple[Label, ...]:
        """All rows, in the order of the file; built on every access."""
        return tuple(
            Label(
                prompt_id=self.prompt_ids[self._prompt[row]],
                prompt=self.prompts[self._prompt[row]],
                candidate=self.candidates[self._candidate[row]],
                seed=int(self._seed[row]),
                score=float(self._score[row]),
                cost_ms=None if math.isnan(self._cost_ms[row]) else float(self._cost_ms[row]),
                extra={name: column[row] for name, column in self._extra.items()},
            )
            for row in range(len(self))
        )

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds, in ascending order."""
        return tuple(int(seed) for seed in np.unique(self._seed))

    @property
    def fingerprints(self) -> dict[str, frozenset[str]]:
        """Fingerprints in each candidate's labels; empty if they have none."""
        found: dict[str, set[str]] = {name: set() for name in self.candidates}
        for candidate, mark in set(zip(self._candidate.tolist(), self._extra.get(MARK, ()), strict=False)):
            if mark:
                found[self.candidates[candidate]].add(mark)
        return {name: frozenset(marks) for name, marks in found.items()}

    def cells(self, candidates: Sequence[str] | None = None, *, seeds: Collection[int] | None = None) -> Cells:
        """The table as prompts x candidates, over the given seeds; prompts without a label among them are left out.

        candidates: which, in order; by default all, as they first appear. Raises LabelError for one without labels, and if nothing is left.
        """
        names = self.candidates if candidates is None else tuple(candidates)
        unknown = [name for name in names if name not in self.candidates]
        if unknown:
            problem = f"it has no labels of {', '.join(unknown)}, only of {', '.join(self.candidates)}{suggest(unknown, self.candidates)}"
            raise LabelError(self.path, problem, "label these candidates", reason=Reason.LABELS)
        place = np.full(len(self.candidates), -1, dtype=np.int64)
        place[[self.candidates.index(name) for name in names]] = np.arange(len(names))
        keep = place[self._candidate] >= 0
        if seeds is not None:
            keep &= np.isin(self._seed, np.array(sorted(seeds), dtype=np.int64))
        if not keep.any():
            raise LabelError(self.path, f"it has no labels of {', '.join(names)} with these seeds", REMEDY)
        used, prompt = np.unique(self._prompt[keep], return_inverse=True)
        return make_cells(
            prompt_ids=tuple(self.prompt_ids[index] for index in used),
            prompts=tuple(self.prompts[index] for index in used),
            categories=None if self.category is None else tuple(self._categories[index] for index in used),
            candidates=names,
            prompt=np.ravel(prompt).astype(np.int64),
            candidate=place[self._candidate[keep]],
            score=self._score[keep],
            cost_ms=self._cost_ms[keep],
            image=self._seed[keep] if self.raters else None,
        )

    def _check_repeats(self, rows: LabelRows) -> None:
        order = np.lexsort((self._rater, self._seed, self._candidate, self._prompt))  # stable: the earlier of two equal rows comes first
        columns = [column[order] for column in (self._prompt, self._candidate, self._seed, self._rater)]
        repeated = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
        if repeated.any():
            first, second = order[int(np.argmax(repeated))], order[int(np.argmax(repeated)) + 1]
            what = f"{self.candidates[self._candidate[first]]}, seed {self._seed[first]}, {self.prompt_ids[self._prompt[first]]!r}"
            what += f", rater {list(rows.raters)[self._rater[first]]!r}" if self._rater[first] >= 0 else ""
            problem = f"lines {rows.line[first]} and {rows.line[second]} have the same label ({what})"
            raise LabelError(
                self.path,
                f"{problem}; {int(repeated.sum())} such rows in all",
                "keep one of them, or give each image a seed and each rating a rater",
            )
