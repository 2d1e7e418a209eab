"""The rows of a label table while it is read and checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NoReturn

from costroute_rt.error import LabelError, Reason
from costroute_rt.export.router.csv_file import MARK, CsvTable, read_number, shorten

KNOWN = ("prompt_id", "prompt", "candidate", "seed", "score", "cost_ms")
MOST_CANDIDATES = 1000
REMEDY = "correct the table or label again"


class LabelRows:
    """The columns of a table while it is read; repeated texts are kept once."""

    def __init__(self, path: Path, score: str, category: str | None) -> None:
        self._path, self._score_column, self._category_column = path, score, category
        self.ids: dict[str, int] = {}
        self.texts: list[str] = []
        self.categories: list[str] = []
        self.candidates: dict[str, int] = {}
        self.line: list[int] = []
        self.prompt: list[int] = []
        self.candidate: list[int] = []
        self.seed: list[int] = []
        self.score: list[float] = []
        self.cost_ms: list[float] = []
        self.extra: dict[str, list[str]] = {}
        self._numbers: dict[str, int] = {}
        self._shared: dict[str, str] = {}

    def read(self, lines: Iterator[str]) -> None:
        """Reads header and rows; raises LabelError."""
        needed = ["prompt", "candidate", self._score_column]
        if self._category_column is not None:
            needed.append(self._category_column)
        table = CsvTable.open(self._path, lines, known={*KNOWN, MARK, *needed}, needed=needed, remedy=REMEDY)
        self.extra = {name: [] for name in table.columns if name not in (*KNOWN, self._score_column)}
        for line, row in table.rows():
            self._add(line, row, table.columns)
        if not self.score:
            problem = f"it has no labels: no row has a value in column {self._score_column}"
            raise LabelError(self._path, problem, "label some prompts first", reason=Reason.LABELS)

    def _add(self, line: int, row: list[str], columns: Mapping[str, int]) -> None:
        score = row[columns[self._score_column]].strip()
        if not score:
            return
        self.score.append(self._number(line, self._score_column, score))
        self.line.append(line)
        self.prompt.append(self._prompt(line, row, columns))
        candidate = row[columns["candidate"]].strip()
        if not candidate:
            self._fail(line, "the candidate is empty")
        self.candidate.append(self.candidates.setdefault(candidate, len(self.candidates)))
        if len(self.candidates) > MOST_CANDIDATES:
            self._fail(line, f"it has more than {MOST_CANDIDATES} candidates; does the column candidate hold their names?")
        self.seed.append(self._seed(line, row[columns["seed"]]) if "seed" in columns else 0)
        cost = row[columns["cost_ms"]].strip() if "cost_ms" in columns else ""
        self.cost_ms.append(self._number(line, "cost_ms", cost) if cost else math.nan)
        if self.cost_ms[-1] < 0:
            self._fail(line, f"cost_ms is {cost}, below zero")
        for name, column in self.extra.items():
            text = row[columns[name]]
            column.append(self._shared.setdefault(text, text) if len(self._shared) < 100_000 else text)

    def _prompt(self, line: int, row: list[str], columns: Mapping[str, int]) -> int:
        text = row[columns["prompt"]]
        if not text.strip():
            self._fail(line, "the prompt is empty")
        key = row[columns["prompt_id"]] if "prompt_id" in columns else text
        category = "" if self._category_column is None else row[columns[self._category_column]]
        index = self.ids.setdefault(key or text, len(self.ids))
        if index == len(self.texts):
            self.texts.append(text)
            self.categories.append(self._shared.setdefault(category, category))
        elif self.texts[index] != text:
            self._fail(line, f"prompt_id {key!r} has two texts: {shorten(self.texts[index])} and {shorten(text)}")
        elif self.categories[index] != category:
            self._fail(line, f"prompt {key!r} is in two categories: {shorten(self.categories[index])} and {shorten(category)}")
        return index

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
