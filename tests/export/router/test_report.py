"""The HTML page of an evaluation."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from costroute_rt.error import BackendError
from costroute_rt.export.router import drawing, plot, share_plot
from costroute_rt.export.router import evaluate as ev
from costroute_rt.export.router.curve import Interval
from costroute_rt.export.router.point_labels import MOST_NAMES, label_points
from costroute_rt.export.router.report import Example, show_interval, write_page
from costroute_rt.judgement import LEVELS
from tests.export.router.test_evaluate import estimates, judge, make

PNG = b"\x89PNG\r\n\x1a\nnot much of an image"
VOID = {"meta", "img", "br", "link"}


class Checker(HTMLParser):
    """Checks that every element is closed, and collects references to other files."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.opened.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.opened == []
    return checker


@pytest.fixture(scope="module")
def page() -> str:
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib, which is missing: pip install costroute-rt[report]")
    examples = [Example(prompt='a <house> & "lake"', candidate="cheap", ms=12.0, png=PNG)]
    found = judge(make(), router_ms=0.2, predicted_ms={"dear": 44.0})
    return write_page(found, title="Router of <postcard>", reason="routes by prompt: it gains", examples=examples)


def test_the_page_is_self_contained(page: str) -> None:
    assert all(link.startswith(("#", "data:")) for link in check(page).loaded)
    assert "@import" not in page
    assert "url(http" not in page


def test_all_plots_exist_and_their_ids_differ(page: str) -> None:
    checker = check(page)
    assert page.count("<svg") == 6
    clips = [name for name in checker.ids if re.fullmatch(r"p[0-9a-f]{10}", name)]
    assert clips
    assert len(set(clips)) == len(clips)


def test_texts_are_escaped(page: str) -> None:
    assert "a &lt;house&gt; &amp; &quot;lake&quot;" in page
    assert "Router of &lt;postcard&gt;" in page
    assert "<house>" not in page


def test_the_same_evaluation_gives_the_same_page(page: str) -> None:
    examples = [Example(prompt='a <house> & "lake"', candidate="cheap", ms=12.0, png=PNG)]
    found = judge(make(), router_ms=0.2, predicted_ms={"dear": 44.0})
    assert write_page(found, title="Router of <postcard>", reason="routes by prompt: it gains", examples=examples) == page


def test_labels_without_costs_make_a_page_too() -> None:
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib, which is missing: pip install costroute-rt[report]")
    cells = make(30, costs=False)
    page = write_page(ev.evaluate(cells, estimates(cells), resamples=20), title="t", reason="r")
    check(page)
    assert "have no costs" in page
    assert "50 % of the prompts get another candidate than the best one by averages" in page


