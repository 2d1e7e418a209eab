"""Values: comparison and hashes by content, and one line of text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from costroute_rt.judgement import Judgement, Neighbour
from costroute_rt.request import Request
from costroute_rt.value import Value, shorten
from tests.runtime.fakes import FakeDevice

NAN = float("nan")


@dataclass(frozen=True, eq=False)
class Box(Value):
    content: Any


@dataclass(frozen=True, eq=False)
class OtherBox(Value):
    content: Any


EQUAL = [
    (np.array([1.0, NAN]), np.array([1.0, NAN])),
    (np.array([0.0]), np.array([-0.0])),
    (np.arange(6).reshape(2, 3)[:, ::2], np.array([[0, 2], [3, 5]])),
    (np.zeros(1000), np.zeros(1000)),
    (np.array(["a"]), np.array(["a"])),
    (NAN, float("nan")),
    (np.float32("nan"), np.float32("nan")),
    (1, 1.0),
    ({"a": [1, NAN], "b": {}}, {"b": {}, "a": [1, float("nan")]}),
    ((1, (NAN,)), (1, (float("nan"),))),
    (Box(np.array([1])), Box(np.array([1]))),
    (None, None),
]
DIFFERENT = [
    (np.array([1.0, NAN]), np.array([NAN, 1.0])),
    (np.array([1, 2]), np.array([1, 3])),
    (np.array([1, 2]), np.array([[1, 2]])),
    (np.array([1]), np.array([1.0])),
    (np.array([1]), 1),
    (1, np.array([1])),
    (np.zeros(1000), np.eye(1000)[0]),
    (NAN, 0.0),
    (NAN, "nan"),
    ({"a": 1}, {"a": 2}),
    ({"a": 1}, {"b": 1}),
    ([1], (1,)),
    ((1,), (1, 2)),
    (Box(1), OtherBox(1)),
    (None, 0),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_content_is_equal_and_has_the_same_hash(one: Any, other: Any) -> None:
    assert Box(one) == Box(other)
    assert hash(Box(one)) == hash(Box(other))


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_content_is_different(one: Any, other: Any) -> None:
    assert Box(one) != Box(other)
    assert Box(other) != Box(one)


def test_hashes_of_short_arrays_differ() -> None:
    assert len({hash(Box(np.array([number, 1.0]))) for number in range(100)}) > 90


@pytest.mark.parametrize("text", ["", "a lake", "line\nbreak", "x" * 41, "🏡" * 1000, "it's \x1b[31m"])
def test_shortened_texts_are_one_short_line(text: str) -> None:
    short = shorten(text)
    assert short.isprintable()
    assert len(short) < 60 or "\\x" in short


def test_values_print_as_one_short_line(device: FakeDevice) -> None:
    request = Request(prompt="a red house by a lake " * 20, max_ms=300, seed=7, count=2, preview=True, negative_prompt="fog " * 50)
    *events, result = device.runtime.stream(request)
    route = device.runtime.route(request)
    values = [request, *events, result, result.timings, route, route.option, route.option.cost, route.judgement, route.chosen]
    values.append(Neighbour("word " * 100, 0.5))
    for value in values:
        text = repr(value)
        assert text.isprintable()
        assert len(text) <= 280, text


def test_the_text_of_a_result(device: FakeDevice) -> None:
    assert repr(device.runtime.generate("a red house", max_ms=300, seed=7)) == "<Result 1 image 64x64 base@4 seed 7, 216 ms of 300 ms>"
    several = device.runtime.generate("a red house", seed=7, count=2, height=96, candidate="turbo@1")
    assert repr(several).startswith("<Result 2 images 64x96 turbo@1 seed 7, ")
    device.slowdown[""] = 1.5
    late = device.runtime.generate("a red house", seed=7, max_ms=300, candidate="base@4")
    assert repr(late) == "<Result 1 image 64x64 base@4 seed 7, 249 ms of 300 ms, 1 step skipped>"
    missed = device.runtime.generate("a red house", seed=7, max_ms=10, or_fastest=True)
    assert repr(missed).endswith(" ms of 10 ms, budget missed>")


def test_the_text_of_a_route_and_its_parts(device: FakeDevice) -> None:
    route = device.runtime.route("a red house", max_ms=300)
    reason = "best quality among the 3 of 4 candidates within 300 ms"
    assert repr(route) == f"<Route base@4 for 'a red house', 217 ms (p95 221) of 300 ms: {reason}>"
    assert repr(route.option).startswith("<Option base@4: quality 0.800 +- 0.010, 21")
    assert repr(route.option.cost).startswith("<Cost 21")
    assert repr(route.judgement).startswith("<Judgement of 4 candidates, best quality 0.900, trust 1.00, by 'averages")


def test_the_text_of_a_request_has_what_differs_from_the_defaults() -> None:
    assert repr(Request(prompt="a lake", seed=3)) == "Request(prompt='a lake', seed=3)"
    assert eval(repr(Request(prompt="a lake", max_ms=5))) == Request(prompt="a lake", max_ms=5)


def test_a_judgement_of_no_candidates_prints() -> None:
    assert "of 0 candidates" in repr(Judgement(mean=np.zeros(0), standard_error=np.zeros(0), basis="test"))


class Cells(HTMLParser):
    """Collects the texts of a page, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.texts, self.tags = list[str](), list[str]()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)


def test_a_route_is_a_table_in_notebooks(open_device: Callable[..., FakeDevice]) -> None:
    cells = Cells()
    cells.feed(open_device().runtime.route("<script>alert(1)</script> & lake", max_ms=300)._repr_html_())
    assert "script" not in cells.tags
    assert cells.tags.count("tr") == 5
    assert any("<script>alert(1)" in text for text in cells.texts)
    assert "base@4" in cells.texts
