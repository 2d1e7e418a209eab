"""The values of the options that say which labels a command reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from costroute_rt.engines.backends.setup import Setup
    from costroute_rt.export.router.job import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelChoice:
    """Which tables, and which of their columns: --labels, --votes, --score, --rater, --category."""

    file: str | None
    votes: str | None
    scores: tuple[str, ...]
    """Columns, each perhaps with =WEIGHT; empty means the column `score`."""
    rater: str | None
    category: str | None

    def source(self, setup: Setup) -> Source:
        """The tables for a job; raises UsageError for options that do not fit together."""
        from costroute_rt.export.router.job import Source

        context = click.get_current_context()
        if self.file is None and self.votes is None:
            raise click.UsageError("give --labels FILE, --votes FILE, or both", context)
        if self.file is None and (self.scores or self.rater):
            raise click.UsageError("--score and --rater name columns of --labels FILE, which is not given", context)
        score = read_weights(self.scores) if self.scores else "score"
        return Source(labels=self.file, votes=self.votes, score=score, category=self.category, rater=self.rater, setup=setup)


def read_weights(texts: tuple[str, ...]) -> dict[str, float]:
    """The weight of each column, 1 where there is none; raises UsageError for a column that is named twice.

    What follows the last = is a weight if it is a number, and part of the name otherwise.
    """
    weights: dict[str, float] = {}
    for text in texts:
        name, sign, last = text.rpartition("=")
        try:
            weight = float(last) if sign else 1.0
        except ValueError:
            name, sign, weight = text, "", 1.0
        column = (name if sign else text).strip()
        if not column or column in weights:
            problem = f"--score names {column} twice" if column else f"--score {text} names no column"
            raise click.UsageError(problem, click.get_current_context())
        weights[column] = weight
    return weights
