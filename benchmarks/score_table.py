"""Public tables of human scores, read as users' labels are read, and changes made to them."""

from __future__ import annotations

import csv
import gzip
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from costroute_rt.export.router.cells import Cells
from costroute_rt.export.router.labels import LabelTable

DATA = Path("../shared/data")
Rows = Iterator[dict[str, str]]
Change = Callable[[Cells], Cells]
RAISED = 0.25
MISSING = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTable:
    """A public table of human scores."""

    about: str
    files: tuple[str, ...]
    rows: Callable[[Path], Rows]
    """Reads the rows of a label table from the data folder."""


@contextmanager
def label_table(rows: Rows) -> Iterator[LabelTable]:
    """Writes the rows to a temporary file and opens it as a label table, as users' labels are opened."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ("prompt_id", "prompt", "category", "candidate", "seed", "score"))
            writer.writeheader()
            writer.writerows(rows)
        yield LabelTable.open(path, category="category")


def read_geckonum(folder: Path) -> Rows:
    """One row per image; the texts of the prompts come from the table of means."""
    prompts = {row["prompt_id"]: row for row in read_table(folder / "scores_geckonum.csv.gz")}
    for row in read_table(folder / "scores_geckonum_per_image.csv.gz"):
        if row["prompt_id"] in prompts:
            yield _label(prompts[row["prompt_id"]], "prompt_type", row["model"], row["score"], row["seed"])


def read_agiqa3k(folder: Path, columns: Sequence[str]) -> Rows:
    """One row per image, scored by the sum of these columns."""
    for row in read_table(folder / "scores_agiqa3k.csv"):
        yield _label(row, "style", row["model"], str(sum(float(row[name]) for name in columns)))


def read_tifa160(folder: Path) -> Rows:
    """One row per image, scored by the raters' mean; the category is the first part of the prompt's id."""
    for row in read_table(folder / "scores_tifa160.csv"):
        yield _label({**row, "kind": row["prompt_id"].split("_")[0]}, "kind", row["model"], row["score"])


def _label(row: Mapping[str, str], category: str, candidate: str, score: str, seed: str = "0") -> dict[str, str]:
    texts = {"prompt_id": row["prompt_id"], "prompt": row["prompt"], "category": row[category]}
    return {**texts, "candidate": candidate, "seed": seed, "score": score}


def read_table(path: Path) -> Rows:
    """Rows of a CSV file, gzipped or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def raise_best(cells: Cells) -> Cells:
    """RAISED added to every score of the best candidate, so that it is nearly always the best."""
    mean = cells.mean.copy()
    mean[:, int(np.nanmean(mean, axis=0).argmax())] += RAISED
    return replace(cells, mean=mean)


def hide_cells(cells: Cells, share: float = MISSING, seed: int = 0) -> Cells:
    """The cells without a share of them, chosen at random."""
    hidden = np.random.default_rng(seed).random(cells.mean.shape) < share
    mean, variance = (np.where(hidden, np.nan, each) for each in (cells.mean, cells.variance))
    return replace(cells, mean=mean, variance=variance, count=np.where(hidden, 0, cells.count))


def shuffle_prompts(cells: Cells, seed: int = 3) -> Cells:
    """Every prompt with the labels of another one: nothing can be learned from the text."""
    rows = np.random.default_rng(seed).permutation(len(cells))
    return replace(cells, mean=cells.mean[rows], variance=cells.variance[rows], count=cells.count[rows])


def rescale(cells: Cells, factor: float = 100.0, shift: float = 37.0) -> Cells:
    """The scores in another unit, with another zero."""
    return replace(cells, mean=factor * cells.mean + shift, variance=factor**2 * cells.variance if cells.has_noise else cells.variance)


TABLES = {
    "geckonum": ScoreTable(
        about="people's scores, 0 to 1, five seeds, five raters each",
        files=("scores_geckonum.csv.gz", "scores_geckonum_per_image.csv.gz"),
        rows=read_geckonum,
    ),
    "agiqa3k align": ScoreTable(
        about="mos_align, 0 to 4.5, one seed", files=("scores_agiqa3k.csv",), rows=partial(read_agiqa3k, columns=("mos_align",))
    ),
    "agiqa3k align + quality": ScoreTable(
        about="mos_align + mos_quality, 0 to 9, one seed",
        files=("scores_agiqa3k.csv",),
        rows=partial(read_agiqa3k, columns=("mos_align", "mos_quality")),
    ),
    "tifa160": ScoreTable(about="people's scores, 1 to 5, one seed", files=("scores_tifa160.csv",), rows=read_tifa160),
}
