"""All labels of a pool: a table of scores, a table of pairwise votes, or both, as one set of cells."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from costroute_rt.error import ConfigError, LabelError, Reason
from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.csv_file import suggest
from costroute_rt.export.router.labels import LabelTable
from costroute_rt.export.router.score_mix import Scale, Scores
from costroute_rt.export.router.vote_cell import join_votes
from costroute_rt.export.router.vote_table import VoteTable


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Scores, votes or both; made by `LabelSet.open`."""

    table: LabelTable | None
    votes: VoteTable | None

    @classmethod
    def open(
        cls,
        labels: str | Path | None,
        votes: str | Path | None = None,
        *,
        score: Scores = "score",
        category: str | None = None,
        rater: str | None = None,
        scales: Mapping[str, Scale] | None = None,
    ) -> LabelSet:
        """Reads the tables (see `LabelTable.open` and `VoteTable.open`, also for errors); raises ConfigError if there is neither."""
        if labels is None and votes is None:
            raise ConfigError("labels", None, "a table of labels, of votes, or both")
        return cls(
            None if labels is None else LabelTable.open(labels, score=score, category=category, rater=rater, scales=scales),
            None if votes is None else VoteTable.open(votes, category=category, needs_category=labels is None),
        )

    @property
    def path(self) -> Path:
        """The file that messages name: the table of scores, or of votes if there is none."""
        return self._tables[0].path

    @property
    def sha256(self) -> str:
        """Of that file."""
        return self._tables[0].sha256

    @property
    def prompts(self) -> tuple[str, ...]:
        """Texts of that file."""
        return self._tables[0].prompts

    @property
    def candidates(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for each in self._tables for name in each.candidates))

    @property
    def fingerprints(self) -> dict[str, frozenset[str]]:
        """Fingerprints in each candidate's scores."""
        return {} if self.table is None else self.table.fingerprints

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the scores; none if there are votes, which belong to no seed."""
        return self.table.seeds if self.table is not None and self.votes is None else ()

    @property
    def _tables(self) -> tuple[LabelTable | VoteTable, ...]:
        return tuple(each for each in (self.table, self.votes) if each is not None)

    def to_json(self) -> dict[str, Any]:
        """The origin of the labels, plain data for a router's record."""
        found: dict[str, Any] = {"file": self.path.name, "sha256": self.sha256}
        if self.table is not None:
            found["score"] = self.table.scores
            if self.table.scales:
                found["scales"] = {name: [scale.center, scale.spread] for name, scale in self.table.scales.items()}
            if self.table.raters:
                found["raters"] = self.table.raters
        if self.votes is not None:
            found["votes"] = {"file": self.votes.path.name, "sha256": self.votes.sha256, "votes": len(self.votes)}
        return found

    def notes(self) -> Iterator[str]:
        """What a user should know about how the tables were read."""
        if self.table is not None and self.table.partly:
            count, first = len(self.table.partly), self.table.partly[0]
            yield f"{count} rows that lack some of the scores are left out (the first is line {first})"
        if self.table is not None and self.table.raters and not self.table.has_levels:
            yield "no rater rated twice, so that raters' own levels cannot be removed"

    def cells(self, candidates: Sequence[str] | None = None, *, seeds: Collection[int] | None = None) -> Cells:
        """The labels as prompts x candidates; scores over the given seeds.

        candidates: which, in order; by default all. Votes between others are left out. Votes alone give logits, with scores they are in
        units of the scores. Raises LabelError for a candidate without labels, for votes that do not connect all candidates where there are
        no scores, and for votes that contradict the scores.
        """
        names = self.candidates if candidates is None else tuple(candidates)
        if self.votes is None and self.table is not None:
            return self.table.cells(names, seeds=seeds)
        absent = [name for name in names if name not in self.candidates]
        if absent:
            problem = f"it has no labels or votes of {', '.join(absent)}, only of {', '.join(self.candidates)}"
            raise LabelError(self.path, f"{problem}{suggest(absent, self.candidates)}", "label these candidates", reason=Reason.LABELS)
        scored = [] if self.table is None else [name for name in names if name in self.table.candidates]
        scores = None if self.table is None or not scored else self.table.cells(scored, seeds=seeds)
        return join_votes(scores, cast(VoteTable, self.votes), names)