ODD: dict[str, dict[str, Any]] = {
    "equal costs": {"cost_ms": np.array([10.0, 10.0])},
    "no cost at all": {"cost_ms": np.zeros(2)},
    "costs of very different size": {"cost_ms": np.array([1e-3, 1e15])},
    "equal scores": {"mean": np.full((20, 2), 3.0)},
    "huge scores": {"mean": np.linspace(0, 1e150, 40).reshape(20, 2)},
    "a kind for each prompt": {"categories": tuple(f"kind {number}" for number in range(20))},
    "prompts of one word": {"prompts": ("x",) * 20, "categories": None},
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD.keys())
def test_odd_tables_make_a_page_too(change: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib, which is missing: pip install costroute-rt[report]")
    cells = make(20)
    found = ev.evaluate(replace(cells, **change), estimates(cells), resamples=10)
    json.dumps(found.to_json(), allow_nan=False)
    check(write_page(found, title="t", reason="r"))


def test_of_many_kinds_the_first_are_shown_and_a_router_without_intervals_says_so() -> None:
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib, which is missing: pip install costroute-rt[report]")
    cells = replace(make(60), categories=tuple(f"kind {number:02}" for number in range(60)))
    page = write_page(ev.evaluate(cells, estimates(make(60)), resamples=10), title="t", reason="r")
    assert "The first 40 of 60 kinds." in page
    assert "kind 39" in page
    assert "kind 40" not in page
    assert "This router has no intervals" in page


def test_a_pool_of_one_makes_a_page_too() -> None:
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib, which is missing: pip install costroute-rt[report]")
    cells, judged = make(20), estimates(make(20))
    columns = {name: getattr(cells, name)[:, :1] for name in ("mean", "variance", "count")}
    one = replace(cells, candidates=cells.candidates[:1], cost_ms=cells.cost_ms[:1], **columns)
    own = replace(judged, mean=judged.mean[:, :1], standard_error=judged.standard_error[:, :1], average=judged.average[:1])
    page = write_page(ev.evaluate(one, own, resamples=10), title="t", reason="r")
    check(page)
    assert "nowhere surely above averages" in page
    assert "every prompt gets the candidate that averages choose" in page


def test_intervals_read_well() -> None:
    assert show_interval(Interval(0.0312, 0.02, 0.04)) == "+0.031 [+0.020, +0.040]"
    assert show_interval(Interval(0.5, 0.4, float("inf"))) == "+0.500 [+0.400, never]"
    assert show_interval(None) == "–"


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(BackendError, match="install the report extra"):
        write_page(judge(make(30)), title="t", reason="r")


def test_names_lose_a_shared_first_word_and_colours_differ() -> None:
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib, which is missing: pip install costroute-rt[report]")
    names = [f"postcard-{kind}@{steps}" for kind in ("turbo", "small", "base") for steps in (1, 2, 4, 8)]
    assert drawing.short_names(names)[:2] == ["turbo@1", "turbo@2"]
    assert drawing.short_names(["a-b", "c-d"]) == ["a-b", "c-d"]
    assert drawing.short_names(["postcard-base@8"]) == ["postcard-base@8"]
    assert len(set(drawing.shades(names))) == len(names)


def test_plots_follow_the_colours_of_a_dark_page(page: str) -> None:
    assert "prefers-color-scheme:dark" in page
    styles = re.findall(r'style="[^"]*"', page)
    assert any("var(--ink)" in style for style in styles)
    assert not any(colour in style for style in styles for colour in drawing.THEMED.values())


def test_only_styles_are_themed() -> None:
    assert drawing.themed(f'<text style="fill: {drawing.INK}; x: 1">fill: {drawing.INK}</text>') == (
        f'<text style="fill: var(--ink); x: 1">fill: {drawing.INK}</text>'
    )


def test_the_page_says_where_the_prompt_decides_and_shows_choices_against_the_trend(page: str) -> None:
    assert "surely above averages from" in page
    assert "Choices against the trend" in page
    for row in judge(make(), router_ms=0.2, predicted_ms={"dear": 44.0}).against_trend:
        assert f'<h3 class="name">{row["name"]}</h3>' in page
        assert all(each["prompt"].strip() in page for each in row["examples"])


def test_intervals_near_and_far_are_on_the_page() -> None:
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib, which is missing: pip install costroute-rt[report]")
    cells = make(60)
    widths = np.full((len(LEVELS), *cells.mean.shape), 0.05)
    judged = replace(estimates(cells), trust=np.where(np.arange(60) < 40, 1.0, 0.1), label_widths=widths)
    found = ev.evaluate(cells, judged, resamples=20)
    page = write_page(found, title="t", reason="r")
    check(page)
    assert "near, 80 labels" in page
    assert "far, 40 labels" in page
    assert "near the fitted labels" in page
    svg = plot.plot_coverage([{**row, "far": 3} for row in found.calibration["coverage"]])
    assert "far from them" not in svg


@pytest.mark.parametrize("count", [1, 7, 24])
def test_names_of_many_candidates_do_not_cover_each_other(count: int) -> None:
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib, which is missing: pip install costroute-rt[report]")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    rng = np.random.default_rng(0)
    with drawing.axes_on("names", 7.8, 5.2) as (axes, _):
        x, y = rng.random(count) ** 2, rng.random(count)
        axes.scatter(x, y)
        label_points(axes, [f"candidate@{number}" for number in range(count)], x.tolist(), y.tolist())
        renderer = FigureCanvasAgg(axes.figure).get_renderer()
        boxes = [text.get_window_extent(renderer) for text in axes.texts if text.get_text()]
    assert len(boxes) == count
    covered = sum(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])
    assert covered == 0


def test_of_very_many_candidates_the_best_are_named() -> None:
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib, which is missing: pip install costroute-rt[report]")
    with drawing.axes_on("names", 7.8, 5.2) as (axes, _):
        axes.scatter(range(100), range(100))
        label_points(axes, [f"candidate@{number}" for number in range(100)], list(range(100)), list(range(100)))
        named = {text.get_text() for text in axes.texts} - {""}
    assert named == {f"candidate@{number}" for number in range(100 - MOST_NAMES, 100)}


def test_long_names_keep_both_ends_and_odd_ones_stay_in_the_legend() -> None:
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib, which is missing: pip install costroute-rt[report]")
    assert drawing.plain_name("x" * 70 + "@20", 32).endswith("xx@20")
    assert len(drawing.plain_name("x" * 70, 32)) == 32
    assert drawing.plain_name("x" * 32, 32) == "x" * 32
    svg = share_plot.plot_complexity({"kind": {"_hidden": 0.5, "other": 0.5}}, {"_hidden": 1.0, "other": 2.0})
    assert "_hidden" in svg


def test_many_candidates_share_a_legend_that_fits() -> None:
    heights = np.random.default_rng(0).dirichlet(np.ones(24), 5).T
    named = share_plot.main_candidates(heights)
    assert len(named) == share_plot.MOST_NAMED
    assert heights[named].max(1).min() >= np.delete(heights, named, axis=0).max()
    assert share_plot.main_candidates(heights[:7]) == list(range(7))
    assert share_plot.main_candidates(np.array([[0.0, 0.0], [1.0, 0.4], [0.0, 0.6]])) == [1, 2]


def test_many_models_have_colours_of_their_own() -> None:
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib, which is missing: pip install costroute-rt[report]")
    assert len(set(drawing.shades([f"model {number}" for number in range(24)]))) == 24


def test_cheap_and_expensive_routes_are_shown_side_by_side() -> None:
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib, which is missing: pip install costroute-rt[report]")
    examples = [Example(prompt=f"prompt {name}", candidate=name, ms=1.0, png=PNG) for name in ("cheap", "dear")]
    page = write_page(judge(make(30)), title="t", reason="r", examples=examples)
    places = [page.index(text) for text in ("Routed to a cheap candidate", "prompt cheap", "Routed to an expensive one", "prompt dear")]
    assert places == sorted(places)
    alone = write_page(judge(make(30)), title="t", reason="r", examples=examples[:1] * 2)
    assert "All routed to cheap" in alone
    assert "Routed to an expensive one" not in alone
