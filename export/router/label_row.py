"""The rows of a label table while it is read and checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NoReturn

from costroute_rt.error import LabelError, Reason
from costroute_rt.export.router.csv_file import MARK, CsvTable, read_number, shorten, show_names
from costroute_rt.export.router.prompt_index import PromptIndex

RATER = "rater"
"""The column with the rater of each label, if the table has it."""
KNOWN = ("prompt_id", "prompt", "candidate", "seed", "score", "cost_ms", RATER)
MOST_CANDIDATES = 1000
REMEDY = "correct the table or label again"


class LabelRows:
    """The columns of a table while it is read; repeated texts are kept once."""

    def __init__(self, path: Path, scores: Mapping[str, float], category: str | None, rater: str | None) -> None:
        """scores: weights of the columns. rater: column of the raters; by default RATER, if the table has that column."""
        self._path, self._category_column, self._rater_column = path, category, rater
        self._all_scores, self._scores = tuple(scores), tuple(name for name, weight in scores.items() if weight)
        self.prompts = PromptIndex(category)
        self.candidates: dict[str, int] = {}
        self.line: list[int] = []
        self.prompt: list[int] = []
        self.candidate: list[int] = []
        self.seed: list[int] = []
        self.score: list[tuple[float, ...]] = []
        """Values of the columns whose weight is not 0."""
        self.rater: list[int] = []
        """Number of the label's rater; -1 if the field is empty or there is no column."""
        self.raters: dict[str, int] = {}
        self.partly: list[int] = []
        """Lines that are left out because they lack some of the scores."""
        self.cost_ms: list[float] = []
        self.extra: dict[str, list[str]] = {}
        self._numbers: dict[str, int] = {}
        self._shared: dict[str, str] = {}

    def read(self, lines: Iterator[str]) -> None:
        """Reads header and rows; raises LabelError."""
        needed = ["prompt", "candidate", *self._all_scores]
        needed += [name for name in (self._category_column, self._rater_column) if name is not None]
        table = CsvTable.open(self._path, lines, known={*KNOWN, MARK, *needed}, needed=needed, remedy=REMEDY)
        self._rater_column = self._rater_column or (RATER if RATER in table.columns else None)
        self.extra = {name: [] for name in table.columns if name not in (*KNOWN, *self._scores, self._rater_column)}
        for line, row in table.rows():
            self._add(line, row, table.columns)
        if not self.score:
            where = f"column {self._scores[0]}" if len(self._scores) == 1 else f"all of the columns {show_names(self._scores)}"
            remedy = "fit to fewer columns" if self.partly else "label some prompts first"
            raise LabelError(self._path, f"it has no labels: no row has a value in {where}", remedy, reason=Reason.LABELS)

    def _add(self, line: int, row: list[str], columns: Mapping[str, int]) -> None:
        texts = [row[columns[name]].strip() for name in self._scores]
        if not all(texts):
            if any(texts):
                self.partly.append(line)
            return
        self.score.append(tuple(self._number(line, name, text) for name, text in zip(self._scores, texts, strict=True)))
        self.line.append(line)
        self.prompt.append(self.prompts.find(row, columns, partial(self._fail, line)))
        candidate = row[columns["candidate"]].strip()
        if not candidate:
            self._fail(line, "the candidate is empty")
        self.candidate.append(self.candidates.setdefault(candidate, len(self.candidates)))
        if len(self.candidates) > MOST_CANDIDATES:
            self._fail(line, f"it has more than {MOST_CANDIDATES} candidates; does the column candidate hold their names?")
        self.seed.append(self._seed(line, row[columns["seed"]]) if "seed" in columns else 0)
        rater = "" if self._rater_column is None else row[columns[self._rater_column]].strip()
        self.rater.append(self.raters.setdefault(rater, len(self.raters)) if rater else -1)
        cost = row[columns["cost_ms"]].strip() if "cost_ms" in columns else ""
        self.cost_ms.append(self._number(line, "cost_ms", cost) if cost else math.nan)
        if self.cost_ms[-1] < 0:
            self._fail(line, f"cost_ms is {cost}, below zero")
        for name, column in self.extra.items():
            text = row[columns[name]]
            column.append(self._shared.setdefault(text, text) if len(self._shared) < 100_000 else text)

    def _number(self, line: int, name: str, text: str) -> float:
        return read_number(text, name, partial(self._fail, line))

    def _seed(self, line: int, text: str) -> int:
        known = self._numbers.get(text)
        if known is not None:
            return known
        try:
            value = int(text)
        except ValueError:
            self._fail(line, f"seed is {shorten(text)}, which is not a whole number")
        if not 0 <= value < 2**63:
            self._fail(line, f"seed is {shorten(text)[1:-1]}, which is not from 0 to {2**63 - 1}")
        if len(self._numbers) < 100_000:
            self._numbers[text] = value
        return value

    def _fail(self, line: int, problem: str) -> NoReturn:
        raise LabelError(self._path, f"line {line}: {problem}", REMEDY)
