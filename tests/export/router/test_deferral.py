"""Intervals of a deferral curve, uniform reductions of a pool, and shares of candidates by kind of prompt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from costroute_rt.export.router import curve, deferral
from costroute_rt.export.router.band import interval_band
from costroute_rt.export.router.cells import Cells, make_cells
from costroute_rt.export.router.complexity import shares_by_complexity
from costroute_rt.export.router.share_plot import plot_complexity
from costroute_rt.export.router.uniform import UniformReduction, find_reductions

NAMES = ("a@1", "a@4", "b@2")
COST = np.array([10.0, 40.0, 20.0])


def make(count: int = 30, categories: bool = False) -> Cells:
    """Long prompts (more words) score best with a@4, short ones with a@1; b@2 is in between."""
    prompts = tuple(f"a tree {index}" + " and snow" * (index % 3) for index in range(count))
    score = np.array([[0.9 - 0.2 * (i % 3), 0.5 + 0.2 * (i % 3), 0.6] for i in range(count)])
    prompt, candidate = (array.ravel() for array in np.indices(score.shape))
    return make_cells(
        prompt_ids=prompts,
        prompts=prompts,
        categories=tuple("xyz"[index % 3] for index in range(count)) if categories else None,
        candidates=NAMES,
        prompt=prompt,
        candidate=candidate,
        score=score.ravel(),
        cost_ms=COST[candidate],
    )


def row(like: str, **fields: Any) -> dict[str, Any]:
    denoiser, _, steps = like.partition("@")
    return {"name": like, "denoiser": denoiser, "num_inference_steps": int(steps), "guidance_scale": 7.0} | fields


def test_the_interval_holds_the_curve_and_narrows_with_more_prompts() -> None:
    widths = []
    for count in (30, 300):
        cells = make(count)
        routed = curve.route(cells.mean, cells.cost_ms)
        band = interval_band(routed, cells, resamples=200)
        found = routed.points(cells.cost_ms, cells.mean).at(band.cost)
        assert (band.low <= found + 1e-9).all()
        assert (found <= band.high + 1e-9).all()
        widths.append(float((band.high - band.low).mean()))
    assert widths[1] < 0.6 * widths[0]


@pytest.mark.parametrize("categories", [False, True])
def test_shares_of_each_kind_add_up_and_follow_the_router(categories: bool) -> None:
    cells = make(categories=categories)
    routed = curve.route(cells.mean, cells.cost_ms)
    shares = shares_by_complexity(routed, cells)
    assert list(shares) == (["x", "y", "z"] if categories else ["short", "medium", "long"])
    assert all(sum(each.values()) == pytest.approx(1) for each in shares.values())
    first, _, last = shares.values()
    assert first["a@1"] == 1.0
    assert last["a@4"] > 0


def test_reductions_are_candidates_that_differ_in_one_field() -> None:
    pool = [row("a@1"), row("a@4"), row("b@2"), row("c@8")]
    pool += [row("a@4", name="a@4-early", guidance_end=0.5), row("b@2", name="b@2-tiny", decoder="tiny")]
    cost = {"a@1": 10.0, "a@4": 40.0, "a@4-early": 30.0, "b@2": 20.0, "b@2-tiny": 15.0, "c@8": 80.0}
    assert find_reductions(pool, cost) == [
        UniformReduction("a: fewer steps", ("a@1", "a@4")),
        UniformReduction("a: guidance stopped early", ("a@4-early", "a@4")),
        UniformReduction("b: other decoders", ("b@2-tiny", "b@2")),
    ]


def test_plots_name_every_candidate_and_every_line() -> None:
    cells = make()
    routed = curve.route(cells.mean, cells.cost_ms)
    lines = [UniformReduction("a: fewer steps", ("a@1", "a@4"))]
    svg = deferral.plot_deferral(routed, interval_band(routed, cells, resamples=20), cells, lines, {})
    assert all(text in svg for text in (*NAMES, "a: fewer steps", "random mixing", "95 % interval of the router"))
    shares = shares_by_complexity(routed, cells)
    svg = plot_complexity(shares, dict(zip(NAMES, COST.tolist(), strict=True)))
    assert all(text in svg for text in ("a@1", "a@4", "short", "medium", "long"))
