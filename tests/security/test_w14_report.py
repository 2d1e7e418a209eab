"""W14: the page of an evaluation is inert and complete, whatever the names, prompts and reasons in it are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from costroute_rt.export.router import plot
from costroute_rt.export.router.evaluate import evaluate
from costroute_rt.export.router.report import Example, escape, write_page
from tests.export.router.test_evaluate import estimates, judge, make
from tests.export.router.test_report import PNG, check

pytest.importorskip("matplotlib", reason="plots are drawn by matplotlib, which is missing: pip install costroute-rt[report]")

NAMES = (
    r"$\frac$", r"$\sum_{i}$ and $", "a $5 b $6", "\0\x1b[2J\x85", "</text><script>alert(1)</script>", "\u202egnp\ufffe", "é" * 5000,
    r"\input{/etc/passwd}", "", "a\nb", "日本",
)  # fmt: skip


def row(name: str) -> dict[str, Any]:
    return {"name": name, "prompts": 3, "gain": {"value": 0.1, "low": 0.0, "high": 0.2}, "mean_ms": 12.0, "trust": 1.0}


def assert_inert(svg: str) -> None:
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e]", svg)
    tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(svg).iter()}
    assert tags.isdisjoint({"script", "foreignObject", "image", "a"})


@pytest.mark.parametrize("name", NAMES)
def test_a_plot_shows_any_name_as_text(name: str) -> None:
    assert_inert(plot.plot_categories([row(name), row("plain")]))


def test_formulas_stay_as_they_were_written() -> None:
    assert r"$\sum_{i}$" in plot.plot_categories([row(r"$\sum_{i}$")])


def test_many_categories_make_no_endless_plot() -> None:
    assert plot.plot_categories([row(f"kind {number}") for number in range(5000)]).count("prompts") == plot.MOST_CATEGORIES


@pytest.mark.parametrize("name", NAMES)
def test_a_page_shows_any_text_as_text(name: str) -> None:
    example = Example(prompt=name, candidate=name, ms=1.0, png=PNG)
    page = write_page(judge(make()), title=name, reason=name, examples=[example])
    assert all(link.startswith(("#", "data:")) for link in check(page).loaded)
    assert "<script" not in page
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page)
    assert escape(name) in page


@pytest.mark.parametrize("name", NAMES)
def test_a_page_shows_any_candidate_category_and_prompt_as_text(name: str) -> None:
    cells = make(20)
    odd = replace(cells, candidates=(name, "plain"), categories=(name, "plain") * 10, prompts=tuple(f"{name} {n}" for n in range(20)))
    page = write_page(evaluate(odd, estimates(cells), resamples=10), title="t", reason="r")
    assert all(link.startswith(("#", "data:")) for link in check(page).loaded)
    assert "<script" not in page
    plots = re.findall("<svg.*?</svg>", page, re.DOTALL)
    assert len(plots) == 6
    for svg in plots:
        assert_inert(svg)


def test_a_matplotlibrc_in_the_working_directory_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    for name, value in {"text.usetex": True, "svg.fonttype": "path", "text.parse_math": True}.items():  # as if it had been read
        monkeypatch.setitem(matplotlib.rcParams, name, value)
    monkeypatch.setattr("matplotlib.texmanager.TexManager._run_checked_subprocess", lambda *_, **__: pytest.fail("LaTeX was started"))
    svg = plot.plot_categories([row(r"$\frac$")])
    assert r"$\frac$" in svg
    assert matplotlib.rcParams["text.usetex"] is True
