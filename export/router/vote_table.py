"""Pairwise preferences: which of two candidates people chose for a prompt, read from a CSV and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np

from costroute_rt.engines.bundle.digest import sha256_file
from costroute_rt.error import LabelError, Reason
from costroute_rt.export.router.bradley_terry import Votes
from costroute_rt.export.router.csv_file import CsvTable, opened, shorten
from costroute_rt.export.router.prompt_index import PromptIndex

FIRST, SECOND = "candidate_a", "candidate_b"
_OTHER_NAMES = {FIRST: "model_a", SECOND: "model_b"}
"""Names of these columns in public sets."""
_WORDS = {
    **dict.fromkeys(("a", "candidate_a", "model_a", "left"), 1.0),
    **dict.fromkeys(("b", "candidate_b", "model_b", "right"), 0.0),
    **dict.fromkeys(("tie", "both", "bothbad", "tie (bothbad)", "neither"), 0.5),
}
"""What `winner` may be beside the name of a candidate."""
_REMEDY = "correct the table: each row needs prompt, candidate_a, candidate_b and winner (one of the two names, a, b or tie)"


class VoteTable:
    """Checked votes in columns; made by `VoteTable.open`. Rows without a winner are left out."""

    def __init__(self, path: Path, sha256: str, category: str | None, rows: _Rows) -> None:
        self.path, self.sha256, self.category = path, sha256, category
        self.prompt_ids, self.prompts, self.candidates = tuple(rows.prompts.ids), tuple(rows.prompts.texts), tuple(rows.candidates)
        self.categories = tuple(rows.prompts.categories)
        self.prompt = np.array(rows.prompt, dtype=np.int64)
        """int64[votes]: position in `prompts`; `first` and `second` are positions in `candidates`."""
        self.first = np.array(rows.first, dtype=np.int64)
        self.second = np.array(rows.second, dtype=np.int64)
        self.result = np.array(rows.result, dtype=np.float64)
        """float64[votes]: 1 where the first candidate won, 0 where the second did, 0.5 for a tie."""

    @classmethod
    def open(cls, path: str | Path, *, category: str | None = None, needs_category: bool = False) -> VoteTable:
        """Reads a .csv or .csv.gz file with the columns prompt, candidate_a, candidate_b (or model_a, model_b) and winner.

        A winner is the name of one of the two candidates, or a, b or tie; an empty one is no vote. Optional columns: prompt_id (default:
        the prompt) and `category`, which must exist if `needs_category`. The same vote may appear several times: people agree. Raises
        LabelError for a file that is missing or empty, or has no such columns or no vote, for a winner that is neither candidate, a vote
        of a candidate against itself, a prompt_id with two texts, and if all votes are ties.
        """
        path, rows = Path(path), _Rows(Path(path), category)
        with opened(path, "collect some votes first", Reason.LABELS) as lines:
            rows.read(lines, [category] if category is not None and needs_category else [])
        table = cls(path, sha256_file(path), category, rows)
        if (table.result == 0.5).all():
            remedy = "collect votes with a winner"
            raise LabelError(path, "all of its votes are ties, which tell no candidates apart", remedy, reason=Reason.LABELS)
        return table

    def __len__(self) -> int:
        return len(self.result)

    def between(self, names: Sequence[str]) -> Votes:
        """The votes between two of these candidates, by their positions in `names`; prompts by their positions in the table."""
        place = np.full(len(self.candidates), -1, dtype=np.int64)
        for number, name in enumerate(self.candidates):
            place[number] = names.index(name) if name in names else -1
        first, second = place[self.first], place[self.second]
        keep = (first >= 0) & (second >= 0)
        return Votes(prompt=self.prompt[keep], first=first[keep], second=second[keep], result=self.result[keep])


class _Rows:
    """The columns of a table while it is read."""

    def __init__(self, path: Path, category: str | None) -> None:
        self._path = path
        self.prompts = PromptIndex(category)
        self.candidates: dict[str, int] = {}
        self.prompt: list[int] = []
        self.first: list[int] = []
        self.second: list[int] = []
        self.result: list[float] = []

    def read(self, lines: Iterator[str], needed: list[str]) -> None:
        """Reads header and rows; raises LabelError."""
        known = {"prompt_id", "prompt", "winner", *_OTHER_NAMES, *_OTHER_NAMES.values(), *needed}
        table = CsvTable.open(self._path, lines, known=known, needed=["prompt", *needed], remedy=_REMEDY)
        columns = dict(table.columns)
        for name, other in _OTHER_NAMES.items():
            if name not in columns and other in columns:
                columns[name] = columns[other]
        missing = [name for name in (FIRST, SECOND, "winner") if name not in columns]
        if missing:
            what = "it looks like a table of scores: give it as labels" if {"candidate", "score"} <= set(columns) else _REMEDY
            raise LabelError(self._path, f"it has no column {', '.join(missing)}", what)
        for line, row in table.rows():
            self._add(line, row, columns)
        if not self.result:
            raise LabelError(self._path, "it has no votes: no row has a winner", "collect some votes first", reason=Reason.LABELS)

    def _add(self, line: int, row: list[str], columns: Mapping[str, int]) -> None:
        winner = row[columns["winner"]].strip()
        if not winner:
            return
        first, second = (row[columns[name]].strip() for name in (FIRST, SECOND))
        if not first or not second:
            self._fail(line, "a candidate is empty")
        if first == second:
            self._fail(line, f"it is a vote of {shorten(first)} against itself")
        if winner in (first, second):
            result: float | None = float(winner == first)
        else:
            result = _WORDS.get(winner.casefold())
        if result is None:
            self._fail(line, f"winner is {shorten(winner)}, which is neither {shorten(first)} nor {shorten(second)}")
        self.prompt.append(self.prompts.find(row, columns, partial(self._fail, line)))
        self.first.append(self.candidates.setdefault(first, len(self.candidates)))
        self.second.append(self.candidates.setdefault(second, len(self.candidates)))
        self.result.append(result)

    def _fail(self, line: int, problem: str) -> NoReturn:
        raise LabelError(self._path, f"line {line}: {problem}", _REMEDY)
