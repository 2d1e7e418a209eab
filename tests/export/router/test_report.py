"""The HTML page of an evaluation."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser

import pytest

from costroute_rt.error import BackendError
from costroute_rt.export.router import drawing
from costroute_rt.export.router import evaluate as ev
from costroute_rt.export.router.curve import Interval
from costroute_rt.export.router.report import Example, show_interval, write_page
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
    assert page.count("<svg") == 4
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


def test_cheap_and_expensive_routes_are_shown_side_by_side() -> None:
    pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib, which is missing: pip install costroute-rt[report]")
    examples = [Example(prompt=f"prompt {name}", candidate=name, ms=1.0, png=PNG) for name in ("cheap", "dear")]
    page = write_page(judge(make(30)), title="t", reason="r", examples=examples)
    places = [page.index(text) for text in ("Routed to a cheap candidate", "prompt cheap", "Routed to an expensive one", "prompt dear")]
    assert places == sorted(places)
    alone = write_page(judge(make(30)), title="t", reason="r", examples=examples[:1] * 2)
    assert "All routed to cheap" in alone
    assert "Routed to an expensive one" not in alone
