"""F11: a finite score too large for float32 failed after minutes; numbers a router cannot hold are refused when the table is read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from costroute_rt.error import LabelError
from costroute_rt.export.router.csv_file import LARGEST_NUMBER
from costroute_rt.export.router.estimates import Estimates
from costroute_rt.export.router.evaluate import evaluate
from costroute_rt.export.router.fit import fit_router
from costroute_rt.export.router.label_file import open_label_file
from costroute_rt.export.router.labels import LabelTable
from costroute_rt.export.router.prompts import PromptRow
from costroute_rt.export.router.scorers import score_image
from costroute_rt.export.router.transformer import save_router
from costroute_rt.routing.prompt_encoder import HashedEncoder
from tests.export.router.fakes import FakeScorer
from tests.export.router.label_text import write_labels

NAMES = ("a", "b", "c", "d")
TOO_LARGE = ("1e39", "-1e39", "1e13", "3.5e38", "1.7e308", "1" + "0" * 40)
NOT_FINITE = ("inf", "-Infinity", "nan", "1e999", "-1e400", "9" * 5000)
NO_NUMBERS = ("0,5", "1.2.3", "0x10", "--1", "ten", "1e")


def table_with(cell: str, column: str) -> str:
    """A table whose fourth line has this cell."""
    cells = {"score": "0.5", "cost_ms": "10"} | {column: f'"{cell}"'}
    row = f"x,b,{cells['score']},{cells['cost_ms']}"
    return f"prompt,candidate,score,cost_ms\nx,a,0.5,10\n\n{row}\n"


@pytest.mark.parametrize("column", ["score", "cost_ms"])
@pytest.mark.parametrize("cell", [*TOO_LARGE, *NOT_FINITE, *NO_NUMBERS])
def test_f11_a_number_that_cannot_be_used_is_refused_with_its_line(tmp_path: Path, cell: str, column: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(table_with(cell, column))
    with pytest.raises(LabelError, match=rf"line 4: {column} is .*(not finite|not a number|largest number)") as caught:
        LabelTable.open(path)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("cell", ["1e39", "nan", "1e999"])
def test_f11_a_table_that_labelling_would_continue_is_refused_too(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(table_with(cell, "score"))
    with pytest.raises(LabelError, match="line 4: score is"), open_label_file(path):
        pass


@pytest.mark.parametrize("value", [1e39, -1e13, float("inf"), float("nan")])
def test_f11_a_scorer_with_such_a_score_is_named(tmp_path: Path, value: float) -> None:
    scorer = FakeScorer()
    scorer.score = lambda pixels, prompt: value  # type: ignore[method-assign]
    prompt = PromptRow(prompt_id="p", prompt="x", extra={})
    with pytest.raises(LabelError, match=f"scorer {scorer.name} returned"):
        score_image(scorer, np.zeros((4, 4, 3), np.uint8), prompt, table=tmp_path, made_by="a, seed 0")


def fit_and_evaluate(folder: Path, change: Callable[[dict[str, str]], None]) -> str:
    """Fits a router to a changed table, saves it and evaluates it; NumPy's warnings are errors. Returns what it routes on."""
    rows = list(csv.DictReader(io.StringIO(write_labels(NAMES, count=24))))
    for row in rows:
        change(row)
    path = folder / "labels.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    cells = LabelTable.open(path).cells()
    fields = {"denoiser": "d", "scheduler": "s", "num_inference_steps": 1, "guidance_scale": 1.0, "decoder": "v"}
    pool = [{"name": name, **fields} for name in NAMES]
    router = fit_router(cells, HashedEncoder(), None, pool=pool, labels={"file": "labels.csv", "sha256": "0", "score": "score"})
    (folder / "router").mkdir()
    save_router(router, folder / "router")
    mean, error, trust = router.estimate(cells.prompts, None)
    assert np.isfinite(mean).all()
    assert np.isfinite(error).all()
    found = evaluate(cells, Estimates(mean=mean, standard_error=error, trust=trust, average=router.average.mean), resamples=20)
    json.dumps(found.to_json(), allow_nan=False)
    return router.routes_on


def scaled(column: str, factor: float) -> Callable[[dict[str, str]], None]:
    def change(row: dict[str, str]) -> None:
        row[column] = repr(float(row[column]) * factor)

    return change


def constant(column: str, value: str) -> Callable[[dict[str, str]], None]:
    def change(row: dict[str, str]) -> None:
        row[column] = value

    return change


def mixed(row: dict[str, str]) -> None:
    """The largest number, the smallest and 0 in one table."""
    row["score"] = {"a": repr(LARGEST_NUMBER), "b": repr(-LARGEST_NUMBER), "c": "1e-320"}.get(row["candidate"], "0")


USABLE: dict[str, tuple[Callable[[dict[str, str]], None], str]] = {
    "near the limit": (scaled("score", 1e12), "prompt"),
    "tiny": (scaled("score", 1e-200), "prompt"),
    "all equal": (constant("score", "0.5"), "average"),
    "all zero": (constant("score", "0"), "average"),
    "all at the limit": (constant("score", repr(LARGEST_NUMBER)), "average"),
    "mixed": (mixed, "average"),
    "costs all zero": (constant("cost_ms", "0"), "prompt"),
    "costs all equal": (constant("cost_ms", "10"), "prompt"),
    "costs near the limit": (scaled("cost_ms", 1e10), "prompt"),
    "costs tiny": (scaled("cost_ms", 1e-300), "prompt"),
}


@pytest.mark.parametrize(("change", "routes_on"), USABLE.values(), ids=USABLE)
def test_f11_every_table_that_is_read_can_be_fitted_and_evaluated(
    tmp_path: Path, change: Callable[[dict[str, str]], None], routes_on: str
) -> None:
    assert fit_and_evaluate(tmp_path, change) == routes_on
